"""The embedded stack: lock, migrate, start everything at once, sweep, supervise, drain. All state in one directory.

The parent sweeps and supervises; the workers compute; a private Prefect server and its worker run the flows. Items
never wait for Prefect: it comes up beside them, and a stack whose Prefect is broken still completes its batches.
"""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

import httpx

from orchestrator.access import keys
from orchestrator.embedded import programs
from orchestrator.embedded.supervisor import Supervisor
from orchestrator.errors import FpgaError, TransientError
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import workers
from orchestrator.models import registry
from orchestrator.runtime.prefect import deployments
from orchestrator.runtime.prefect.client import Address, PrefectApi, locate
from orchestrator.runtime.running import announce, only_one, open_state_dir, status_path, web_url
from orchestrator.runtime.sweeping import Sweeper
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
CHECK_SECONDS = 0.2
SERVER_GRACE_SECONDS = 10.0
WORKER_EXTRA_SECONDS = 10.0
"""A worker gives back what takes longer than the drain allows; this is for saying so and leaving."""
OnEvent = Callable[[str, float], None]
"""Hears of each part that became ready: `on_event("worker", seconds since the start)`."""


class Stack:
    """One running embedded system; use it as a context manager.

    Args:
        settings: of this deployment; children get the same.
        prefect: whether flows run: on a private server, or on the configured one where there is.
        workers: how many Celery workers compute on this machine.
        api: whether the HTTP API and the pages are served.
    """

    def __init__(self, settings: Settings, *, prefect: bool = True, workers: int = 1, api: bool = False) -> None:
        self._settings = settings
        self._prefect = prefect
        self._workers = workers
        self._api = api
        self.api_url: str | None = None
        self._private: Address | None = None
        self._down: dict[str, str] = {}
        self._open = contextlib.ExitStack()
        self._supervisor = Supervisor(settings.state_dir / "logs")
        self._open.callback(self._supervisor.close)
        self._ending = threading.Event()
        self._flows_ready = threading.Event()
        self._threads: list[threading.Thread] = []
        self._failure: BaseException | None = None
        self._began, self._started_at = time.monotonic(), datetime.now(UTC)

    def start(self) -> None:
        """Take the state directory, migrate, register the preset's weights, and start every part.

        Raises:
            ConflictError: another process runs on this state directory.
            SettingsError: the state directory is open to other users.
            ModelError: the preset's weights are missing or wrong.
        """
        settings = self._settings
        open_state_dir(settings)
        self._open.enter_context(only_one(settings))
        self._open.callback(status_path(settings).unlink, missing_ok=True)
        # from here to the end SIGTERM is what Ctrl-C is: KeyboardInterrupt wherever we are, and `__exit__` drains
        self._open.callback(signal.signal, signal.SIGTERM, signal.signal(signal.SIGTERM, signal.default_int_handler))
        with contextlib.ExitStack() as undo:
            undo.callback(self.kill)
            self._tell()
            if self._prefect:
                self._start_prefect()
            if told := schema.upgrade(settings.database_url):
                log.info(told)
            self._ledger = Ledger.of(settings)
            self._open.callback(self._ledger.dispose)
            registry.ensure_registered(self._ledger, settings)
            if self._api:
                self._start_api()
            for number in range(self._workers):
                self._supervisor.add(programs.worker(settings, number))
            # the same name at every start, so that a restarted stack leads at once
            holder = f"{socket.gethostname()}:{settings.state_dir.absolute()}"
            self._run("sweeper", lambda: Sweeper(settings, holder=holder).run(self._ending))
            self._run("supervisor", self._supervise)
            undo.pop_all()  # all of it runs: nothing to undo

    def wait_ready(
        self, timeout_seconds: float = 120.0, on_event: OnEvent | None = None, *, prefect: bool = False
    ) -> None:
        """Return when all workers are ready, and with `prefect` when flows can run too.

        Raises:
            TransientError: `stack_slow`, that took longer than the timeout.
            FpgaError: `child_given_up`, a worker dies whenever it is started.
        """
        waiting = (
            {"worker": self._workers_ready}
            | ({"pages": self._api_ready} if self._api else {})
            | ({"prefect": self._flows_ready.is_set} if prefect else {})
        )
        while waiting:
            self.check()
            for name in [name for name, ready in waiting.items() if ready()]:
                del waiting[name]
                if on_event:
                    on_event(name, time.monotonic() - self._began)
            if waiting and time.monotonic() - self._began > timeout_seconds:
                raise TransientError(
                    f"{' and '.join(waiting)} not ready after {timeout_seconds:.0f} s; "
                    f"see {self._settings.state_dir / 'logs'}",
                    code="stack_slow",
                )
            time.sleep(0.1)

    def check(self) -> None:
        """Raise what ended a part of the stack that it cannot do without; return at once if all is well."""
        if self._failure is not None:
            raise self._failure

    def run_forever(self) -> None:
        """Stay until SIGINT or SIGTERM, and return then; the drain itself is `stop`.

        Raises:
            FpgaError: `child_given_up`, a worker dies whenever it is started.
        """
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                self.check()
                time.sleep(CHECK_SECONDS)

    def stop(self) -> bool:
        """Drain: workers finish or give back what they hold, then everything ends. Return whether all went in order.

        A second SIGINT or SIGTERM while this lasts ends everything at once.
        """
        self._ending.set()
        try:
            for thread in self._threads:
                thread.join()
            # killed, not drained: Prefect would call a drained flow run crashed, a killed one goes on at the next start
            self._supervisor.stop({programs.FLOW_WORKER: 0.0})
            grace = dict.fromkeys(self._supervisor.pids(), self._settings.drain_seconds + WORKER_EXTRA_SECONDS)
            if programs.SERVER in grace:
                grace[programs.SERVER] = SERVER_GRACE_SECONDS
            return self._supervisor.stop(grace)
        finally:
            self.kill()

    def kill(self) -> None:
        """End everything at once; leases lapse by themselves, and the next start goes on."""
        self._ending.set()
        self._supervisor.kill()
        self._open.close()

    def login_link(self) -> str:
        """Return a link that logs a browser in, once."""
        assert self.api_url is not None, "the pages are served"
        return keys.login_link(self._ledger, self._settings.owner, self.api_url)

    def _start_api(self) -> None:
        keys.local_key(self._ledger, self._settings)
        host = self._settings.api_host
        port = programs.free_port(host, self._settings.api_port)
        self._supervisor.add(programs.api(self._settings.model_copy(update={"api_port": port})))
        self.api_url = web_url(host, port)
        self._tell()

    def _api_ready(self) -> bool:
        try:
            return httpx.get(f"{self.api_url}/health/ready", timeout=2.0, trust_env=False).is_success
        except httpx.HTTPError:
            return False

    def _start_prefect(self) -> None:
        settings = self._settings
        private = settings.prefect_api_url is None
        address = programs.private_address(settings) if private else locate(settings)
        assert address is not None, "a configured server has an address"
        if private:
            self._supervisor.add(programs.prefect_server(settings, address))
        self._run("flows", lambda: self._prepare_flows(address, private=private))

    def _prepare_flows(self, address: Address, *, private: bool) -> None:
        """Wait for the server, make the deployments, let killed flow runs go on, then start the worker of flows."""
        with PrefectApi(address) as api:
            while not self._ending.wait(CHECK_SECONDS):
                try:
                    if not api.healthy():
                        continue
                    deployments.ensure(api)
                    if self._ledger is not None:
                        deployments.take_over(api, self._ledger)
                    if private:
                        deployments.continue_killed(api)
                        self._private = address
                        self._tell()
                except TransientError:
                    continue
                self._supervisor.add(programs.flow_worker(self._settings, address))
                self._flows_ready.set()
                log.info("flows ready", extra={"seconds": round(time.monotonic() - self._began, 1)})
                return

    def _tell(self) -> None:
        """Write who runs here, where, and what was given up."""
        where = self._private
        announce(
            self._settings,
            self.api_url,
            prefect_api_url=where.url if where else None,
            prefect_auth=where.auth if where else None,
            down=self._down,
        )

    def _supervise(self) -> None:
        while not self._ending.wait(CHECK_SECONDS):
            if (down := self._supervisor.given_up()) != self._down:
                for sentence in down.values():
                    log.error("part given up: %s", sentence)
                self._down = down
                self._tell()
            if sentences := self._supervisor.check():
                raise FpgaError("; ".join(sentences), code="child_given_up")

    def _workers_ready(self) -> bool:
        with self._ledger.read() as session:
            ready = [
                row
                for row in workers.living(session, now(session))
                if row.state == "ready" and row.host == socket.gethostname() and row.started_at >= self._started_at
            ]
        return len(ready) >= self._workers

    def _run(self, name: str, work: Callable[[], None]) -> None:
        def guarded() -> None:
            try:
                work()
            except Exception as error:  # noqa: BLE001 the outermost loop of a thread: the main thread raises it
                self._failure = error

        thread = threading.Thread(target=guarded, name=name, daemon=True)
        self._threads.append(thread)
        thread.start()

    def __enter__(self) -> Self:
        """Start."""
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Drain and stop."""
        self.stop()
