"""Generation with DIIR behind it, by the real networks: small faces are drawn again, larger, and nothing else changes.

One worker inside the test's process, so that a test can act in the middle of a picture.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from fpga_models.diir import DiirResult, restore_small_faces
from fpga_models.errors import RequestError
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Batch
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.results import provenance, results
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, ROOT, Rig
from workers.runtime.lease import Lease
from workers.runtime.process import Process
from workers.stages.portraits.generate import DRAWN

PEOPLE = ("ada", "bruno", "clara")
STEPS = 6
LAYOUTS = {"portrait": 1, "half_body": 1, "full_body": 1, "group_2": 2}
KEEP = "keep"
OnStep = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class Studio:
    """One deployment with one worker inside the test's process."""

    rig: Rig
    process: Process

    def open(self, *layouts: str, **options: Any) -> str:
        """Submit one picture of each layout and return the batch."""
        rows = [
            {
                "custom_id": layout,
                "people": list(PEOPLE[: LAYOUTS[layout]]),
                "layout": layout,
                "steps": STEPS,
                "seed": 7,
            }
            for layout in layouts
        ]
        return self.rig.submit([json.dumps(row) for row in rows], **options)

    def finish(self, batch_id: str) -> str:
        work(self.process, lambda: self.rig.state(batch_id) in BATCH_ENDED)
        return batch_id

    def run(self, *layouts: str, **options: Any) -> str:
        return self.finish(self.open(*layouts, **options))

    def results(self, batch_id: str) -> dict[str, dict[str, Any]]:
        """Return the objects that results.jsonl, sidecars and HTTP have, by custom_id."""
        with self.rig.ledger.read() as session:
            lines = list(results.results_lines(session, session.get_one(Batch, batch_id)))
        return {line["custom_id"]: line for line in lines}

    def pixels(self, batch_id: str) -> dict[str, NDArray[np.int16]]:
        found = {name: line["output"] for name, line in self.results(batch_id).items()}
        return {
            name: np.asarray(Image.open(BytesIO(self.rig.store.get(output["key"], sha256=output["sha256"]))), np.int16)
            for name, output in found.items()
        }


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    folder = ROOT / "examples" / "people"
    with Rig(tmp_path_factory.mktemp("studio"), lease_seconds=60, max_failures=1) as rig:
        made = Studio(rig=rig, process=Process(rig.settings))
        new = [
            NewPerson(
                handle=handle,
                pictures=(Picture(name="1.png", data=(folder / handle / "1.png").read_bytes()),),
                consent=ConsentGiven(scopes=("generate",), granted_by="test"),
            )
            for handle in PEOPLE
        ]
        made.finish(identities.add(rig.ledger, rig.store, rig.settings, new, owner=OWNER))
        yield made


@pytest.fixture(scope="module")
def restored(studio: Studio) -> str:
    return studio.run("portrait", "full_body", "group_2")


@pytest.fixture(scope="module")
def kept(studio: Studio) -> str:
    return studio.run("portrait", "full_body", "group_2", small_faces=KEEP)


def in_the_middle(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, int, OnStep], None]) -> None:
    """Let something happen at the steps of DIIR: it is given steps done and planned, and what the stage does then."""

    def disturbed(*args: Any, on_step: OnStep, **options: Any) -> DiirResult | None:
        return restore_small_faces(*args, on_step=lambda done, planned: act(done, planned, on_step), **options)

    monkeypatch.setattr("workers.stages.portraits.generate.restore_small_faces", disturbed)


def test_small_faces_of_a_group_are_drawn_again_and_a_close_up_stays_as_it_is(
    studio: Studio, restored: str, kept: str
) -> None:
    again, before = studio.pixels(restored), studio.pixels(kept)

    assert np.array_equal(again["portrait"], before["portrait"])
    for layout in ("full_body", "group_2"):
        changed = (again[layout] != before[layout]).any(axis=2)
        assert 0.005 < changed.mean() < 0.6, "faces were drawn again, the picture around them was not"


def test_what_keep_gives_is_what_requests_from_before_the_choice_give(studio: Studio, kept: str) -> None:
    rig = studio.rig
    old = [
        NewItem(
            custom_id=item.custom_id,
            params={name: value for name, value in item.params.items() if name != "small_faces"},
            params_sha256=item.params_sha256,
            seed=item.seed,
            identities=tuple(person["identity"] for person in item.params["people"]),
        )
        for item in rig.items(kept)
    ]
    new = NewBatch(owner=OWNER, kind="generate", name="old", preset="mini", items=old, flow=False)
    found = studio.pixels(studio.finish(batches.submit(rig.ledger, new).batch_id))

    assert all(np.array_equal(found[name], picture) for name, picture in studio.pixels(kept).items())
    assert found.keys() == {"portrait", "full_body", "group_2"}


def test_the_record_says_what_became_of_each_small_face_in_numbers(studio: Studio, restored: str, kept: str) -> None:
    found, plain = studio.results(restored), studio.results(kept)

    for layout, people in (("portrait", 1), ("full_body", 1), ("group_2", 2)):
        faces = found[layout]["output"]["record"]["small_faces"]
        assert sorted(face["person"] for face in faces) == ([] if layout == "portrait" else list(range(people)))
        for face in faces:
            assert face.keys() == {"person", "outcome", "before", "after"}
            assert face["outcome"] != "changed" or face["after"] > face["before"]
        again = sum(face["outcome"] == "changed" for face in faces)
        said = f"{again} of {people} small face{'s' if people > 1 else ''} drawn again" if faces else None
        assert found[layout]["output"]["small_faces"] == said
        assert again or layout == "portrait", "a picture of so few steps has faces to mend"
        assert plain[layout]["output"]["record"]["small_faces"] == []
        assert plain[layout]["output"]["small_faces"] is None
        assert found[layout]["params"] == plain[layout]["params"] | {"small_faces": "restore"}


def test_a_group_made_again_from_its_record_has_the_same_bytes_in_it(studio: Studio) -> None:
    rig = studio.rig
    (item,) = rig.items(studio.run("group_2"))

    again = studio.finish(provenance.reproduce(rig.ledger, OWNER, item.id))
    found = provenance.judge(rig.ledger, rig.store, OWNER, again)

    assert (found.outcome, found.max_difference, found.differs_at) == ("bit_equal", 0, None)


@pytest.mark.parametrize("how", ["cancel", "pause", "drain"])
def test_a_stop_while_faces_are_drawn_again_is_seen_within_one_step(
    studio: Studio, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    rig, process = studio.rig, studio.process
    batch_id, steps = studio.open("half_body", "portrait", "full_body"), []

    def stop(done: int, planned: int, on_step: OnStep) -> None:
        steps.append(done)
        if how == "drain":
            process._drain_until = time.monotonic() - 1
        else:
            {"cancel": batches.cancel, "pause": batches.pause}[how](rig.ledger, OWNER, batch_id)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:  # until the lease has looked
            on_step(done, planned)
            time.sleep(0.05)

    in_the_middle(monkeypatch, stop)
    process.run()
    process._drain_until = None
    counts = rig.counts(batch_id)

    assert steps == [1]
    assert len(rig.outputs(batch_id)) == 1, "the close-up had been published before"
    if how == "cancel":
        assert rig.state(batch_id) == "cancelled"
        return
    assert counts["queued"] == 3, "two pictures to draw again, and one to score"
    assert not any(item.error_code for item in rig.items(batch_id))
    monkeypatch.undo()
    if how == "pause":
        batches.resume(rig.ledger, OWNER, batch_id)
    studio.finish(batch_id)
    assert rig.counts(batch_id)["completed"] == 3


def test_a_fault_of_diir_is_the_end_of_that_picture_alone(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(done: int, planned: int, on_step: OnStep) -> None:
        raise RequestError("One face is too many today.")

    in_the_middle(monkeypatch, fail)
    batch_id = studio.run("portrait", "full_body")

    portrait, small = studio.rig.items(batch_id)
    assert (portrait.state, small.state) == ("completed", "failed")
    assert (small.error_code, small.error_stage) == ("request_invalid", "generate")
    assert small.error_message == "One face is too many today."


def test_the_share_that_is_done_covers_drawing_and_drawing_again(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: dict[int, list[float]] = defaultdict(list)
    progress = Lease.progress
    monkeypatch.setattr(
        Lease, "progress", lambda lease, c, share: (told[c.stage_id].append(share), progress(lease, c, share))
    )
    batch_id = studio.open("portrait", "half_body", "full_body")
    studio.process.run()
    portrait, *others = told.values()
    studio.finish(batch_id)

    assert len(portrait) == STEPS
    assert portrait[-1] == STEPS / (STEPS + 1)
    for shares in others:
        assert shares[STEPS - 1] < DRAWN <= shares[STEPS] < shares[-1] < 1
        assert all(after >= before - 0.2 for before, after in pairwise(shares)), "a face tried again adds to the plan"


def test_a_group_too_large_for_the_device_is_halved_and_the_size_remembered(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    studio.run("portrait")  # the networks are warm from here on
    pipeline, sizes = studio.process.engine._portraits, []
    assert pipeline is not None
    drawn = pipeline.generate

    def small_card(requests: Any, **options: Any) -> Any:
        sizes.append(len(requests))
        if len(requests) > 1:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return drawn(requests, **options)

    monkeypatch.setattr(pipeline, "generate", small_card)
    rows = [json.dumps({"custom_id": str(n), "people": ["ada"], "steps": 2, "seed": n}) for n in range(4)]
    try:
        first = studio.finish(studio.rig.submit(rows, small_faces=KEEP))
        assert sizes == [4, 2, 1, 1, 1, 1]
        sizes.clear()
        second = studio.finish(studio.rig.submit(rows, small_faces=KEEP))
        assert sizes == [1, 1, 1, 1]
    finally:
        studio.process.engine._most.clear()
    for batch_id in (first, second):
        assert studio.rig.state(batch_id) == "completed"
        assert len(studio.rig.outputs(batch_id)) == 4
