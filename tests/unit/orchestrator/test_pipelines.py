"""The workflow: what follows what, and that a stage takes one line and one file."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator import pipelines
from orchestrator.errors import StageError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.queue import batches
from orchestrator.models import registry
from orchestrator.pipelines import Pipeline, Stage
from orchestrator.settings import Settings
from orchestrator.status import progress
from workers.runtime.process import Process
from workers.runtime.stage import load


def test_a_portrait_is_drawn_scored_and_drawn_again() -> None:
    portrait = pipelines.of("generate")
    drawn, again = portrait.after("generate", 0, "done"), portrait.after("score", 0, "again")
    assert drawn is not None
    assert again is not None
    assert (drawn.stage.name, drawn.round, drawn.ordinal) == ("score", 0, 1)
    assert (again.stage.name, again.round, again.ordinal) == ("generate", 1, 2)
    assert portrait.after("score", 0, "done") is None
    assert portrait.after("generate", 0, "end") is None


def test_a_photo_passes_by_the_stage_that_brings_its_archive_together_unless_it_waits_for_it() -> None:
    photo = pipelines.of("restore")
    assert photo.names == ("ingest_photo", "restore", "score_photo", "publish_photo")
    looked, gathered = photo.after("ingest_photo", 0, "done"), photo.after("cluster", 0, "done")
    assert looked == gathered == photo.place("restore")
    assert photo.after("ingest_photo", 0, "wait") is None


def test_every_stage_has_its_code() -> None:
    assert all(callable(load(name)) for name in pipelines.stages())


def test_a_kind_of_a_later_version_has_no_stages() -> None:
    assert pipelines.of("of tomorrow").names == ()


STAGE_FILE = '''
"""Stage `frame`: puts a frame around what the probe made."""

from orchestrator.ledger.queue.outcomes import Outcome



def frame(tools, held, lease):
    """Frame these."""
    for c in held:
        yield c, Outcome(result={"framed": c.custom_id})
'''


@pytest.fixture
def framed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """One line in the pipelines, one file in the room of its stage."""
    probe = pipelines.of("probe")
    longer = Pipeline("probe", (*probe.stages, Stage("frame", "cpu.io", "probes")), reopens=True)
    monkeypatch.setattr(pipelines, "PIPELINES", {**pipelines.PIPELINES, "probe": longer})
    (tmp_path / "frame.py").write_text(STAGE_FILE)
    monkeypatch.setattr(
        "workers.stages.probes.__path__", [*sys.modules["workers.stages.probes"].__path__, str(tmp_path)]
    )
    yield
    sys.modules.pop("workers.stages.probes.frame", None)


def test_a_stage_is_added_by_one_line_and_one_file(framed: None, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path / "state", probes=True, worker_queues="cpu.io", group_size=2)
    schema.upgrade(settings.database_url)
    process = Process(settings)
    registry.ensure_registered(process.ledger, settings)
    item = batches.NewItem(custom_id="one", params={"milliseconds": 1}, params_sha256="0" * 64, seed=0)
    with process.ledger.read() as session:
        version = registry.find_version(session, "mini@champion")[0].id
    new = batches.NewBatch(
        owner=settings.owner, kind="probe", name="t", preset="mini", items=[item], model_version_id=version, flow=False
    )
    batch_id = batches.submit(process.ledger, new).batch_id

    seen = progress.look(process.ledger, settings.owner, batch_id)
    assert [stage.name for stage in seen.stages] == ["probe"]
    assert set(seen.unmeasured) == {"probe", "frame"}

    process.run()
    with process.ledger.read() as session:
        batch = batches.get(session, settings.owner, batch_id)
        (detail,) = batches.details(session, batches.items(session, batch_id))
    process.end()
    assert batch.state == "completed"
    assert [(stage.name, stage.ordinal, stage.state) for stage in detail.stages] == [
        ("probe", 0, "completed"),
        ("frame", 1, "completed"),
    ]
    assert detail.stages[1].result == {"framed": "one"}


def test_an_error_of_the_whole_group_is_the_end_of_each_of_it_and_nothing_is_claimed_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(state_dir=tmp_path / "state", worker_queues="cpu.io", group_size=4)
    schema.upgrade(settings.database_url)
    process = Process(settings)

    def refuse(*_: object) -> Iterator[object]:
        raise StageError("none of these", code="none_of_these")

    monkeypatch.setattr("workers.runtime.process.load", lambda _: refuse)
    made = [batches.NewItem(custom_id=f"c{n}", params={}, params_sha256="0" * 64, seed=0) for n in range(8)]
    new = batches.NewBatch(owner="local", kind="probe", name="t", preset="mini", items=made, flow=False)
    batch_id = batches.submit(process.ledger, new).batch_id
    process.run()
    with process.ledger.read() as session:
        found = list(batches.details(session, batches.items(session, batch_id)))
    process.end()
    assert [detail.item.error_code for detail in found] == ["none_of_these"] * 8
    assert [len(detail.attempts) for detail in found] == [1] * 8
