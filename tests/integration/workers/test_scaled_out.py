"""The same code on PostgreSQL with Redis or RabbitMQ, and on a real S3 store: only the URLs differ."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.integration.workers.rig import Rig
from tests.integration.workers.test_worker import solo
from tests.services.swift import Swift

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("broker", ["redis_url", "rabbitmq_url"])
def test_a_batch_survives_a_killed_worker_on_postgresql(
    broker: str, request: pytest.FixtureRequest, postgres_url: str, tmp_path: Path
) -> None:
    environment = {"DATABASE_URL": postgres_url, "CELERY_BROKER_URL": request.getfixturevalue(broker)}
    with Rig(tmp_path / "state", environment) as rig:
        worker = rig.start_worker()
        assert rig.enrol("ada")[0].identity_id is not None
        batch_id = rig.submit(solo(16))
        rig.wait(lambda: rig.counts(batch_id)["completed"] >= 4, "some are done", 240)
        os.killpg(worker.pid, signal.SIGKILL)
        worker.wait()
        rig.start_worker()

        assert rig.wait_ended(batch_id) == "completed"

        outputs = rig.outputs(batch_id)
        assert len({output.item_id for output in outputs}) == len(outputs) == 16


def test_pictures_live_in_a_real_s3_store(swift_server: Swift, postgres_url: str, tmp_path: Path) -> None:
    swift_server.create_bucket("portraits")
    environment = {
        "DATABASE_URL": postgres_url,
        "FPGA_STORE_URL": "s3://portraits",
        "FPGA_S3_ADDRESSING_STYLE": "path",
        **swift_server.environment_for_clients(),
    }
    with Rig(tmp_path / "state", environment) as rig:
        rig.start_worker()
        assert rig.enrol("ada")[0].identity_id is not None
        batch_id = rig.submit(solo(4))

        assert rig.wait_ended(batch_id) == "completed"

        assert sum(1 for _ in rig.store.list()) == 3 + 4, "three references and four portraits"
