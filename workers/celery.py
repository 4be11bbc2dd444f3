"""The Celery application: `celery -A workers worker -Q gpu.generate,cpu.io`.

Start-up, shutdown and logging live in these signals, not in tasks. The parent process only listens to the broker; it
never imports torch. Its one child computes; it is spawned, so that it inherits no device context.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
from typing import Any

import billiard
from celery import Celery, signals

from orchestrator import logs
from orchestrator.runtime.broker import celery_config
from orchestrator.settings import get_settings

log = logging.getLogger(__name__)
DRAIN_SIGNAL = signal.SIGURG
"""Parent to child: claim nothing more. Celery's pool takes the usual signals for itself after a child has begun, and
this one does no harm to a child that is not listening yet."""

app = Celery("fpga", include=["workers.tasks"])
app.conf.update(celery_config(get_settings()))


@signals.setup_logging.connect
def set_up_logging(**_: Any) -> None:
    """Keep Celery from installing its own handlers."""
    logs.setup(get_settings())


@signals.worker_init.connect
def tell_queues(sender: Any, **_: Any) -> None:
    """Let the child know which queues this worker serves, for its look into the ledger when idle."""
    os.environ["FPGA_WORKER_QUEUES"] = ",".join(sorted(sender.app.amqp.queues.consume_from))


@signals.worker_process_init.connect
def begin(**_: Any) -> None:
    """Load the networks once, in the process that will use them."""
    get_settings.cache_clear()
    # imported here and not above, because the parent process must never touch torch or a device
    importlib.import_module("workers.runtime.process").begin()


@signals.worker_process_shutdown.connect
def end(**_: Any) -> None:
    """Say goodbye in the ledger."""
    importlib.import_module("workers.runtime.process").end()


@signals.worker_shutting_down.connect
def drain(**_: Any) -> None:
    """Pass the wish to stop on to the computing child: it claims nothing more and gives back what takes too long."""
    children = billiard.active_children()
    for child in children:
        os.kill(child.pid, DRAIN_SIGNAL)
    if not children:  # the solo pool computes in this very process
        importlib.import_module("workers.runtime.process").drain()
