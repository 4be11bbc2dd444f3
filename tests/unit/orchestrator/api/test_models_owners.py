"""A version that was trained on somebody's people is its owner's until an alias means it; past a gate goes a scope."""

from __future__ import annotations

import pytest

from orchestrator.ledger import audit, models
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.tables.rows_training import GateDecision
from orchestrator.models import registry
from orchestrator.settings import Settings
from tests.unit.orchestrator.api.conftest import Client
from tests.unit.orchestrator.played import AddPerson
from tests.unit.orchestrator.trained import add_dataset

USUAL = ["read", "write", "models"]


@pytest.fixture
def private(ledger: Ledger, settings: Settings) -> str:
    """A version of alice's beside the champion."""
    registry.ensure_registered(ledger, settings, "mini")
    return models.register(
        ledger,
        "alice",
        preset="mini",
        tensor_sha256="b" * 64,
        location="nowhere",
        licence="x",
        manifest={"made": {}, "files": {}},
        dataset_id=add_dataset(ledger),
    )


def refuse(ledger: Ledger, version_id: str) -> None:
    with ledger.write() as session:
        session.add(
            GateDecision(
                id="gat_1",
                owner="alice",
                model_version_id=version_id,
                passed=False,
                rules={},
                checks=[{"passed": False, "reason": "too unlike"}],
                decided_at=now(session),
            )
        )


def test_another_owner_neither_sees_nor_promotes_nor_draws_with_a_private_version(
    client: Client, private: str, person: AddPerson
) -> None:
    person("ada", "generate", owner="eve")
    eve = client(owner="eve", scopes=USUAL)
    rows = [{"custom_id": "a", "people": [{"identity": "ada"}]}]

    answers = [
        eve.get(f"/v1/models/{private}"),
        eve.get(f"/v1/models/{private}/lineage"),
        eve.get("/v1/models/diff", params={"left": private, "right": "mini@champion"}),
        eve.post(f"/v1/models/{private}/promote"),
        eve.post("/v1/evaluations", json={"model": private}),
        eve.post("/v1/batches", json={"model": private, "items": rows}),
    ]

    assert [answer.status_code for answer in answers] == [404] * len(answers)
    assert private not in eve.get("/v1/models").text
    assert client(owner="alice").get(f"/v1/models/{private}").status_code == 200


def test_what_an_alias_has_meant_is_everybodys_but_where_its_data_lay_is_not(
    client: Client, ledger: Ledger, settings: Settings, private: str
) -> None:
    registry.promote(ledger, settings, private, alias="champion", reason="better")
    eve = client(owner="eve", scopes=["read"])

    origin = eve.get(f"/v1/models/{private}/lineage")

    assert origin.status_code == 200
    assert [entry["dataset"]["source"] for entry in origin.json()["data"] if entry["dataset"]] == [None]


def test_past_the_gate_goes_only_a_key_that_may_and_the_audit_says_so(
    client: Client, ledger: Ledger, private: str
) -> None:
    refuse(ledger, private)
    place, past = f"/v1/models/{private}/promote", {"override": True}

    usual = client(owner="alice", scopes=USUAL).post(place, json=past)
    may = client(owner="alice", scopes=[*USUAL, "override"]).post(place, json=past)

    assert (usual.status_code, usual.json()["code"]) == (403, "scope_missing")
    assert may.status_code == 200, may.text
    with ledger.read() as session:
        assert audit.last(session, private, "model.override") is not None
