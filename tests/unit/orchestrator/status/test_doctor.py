"""The doctor finds what is broken, says what to do, and prints no secret."""

from __future__ import annotations

import hashlib
import json
import time
from pathlib import Path

import pytest
from sqlalchemy import text, update

from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches, claims, workers
from orchestrator.ledger.tables.rows import Artifact, Audit, Stage
from orchestrator.runtime.repair import repair
from orchestrator.settings import Settings
from orchestrator.status import doctor
from orchestrator.status.doctor import Check
from orchestrator.storage import open_store
from tests.integration.ledger.helpers import submit as submit_items


def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(settings, device=False)}


def test_a_well_deployment_has_nothing_that_fails(ledger: Ledger, settings: Settings) -> None:
    workers.register(ledger, owner="local", device="cpu", queues=["cpu.io"])
    checks = found(settings)

    assert {name: check.sentence for name, check in checks.items() if check.status == "fail"} == {}
    assert checks["workers"].status == "ok"
    assert checks["sqlite"].status == "ok"
    assert json.dumps([check.as_json() for check in checks.values()])


def test_without_a_worker_it_warns_and_says_how_to_start_one(settings: Settings) -> None:
    check = found(settings)["workers"]

    assert check.status == "warn"
    assert "fpga up" in (check.fix or "")


def test_an_altered_weight_file_fails(settings: Settings) -> None:
    folder = settings.models_dir / "mini"
    (folder / "unet.safetensors").write_bytes(b"tensors")
    entry = {"sha256": hashlib.sha256(b"tensors").hexdigest(), "tensor_sha256": "x", "bytes": 7}
    manifest = {"format": 1, "model_sha256": "a" * 64, "files": {"unet.safetensors": entry}}
    (folder / "weights.json").write_text(json.dumps(manifest))
    assert found(settings)["weights"].status == "ok"

    (folder / "unet.safetensors").write_bytes(b"tensorz")
    check = found(settings)["weights"]
    assert check.status == "fail"
    assert "unet.safetensors" in check.sentence


def test_a_state_directory_that_others_may_enter_fails(settings: Settings) -> None:
    settings.state_dir.chmod(0o755)

    assert found(settings)["state directory"].status == "fail"


def test_a_changed_history_fails(ledger: Ledger, settings: Settings) -> None:
    with ledger.write() as session:
        for n in range(3):
            audit.write(session, "local", "test", f"ref{n}", {}, now(session))
    with ledger.write() as session:
        session.execute(text("DROP TRIGGER audit_refuses_update"))
        session.execute(update(Audit).where(Audit.ref == "ref1").values(actor="somebody"))

    assert found(settings)["audit"].status == "fail"


def test_a_database_that_is_behind_fails_and_later_checks_are_left_out(settings: Settings, tmp_path: Path) -> None:
    behind = settings.model_copy(update={"state_dir": tmp_path / "fresh"})
    checks = found(behind)

    assert checks["database"].status == "fail"
    assert "fpga migrate" in (checks["database"].fix or "")
    assert "audit" not in checks


@pytest.mark.parametrize(
    "changes",
    [
        {"broker_url_": "redis://:hunter2@127.0.0.1:1/0"},
        {"database_url_": "postgresql+psycopg://fpga:hunter2@127.0.0.1:1/fpga"},
        {"store_url_": "s3://fpga:hunter2@127.0.0.1/bucket"},
        {"store_url_": "s3://fpga:hunter2@/bucket"},
        {"store_url_": "http://fpga:hunter2@127.0.0.1/bucket"},
    ],
)
def test_what_cannot_be_reached_fails_without_telling_the_password(settings: Settings, changes: dict[str, str]) -> None:
    given = Settings(state_dir=settings.state_dir, models_dir=settings.models_dir, **changes)  # type: ignore[arg-type]  # fields by name
    checks = doctor.examine(given, device=False)

    assert any(check.status == "fail" for check in checks)
    assert "hunter2" not in json.dumps([check.as_json() for check in checks])


def test_times_that_do_not_fit_together_fail(settings: Settings) -> None:
    assert found(settings)["times"].status == "ok"

    check = found(settings.model_copy(update={"lease_seconds": 20.0, "heartbeat_seconds": 15.0}))["times"]

    assert check.status == "fail"
    assert "three heartbeats" in check.sentence


def test_objects_that_the_ledger_does_not_know_or_misses_are_named(ledger: Ledger, settings: Settings) -> None:
    store = open_store(settings)
    store.put("o/local/strange.bin", b"x", media_type="application/octet-stream")
    assert found(settings)["objects"].status == "warn"
    store.delete("o/local/strange.bin")

    with ledger.write() as session:
        moment = now(session)
        made = {"owner": "local", "sha256": "0" * 64, "key": "o/local/gone.bin", "size": 1, "media_type": "x/y"}
        session.add(Artifact(id="art_1", state="live", created_at=moment, expires_at=None, **made))
    check = found(settings)["objects"]

    assert check.status == "fail"
    assert "gone.bin" in check.sentence


def test_a_repair_takes_lost_leases_back_and_closes_what_has_ended(ledger: Ledger, settings: Settings) -> None:
    batch_id = submit_items(ledger, owner="local")
    [c] = claims.claim(ledger, worker_id="gone", queues=["gpu.generate"], limit=1, lease_seconds=0.01)
    time.sleep(0.05)

    assert repair(settings)[0] == "1 lost leases were taken back"

    with ledger.read() as session:
        assert session.get_one(Stage, c.stage_id).state == "queued"
        assert batches.get(session, "local", batch_id).state == "in_progress"


@pytest.mark.slow
@pytest.mark.timeout(700)
def test_the_device_is_tried_in_a_process_of_its_own(settings: Settings) -> None:
    [well] = [check for check in doctor.examine(settings) if check.name == "device"]
    [ill] = [c for c in doctor.examine(settings.model_copy(update={"device": "cuda:99"})) if c.name == "device"]

    assert (well.status, ill.status) == ("ok", "fail"), (well.sentence, ill.sentence)
