"""Objects of batches and items, lists of results and errors, the folder they are written to, and progress."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import ConflictError
from orchestrator.ledger.queue import batches, workers
from orchestrator.portraits.submit import submit_portraits
from orchestrator.results import export, results
from orchestrator.status import progress
from tests.unit.orchestrator.played import AddPerson, Played, lines


@pytest.fixture
def batch_id(worker: Played, person: AddPerson) -> str:
    """Four items, of which `bad` will fail, and one row that was left out."""
    person("ada", "generate")
    person("bruno", "generate")
    rows: list[dict[str, Any]] = [{"custom_id": name, "people": "ada"} for name in ("a", "b", "bad")]
    rows += [{"custom_id": "two", "people": "ada;bruno"}, {"custom_id": "wrong", "people": "nobody", "steps": 9999}]
    return submit_portraits(
        worker.ledger,
        worker.settings,
        manifest=lines(*rows),
        format="jsonl",
        name="test",
        owner="local",
        options=SubmitOptions(skip_invalid=True),
    ).batch_id


def shown(worker: Played, batch_id: str) -> dict[str, Any]:
    with worker.ledger.read() as session:
        found = results.batch_object(session, batches.get(session, "local", batch_id))
    copied: dict[str, Any] = json.loads(json.dumps(found))
    return copied


def test_a_batch_that_waits_has_the_usual_fields_and_counts(worker: Played, batch_id: str) -> None:
    batch = shown(worker, batch_id)

    assert (batch["object"], batch["status"], batch["state"]) == ("batch", "in_progress", "in_progress")
    assert batch["request_counts"] == {"total": 5, "completed": 0, "failed": 1}
    assert batch["counts"]["queued"] == 4
    assert batch["stages"] == []
    assert results.exit_code(batch) == 0


def test_a_batch_that_ended_has_times_of_each_stage_verdicts_and_errors(worker: Played, batch_id: str) -> None:
    worker.work(failing=["bad"])
    batch = shown(worker, batch_id)

    assert (batch["status"], batch["state"]) == ("completed", "completed_with_errors")
    assert batch["request_counts"] == {"total": 5, "completed": 3, "failed": 2}
    assert batch["verdicts"] == {"accepted": 3}
    assert sum(batch["error_counts"].values()) == 2
    assert batch["error_counts"]["pipe_broken"] == 1
    assert [stage["name"] for stage in batch["stages"]] == ["generate", "score"]
    for stage in batch["stages"]:
        assert stage["count"] == 3
        for times in (stage["queue_seconds"], stage["run_seconds"]):
            assert 0 <= times["p50"] <= times["p90"] <= times["max"]
    assert results.exit_code(batch) == 2


def test_an_item_tells_its_output_scores_stages_and_attempts(worker: Played, batch_id: str) -> None:
    worker.work(failing=["bad"])
    with worker.ledger.read() as session:
        found = list(results.results_lines(session, batches.get(session, "local", batch_id)))
    item = json.loads(json.dumps(found[0]))

    assert [line["custom_id"] for line in found] == ["a", "b", "two"]
    assert (item["status"], item["verdict"], item["similarity"]) == ("completed", "accepted", 0.8)
    assert item["output"]["width"] == 32
    assert worker.store.get(item["output"]["key"], sha256=item["output"]["sha256"])
    assert item["scores"]["matrix"] == [[0.8]]
    assert [(s["name"], s["state"], len(s["attempts"])) for s in item["stages"]] == [
        ("generate", "completed", 1),
        ("score", "completed", 1),
    ]
    assert item["stages"][0]["attempts"][0]["outcome"] == "completed"
    assert item["stages"][0]["seconds"] >= 0
    assert item["error"] is None
    assert [line["output"]["small_faces"] for line in found] == [None, None, "1 of 2 small faces drawn again"]


def test_errors_name_rows_left_out_and_items_that_failed_by_custom_id(worker: Played, batch_id: str) -> None:
    worker.work(failing=["bad"])
    with worker.ledger.read() as session:
        found = list(results.errors_lines(session, batches.get(session, "local", batch_id)))

    assert [(line["custom_id"], line["status"]) for line in found] == [("wrong", "rejected"), ("bad", "failed")]
    assert found[0]["row"] == 5
    assert {found[0]["error"]["code"], *(more["code"] for more in found[0]["error"]["more"])} == {
        "unknown_identity",
        "out_of_range",
    }
    assert found[1]["error"] == {
        "code": "pipe_broken",
        "message": "the pipe broke",
        "stage": "generate",
        "attempt": 1,
    }


def test_lists_are_true_at_any_moment(worker: Played, batch_id: str) -> None:
    with worker.ledger.read() as session:
        assert list(results.results_lines(session, batches.get(session, "local", batch_id))) == []


def test_a_download_has_pictures_sidecars_and_lists_that_agree(worker: Played, batch_id: str, tmp_path: Path) -> None:
    worker.work(failing=["bad"])
    folder = export.download(worker.ledger, worker.store, "local", batch_id, tmp_path / "out").folder

    listed = [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]
    table = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    errors = [json.loads(line) for line in (folder / "errors.jsonl").read_text().splitlines()]
    assert [row["file_name"] for row in table] == ["a.png", "b.png", "two.png"]
    assert [row["people"] for row in table] == ["ada", "ada", "ada+bruno"]
    assert json.loads((folder / "a.json").read_text()) == listed[0]
    assert [error["custom_id"] for error in errors] == ["wrong", "bad"]
    assert (folder / "a.png").read_bytes() == worker.store.get(listed[0]["output"]["key"])


def test_a_download_never_overwrites(worker: Played, batch_id: str, tmp_path: Path) -> None:
    worker.work()
    export.download(worker.ledger, worker.store, "local", batch_id, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}

    export.download(worker.ledger, worker.store, "local", batch_id, tmp_path)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before

    (tmp_path / "a.png").write_bytes(b"somebody else's")
    with pytest.raises(ConflictError, match="not overwritten"):
        export.download(worker.ledger, worker.store, "local", batch_id, tmp_path)
    assert (tmp_path / "a.png").read_bytes() == b"somebody else's"


def test_names_follow_the_template(worker: Played, batch_id: str, tmp_path: Path) -> None:
    worker.work()
    export.download(
        worker.ledger, worker.store, "local", batch_id, tmp_path, template="{identity}/{index}-{custom_id}.{ext}"
    )

    assert (tmp_path / "ada+bruno" / "3-two.png").exists()


def test_progress_counts_what_is_left_and_has_no_estimate_without_history(worker: Played, batch_id: str) -> None:
    workers.register(worker.ledger, owner="local", device="cpu", queues=["gpu.generate", "cpu.io"])
    found = progress.look(worker.ledger, "local", batch_id)

    assert (found.total, found.done, found.ended, found.eta) == (4, 0, False, None)
    assert [(stage.name, stage.waiting, stage.running) for stage in found.stages] == [("generate", 4, 0)]
    assert found.queue_p50 is None


def test_progress_estimates_from_history_and_keeps_waiting_apart(worker: Played, batch_id: str) -> None:
    workers.register(worker.ledger, owner="local", device="cpu", queues=["gpu.generate", "cpu.io"])
    worker.work()
    again = submit_portraits(
        worker.ledger,
        worker.settings,
        manifest=lines({"custom_id": "x", "people": "ada", "count": 50}),
        format="jsonl",
        name="again",
        owner="local",
    ).batch_id
    waiting = progress.look(worker.ledger, "local", again)
    ended = progress.look(worker.ledger, "local", batch_id)

    assert waiting.eta is not None
    assert 0 < waiting.eta.p50 <= waiting.eta.p90
    assert ended.ended
    assert ended.done == 4
    assert ended.eta is None
    assert ended.queue_p50 is not None
    assert ended.run_p50 is not None
    json.dumps(waiting.as_json())
