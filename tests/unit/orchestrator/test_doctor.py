"""The doctor finds what is broken, says what to do, and prints no secret."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from sqlalchemy import text, update

from orchestrator import doctor
from orchestrator.doctor import Check
from orchestrator.ledger import audit, workers
from orchestrator.ledger.rows import Audit
from orchestrator.ledger.session import Ledger, now
from orchestrator.settings import Settings


def found(settings: Settings) -> dict[str, Check]:
    return {check.name: check for check in doctor.examine(settings)}


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
    assert "alembic upgrade head" in (checks["database"].fix or "")
    assert "audit" not in checks


@pytest.mark.parametrize(
    "changes",
    [
        {"broker_url_": "redis://:hunter2@127.0.0.1:1/0"},
        {"database_url_": "postgresql+psycopg://fpga:hunter2@127.0.0.1:1/fpga"},
    ],
)
def test_what_cannot_be_reached_fails_without_telling_the_password(settings: Settings, changes: dict[str, str]) -> None:
    given = Settings(state_dir=settings.state_dir, models_dir=settings.models_dir, **changes)  # type: ignore[arg-type]
    checks = doctor.examine(given)

    assert any(check.status == "fail" for check in checks)
    assert "hunter2" not in json.dumps([check.as_json() for check in checks])
