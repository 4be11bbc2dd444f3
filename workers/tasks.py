"""The Celery tasks: one bell. It says that a queue has work; what the work is, the ledger says."""

from __future__ import annotations

import importlib
import logging

from orchestrator.ledger.queue.wakeups import MESSAGE_VERSION
from orchestrator.runtime.broker import RUN_STAGE
from workers.celery import app

log = logging.getLogger(__name__)


@app.task(name=RUN_STAGE)
def run_stage(v: int, queue: str, stage_id: int) -> None:
    """Work on whatever is due, until nothing is; a late or repeated message finds nothing and returns.

    `stage_id` is the number of the message; its name is that of the version before.
    """
    if v != MESSAGE_VERSION:
        log.warning("message of another version left to newer workers", extra={"version": v})
        return
    # this module is also imported by the parent, which must never touch torch
    importlib.import_module("workers.runtime.process").current().run(stage_id)
