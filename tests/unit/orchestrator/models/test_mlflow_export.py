"""Figures of a training run in MLflow: a real server, where FPGA_TEST_MLFLOW names its program."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from orchestrator.errors import TransientError
from orchestrator.ledger.engine.session import Ledger, retrying
from orchestrator.ledger.tables.rows_training import TrainRecord
from orchestrator.models import mlflow_export, registry
from orchestrator.settings import Settings
from tests.unit.orchestrator.trained import add_dataset, begin, finish

PROGRAM = os.environ.get("FPGA_TEST_MLFLOW", "")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    if not PROGRAM:
        pytest.skip("FPGA_TEST_MLFLOW does not name the mlflow program")
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [PROGRAM, "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    deadline = time.monotonic() + 200
    while True:
        assert time.monotonic() < deadline, "the MLflow server did not come up"
        try:
            if httpx.get(f"{url}/health", timeout=2).is_success:
                break
        except httpx.HTTPError:
            time.sleep(0.5)
    yield url
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def trained(ledger: Ledger, settings: Settings) -> str:
    registry.ensure_registered(ledger, settings)
    run = begin(ledger, settings, add_dataset(ledger))
    with ledger.write() as session:
        for step in (5, 10):
            facts = {"stage": "mmf", "loss": 1 / step}
            moment = datetime.now(UTC)
            session.add(TrainRecord(run_id=run.run_id, kind="step", step=step, owner="local", facts=facts, at=moment))
    finish(ledger, run, "c" * 64, 0.78)
    return run.batch_id


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_losses_and_figures_arrive_once_however_often_they_are_sent(
    ledger: Ledger, settings: Settings, server: str
) -> None:
    batch_id = trained(ledger, settings)
    chosen = settings.model_copy(update={"mlflow_tracking_uri": server})

    first, second = (retrying(mlflow_export.export)(ledger, chosen, batch_id) for _ in range(2))

    assert first == second
    run = httpx.get(f"{server}/api/2.0/mlflow/runs/get", params={"run_id": first}).json()["run"]
    assert run["info"]["status"] == "FINISHED"
    metrics = {metric["key"]: metric["value"] for metric in run["data"]["metrics"]}
    assert (metrics["loss"], metrics["identity.face_sim.mean"]) == (0.1, 0.78)
    params = {param["key"]: param["value"] for param in run["data"]["params"]}
    assert params["mmf.steps"] == "8"
    history = httpx.get(
        f"{server}/api/2.0/mlflow/metrics/get-history", params={"run_id": first, "metric_key": "loss"}
    ).json()
    assert sorted({point["step"] for point in history["metrics"]}) == [5, 10]


def test_without_a_server_nothing_is_sent_and_one_that_is_away_is_tried_again(
    ledger: Ledger, settings: Settings
) -> None:
    batch_id = trained(ledger, settings)
    assert mlflow_export.export(ledger, settings, batch_id) is None
    away = settings.model_copy(update={"mlflow_tracking_uri": f"http://127.0.0.1:{free_port()}"})
    with pytest.raises(TransientError, match="MLflow cannot be reached"):
        mlflow_export.export(ledger, away, batch_id)
