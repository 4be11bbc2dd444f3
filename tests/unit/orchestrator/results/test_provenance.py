"""A picture made again is compared with the first, and a file says what it is and what it cannot prove."""

from __future__ import annotations

import io
import json

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from orchestrator.contracts.portraits import PortraitOptions
from orchestrator.errors import ConflictError, InputError, NotFoundError
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch, Item
from orchestrator.portraits.submit import submit_portraits
from orchestrator.results import provenance
from tests.unit.orchestrator.played import AddPerson, Played, lines, picture

OWNER = "local"


@pytest.fixture
def item(worker: Played, person: AddPerson) -> Item:
    """A finished portrait."""
    person("ada", "generate")
    rows = lines({"custom_id": "cover", "people": "ada", "seed": 7})
    batch_id = submit_portraits(
        worker.ledger, worker.settings, manifest=rows, format="jsonl", name="test", owner=OWNER
    ).batch_id
    worker.work()
    with worker.ledger.read() as session:
        (made,) = batches.items(session, batch_id)
    return made


def with_record(record: dict[str, object]) -> bytes:
    info, out = PngInfo(), io.BytesIO()
    info.add_itxt("fpga", json.dumps(record))
    Image.new("RGB", (8, 6), "navy").save(out, "PNG", pnginfo=info)
    return out.getvalue()


def test_a_reproduction_asks_for_the_same_thing_under_the_same_version(worker: Played, item: Item) -> None:
    batch_id = provenance.reproduce(worker.ledger, OWNER, item.id)

    with worker.ledger.read() as session:
        batch, (again,) = session.get_one(Batch, batch_id), batches.items(session, batch_id)
        first = session.get_one(Batch, item.batch_id)
    assert (again.params, again.seed, again.custom_id) == (item.params, 7, "cover")
    assert batch.model_version_id == first.model_version_id
    assert PortraitOptions.load(batch.options) == PortraitOptions(pinned=True, reproduces=item.id)


def test_another_picture_is_called_different_and_the_stage_is_named(worker: Played, item: Item) -> None:
    batch_id = provenance.reproduce(worker.ledger, OWNER, item.id)
    worker.work()  # the played worker draws every stage in a colour of its own

    found = provenance.judge(worker.ledger, worker.store, OWNER, batch_id)

    assert (found.outcome, found.differs_at) == ("different", "generate")
    assert found.max_difference > provenance.TOLERANCE


def test_what_was_not_made_again_cannot_be_judged(worker: Played, item: Item) -> None:
    waiting = provenance.reproduce(worker.ledger, OWNER, item.id)

    with pytest.raises(ConflictError, match="queued"):
        provenance.judge(worker.ledger, worker.store, OWNER, waiting)
    with pytest.raises(ConflictError):
        provenance.judge(worker.ledger, worker.store, OWNER, item.batch_id)
    with pytest.raises(NotFoundError):
        provenance.reproduce(worker.ledger, "somebody else", item.id)


def test_a_stored_picture_is_known_by_its_bytes_and_a_changed_one_is_not(worker: Played, item: Item) -> None:
    with worker.ledger.read() as session:
        (detail,) = batches.details(session, [item])
    data = worker.store.get(detail.outputs[0][1].key)

    assert provenance.verify(data, worker.settings, worker.ledger).stored_as == item.id
    assert provenance.verify(data + b"\0", worker.settings, worker.ledger).stored_as is None
    assert provenance.verify(data, worker.settings).stored_as is None, "without a ledger nothing is known"


@pytest.mark.parametrize(
    ("changes", "here"), [({}, True), ({"model_sha256": "b" * 64}, False), ({"preset": "../../etc"}, False)]
)
def test_a_record_is_a_claim_and_says_whether_its_weights_are_here(
    worker: Played, changes: dict[str, str], here: bool
) -> None:
    record: dict[str, object] = {"software": "fpga 0.1.0", "preset": "mini", "model_sha256": "a" * 64, **changes}

    found = provenance.verify(with_record(record), worker.settings)

    assert (found.record, found.weights_here) == (record, here)
    assert "proves nothing" in found.says


def test_a_file_without_a_record_and_a_file_that_is_no_picture(worker: Played) -> None:
    assert "no record" in provenance.verify(picture(), worker.settings).says
    with pytest.raises(InputError):
        provenance.verify(b"hello", worker.settings)
