"""Records the ends of claims in a thread of its own, as many in one transaction as wait, while the next are computed.

What was computed is stored and published here: artifacts reserved, bytes put, then stage, item, output and attempt
written at once. Claims stay leased until their end is recorded, so a process killed in between loses time and no more.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass

from orchestrator import tracing
from orchestrator.contracts.portraits import PortraitParams
from orchestrator.errors import ConflictError, FencedError, FpgaError, TransientError
from orchestrator.ledger import artifacts
from orchestrator.ledger.artifacts import NewArtifact
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue import batches, claims, outcomes
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome, Upload
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from workers.runtime.engine import is_out_of_memory
from workers.runtime.lease import Lease
from workers.runtime.metrics import WorkerMetrics

log = logging.getLogger(__name__)
FULL = ("store_full", "disk_full")
"""Errors that pause a batch until an operator has made room and resumes it."""
PUTS = 4
"""So many results are sent to the byte store at a time."""


Made = tuple[Claim, Outcome]


@dataclass(frozen=True, kw_only=True)
class End:
    """The end of a claim on its way into the ledger: what it came to, or why it came to nothing."""

    claim: Claim
    came: Outcome | FpgaError
    traceparent: str | None


class Publisher:
    """Takes the ends of claims from the thread that computes; holds no more than a few groups of them."""

    def __init__(
        self, ledger: Ledger, store: ByteStore, settings: Settings, lease: Lease, metrics: WorkerMetrics
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._settings = settings
        self._lease = lease
        self._metrics = metrics
        self._waiting: list[End] = []
        self._under_way = 0
        self._changed = threading.Condition()
        self._putters = ThreadPoolExecutor(PUTS, thread_name_prefix="store")

    def begin(self) -> None:
        """Start the thread."""
        threading.Thread(target=self._run, name="publisher", daemon=True).start()

    @property
    def idle(self) -> bool:
        """Whether every end that was handed over is recorded."""
        return not self._waiting and not self._under_way

    def hand(self, c: Claim, came: Outcome | FpgaError) -> None:
        """Take over the end of a claim; waits while two groups are still to be recorded."""
        self._until(lambda: len(self._waiting) < 2 * self._settings.group_size)
        with self._changed:
            self._waiting.append(End(claim=c, came=came, traceparent=tracing.traceparent()))
            self._changed.notify_all()

    def flush(self) -> None:
        """Wait until every end that was handed over is recorded."""
        self._until(lambda: self.idle)

    def round(self) -> None:
        """Record what waits now; what the ledger does not take is left to its lease."""
        with self._changed:
            ends, self._waiting = self._waiting, []
            self._under_way = len(ends)
            self._changed.notify_all()
        try:
            self._record(ends)
        except TransientError as error:
            log.warning("ledger does not answer", extra={"error": error.code})
        finally:
            self._lease.drop([end.claim for end in ends])
            with self._changed:
                self._under_way = 0
                self._changed.notify_all()

    def _run(self) -> None:
        while True:
            self._until(lambda: bool(self._waiting))
            try:
                self.round()
            except Exception:  # the outermost loop of the thread: whose ends it held are left to their leases
                log.exception("ends not recorded")

    def _until(self, holds: Callable[[], bool]) -> None:
        with self._changed:
            self._changed.wait_for(holds)

    def _record(self, ends: Sequence[End]) -> None:
        for end in ends:
            if isinstance(end.came, FpgaError):
                self._fail(end.claim, end.came)
        parents = {end.claim.stage_id: end.traceparent for end in ends}
        if stored := self._stored([(end.claim, end.came) for end in ends if isinstance(end.came, Outcome)]):
            self._publish(stored, parents)

    def _stored(self, made: Sequence[Made]) -> list[Made]:
        """Put the bytes of these results, and return those of which all are there; the others fail, each by itself."""
        try:
            ids = self._reserve([(c.owner, upload) for c, outcome in made for upload in outcome.uploads])
        except TransientError as error:
            for c, _ in made:
                self._fail(c, error)
            return []
        stored = []
        for one, fault in zip(made, self._each(lambda one: self._put(one, ids), made), strict=True):
            if fault is None:
                stored.append(one)
            else:
                self._fail(one[0], fault)
        return stored

    def _each(self, put: Callable[[Made], FpgaError | None], made: Sequence[Made]) -> list[FpgaError | None]:
        """Put the bytes of several results at a time: a store is waited for, not computed with."""
        return list(self._putters.map(put, made))

    def _put(self, made: Made, ids: Mapping[tuple[str, str], str]) -> FpgaError | None:
        c, outcome = made
        try:
            for upload in outcome.uploads:
                upload.artifact_id = ids.get((c.owner, upload.sha256))
                if upload.artifact_id is None:
                    raise artifacts.being_deleted(upload.sha256)
                self._store.put(upload.key, upload.data, media_type=upload.media_type, sha256=upload.sha256)
        except FpgaError as error:
            return error
        return None

    def _reserve(self, uploads: Sequence[tuple[str, Upload]]) -> dict[tuple[str, str], str]:
        new = [
            NewArtifact(owner=owner, sha256=one.sha256, key=one.key, size=len(one.data), media_type=one.media_type)
            for owner, one in uploads
        ]
        return artifacts.reserve_all(self._ledger, new) if new else {}

    def _together(self, made: Sequence[Made]) -> list[Claim]:
        return outcomes.publish_all(self._ledger, made)

    def _publish(self, made: Sequence[Made], parents: Mapping[int, str | None]) -> None:
        """Record results together or, where that fails, one by one, so that a fault is its own item's alone."""
        try:
            with ExitStack() as spans:
                for c, _ in made:
                    about: dict[str, str | int] = {"item": c.item_id, "stage": c.name, "attempt": c.token}
                    spans.enter_context(tracing.span("item.publish", parent=parents[c.stage_id], **about))
                fenced = self._together(made)
        except Exception as error:  # noqa: BLE001 a stage's own code writes, and no fault of an item ends the thread
            if len(made) > 1:
                for one in made:
                    self._publish([one], parents)
                return
            c, outcome = made[0]
            self._fail(c, typed(c, error))
            self._unpublished(outcome)
            return
        for c, outcome in made:
            if c in fenced:
                self._fenced(c, outcome)
            else:
                self._metrics.items.labels(c.name, "completed").inc()

    def _fenced(self, c: Claim, outcome: Outcome | None) -> None:
        """Leave a claim that is not ours any more; of one that was cancelled meanwhile, nothing is kept."""
        log.warning("fenced", extra=ids(c))
        self._metrics.items.labels(c.name, "fenced").inc()
        if outcome is not None:
            if claims.look(self._ledger, [c]).cancelled:
                with self._ledger.write() as session:
                    artifacts.discard(session, outcome.named)
            self._unpublished(outcome)
        outcomes.confirm_cancel(self._ledger, [c])

    def _unpublished(self, outcome: Outcome) -> None:
        """Leave no bytes behind that the cleaner could not know of."""
        artifacts.came_late(self._ledger, outcome.named)

    def _fail(self, c: Claim, error: FpgaError) -> None:
        if error.code in FULL:
            self._pause(c, error)
            return
        try:
            state = outcomes.fail(
                self._ledger,
                c,
                error,
                max_failures=self._settings.max_failures,
                backoff_seconds=self._settings.backoff_base_seconds,
            )
        except FencedError:
            self._fenced(c, None)
            return
        log.warning("attempt failed", extra={**ids(c), "code": error.code, "now": state})
        self._metrics.items.labels(c.name, "failed" if state == State.FAILED else "again").inc()

    def _pause(self, c: Claim, error: FpgaError) -> None:
        """Stop the whole batch of a claim for want of room: no item is to blame, and each would fail the same way."""
        log.error("batch paused", extra={**ids(c), "code": error.code})
        with suppress(ConflictError):  # it has ended, or is being cancelled
            batches.pause(self._ledger, c.owner, c.batch_id, reason=f"{error.message} [{error.code}]")
        outcomes.release(self._ledger, [c])
        outcomes.confirm_cancel(self._ledger, [c])


def typed(c: Claim, error: Exception) -> FpgaError:
    """Return a fault of one item's own work as an error of ours."""
    if isinstance(error, FpgaError):
        return error
    log.error("item failed", exc_info=error, extra=ids(c))
    if is_out_of_memory(error):
        params = PortraitParams.load(c.params) if c.name == "generate" else None
        size = f"{params.width}x{params.height}" if params else f"stage {c.name}"
        return FpgaError(f"the device has not enough memory for one item of {size}", code="out_of_memory")
    return FpgaError(f"{type(error).__name__} in stage {c.name}; the worker's log has the trace")


def ids(c: Claim) -> dict[str, object]:
    """Return the fields that tell a line of the log what it is about."""
    return {"batch": c.batch_id, "item": c.item_id, "stage": c.name, "attempt": c.token}
