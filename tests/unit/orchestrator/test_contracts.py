"""Columns as earlier versions wrote them still read; every model comes back as it was written."""

from __future__ import annotations

import json
from typing import ClassVar

import pytest

from orchestrator.contracts.base import Contract, JsonObject, canonical_json, digest
from orchestrator.contracts.batches import BatchOptions
from orchestrator.contracts.datasets import BuildOptions, ChunkParams
from orchestrator.contracts.people import EnrolParams
from orchestrator.contracts.photos import Ingested, PhotoOptions, PhotoParams, RestoreOptions, Rule, SwapRule
from orchestrator.contracts.portraits import PortraitOptions, PortraitParams, SubmitOptions
from orchestrator.contracts.training import TrainParams
from orchestrator.errors import ContractError, UsageError

BEFORE: list[tuple[type[Contract], JsonObject]] = [
    (PortraitOptions, {"redraws": 2, "defaults": {"seed": 0, "size": None, "layout": None, "style": "warm"}}),
    (PortraitOptions, {"redraws": 0, "pinned": True, "reproduces": "itm_1"}),
    (PhotoOptions, {"task": "restore", "fidelity": 0.5, "everyone": False, "attestation": None, "cluster": True}),
    (
        PhotoOptions,
        {"task": "swap", "identities": [], "swap": {"rules": [], "to": [["i", "a"]], "from": None, "pairs": "zip"}},
    ),
    (PhotoParams, {"path": "a.jpg"}),
    (PhotoParams, {"path": "a.jpg", "modified": "1983-05-01T12:00:00", "swap": [{"face": 0, "from": None, "to": "i"}]}),
    (EnrolParams, {"handle": "ada", "references": [{"artifact_id": "a", "key": "k", "sha256": "s"}]}),
    (EnrolParams, {}),
    (TrainParams, {"run": "trn_1", "plan": {"seed": 3}, "dataset": "dsv", "evaluations": [{"suite": "identity"}]}),
    (
        BuildOptions,
        {
            "source": "x",
            "name": "n",
            "licence": "l",
            "arrange": {},
            "plan": {"artifact_id": "a", "key": "k", "sha256": "s"},
        },
    ),
    (
        ChunkParams,
        {
            **{"chunk": "c", "input": {"render": {"seed": 1, "start": 0, "stop": 4}}, "pictures": 4, "annotate": 1},
            **{"networks": {}, "side": 128, "max_people": 4},
            "facts": {"source": "render", "licence": "l", "consent": "none needed"},
        },
    ),
]
PORTRAIT: JsonObject = {
    **{"control": "both", "extra": {}, "guidance": 2.0, "height": 128, "width": 128, "id_scale": 1.0, "layout": None},
    **{"negative_prompt": "", "people": [], "preset": "mini", "prompt": "x", "seed": 7, "steps": 20, "style": None},
}


class Second(Contract):
    """A model whose field was renamed in its second version."""

    VERSION: ClassVar[int] = 2
    strength: float

    @classmethod
    def migrate(cls, version: int, column: JsonObject) -> JsonObject:
        assert version == 1
        return {"strength": column["power"]}


@pytest.mark.parametrize(("model", "column"), BEFORE)
def test_rows_from_before_the_models_are_read_and_come_back_the_same(model: type[Contract], column: JsonObject) -> None:
    read = model.load(column)

    assert model.load(read.dump()) == read


def test_a_portrait_from_before_there_was_a_choice_keeps_its_small_faces_and_its_hash() -> None:
    old = PortraitParams.load(PORTRAIT)

    assert old.small_faces == "keep"
    assert {**old.dump(), "small_faces": "keep"} == {**PORTRAIT, "small_faces": "keep"}


def test_a_column_of_an_earlier_version_is_brought_forward_and_one_of_a_later_is_refused() -> None:
    assert Second.load({"power": 0.5}) == Second(strength=0.5)
    assert Second(strength=0.5).dump() == {"strength": 0.5, "v": 2}
    assert Second.load({"strength": 0.5, "v": 2}).strength == 0.5
    with pytest.raises(ContractError, match="newer fpga"):
        Second.load({"strength": 0.5, "v": 3})
    with pytest.raises(ContractError, match="strength"):
        Second.load({"strength": "much", "v": 2})


def test_the_queue_reads_its_own_options_of_any_kind_of_batch() -> None:
    photos = PhotoOptions(stop_after=3, people_of="bat_1", source="/a").dump()

    assert BatchOptions.load(photos) == BatchOptions(stop_after=3, people_of="bat_1")


def test_options_are_refused_by_name_in_a_plain_sentence() -> None:
    for given, said, code in (
        ({"priority": 4}, "priority: wanted at most 3, got '4'", "bad_priority"),
        ({"lane": "training"}, "lane: wanted 'interactive' or 'bulk', got 'training'", "bad_lane"),
        ({"colour": "red"}, "there is no option 'colour'", "bad_option"),
    ):
        with pytest.raises(UsageError) as refused:
            SubmitOptions.asked(**given)
        assert (refused.value.message, refused.value.code) == (said, code)
    assert RestoreOptions.asked(rules=[{"from": "ada", "to": "bo"}]).rules == (Rule(of="ada", to="bo"),)
    assert SwapRule(to="a", of="b").dump() == {"to": "a", "face": None, "from": "b"}


def test_what_later_stages_read_of_a_photo_survives_the_column() -> None:
    found = Ingested(width=3, height=2, pixels_sha256="p", phash="h", faces_key="k", faces=1, notes=("n",))

    assert Ingested.load(canonical_column(found)) == found


def canonical_column(model: Contract) -> JsonObject:
    column: JsonObject = json.loads(canonical_json(model.dump()))
    return column


def test_one_hash_for_equal_values_and_the_audit_chain_keeps_its_own_spelling() -> None:
    assert digest({"b": 1, "a": "ü"}) == digest({"a": "ü", "b": 1})
    assert canonical_json("ü") == '"ü"'
    assert canonical_json("ü", ascii=True) == '"\\u00fc"'
