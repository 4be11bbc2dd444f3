"""Versions of data sets in the ledger: named by content, consented at the last moment, marked by an erase."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestrator.datasets import dataset_views, datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.errors import ConsentError, InputError, NotFoundError, StageError, UsageError
from orchestrator.ledger import datasets as rows
from orchestrator.ledger.datasets import NewVersion
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.privacy import erasure
from orchestrator.ledger.queue import batches
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, picture

OWNER = "local"


@pytest.fixture
def installed(settings: Settings) -> Settings:
    path = settings.models_dir / "mini" / "weights.json"
    found = json.loads(path.read_text())
    found["files"] = {"faces/recogniser.onnx": {"sha256": "e" * 64}, "unet/x.safetensors": {"sha256": "f" * 64}}
    path.write_text(json.dumps(found))
    return settings


def publish(ledger: Ledger, content: str, identities: dict[str, int] | None = None, name: str = "people") -> str:
    new = NewVersion(
        owner=OWNER,
        name=name,
        content_sha256=content * 64,
        preset="mini",
        encoder_sha256="e" * 64,
        source="somewhere",
        licence="CC0-1.0",
        attestation=None,
        batch_id=None,
        index_artifact_id=None,
        facts={},
        identities=identities,
    )
    with ledger.write() as session:
        return rows.publish(session, new, now(session))


def request(source: str, **changes: object) -> BuildRequest:
    values = {"name": "people", "preset": "mini", "licence": "CC0-1.0", "people": "folder", **changes}
    return BuildRequest(source=source, **values)  # type: ignore[arg-type]  # fields by name


def test_the_same_content_is_the_same_version_and_other_content_the_next_number(ledger: Ledger) -> None:
    first, again, second = publish(ledger, "a"), publish(ledger, "a"), publish(ledger, "b")

    listed = dataset_views.list_versions(ledger, OWNER)

    assert first == again != second
    assert [(v["name"], v["number"]) for v in listed] == [("people", 2), ("people", 1)]
    with ledger.read() as session:
        assert rows.resolve(session, OWNER, "people").id == second
        assert rows.resolve(session, OWNER, "people@1").id == first
        assert rows.resolve(session, OWNER, second[:20] if second[:20] != first[:20] else second).id == second
        for wanted in ("nobody", "people@9", "people@x", "dsv_0"):
            with pytest.raises(NotFoundError):
                rows.resolve(session, OWNER, wanted)


def test_who_does_not_allow_training_keeps_a_version_from_being_published(ledger: Ledger, person: AddPerson) -> None:
    yes, no = person("yes", "train"), person("no", "generate")

    with pytest.raises(ConsentError) as refused:
        publish(ledger, "a", {yes: 3, no: 2})
    publish(ledger, "a", {yes: 3})

    assert refused.value.details["identities"] == [no]
    assert len(dataset_views.list_versions(ledger, OWNER)) == 1


def test_an_erase_marks_every_version_that_holds_the_person_and_no_other(ledger: Ledger, person: AddPerson) -> None:
    ada, bob = person("ada", "train"), person("bob", "train")
    both, only_bob = publish(ledger, "a", {ada: 3, bob: 1}), publish(ledger, "b", {bob: 2}, name="others")

    erased = erasure.erase(ledger, OWNER, ada)

    tainted = {v["id"]: v["tainted_at"] is not None for v in dataset_views.list_versions(ledger, OWNER)}
    assert erased.data_sets == [both]
    assert tainted == {both: True, only_bob: False}


def test_the_shipped_data_set_is_registered_once_and_is_a_recipe(ledger: Ledger, installed: Settings) -> None:
    version = datasets.ensure_mini(ledger, installed, OWNER)

    assert datasets.ensure_mini(ledger, installed, OWNER) == version
    shown = dataset_views.show(ledger, OWNER, "mini-world")
    assert shown["facts"]["recipe"] == {
        "command": "python -m fpga_models.lab.synthetic.dataset",
        "seed": 0,
        "count": 40000,
    }
    assert shown["encoder_sha256"] == "e" * 64
    with ledger.read() as session, pytest.raises(UsageError, match="recipe"):
        datasets.read_index(session, None, rows.resolve(session, OWNER, version))  # type: ignore[arg-type]  # the store is not asked here


def test_a_build_is_submitted_once_and_its_items_carry_no_names(
    ledger: Ledger, store: ByteStore, installed: Settings, tmp_path: Path
) -> None:
    for name in ("Ada Lovelace", "Charles"):
        (tmp_path / "source" / name).mkdir(parents=True)
        (tmp_path / "source" / name / "1.png").write_bytes(picture())
    wanted = request(str(tmp_path / "source"), attestation="signed forms")

    first = datasets.build(ledger, store, installed, wanted, owner=OWNER)
    again = datasets.build(ledger, store, installed, wanted, owner=OWNER)

    assert (first.pictures, first.chunks, first.reused, first.repeated) == (2, 1, 0, False)
    assert (again.batch_id, again.repeated) == (first.batch_id, True)
    with ledger.read() as session:
        (item,) = batches.items(session, first.batch_id)
        assert batches.get(session, OWNER, first.batch_id).kind == datasets.KIND
    assert "Lovelace" not in json.dumps(item.params)
    assert item.params["networks"] == {"faces/recogniser.onnx": "e" * 64}, "the generator has no say in a chunk"


def test_a_build_without_pictures_attestation_or_consent_submits_nothing(
    ledger: Ledger, store: ByteStore, installed: Settings, person: AddPerson, tmp_path: Path
) -> None:
    person("ada", "generate")
    for name in ("ada", "stranger", "nothing"):
        (tmp_path / name / name).mkdir(parents=True)
    for name in ("ada", "stranger"):
        (tmp_path / name / name / "1.png").write_bytes(picture())

    for name, error in (("ada", ConsentError), ("stranger", UsageError), ("nothing", InputError)):
        with pytest.raises(error):
            datasets.build(ledger, store, installed, request(str(tmp_path / name)), owner=OWNER)

    with ledger.read() as session:
        assert batches.listing(session, OWNER) == []


def test_a_failed_build_says_why_and_may_be_begun_again(ledger: Ledger, store: ByteStore, installed: Settings) -> None:
    wanted = request("render:0:10")
    begun = datasets.build(ledger, store, installed, wanted, owner=OWNER)
    batches.cancel(ledger, OWNER, begun.batch_id)

    with pytest.raises(StageError, match="nothing was published"):
        datasets.wait(ledger, OWNER, begun.batch_id)
    again = datasets.build(ledger, store, installed, wanted, owner=OWNER)

    assert again.batch_id != begun.batch_id
    assert not again.repeated
