"""Other task queues, each reduced to two things: serve with one process, send one job. A job sleeps and notes its time.

    python -m benchmarks.queue.rivals celery redis://127.0.0.1/1 marks.txt      # serves until it is killed

Each is set up to lose no job when its worker dies, as far as it can, and otherwise left at its defaults.
"""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

NAMES = ("celery", "dramatiq", "taskiq", "rq", "huey")
"""Those that need nothing but Redis."""
Send = Callable[[int, float], None]
"""Sends one job: its number, and the milliseconds that it sleeps."""
marks: list[Path] = []


def work(number: int, milliseconds: float) -> None:
    """Sleep, then note number, begin and end on the system's monotonic clock; one write, so that lines never mix."""
    began = time.monotonic()
    time.sleep(milliseconds / 1000)
    line = f"{number} {began:.6f} {time.monotonic():.6f}\n"
    file = os.open(marks[0], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.write(file, line.encode())
    os.close(file)


def _celery(url: str) -> tuple[Send, Callable[[], None]]:
    from celery import Celery  # noqa: PLC0415 each system is loaded in its own process alone

    app = Celery("bench", broker=url)
    app.conf.update(
        task_acks_late=True, worker_prefetch_multiplier=1, task_ignore_result=True, task_default_queue="bench"
    )
    app.task(work, name="work")
    arguments = ["worker", "--concurrency", "1", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"]
    return lambda number, ms: app.send_task("work", (number, ms)), lambda: app.worker_main(arguments)


def _dramatiq(url: str) -> tuple[Send, Callable[[], None]]:
    dramatiq = importlib.import_module("dramatiq")
    broker = importlib.import_module("dramatiq.brokers.redis").RedisBroker(url=url)
    dramatiq.set_broker(broker)
    actor = dramatiq.actor(work, broker=broker)

    def serve() -> None:
        dramatiq.Worker(broker, worker_threads=1).start()
        while True:
            time.sleep(60)

    return actor.send, serve


def _taskiq(url: str) -> tuple[Send, Callable[[], None]]:
    broker = importlib.import_module("taskiq_redis").RedisStreamBroker(url=url)
    task = broker.task(work)
    loop = asyncio.new_event_loop()
    begun: list[bool] = []

    def send(number: int, milliseconds: float) -> None:
        if not begun:
            loop.run_until_complete(broker.startup())
            begun.append(True)
        loop.run_until_complete(task.kiq(number, milliseconds))

    def serve() -> None:
        run = importlib.import_module("taskiq.api").run_receiver_task
        asyncio.run(run(broker, sync_workers=1, max_async_tasks=1, run_startup=True))

    return send, serve


def _rq(url: str) -> tuple[Send, Callable[[], None]]:
    rq, redis = importlib.import_module("rq"), importlib.import_module("redis")
    queue = rq.Queue("bench", connection=redis.Redis.from_url(url))

    def send(number: int, milliseconds: float) -> None:
        queue.enqueue("benchmarks.queue.rivals.work", number, milliseconds, result_ttl=0)

    # its usual worker forks for every job; the simple one is the faster
    return send, lambda: rq.SimpleWorker([queue], connection=queue.connection).work(logging_level="ERROR")


def _huey(url: str) -> tuple[Send, Callable[[], None]]:
    huey = importlib.import_module("huey").RedisHuey("bench", url=url, results=False)
    task = huey.task(name="work")(work)  # taskiq renames the function
    return task, lambda: huey.create_consumer(workers=1).run()


def _procrastinate(url: str) -> tuple[Send, Callable[[], None]]:
    procrastinate = importlib.import_module("procrastinate")
    sync = procrastinate.App(connector=procrastinate.SyncPsycopgConnector(conninfo=url))
    task = sync.task(work, name="work")

    def send(number: int, milliseconds: float) -> None:
        task.defer(number=number, milliseconds=milliseconds)

    def serve() -> None:
        app = sync.with_connector(procrastinate.PsycopgConnector(conninfo=url))
        app.run_worker(concurrency=1, delete_jobs="successful")

    sync.open()
    if not sync.check_connection():
        sync.schema_manager.apply_schema()
    return send, serve


SYSTEMS = {
    "celery": _celery,
    "dramatiq": _dramatiq,
    "taskiq": _taskiq,
    "rq": _rq,
    "huey": _huey,
    "procrastinate": _procrastinate,
}


def sender(name: str, url: str) -> Send:
    """Return what sends jobs to one system.

    Raises:
        ImportError: the extra `bench` is not installed.
    """
    return SYSTEMS[name](url)[0]


def main(arguments: list[str]) -> Any:
    """Serve one system: its name, the Redis URL, the file for marks."""
    name, url, path = arguments
    marks.append(Path(path))
    logging.basicConfig(level=logging.ERROR)
    # the module that jobs are found in is this one, by the name that a sender knows
    module = importlib.import_module("benchmarks.queue.rivals")
    module.marks.append(Path(path))
    module.SYSTEMS[name](url)[1]()


if __name__ == "__main__":
    main(sys.argv[1:])
