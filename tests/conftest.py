"""Fixtures for every test: native servers, started once per session when the first test asks for them.

A server that is not installed skips its tests here, with the reason, and fails them where CI=true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.services.postgres import Postgres
from tests.services.server import Server, ServiceMissingError

S = TypeVar("S", bound=Server)


def lend(kind: type[S]) -> Iterator[S]:
    """Start one server for the session, or skip, or fail in CI."""
    try:
        server = kind().__enter__()
    except ServiceMissingError as missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server; `database()` lends fresh databases, `kill()` and `start()` are for chaos."""
    yield from lend(Postgres)


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh empty PostgreSQL database, for this test alone."""
    with postgres_server.database() as url:
        yield url
