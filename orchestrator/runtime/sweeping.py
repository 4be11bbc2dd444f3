"""The sweeper's loop: lead, repair, remove expired bytes, deliver, ring. Any number may run; one leads.

`python -m orchestrator.runtime.sweeping` runs it by itself beside a scaled-out deployment; `fpga up` in its parent.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from types import FrameType

from orchestrator import logs
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy import erasure
from orchestrator.ledger.queue import sweeper, wakeups
from orchestrator.people import retention
from orchestrator.photos import uploads
from orchestrator.results import thumbnails
from orchestrator.runtime import dispatch, reading, schedules, webhooks
from orchestrator.runtime.broker import Bell
from orchestrator.runtime.parts import Teller
from orchestrator.runtime.prefect.client import locate
from orchestrator.runtime.prefect.watcher import Watcher
from orchestrator.settings import Settings, get_settings
from orchestrator.storage import ByteStore, open_store

log = logging.getLogger(__name__)
GLANCE_SECONDS = 0.01
"""So often the bell's thread asks whether anything was requested."""
END_SECONDS = 10.0
"""So long the end waits for readers of archives to give up what they hold."""
STALE_SECONDS = 3600.0
"""Every so often pieces of this age that killed writers left in the byte store go, and what was kept long enough."""


class Sweeper:
    """What one process needs to sweep; `holder` is the name under which it leads."""

    def __init__(
        self,
        settings: Settings,
        *,
        holder: str | None = None,
        ledger: Ledger | None = None,
        store: ByteStore | None = None,
        bell: Bell | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Take what it works with, or open what the settings name; `clock` has seconds and is set by nobody."""
        self._settings = settings
        self._holder = holder or f"{socket.gethostname()}:{os.getpid()}"
        self._ledger = ledger or Ledger.of(settings)
        self._store = store or open_store(settings)
        self._bell = bell or Bell(settings)
        self._clock = clock
        self._parts = Teller(self._ledger, settings)
        self._tidied = -STALE_SECONDS  # a machine's clock begins at its start, whose first hour counts as well
        self._leads = False

    def run(self, stop: threading.Event) -> None:
        """Sweep every `sweep_seconds` until told to stop; what is away now is tried again at the next round."""
        threading.Thread(target=self._tell, args=(stop,), name="webhooks", daemon=True).start()
        threading.Thread(target=self._ring, args=(stop,), name="bell", daemon=True).start()
        threading.Thread(target=self._schedule, args=(stop,), name="schedules", daemon=True).start()
        threading.Thread(target=self._show, args=(stop,), name="flows", daemon=True).start()
        archives = threading.Thread(target=self._read, args=(stop,), name="archives", daemon=True)
        archives.start()
        while not stop.is_set():
            with logs.surviving("sweep put off"):
                self.round()
            stop.wait(self._settings.sweep_seconds)
        archives.join(END_SECONDS)
        self._ledger.dispose()

    def _ring(self, stop: threading.Event) -> None:
        """Announce what was queued since the last look, in a thread of its own: nobody should wait for a sweep.

        It looks when something was asked of the system, and every `ring_seconds`.
        """
        ledger, bell = Ledger.of(self._settings), Bell(self._settings)
        requests, looked = wakeups.Requests(ledger), 0.0
        while not stop.wait(min(GLANCE_SECONDS, self._settings.ring_seconds)):
            done = False
            with logs.surviving("bell put off"):
                due = requests.came() or time.monotonic() - looked >= self._settings.ring_seconds
                if due and self._leads:
                    dispatch.ring(ledger, self._settings, bell)
                    looked = time.monotonic()
                done = True
            if not done:
                stop.wait(self._settings.sweep_seconds)
        ledger.dispose()

    def _tell(self, stop: threading.Event) -> None:
        """Deliver events to their receivers, in a thread of its own: they may be slow or dead."""
        ledger = Ledger.of(self._settings)
        while not stop.is_set():
            with logs.surviving("webhooks put off"):
                while self._leads and webhooks.deliver(ledger, self._settings):
                    pass
            stop.wait(self._settings.sweep_seconds)
        ledger.dispose()

    def _schedule(self, stop: threading.Event) -> None:
        """Make batches of schedules whose time has come, in a thread of its own: a manifest may be long."""
        ledger = Ledger.of(self._settings)
        while not stop.is_set():
            with logs.surviving("schedules put off"):
                if self._leads:
                    schedules.look(ledger, self._store, self._settings)
            stop.wait(self._settings.sweep_seconds)
        ledger.dispose()

    def _read(self, stop: threading.Event) -> None:
        """Read archives and write what is finished of them, each in a thread of its own: they may be long or far."""
        ledger = Ledger.of(self._settings)
        readers = reading.Readers(ledger, self._store, self._settings, stop)
        while not stop.is_set():
            with logs.surviving("archives put off"):
                if self._leads:
                    readers.look()
            stop.wait(self._settings.sweep_seconds)
        readers.close()
        ledger.dispose()

    def _show(self, stop: threading.Event) -> None:
        """Show batches to Prefect as its flow runs, in a thread of its own: that server may be slow or dead."""
        ledger = Ledger.of(self._settings)
        watcher = Watcher(ledger, self._settings)
        while not stop.is_set():
            with logs.surviving("flow runs put off"):
                if self._leads and locate(self._settings):
                    watcher.look()
            stop.wait(self._settings.sweep_seconds)
        ledger.dispose()

    def round(self) -> bool:
        """Do one round if this process leads, and return whether it does."""
        lease = max(15.0, 5 * self._settings.sweep_seconds)
        self._leads = sweeper.lead(self._ledger, holder=self._holder, owner=self._settings.owner, seconds=lease)
        if not self._leads:
            return False
        # the bell before everything that may wait for a store or a server; each part by itself, whatever ends another
        for part in (
            lambda: sweeper.sweep(self._ledger, self._settings),
            lambda: dispatch.ring(self._ledger, self._settings, self._bell),
            lambda: dispatch.deliver(self._ledger, self._settings, ["batch.ended"]),
            lambda: remove_expired(self._ledger, self._store),
            lambda: uploads.remove_overdue(self._ledger, self._store),
            lambda: erasure.forget_failed(self._ledger),
            self._parts.look,
            self._tidy,
        ):
            with logs.surviving("part of a sweep put off"):
                part()
        return True

    def _tidy(self) -> None:
        """Every now and then: remove what killed writers left, and what was kept long enough."""
        if self._clock() - self._tidied <= STALE_SECONDS:
            return
        self._store.sweep_stale(STALE_SECONDS, spare=uploads.PREFIX)
        gone = retention.clean(self._ledger, self._store, self._settings)
        if any(one.count for one in gone):
            log.info("cleaned", extra={one.name: one.count for one in gone})
        self._tidied = self._clock()


def remove_expired(ledger: Ledger, store: ByteStore) -> int:
    """Remove the bytes of artifacts whose time is over, and return how many those were."""
    gone = []
    for artifact_id, key in sweeper.expired_artifacts(ledger):
        with logs.surviving("bytes not removed", artifact=artifact_id):
            thumbnails.delete(store, key)
            gone.append(artifact_id)
    if gone:
        sweeper.artifacts_deleted(ledger, gone)
    return len(gone)


def main() -> None:
    """Sweep until SIGTERM or SIGINT."""
    settings = get_settings()
    logs.setup(settings)
    stop = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, end)
    signal.signal(signal.SIGINT, end)
    Sweeper(settings).run(stop)


if __name__ == "__main__":
    main()
