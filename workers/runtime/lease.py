"""Keeps claims alive from a side thread while others compute and publish, and says which of them must stop.

Leases are renewed only while the work itself makes progress: a hung kernel under a live thread must not hold an item
for ever, so when nothing has moved for `stall_seconds` the whole process ends itself. A timer of the C runtime does the
same where foreign code never lets the side thread run.
"""

from __future__ import annotations

import faulthandler
import logging
import os
import threading
import time
from collections.abc import Callable, Sequence

from orchestrator import logs
from orchestrator.errors import TransientError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims
from orchestrator.ledger.queue.claims import Beat, Claim, Sign
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
EXIT_STALLED = 86
STDERR = 2


Clock = Callable[[], float]


class Lease:
    """The claims that a process holds, kept alive; `stopped` maps stage id to lost, cancelled or paused."""

    def __init__(self, ledger: Ledger, settings: Settings, clock: Clock = time.monotonic) -> None:
        self._ledger = ledger
        self._settings = settings
        self._clock = clock
        self._held: list[Claim] = []
        self._progress: dict[int, Sign] = {}
        self._moved = self._renewed = self._clock()
        self._changing = threading.Lock()
        self._ended = threading.Event()
        self.stopped: dict[int, str] = {}

    def begin(self) -> None:
        """Start the side thread."""
        threading.Thread(target=self._keep, name="lease", daemon=True).start()

    def end(self) -> None:
        """Let the side thread end."""
        self._ended.set()

    def hold(self, held: Sequence[Claim]) -> None:
        """Care for these claims, which have just been leased, as well."""
        with self._changing:
            self._moved = self._clock()
            if not self._held:
                self._renewed = self._moved
            self._progress |= dict.fromkeys((c.stage_id for c in held), Sign())
            self._held = [*self._held, *held]
            self._wind_up()

    def drop(self, ended: Sequence[Claim]) -> None:
        """Stop caring for claims whose end is recorded, or that are somebody else's now."""
        with self._changing:
            self._moved = self._clock()
            self._held = [c for c in self._held if c not in ended]
            for c in ended:
                self._progress.pop(c.stage_id, None)
                self.stopped.pop(c.stage_id, None)
            self._wind_up()

    @property
    def held(self) -> bool:
        """Whether there is anything to care for."""
        return bool(self._held)

    def progress(self, c: Claim, share: float | None = None) -> None:
        """Note that the work on a claim goes on, and has come to `share` in [0, 1] where that is known."""
        before = self._progress.get(c.stage_id, Sign())
        self._progress[c.stage_id] = Sign(count=before.count + 1, share=before.share if share is None else share)
        self._moved = self._clock()

    def _keep(self) -> None:
        wait = min(LOOK_SECONDS, self._settings.heartbeat_seconds)
        while not self._ended.wait(wait):
            with logs.surviving("lease not looked after"):
                with self._changing:
                    self._wind_up()
                self.look()

    def _wind_up(self) -> None:
        """Set the timer that ends the process, with a trace of where it hangs, unless it is set again in time."""
        if self._held:
            faulthandler.dump_traceback_later(self._settings.stall_seconds, exit=True, file=STDERR)
        else:
            faulthandler.cancel_dump_traceback_later()

    def _give_up(self) -> None:
        os._exit(EXIT_STALLED)

    def look(self) -> None:
        """Renew what is due, and note what must stop; the side thread does this twice a second."""
        held = self._held
        if not held:
            return
        if self._clock() - self._moved > self._settings.stall_seconds:
            log.critical("no progress, process gives up", extra={"stages": [c.stage_id for c in held]})
            self._give_up()
        try:
            self._stop(held, self._ask(held))
        except TransientError as error:
            log.warning("ledger does not answer", extra={"error": error.code})
            if self._clock() - self._renewed > self._settings.lease_seconds:
                self._stop(held, Beat(lost=frozenset(c.stage_id for c in held)))

    def _ask(self, held: Sequence[Claim]) -> Beat:
        if self._clock() - self._renewed < self._settings.heartbeat_seconds:
            return claims.look(self._ledger, held)
        answer = claims.beat(
            self._ledger, held, progress=dict(self._progress), lease_seconds=self._settings.lease_seconds
        )
        self._renewed = self._clock()
        return answer

    def _stop(self, asked: Sequence[Claim], answer: Beat) -> None:
        with self._changing:
            # meanwhile some may have ended, and even have been claimed again
            holding = {c.stage_id for c in self._held if c in asked}
            for reason, ids in (("lost", answer.lost), ("cancelled", answer.cancelled), ("paused", answer.paused)):
                for stage_id in ids & holding:
                    self.stopped.setdefault(stage_id, reason)
