"""The process that computes: its ledger, store and networks, and the loop that claims and works.

One of these lives in each Celery child. A pulse thread reports the worker to the ledger and, when no message came for
a while, looks for work by itself, so that a dead broker costs latency and nothing else.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from functools import partial
from types import FrameType

import billiard

from orchestrator import logs, tracing
from orchestrator.errors import FpgaError, ModelError, NotFoundError, TransientError
from orchestrator.ledger import datasets, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, outcomes, wakeups, workers
from orchestrator.ledger.queue.claims import Claim
from orchestrator.pipelines import CROWDED_SECONDS
from orchestrator.runtime.broker import Bell
from orchestrator.secrets.credentials import Signer
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings, get_settings
from orchestrator.storage import ByteStore, open_store
from orchestrator.storage.copies import drop_withdrawn
from workers.celery import DRAIN_SIGNAL
from workers.runtime import weights
from workers.runtime.engine import Engine
from workers.runtime.lease import Clock, Lease
from workers.runtime.metrics import WorkerMetrics
from workers.runtime.publishing import Publisher, typed
from workers.runtime.stage import DrainedError, Ended, StageContext, load

log = logging.getLogger(__name__)
WARM_BOUND = 16
"""So many claims in a row may prefer the warm model before another batch gets its turn."""
TURN_SECONDS = 600.0
"""After so long the message is over, and Celery's limit on a task stays far away."""
ASK_SECONDS = 1.0
BESIDE = "beside"
EXIT_SECONDS = 10.0
"""After the grace time a step may still have to end and its claims to be given back."""


class Process:
    """Everything a computing process holds, and its loop."""

    def __init__(
        self,
        settings: Settings,
        *,
        ledger: Ledger | None = None,
        store: ByteStore | None = None,
        engine: Engine | None = None,
        bell: Bell | None = None,
        clock: Clock = time.monotonic,
        lease: type[Lease] = Lease,
        publisher: type[Publisher] = Publisher,
    ) -> None:
        """Take what it works with, or open what the settings name.

        Args:
            clock: seconds of a clock that nobody sets.
            lease: keeps its claims; simulations have one without a thread, and such a `publisher`.
        """
        self.settings = settings
        self.ledger = ledger or Ledger.of(settings)
        self.queues = [queue for queue in settings.worker_queues.split(",") if queue]
        self.worker_id = workers.register(self.ledger, owner=settings.owner, device=settings.device, queues=self.queues)
        self.engine = engine or Engine(settings)
        self._clock = clock
        self.context = StageContext(
            settings=settings,
            ledger=self.ledger,
            store=store or open_store(settings),
            engine=self.engine,
            vault=Vault.of(settings),
            signer=Signer.of(settings),
            draining=self._drain_is_due,
            crowded=self._is_crowded,
            make_room=self._make_room,
        )
        self.metrics = WorkerMetrics()
        self.metrics.watch(self.ledger.engine)
        self.lease = lease(self.ledger, settings, clock)
        self.publisher = publisher(self.ledger, self.context.store, settings, self.lease, self.metrics)
        self._bell = bell or Bell(settings)
        self._busy = threading.Lock()
        self._heard = clock()
        self._asked = clock()
        self._warm_claims = 0
        self._drain_until: float | None = None
        self._ended = threading.Event()
        self.lease.begin()
        self.publisher.begin()

    def begin(self) -> None:
        """Load the champion's networks, then report ready and start the pulse."""
        self.metrics.serve(self.settings)
        self._warm_up()
        workers.beat(self.ledger, self.worker_id, state="ready", warm=self.engine.warm)
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        if self.context.signer.why_not:
            log.warning("pictures are not signed", extra={"reason": self.context.signer.why_not})
        log.info("worker ready", extra={"worker": self.worker_id, "queues": ",".join(self.queues)})

    def end(self) -> None:
        """Wait for what still computes, within the grace time, and leave the ledger's list of workers.

        Celery waits for its own tasks only; work that the pulse thread found by itself is waited for here.
        """
        self._ended.set()
        self.drain()
        if self._busy.acquire(timeout=self.settings.drain_seconds + EXIT_SECONDS):
            self._busy.release()
        self.lease.end()
        workers.beat(self.ledger, self.worker_id, state="gone")
        self.ledger.dispose()

    def drain(self) -> None:
        """Claim nothing more; what is still computing after the grace time is given back."""
        if self._drain_until is None:
            self._drain_until = self._clock() + self.settings.drain_seconds
            log.info("draining", extra={"worker": self.worker_id})

    def _drain_is_due(self) -> bool:
        return self._drain_until is not None and self._clock() > self._drain_until

    def _is_crowded(self, since: float) -> bool:
        """Whether long work, which began at `since`, should make room: at once for what somebody waits for."""
        if self._clock() - self._asked < ASK_SECONDS:
            return False
        self._asked = self._clock()
        lanes = ("interactive", "bulk") if self._clock() - since > CROWDED_SECONDS else ("interactive",)
        return claims.wanted(self.ledger, queues=self.queues, lanes=lanes)

    def _make_room(self, c: Claim, since: float) -> float:
        """Do what is due beside long work, in its middle and in a thread of its own; see `StageContext.make_room`."""
        if not self._is_crowded(since) or not claims.step_aside(self.ledger, c):
            return since
        began = self._clock()
        lanes = ("interactive", "bulk") if began - since > CROWDED_SECONDS else ("interactive",)
        until = began + (claims.AGEING_SECONDS if c.lane == "training" else CROWDED_SECONDS)
        while self._drain_until is None and self._clock() < until and c.stage_id not in self.lease.stopped:
            held = self._claim(brief=lanes)
            if not held:
                break
            beside = threading.Thread(target=self._work, args=(held,), name=BESIDE)
            beside.start()
            beside.join()
            self.publisher.flush()
            self.lease.progress(c)
        claims.step_back(self.ledger, c, self._clock() - began)
        # what only somebody waits for does not renew the time that a bulk batch has waited
        return self._clock() if "bulk" in lanes else since

    def run(self, number: int | None = None) -> bool:
        """Claim and work until nothing is due in any of its queues, its turn is over, or the worker drains.

        Args:
            number: of the message that woke it.

        Returns:
            Whether anything was due.
        """
        until, worked = self._clock() + TURN_SECONDS, False
        with self._busy:
            if number is not None:
                wakeups.taken(self.ledger, number)
            try:
                while self._drain_until is None and self._clock() < until:
                    held = self._claim()
                    if held:
                        self._work(held)
                        worked = True
                    elif self.publisher.idle:
                        break
                    if len(held) < 2 or held[0].lane == "interactive":
                        # nothing left, or it may be that what waits brings more; who ran alone, to be cleared or
                        # convicted, is cleared before anybody else may end this process; and what follows a stage
                        # that somebody waits for must be queued before the next claim looks
                        self.publisher.flush()
            finally:
                self.publisher.flush()
            self._heard = self._clock()
            wakeups.ring(self.ledger, self._bell.send, ttl_seconds=self.settings.hint_ttl_seconds)
        return worked

    def _claim(self, brief: Sequence[str] = ()) -> list[Claim]:
        warm = self.engine.warm if self._warm_claims < WARM_BOUND else None
        with self.metrics.claim_seconds.time():
            held = claims.claim(
                self.ledger,
                worker_id=self.worker_id,
                queues=self.queues,
                limit=self.settings.group_size,
                lease_seconds=self.settings.lease_seconds,
                warm=warm,
                begin=True,
                brief=brief,
            )
        if held:
            same = held[0].model_version_id in (None, self.engine.warm)
            self._warm_claims = self._warm_claims + 1 if same and warm else 0
        return held

    def _work(self, held: Sequence[Claim]) -> None:
        """Run one group of claims and hand each end over; a fault that is nobody's own sends them out alone."""
        began = self._clock()
        handed: set[int] = set()
        first = held[0]
        self.lease.hold(held)
        try:
            with tracing.span(
                f"stage.{first.name}",
                parent=first.traceparent,
                batch=first.batch_id,
                items=len(held),
                worker=self.worker_id,
            ):
                try:
                    for c, outcome in self._run_stage(held):
                        self.publisher.hand(c, outcome)
                        handed.add(c.stage_id)
                except DrainedError:
                    pass
                except Exception as error:  # noqa: BLE001 the outermost loop: no fault of an item may end the worker
                    unsettled = [c for c in held if c.stage_id not in handed | self.lease.stopped.keys()]
                    self._blame(unsettled, error)
                    handed |= {c.stage_id for c in unsettled}  # their end is under way: they are not given back too
                self._let_go([c for c in held if c.stage_id not in handed])
        finally:
            self.lease.drop([c for c in held if c.stage_id not in handed])
        seconds = self._clock() - began
        self.metrics.group_seconds.labels(first.name).observe(seconds)
        if threading.current_thread().name != BESIDE:  # who made room is busy all the while
            self.metrics.busy_seconds.inc(seconds)
        about = {"stage": first.name, "batch": first.batch_id, "items": len(held), "ended": len(handed)}
        log.info("group done", extra={**about, "seconds": round(seconds, 3)})

    def _run_stage(self, held: Sequence[Claim]) -> Iterator[Ended]:
        stage = load(held[0].name)
        self.engine.limit_threads()
        yield from stage(self.context, held, self.lease)

    def _blame(self, unsettled: Sequence[Claim], error: Exception) -> None:
        """Decide who bears a fault that ended a whole group."""
        if not isinstance(error, FpgaError) and len(unsettled) > 1:
            log.error("group failed", exc_info=error, extra={"items": [c.item_id for c in unsettled]})
            outcomes.release(self.ledger, unsettled, alone=True)
            outcomes.confirm_cancel(self.ledger, unsettled)
            self.lease.drop(unsettled)
            return
        for c in unsettled:
            self.publisher.hand(c, typed(c, error))

    def _let_go(self, rest: Sequence[Claim]) -> None:
        """Confirm what was cancelled, give back what was paused or drained, forget what was lost or already ended.

        A cancel before the stage began is confirmed here too, though it never saw the item.
        """
        by_reason: dict[str, list[Claim]] = {}
        for c in rest:
            by_reason.setdefault(self.lease.stopped.get(c.stage_id, "unfinished"), []).append(c)
        if cancelled := by_reason.get("cancelled"):
            outcomes.confirm_cancel(self.ledger, cancelled)
        if back := by_reason.get("paused", []) + by_reason.get("unfinished", []):
            outcomes.release(self.ledger, back)
            # a cancel may have arrived since the last look
            outcomes.confirm_cancel(self.ledger, back)

    def _warm_up(self) -> None:
        try:
            with self.ledger.read() as session:
                version = models.resolve(session, self.settings.preset)
            version = weights.here(self.ledger, self.context.store, self.settings, version)
            if not self.settings.probes:
                self.engine.faces(version)
            if {"gpu.generate", "gpu.restore"} & set(self.queues):
                self.engine.portraits(version)
        except NotFoundError:
            log.info("no model version registered yet", extra={"preset": self.settings.preset})
        except (ModelError, TransientError) as error:
            # items say what is wrong with their model; a worker that dies here would only be restarted for ever
            log.error("warm-up failed", extra={"code": error.code})

    def _pulse(self) -> None:
        """Report to the ledger; look for work when it has been quiet; obey a drain that was asked for."""
        wait = min(self.settings.heartbeat_seconds, self.settings.idle_look_seconds)
        while not self._ended.wait(wait):
            with logs.surviving("pulse missed"):
                state = "ready" if self._drain_until is None else "draining"
                if workers.beat(self.ledger, self.worker_id, state=state, warm=self.engine.warm):
                    self.drain()
                    os.kill(_listener(), signal.SIGTERM)
                    return
                drop_withdrawn(self.settings.state_dir / "datasets", partial(datasets.withdrawn, self.ledger))
                quiet = self._clock() - self._heard > self.settings.idle_look_seconds
                if quiet and not self._busy.locked() and self.run():
                    wakeups.lost(self.ledger, self.queues)


def _listener() -> int:
    """Return the pid of the Celery process that listens to the broker: our parent, or ourselves in the solo pool."""
    return os.getpid() if billiard.current_process().name == "MainProcess" else os.getppid()


_process: Process | None = None


def begin() -> None:
    """Set this process up; called once, by the signal of a new computing process."""
    global _process
    settings = get_settings()
    logs.setup(settings)
    tracing.setup(settings, "worker")
    _process = Process(settings)
    if threading.current_thread() is threading.main_thread():
        signal.signal(DRAIN_SIGNAL, _on_signal)
    _process.begin()


def current() -> Process:
    """Return this process's state; `begin` must have run."""
    assert _process is not None, "the process was not set up"
    return _process


def drain() -> None:
    """Let the process finish what it holds and claim nothing more."""
    current().drain()


def end() -> None:
    """Close what the process holds."""
    if _process is not None:
        _process.end()


def _on_signal(_: int, __: FrameType | None) -> None:
    drain()
