"""The command line as its users meet it: exit codes, what goes to which stream, and a quick --help."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.cli import watch
from orchestrator.cli.app import run
from orchestrator.ledger.queue import batches, workers
from orchestrator.settings import Settings, get_settings
from tests.unit.orchestrator.played import AddPerson, Played, lines, picture

ROOT = Path(__file__).parents[4]
FORBIDDEN = ("torch", "prefect", "sqlalchemy", "celery", "numpy", "pydantic")


@dataclass(frozen=True, kw_only=True)
class Said:
    """How a command ended and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """Standard output as one JSON value."""
        return json.loads(self.out)


Fpga = Callable[..., Said]


@pytest.fixture
def fpga(settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Fpga]:
    """Run a command line in this process, on the test's own state directory."""
    monkeypatch.setenv("FPGA_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("FPGA_MODELS_DIR", str(settings.models_dir))
    get_settings.cache_clear()

    def call(*arguments: str | Path) -> Said:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return Said(code=code, out=out, err=err)

    yield call
    get_settings.cache_clear()


@pytest.fixture
def manifest(tmp_path: Path, person: AddPerson) -> Path:
    """Three good rows of two people."""
    person("ada", "generate")
    person("bruno", "generate")
    path = tmp_path / "night.jsonl"
    rows: list[dict[str, Any]] = [{"custom_id": name, "people": "ada"} for name in ("a", "b")]
    path.write_bytes(lines(*rows, {"custom_id": "both", "people": "ada;bruno"}))
    return path


@pytest.fixture
def wrong(tmp_path: Path, person: AddPerson) -> Path:
    """One good row and two wrong ones."""
    person("ada", "generate")
    path = tmp_path / "wrong.jsonl"
    path.write_bytes(
        lines(
            {"custom_id": "good", "people": "ada"},
            {"custom_id": "column", "people": "ada", "colour": "red"},
            {"custom_id": "slots", "people": "ada;nobody", "layout": "group_2"},
        )
    )
    return path


# help and usage


def test_help_answers_quickly_and_imports_nothing_heavy() -> None:
    program = (
        "import sys; from orchestrator.cli.app import run; code = run(['--help']); "
        f"heavy = [n for n in {FORBIDDEN!r} if n in sys.modules]; sys.stderr.write(','.join(heavy)); sys.exit(code)"
    )
    before = os.times().children_user
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, check=False)
    seconds = os.times().children_user - before  # of CPU: a busy machine changes it little

    assert (done.returncode, done.stderr) == (0, "")
    for noun in ("demo", "up", "doctor", "batch", "identity", "schedule", "model", "worker", "sweeper", "evaluate"):
        assert noun in done.stdout
    assert seconds < 3.0  # 0.2 s on an idle core; the imports are what is really held


@pytest.mark.parametrize("noun", ["batch", "identity", "schedule", "model", "worker", "sweeper", "evaluate"])
def test_every_noun_has_help(fpga: Fpga, noun: str) -> None:
    assert fpga(noun, "--help").code == 0


@pytest.mark.parametrize("arguments", [["batch", "nothing"], ["batch", "submit"], ["--no-such-option"]])
def test_wrong_usage_ends_with_1_since_2_says_that_items_failed(fpga: Fpga, arguments: list[str]) -> None:
    said = fpga(*arguments)

    assert (said.code, said.out) == (1, "")
    assert said.err


def test_an_unknown_setting_is_one_plain_line(fpga: Fpga, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPGA_STATE_DIRR", "/tmp")
    said = fpga("batch", "list")

    assert said.code == 1
    assert said.err.startswith("error: unknown setting FPGA_STATE_DIRR")
    assert len(said.err.splitlines()) == 1


# batches


def test_submit_prints_the_id_on_standard_output_and_the_rest_elsewhere(fpga: Fpga, manifest: Path) -> None:
    said = fpga("batch", "submit", manifest)

    assert said.code == 0
    assert said.out.startswith("bat_")
    assert len(said.out.splitlines()) == 1
    assert "3 items" in said.err


def test_submit_reads_standard_input(fpga: Fpga, manifest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(manifest.read_bytes())))
    said = fpga("batch", "submit", "-", "--json")

    assert said.code == 0
    assert said.json["request_counts"] == {"total": 3, "completed": 0, "failed": 0}


def test_wrong_rows_are_listed_with_numbers_and_nothing_is_queued(fpga: Fpga, wrong: Path) -> None:
    said = fpga("batch", "submit", wrong)

    assert (said.code, said.out) == (1, "")
    assert "row 2" in said.err
    assert "colour" in said.err
    assert "row 3, people[1].identity" in said.err
    assert fpga("batch", "list", "--json").json == []


def test_wrong_rows_are_one_json_object_with_json(fpga: Fpga, wrong: Path) -> None:
    said = fpga("batch", "submit", wrong, "--json")
    error = json.loads(said.err)["error"]

    assert (said.code, said.out) == (1, "")
    assert error["code"] == "manifest_invalid"
    assert [row["row"] for row in error["details"]["errors"]] == [2, 3]


def test_validate_tells_errors_items_and_consents_and_exits_1(fpga: Fpga, wrong: Path, person: AddPerson) -> None:
    person("clara", "restore")
    wrong.write_bytes(wrong.read_bytes() + b"\n" + lines({"custom_id": "c", "people": "clara"}))
    said = fpga("batch", "validate", wrong, "--json")

    assert said.code == 1
    assert (said.json["items"], said.json["eta"]) == (1, None)
    assert [error["row"] for error in said.json["errors"]] == [2, 3, 4]
    assert "clara" in said.json["missing_consents"][0]
    text = fpga("batch", "validate", wrong)
    assert "time not known yet" in text.out
    assert "unknown_column" in text.out


def test_a_dry_run_of_a_good_manifest_queues_nothing(fpga: Fpga, manifest: Path) -> None:
    assert fpga("batch", "submit", manifest, "--dry-run", "--json").json["items"] == 3
    assert fpga("batch", "list", "--json").json == []


def test_small_faces_are_kept_where_the_batch_says_so(fpga: Fpga, manifest: Path, worker: Played) -> None:
    batch_id = fpga("batch", "submit", manifest, "--small-faces", "keep").out.strip()
    worker.work()
    said = fpga("batch", "results", batch_id).out

    assert {json.loads(line)["params"]["small_faces"] for line in said.splitlines()} == {"keep"}
    refused = fpga("batch", "submit", manifest, "--small-faces", "enlarge")
    assert refused.code != 0
    assert "'restore', 'keep'" in refused.err


def test_waiting_for_a_batch_with_failed_items_exits_2(fpga: Fpga, wrong: Path, worker: Played) -> None:
    assert fpga("batch", "submit", wrong, "--skip-invalid").code == 0
    worker.work()
    (batch,) = fpga("batch", "list", "--json").json
    said = fpga("batch", "watch", batch["id"])

    assert said.code == 2
    assert "completed_with_errors" in said.out
    assert "unknown_column 1" in said.out


def test_waiting_for_a_good_batch_exits_0(fpga: Fpga, manifest: Path, worker: Played) -> None:
    batch_id = fpga("batch", "submit", manifest).out.strip()
    worker.work()

    assert fpga("batch", "watch", batch_id).code == 0
    last = json.loads(fpga("batch", "watch", batch_id, "--json").out.splitlines()[-1])
    assert (last["object"], last["state"], last["done"]) == ("batch.progress", "completed", 3)


def test_show_has_every_item_stage_times_and_verdicts(fpga: Fpga, manifest: Path, worker: Played) -> None:
    batch_id = fpga("batch", "submit", manifest).out.strip()
    worker.work(verdict="needs_review", similarity=0.41)
    shown = fpga("batch", "show", batch_id[:20], "--json").json

    assert shown["id"] == batch_id
    assert [item["status"] for item in shown["items"]] == ["completed"] * 3
    assert shown["verdicts"] == {"needs_review": 3}
    assert [stage["name"] for stage in shown["stages"]] == ["generate", "score"]
    text = fpga("batch", "show", batch_id).out
    assert "0.410" in text
    assert "needs_review" in text


def test_ctrl_c_on_watch_leaves_the_batch_running_and_says_how_to_come_back(
    fpga: Fpga, manifest: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = fpga("batch", "submit", manifest).out.strip()

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch.time, "sleep", interrupted)
    said = fpga("batch", "watch", batch_id)

    assert said.code == 130
    assert f"fpga batch watch {batch_id}" in said.err
    assert fpga("batch", "show", batch_id, "--json").json["state"] == "in_progress"


def test_results_and_errors_are_lines_and_a_download_goes_on_the_second_time(
    fpga: Fpga, wrong: Path, worker: Played, tmp_path: Path
) -> None:
    batch_id = fpga("batch", "submit", wrong, "--skip-invalid").out.strip()
    worker.work()
    results = [json.loads(line) for line in fpga("batch", "results", batch_id).out.splitlines()]
    errors = [json.loads(line) for line in fpga("batch", "results", batch_id, "--errors").out.splitlines()]
    first = fpga("batch", "results", batch_id, "--download", tmp_path / "out", "--sheet", tmp_path / "index.html")
    second = fpga("batch", "results", batch_id, "--download", tmp_path / "out")

    assert [line["custom_id"] for line in results] == ["good"]
    assert [line["custom_id"] for line in errors] == ["column", "slots"]
    assert first.code == 0
    assert (tmp_path / "out" / "good.png").exists()
    page = (tmp_path / "index.html").read_text()
    assert "data:image/png;base64," in page
    assert "good" in page
    assert "unknown_column" in page
    assert second.code == 0


def test_retry_makes_a_child_of_what_failed(fpga: Fpga, manifest: Path, worker: Played) -> None:
    batch_id = fpga("batch", "submit", manifest).out.strip()
    worker.work(failing=["b"])
    child = fpga("batch", "retry", batch_id, "--code", "pipe_broken", "--json").json

    assert (child["parent_id"], child["request_counts"]["total"]) == (batch_id, 1)
    none = fpga("batch", "retry", batch_id, "--code", "no_face")
    assert none.code == 1
    assert "no_face" in none.err


def test_what_is_held_is_released_and_rejected_with_a_reason(fpga: Fpga, manifest: Path, worker: Played) -> None:
    batch_id = fpga("batch", "submit", manifest).out.strip()
    worker.hold()

    assert fpga("batch", "release", batch_id).code == 1, "a reason is wanted"
    released = fpga("batch", "release", batch_id, "--reason", "more memory", "--json").json
    worker.hold()
    rejected = fpga("batch", "reject", batch_id, "--reason", "too large")
    shown = fpga("batch", "show", batch_id, "--json").json

    assert (released["state"], released["counts"]["held"]) == ("in_progress", 0)
    assert "are given up" in rejected.err
    assert shown["counts"]["cancelled"] == shown["request_counts"]["total"]


def test_pause_resume_and_cancel_say_what_the_batch_is(fpga: Fpga, manifest: Path) -> None:
    batch_id = fpga("batch", "submit", manifest, "--paused").out.strip()

    assert fpga("batch", "resume", batch_id, "--json").json["state"] == "in_progress"
    assert fpga("batch", "pause", batch_id, "--reason", "lunch", "--json").json["reason"] == "lunch"
    assert fpga("batch", "cancel", batch_id).code == 1, "nobody can be asked here"
    assert fpga("batch", "cancel", batch_id, "--yes", "--json").json["state"] == "cancelled"
    again = fpga("batch", "cancel", batch_id, "--yes")
    assert again.code == 1
    assert "has ended" in again.err


def test_the_same_idempotency_key_gives_the_same_batch(fpga: Fpga, manifest: Path) -> None:
    first = fpga("batch", "submit", manifest, "--idempotency-key", "tonight")
    second = fpga("batch", "submit", manifest, "--idempotency-key", "tonight")

    assert first.out == second.out
    assert "earlier request" in second.err


def test_unknown_things_are_not_found(fpga: Fpga) -> None:
    for arguments in (["batch", "show", "bat_x"], ["identity", "show", "nobody"], ["model", "show", "mdl_x"]):
        said = fpga(*arguments, "--json")
        assert said.code == 1
        assert json.loads(said.err)["error"]["code"].endswith("not_found")


# people


def add_ada(fpga: Fpga, worker: Played, tmp_path: Path) -> str:
    """Add ada without waiting, let the worker find the face, and return her id."""
    path = tmp_path / "ada.png"
    path.write_bytes(picture())
    assert fpga("identity", "add", "ada", path, "--consent", "generate", "--no-wait").code == 0
    worker.work()
    found: str = fpga("identity", "show", "ada", "--json").json["id"]
    return found


def test_a_person_is_added_shown_listed_and_allows_more_or_less(fpga: Fpga, worker: Played, tmp_path: Path) -> None:
    identity_id = add_ada(fpga, worker, tmp_path)

    (listed,) = fpga("identity", "list", "--json").json
    assert (listed["id"], listed["references"], listed["scopes"]) == (identity_id, 1, ["generate"])
    shown = fpga("identity", "consent", "ada", "--grant", "restore,train", "--revoke", "generate", "--json").json
    assert {c["scope"]: c["state"] for c in shown["consents"]} == {
        "generate": "revoked",
        "restore": "valid",
        "train": "valid",
    }
    assert "ada" in fpga("identity", "list").out


def test_adding_a_person_without_a_worker_says_so_and_gives_up_in_time(fpga: Fpga, tmp_path: Path) -> None:
    path = tmp_path / "ada.png"
    path.write_bytes(picture())
    said = fpga("identity", "add", "ada", path, "--timeout", "0")

    assert said.code == 1
    assert "no worker runs" in said.err
    assert "fpga batch watch bat_" in said.err


def test_a_file_that_is_no_picture_is_refused_in_one_line(fpga: Fpga, tmp_path: Path) -> None:
    path = tmp_path / "ada.png"
    path.write_text("not a picture")
    said = fpga("identity", "add", "ada", path)

    assert said.code == 1
    assert "ada.png" in said.err
    assert len(said.err.splitlines()) == 1


def test_erase_asks_first_and_leaves_a_receipt(fpga: Fpga, worker: Played, tmp_path: Path, settings: Settings) -> None:
    identity_id = add_ada(fpga, worker, tmp_path)
    refused = fpga("identity", "erase", "ada")
    done = fpga("identity", "erase", "ada", "--yes")

    assert refused.code == 1
    assert "--yes" in refused.err
    assert done.code == 0
    receipt = json.loads(Path(done.out.strip()).read_text())
    assert Path(done.out.strip()) == settings.state_dir / "receipts" / f"{identity_id}.json"
    assert (receipt["identity_id"], receipt["objects"]) == (identity_id, 1)
    assert list(worker.store.list()) == []
    assert fpga("identity", "erase", "ada", "--yes").code == 1


# the rest


def test_models_are_registered_listed_and_shown(fpga: Fpga) -> None:
    (version,) = fpga("model", "list", "--json").json

    assert version["aliases"] == ["champion"]
    assert fpga("model", "show", "mini@champion", "--json").json["id"] == version["id"]
    assert "champion" in fpga("model", "list").out


def test_workers_are_listed_and_asked_to_drain(fpga: Fpga, worker: Played) -> None:
    worker_id = workers.register(worker.ledger, owner="local", device="cpu", queues=["cpu.io"])

    assert [found["id"] for found in fpga("worker", "list", "--json").json] == [worker_id]
    assert fpga("worker", "drain").code == 1
    assert fpga("worker", "drain", "--all", "--json").json["workers"] == [worker_id]
    assert fpga("worker", "list", "--json").json[0]["drain"] is True
    assert fpga("worker", "drain", "wrk_none").code == 1
    assert fpga("worker", "run", "--queues", "gpu.other").code == 1


def test_doctor_prints_one_object_for_each_check_and_exits_1_on_a_failure(fpga: Fpga, settings: Settings) -> None:
    well = fpga("doctor", "--json")
    assert well.code == 0
    assert {check["status"] for check in well.json} <= {"ok", "warn"}

    (settings.models_dir / "mini" / "weights.json").unlink()
    ill = fpga("doctor")
    assert ill.code == 1
    assert "FAIL" in ill.out


def test_a_schedule_needs_no_prefect_and_says_when_it_runs_next(fpga: Fpga, manifest: Path) -> None:
    said = fpga("schedule", "add", "nightly", manifest, "--cron", "0 2 * * *")

    assert said.code == 0
    assert "nightly runs 3 items at 0 2 * * * (UTC)" in said.err
    assert len(said.err.splitlines()) == 6, "and the next five times"


def test_a_wrong_manifest_is_not_scheduled(fpga: Fpga, wrong: Path) -> None:
    said = fpga("schedule", "add", "nightly", wrong, "--cron", "0 2 * * *")

    assert said.code == 1
    assert "row 2" in said.err


def test_evaluate_refuses_a_preset_that_is_not_installed(fpga: Fpga) -> None:
    missing = fpga("evaluate", "identity", "--preset", "none-such")

    assert missing.code == 1
    assert "none-such" in missing.err


@pytest.mark.slow  # a process that imports torch
def test_evaluate_passes_on_how_the_measuring_process_ended(fpga: Fpga) -> None:
    said = fpga("evaluate", "identity", "--preset", "mini", "--count", "1")

    assert said.code == 1, "the test preset has facts and no weights"
    assert said.err


def test_a_fresh_state_directory_is_made_private_and_migrated_by_the_first_command(
    fpga: Fpga, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh = tmp_path / "new" / "state"
    monkeypatch.setenv("FPGA_STATE_DIR", str(tmp_path / "elsewhere"))
    said = fpga("--state-dir", fresh, "batch", "list", "--json")

    assert (said.code, said.json) == (0, [])
    assert fresh.stat().st_mode & 0o777 == 0o700
    assert not (tmp_path / "elsewhere").exists()


def test_an_outdated_server_database_is_not_migrated_behind_ones_back(
    fpga: Fpga, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", f"sqlite:///{tmp_path / 'other.sqlite3'}")
    said = fpga("batch", "list")

    assert said.code == 1
    assert "fpga migrate" in said.err


def test_the_installed_program_runs_as_a_process_of_its_own(settings: Settings, manifest: Path) -> None:
    environment = {**os.environ, "FPGA_STATE_DIR": str(settings.state_dir), "FPGA_MODELS_DIR": str(settings.models_dir)}
    command = [sys.executable, "-m", "orchestrator.cli.app", "batch"]

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*command, *arguments], capture_output=True, text=True, env=environment, cwd=ROOT, check=False
        )

    made = call("submit", str(manifest), "--json")
    assert made.returncode == 0, made.stderr
    assert json.loads(made.stdout)["request_counts"]["total"] == 3
    refused = call("show", "bat_none")
    assert refused.returncode == 1
    assert refused.stderr.strip() == "error: there is no batch 'bat_none'"


def test_up_refuses_a_second_one_naming_the_pid_and_ends_in_order_on_ctrl_c(settings: Settings, tmp_path: Path) -> None:
    environment = {**os.environ, "FPGA_STATE_DIR": str(settings.state_dir), "FPGA_MODELS_DIR": str(settings.models_dir)}
    command = [sys.executable, "-m", "orchestrator.cli.app", "up", "--workers", "0", "--no-prefect"]
    said = tmp_path / "said"
    with said.open("w") as stream:
        first = subprocess.Popen(command, stderr=stream, env=environment, cwd=ROOT)
    try:
        deadline = time.monotonic() + 240
        while "submit from another terminal" not in said.read_text():
            assert time.monotonic() < deadline, said.read_text()
            assert first.poll() is None, said.read_text()
            time.sleep(0.1)
        second = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT, check=False)
        first.send_signal(signal.SIGINT)
        assert first.wait(120) == 0
    finally:
        first.kill()

    assert second.returncode == 1
    assert f"process {first.pid} already runs" in second.stderr
    assert "stopped; the next start goes on from here" in said.read_text()


def test_nothing_of_prompts_or_people_is_logged(
    fpga: Fpga, manifest: Path, worker: Played, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    manifest.write_bytes(lines({"custom_id": "x", "people": "ada", "prompt": "portrait of a secretword person"}))
    batch_id = fpga("batch", "submit", manifest).out.strip()
    worker.work()
    fpga("batch", "show", batch_id)

    assert "secretword" not in caplog.text
    with worker.ledger.read() as session:
        assert batches.get(session, "local", batch_id).state == "completed"
