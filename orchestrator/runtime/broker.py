"""How Celery is set up on both sides of the bell, each setting once with its reason.

Orchestrator sends with `send`, workers build their application from `celery_config`. A message carries ids only.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from kombu import Exchange, Queue
from kombu.exceptions import OperationalError

from orchestrator.errors import SettingsError, TransientError
from orchestrator.pipelines import QUEUES
from orchestrator.runtime import folder_broker
from orchestrator.settings import Settings

RUN_STAGE = "fpga.stage.run"
HARD_LIMIT_SECONDS = 3600.0
"""No group of items may take longer; a long training checkpoints and claims again."""
EMBEDDED_POLL_SECONDS = 0.02


def celery_config(settings: Settings) -> dict[str, Any]:
    """Return the configuration of a Celery application for this deployment's broker."""
    quorum = settings.broker_url.startswith("amqp")
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 5} if quorum else None
    return {
        "broker_url": settings.broker_url,
        "broker_transport_options": _transport_options(settings),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a broker that is away for an hour costs an hour, not the worker
        "broker_connection_timeout": 5,
        # JSON only: a pickle would turn access to the broker into code execution
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        # no result back end: the ledger is the truth, fan-in is a query
        "result_backend": None,
        "task_ignore_result": True,
        "task_store_errors_even_if_ignored": False,
        # the lease, not the acknowledgement, is the guarantee; on RabbitMQ late acks reserve nothing beyond prefetch
        "task_acks_late": quorum,
        "task_reject_on_worker_lost": False,  # on, a killing task loops on brokers without a delivery count
        "worker_prefetch_multiplier": 1,
        "worker_disable_prefetch": settings.broker_url.startswith(("redis", "rediss", "unix")),
        "worker_detect_quorum_queues": True,
        # one process per device, spawned so that no child inherits a CUDA context
        "worker_pool": "prefork",
        "worker_concurrency": 1,
        "worker_pool_start_method": "spawn",
        "worker_proc_alive_timeout": 60.0,  # a spawned child imports torch before it says hello
        "worker_max_tasks_per_child": None,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_enable_remote_control": True,  # its second connection is what notices a dead Redis
        "worker_send_task_events": False,
        "task_send_sent_event": False,
        "task_time_limit": HARD_LIMIT_SECONDS + 60,  # the last resort; our own watchdog acts first
        "task_create_missing_queues": False,
        "task_default_queue": "cpu.io",
        "task_queues": [
            Queue(name, Exchange(name, type="direct"), routing_key=name, queue_arguments=arguments) for name in QUEUES
        ],
        "task_publish_retry": True,
        "task_publish_retry_policy": {"max_retries": 2, "interval_start": 0, "interval_step": 0.2, "interval_max": 1},
        "worker_hijack_root_logger": False,
        "worker_redirect_stdouts": False,
    }


def _transport_options(settings: Settings) -> dict[str, Any]:
    scheme = settings.broker_url.split(":", 1)[0]
    if scheme == "filesystem":
        folder_broker.install()
        data, control = settings.bell_dir / "messages", settings.bell_dir / "control"
        # the state directory too: parents that mkdir makes by itself are open to everybody
        for folder in (settings.state_dir, settings.bell_dir, data, control):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if settings.bell_dir.stat().st_mode & 0o077:
            raise SettingsError(
                f"{settings.bell_dir} must be closed to other users (chmod 700): who writes it commands"
            )
        return {
            "data_folder_in": str(data),
            "data_folder_out": str(data),
            "control_folder": str(control),
            "polling_interval": EMBEDDED_POLL_SECONDS,
        }
    if scheme in ("redis", "rediss", "unix", "redis+socket"):
        return {
            "visibility_timeout": 2 * HARD_LIMIT_SECONDS,
            "socket_keepalive": True,
            "socket_timeout": 30,
            "socket_connect_timeout": 5,
            "health_check_interval": 30,
        }
    if scheme in ("amqp", "amqps", "pyamqp"):
        return {"confirm_publish": True}
    if scheme == "memory":
        return {}
    raise SettingsError(f"CELERY_BROKER_URL must be filesystem, redis or amqp, got {scheme!r}")


class Bell:
    """Sends hints; one per process, built from the settings."""

    def __init__(self, settings: Settings) -> None:
        self._app = Celery("fpga-bell", set_as_current=False)
        self._app.conf.update(celery_config(settings))

    def send(self, queue: str, body: dict[str, object]) -> None:
        """Send one message that wakes a worker of this queue.

        Raises:
            TransientError: the broker cannot be reached.
        """
        try:
            self._app.send_task(RUN_STAGE, kwargs=body, queue=queue, shadow=f"fpga.look {queue}")
        except (OperationalError, OSError) as error:
            raise TransientError(f"the broker did not take a message: {error}", code="broker_unavailable") from error
