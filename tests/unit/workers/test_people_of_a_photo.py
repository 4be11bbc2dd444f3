"""Who withdrew since an archive was opened is paired with nothing; everybody else's photos are worked on."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from orchestrator.contracts.photos import PhotoOptions, PhotoParams, SwapRule
from orchestrator.ledger import identities as rows
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.people import identities
from tests.unit.orchestrator.played import add_person
from workers.stages.portraits import people


@pytest.fixture
def ledger(tmp_path: Any) -> Any:
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    schema.upgrade(url)
    opened = Ledger(url)
    yield opened
    opened.dispose()


def asked(ledger: Ledger, monkeypatch: pytest.MonkeyPatch, options: PhotoOptions, params: PhotoParams) -> list[str]:
    """Return whose embeddings are asked for."""
    wanted: list[str] = []

    def vectors(*given: Any, **_: Any) -> dict[str, Any]:
        ids: Sequence[str] = given[3]
        wanted.extend(ids)
        return {one: np.ones(4, np.float32) for one in ids}

    monkeypatch.setattr(people, "vectors_of", vectors)
    context: Any = SimpleNamespace(ledger=ledger, vault=SimpleNamespace(open=None))
    claim: Any = SimpleNamespace(owner="local", batch_id="bat_1", options=options.dump(), params=params.dump())
    people.known_people(context, claim, None, None)  # type: ignore[arg-type]  # the stand-in for vectors_of wants none
    return wanted


def test_a_withdrawal_takes_its_person_out_and_not_the_archive(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    stays, leaves = (add_person(ledger, handle, "restore") for handle in ("stays", "leaves"))
    options, photo = PhotoOptions(identities=(stays, leaves)), PhotoParams(path="a.png")
    assert asked(ledger, monkeypatch, options, photo) == [stays, leaves]

    identities.revoke(ledger, "local", "leaves", ["restore"])

    assert asked(ledger, monkeypatch, options, photo) == [stays]


def test_who_was_asked_for_by_name_is_missed(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = add_person(ledger, "gone")
    everyone = PhotoOptions(identities=(gone,), everyone=True)
    swap = PhotoOptions(task="swap")

    assert asked(ledger, monkeypatch, everyone, PhotoParams(path="a.png")) == [gone]
    assert asked(ledger, monkeypatch, swap, PhotoParams(path="a.png", swap=(SwapRule(to=gone),))) == [gone]
    with ledger.read() as session:
        from orchestrator.ledger.engine.session import now

        assert rows.allowing(session, "local", "restore", now(session)) == set()
