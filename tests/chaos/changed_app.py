"""The product's Celery application with settings changed on purpose: `celery -A tests.chaos.changed_app worker`."""

from __future__ import annotations

import json
import os

from workers.celery import app

changes = json.loads(os.environ["FPGA_TEST_CELERY"])
app.conf.broker_transport_options = {
    **app.conf.broker_transport_options,
    **changes.pop("broker_transport_options", {}),
}
app.conf.update(changes)
