"""The product's Celery application as a later version may be: `celery -A tests.chaos.tomorrow_app worker`.

It knows one stage more, the one that FPGA_TEST_STAGE names.
"""

from __future__ import annotations

import os

from orchestrator.ledger.queue import claims
from workers import stages
from workers.celery import app

__all__ = ["app"]

app.conf.include = [*app.conf.include, __name__]  # the computing child is spawned and imports these
claims.QUEUES = {**claims.QUEUES, os.environ["FPGA_TEST_STAGE"]: "cpu.io"}
stages.STAGES[os.environ["FPGA_TEST_STAGE"]] = stages.STAGES["probe"]
