"""The process that computes: its ledger, store and networks, and the loop that claims and settles work.

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
from contextlib import suppress
from types import FrameType

import billiard

from orchestrator import logs, tracing
from orchestrator.broker import Bell
from orchestrator.errors import ConflictError, FencedError, FpgaError, ModelError, NotFoundError, TransientError
from orchestrator.ledger import artifacts, batches, claims, hints, models, workers
from orchestrator.ledger.claims import Claim
from orchestrator.ledger.copies import drop_withdrawn
from orchestrator.ledger.session import Ledger
from orchestrator.settings import Settings, get_settings
from orchestrator.storage import open_store
from orchestrator.vault import Vault
from workers import stages, weights
from workers.celery import DRAIN_SIGNAL
from workers.engine import Engine, is_out_of_memory
from workers.figures import Figures
from workers.lease import Lease
from workers.stages.base import Done, DrainedError, Ended, Tools

log = logging.getLogger(__name__)
WARM_BOUND = 16
"""So many claims in a row may prefer the warm model before another batch gets its turn."""
TURN_SECONDS = 600.0
"""After so long in one queue the others get their turn, and Celery's limit on a task stays far away."""
FULL = ("store_full", "disk_full")
"""Errors that pause a batch until an operator has made room and resumes it."""
EXIT_SECONDS = 10.0
"""After the grace time a step may still have to end and its claims to be given back."""


class Process:
    """Everything a computing process holds, and its loop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.database_url)
        self.queues = [queue for queue in settings.worker_queues.split(",") if queue]
        self.worker_id = workers.register(self.ledger, owner=settings.owner, device=settings.device, queues=self.queues)
        self.engine = Engine(settings)
        self.tools = Tools(
            settings=settings,
            ledger=self.ledger,
            store=open_store(settings),
            engine=self.engine,
            vault=Vault.of(settings),
            draining=self._drain_is_due,
        )
        self.figures = Figures()
        self.figures.watch(self.ledger.engine)
        self._bell = Bell(settings)
        self._busy = threading.Lock()
        self._heard = time.monotonic()
        self._warm_claims = 0
        self._drain_until: float | None = None
        self._ended = threading.Event()

    def begin(self) -> None:
        """Load the champion's networks, then report ready and start the pulse."""
        self.figures.serve(self.settings)
        self._warm_up()
        workers.beat(self.ledger, self.worker_id, state="ready", warm=self.engine.warm)
        threading.Thread(target=self._pulse, name="pulse", daemon=True).start()
        log.info("worker ready", extra={"worker": self.worker_id, "queues": ",".join(self.queues)})

    def end(self) -> None:
        """Wait for what still computes, within the grace time, and leave the ledger's list of workers.

        Celery waits for its own tasks only; work that the pulse thread found by itself is waited for here.
        """
        self._ended.set()
        self.drain()
        if self._busy.acquire(timeout=self.settings.drain_seconds + EXIT_SECONDS):
            self._busy.release()
        workers.beat(self.ledger, self.worker_id, state="gone")
        self.ledger.dispose()

    def drain(self) -> None:
        """Claim nothing more; what is still computing after the grace time is given back."""
        if self._drain_until is None:
            self._drain_until = time.monotonic() + self.settings.drain_seconds
            log.info("draining", extra={"worker": self.worker_id})

    def _drain_is_due(self) -> bool:
        return self._drain_until is not None and time.monotonic() > self._drain_until

    def run(self, queue: str) -> None:
        """Claim and work until nothing is due in this queue, its turn is over, or the worker drains."""
        until = time.monotonic() + TURN_SECONDS
        with self._busy:
            while self._drain_until is None and time.monotonic() < until:
                held = self._claim(queue)
                if not held:
                    break
                self._work(held)
            self._heard = time.monotonic()
            hints.ring(self.ledger, self._bell.send, ttl_seconds=self.settings.hint_ttl_seconds)

    def _claim(self, queue: str) -> list[Claim]:
        warm = self.engine.warm if self._warm_claims < WARM_BOUND else None
        with self.figures.claim_seconds.time():
            held = claims.claim(
                self.ledger,
                worker_id=self.worker_id,
                queue=queue,
                limit=self.settings.group_size,
                lease_seconds=self.settings.lease_seconds,
                warm=warm,
            )
        if held:
            same = held[0].model_version_id in (None, self.engine.warm)
            self._warm_claims = self._warm_claims + 1 if same and warm else 0
        return held

    def _work(self, held: Sequence[Claim]) -> None:
        """Run one group of claims to their ends; a fault that cannot be pinned on one of them sends them out alone."""
        began = time.monotonic()
        settled: set[int] = set()
        first = held[0]
        traced = tracing.span(
            f"stage.{first.name}",
            parent=first.traceparent,
            batch=first.batch_id,
            items=len(held),
            worker=self.worker_id,
        )
        with traced, Lease(self.ledger, held, self.settings) as lease:
            live = claims.start(self.ledger, held)
            try:
                for c, outcome in self._run_stage(live, lease):
                    self._settle(c, outcome)
                    settled.add(c.stage_id)
                    lease.settled(c)
            except DrainedError:
                pass
            except Exception as error:  # noqa: BLE001 the outermost loop: no fault of an item may end the worker
                self._blame([c for c in live if c.stage_id not in settled | lease.stopped.keys()], error)
            self._let_go([c for c in held if c.stage_id not in settled], lease)
        seconds = time.monotonic() - began
        self.figures.group_seconds.labels(held[0].name).observe(seconds)
        self.figures.busy_seconds.inc(seconds)
        log.info(
            "group done",
            extra={
                "stage": held[0].name,
                "batch": held[0].batch_id,
                "items": len(held),
                "settled": len(settled),
                "seconds": round(seconds, 3),
            },
        )

    def _run_stage(self, live: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
        if live:
            stage = stages.load(live[0].name)
            self.engine.limit_threads()
            yield from stage(self.tools, live, lease)

    def _settle(self, c: Claim, outcome: Done | FpgaError) -> None:
        try:
            if isinstance(outcome, Done):
                with tracing.span("item.publish", item=c.item_id, stage=c.name, attempt=c.token):
                    claims.publish(self.ledger, c, outcome.result, outcome.effect)
                self.figures.items.labels(c.name, "completed").inc()
            else:
                self._fail(c, outcome)
        except FencedError:
            self._fenced(c, outcome)
        except TransientError as error:
            self._fail(c, error)
            self._unpublished(outcome)

    def _fenced(self, c: Claim, outcome: Done | FpgaError) -> None:
        """Leave a claim that is not ours any more; of one that was cancelled meanwhile, nothing is kept."""
        log.warning("fenced", extra=ids(c))
        self.figures.items.labels(c.name, "fenced").inc()
        if isinstance(outcome, Done) and claims.look(self.ledger, [c]).cancelled:
            with self.ledger.write() as session:
                artifacts.discard(session, outcome.result.get("artifacts", []))
        self._unpublished(outcome)
        claims.confirm_cancel(self.ledger, [c])

    def _unpublished(self, outcome: Done | FpgaError) -> None:
        """Leave no bytes behind that the cleaner could not know of."""
        if isinstance(outcome, Done):
            artifacts.came_late(self.ledger, outcome.result.get("artifacts", []))

    def _fail(self, c: Claim, error: FpgaError) -> None:
        if error.code in FULL:
            self._pause(c, error)
            return
        try:
            state = claims.fail(
                self.ledger,
                c,
                error,
                max_failures=self.settings.max_failures,
                backoff_seconds=self.settings.backoff_base_seconds,
            )
        except FencedError:
            self._fenced(c, error)
            return
        log.warning("attempt failed", extra={**ids(c), "code": error.code, "now": state})
        self.figures.items.labels(c.name, "failed" if state == "failed" else "again").inc()
        if state == "failed" and c.name == "ingest":
            with self.ledger.write() as session:
                artifacts.discard(session, [ref["artifact_id"] for ref in c.params["references"]])

    def _pause(self, c: Claim, error: FpgaError) -> None:
        """Stop the whole batch of a claim for want of room: no item is to blame, and each would fail the same way."""
        log.error("batch paused", extra={**ids(c), "code": error.code})
        with suppress(ConflictError):  # it has ended, or is being cancelled
            batches.pause(self.ledger, c.owner, c.batch_id, reason=f"{error.message} [{error.code}]")
        claims.release(self.ledger, [c])
        claims.confirm_cancel(self.ledger, [c])

    def _blame(self, unsettled: Sequence[Claim], error: Exception) -> None:
        """Decide who bears a fault that ended a whole group."""
        if isinstance(error, FpgaError):
            for c in unsettled:
                self._fail(c, error)
            return
        log.error("group failed", exc_info=error, extra={"items": [c.item_id for c in unsettled]})
        if len(unsettled) > 1:
            claims.release(self.ledger, unsettled, alone=True)
            return
        for c in unsettled:
            if is_out_of_memory(error):
                size = f"{c.params.get('width')}x{c.params.get('height')}"
                typed = FpgaError(f"the device has not enough memory for one item of {size}", code="out_of_memory")
            else:
                typed = FpgaError(f"{type(error).__name__} in stage {c.name}; the worker's log has the trace")
            self._fail(c, typed)

    def _let_go(self, rest: Sequence[Claim], lease: Lease) -> None:
        """Confirm what was cancelled, give back what was paused or drained, forget what was lost or already ended.

        A cancel between claim and start is confirmed here too, though the stage never saw the item.
        """
        by_reason: dict[str, list[Claim]] = {}
        for c in rest:
            by_reason.setdefault(lease.stopped.get(c.stage_id, "unfinished"), []).append(c)
        if cancelled := by_reason.get("cancelled"):
            claims.confirm_cancel(self.ledger, cancelled)
        if back := by_reason.get("paused", []) + by_reason.get("unfinished", []):
            claims.release(self.ledger, back)
            # a cancel may have arrived since the last look
            claims.confirm_cancel(self.ledger, back)

    def _warm_up(self) -> None:
        try:
            with self.ledger.read() as session:
                version = models.resolve(session, self.settings.preset)
            version = weights.here(self.ledger, self.tools.store, self.settings, version)
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
            try:
                state = "ready" if self._drain_until is None else "draining"
                if workers.beat(self.ledger, self.worker_id, state=state, warm=self.engine.warm):
                    self.drain()
                    os.kill(_listener(), signal.SIGTERM)
                    return
                drop_withdrawn(self.ledger, self.settings)
                if time.monotonic() - self._heard > self.settings.idle_look_seconds and not self._busy.locked():
                    for queue in self.queues:
                        self.run(queue)
            except TransientError as error:
                log.warning("ledger does not answer", extra={"error": error.code})


def _listener() -> int:
    """Return the pid of the Celery process that listens to the broker: our parent, or ourselves in the solo pool."""
    return os.getpid() if billiard.current_process().name == "MainProcess" else os.getppid()


def ids(c: Claim) -> dict[str, object]:
    """Return the fields that tell a line of the log what it is about."""
    return {"batch": c.batch_id, "item": c.item_id, "stage": c.name, "attempt": c.token}


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
