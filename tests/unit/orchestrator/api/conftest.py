"""The HTTP application in this process, over a migrated ledger, with keys of several kinds."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from fastapi import FastAPI
from sqlalchemy import update
from starlette.testclient import TestClient

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows_api import ApiKey
from orchestrator.settings import Settings

Client = Callable[..., TestClient]


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings.model_copy(update={"api_rate_per_minute": 1_000_000}))


@pytest.fixture
def client(app: FastAPI, ledger: Ledger) -> Iterator[Client]:
    """Make a client with a key: `client()`, `client(owner="eve")`, `client(scopes=["read"])`."""
    opened: list[TestClient] = []

    def make(owner: str = "local", scopes: list[str] | None = None) -> TestClient:
        secret, _ = keys.create(ledger, owner, name="test", scopes=scopes or keys.SCOPES)
        made = TestClient(
            app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False, follow_redirects=False
        )
        made.event_hooks["response"].append(lambda answer: check_documented(app, answer))
        opened.append(made)
        return made

    yield make
    for one in opened:
        one.close()


def check_documented(app: FastAPI, answer: httpx.Response) -> None:
    """Fail where an operation answers in a way that the document does not name, whichever test made it do so."""
    for path, methods in app.openapi()["paths"].items():
        said = methods.get(answer.request.method.lower())
        if said and re.fullmatch(re.sub(r"{[^}]*}", "[^/]+", path), answer.request.url.path):
            assert str(answer.status_code) in said["responses"], f"{said['operationId']} answered {answer.status_code}"


@pytest.fixture
def nobody(app: FastAPI) -> TestClient:
    return TestClient(app, raise_server_exceptions=False, follow_redirects=False)


@pytest.fixture
def expired(app: FastAPI, ledger: Ledger) -> TestClient:
    secret, made = keys.create(ledger, "local", name="old", days=1)
    with ledger.write() as session:
        past = datetime.now(UTC) - timedelta(seconds=1)
        session.execute(update(ApiKey).where(ApiKey.id == made["id"]).values(expires_at=past))
    return TestClient(app, headers={"Authorization": f"Bearer {secret}"}, raise_server_exceptions=False)
