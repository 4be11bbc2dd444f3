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
from orchestrator.errors import ConflictError, FencedError, FpgaError, TransientError
from orchestrator.ledger import artifacts
from orchestrator.ledger.artifacts import NewArtifact
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims
from orchestrator.ledger.queue.claims import Claim, Finished
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from workers.runtime.engine import is_out_of_memory
from workers.runtime.lease import Lease
from workers.runtime.metrics import WorkerMetrics
from workers.stages.base import Done, Upload

log = logging.getLogger(__name__)
FULL = ("store_full", "disk_full")
"""Errors that pause a batch until an operator has made room and resumes it."""
PUTS = 4
"""So many results are sent to the byte store at a time."""


@dataclass(frozen=True, kw_only=True)
class Made:
    """A stage's result on its way into the ledger."""

    claim: Claim
    done: Done
    traceparent: str | None

    @property
    def artifacts(self) -> list[str]:
        """Artifacts whose bytes may be in the store by now."""
        return [*self.done.result.get("artifacts", []), *[u.artifact_id for u in self.done.uploads if u.artifact_id]]


@dataclass(frozen=True, kw_only=True)
class Failed:
    """An attempt that came to nothing."""

    claim: Claim
    error: FpgaError


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
        self._waiting: list[Made | Failed] = []
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

    def hand(self, c: Claim, outcome: Done | FpgaError) -> None:
        """Take over the end of a claim; waits while two groups are still to be recorded."""
        self._until(lambda: len(self._waiting) < 2 * self._settings.group_size)
        end = (
            Made(claim=c, done=outcome, traceparent=tracing.traceparent())
            if isinstance(outcome, Done)
            else Failed(claim=c, error=outcome)
        )
        with self._changed:
            self._waiting.append(end)
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

    def _record(self, ends: Sequence[Made | Failed]) -> None:
        for end in ends:
            if isinstance(end, Failed):
                self._fail(end.claim, end.error)
        if stored := self._stored([end for end in ends if isinstance(end, Made)]):
            self._publish(stored)

    def _stored(self, made: Sequence[Made]) -> list[Made]:
        """Put the bytes of these results, and return those of which all are there; the others fail, each by itself."""
        try:
            ids = self._reserve([(m.claim.owner, upload) for m in made for upload in m.done.uploads])
        except TransientError as error:
            for m in made:
                self._fail(m.claim, error)
            return []
        stored = []
        for m, fault in zip(made, self._each(lambda m: self._put(m, ids), made), strict=True):
            if fault is None:
                stored.append(m)
            else:
                self._fail(m.claim, fault)
        return stored

    def _each(self, put: Callable[[Made], FpgaError | None], made: Sequence[Made]) -> list[FpgaError | None]:
        """Put the bytes of several results at a time: a store is waited for, not computed with."""
        return list(self._putters.map(put, made))

    def _put(self, made: Made, ids: Mapping[tuple[str, str], str]) -> FpgaError | None:
        try:
            for upload in made.done.uploads:
                upload.artifact_id = ids.get((made.claim.owner, upload.sha256))
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

    def _publish(self, made: Sequence[Made]) -> None:
        """Record results together or, where that fails, one by one, so that a fault is its own item's alone."""
        try:
            with ExitStack() as spans:
                for m in made:
                    c = m.claim
                    spans.enter_context(
                        tracing.span(
                            "item.publish", parent=m.traceparent, item=c.item_id, stage=c.name, attempt=c.token
                        )
                    )
                fenced = claims.publish_all(
                    self._ledger,
                    [
                        Finished(
                            claim=m.claim,
                            result={**m.done.result, "artifacts": m.artifacts} if m.artifacts else m.done.result,
                            effect=m.done.effect,
                            artifacts=[u.artifact_id for u in m.done.uploads if u.artifact_id],
                        )
                        for m in made
                    ],
                )
        except Exception as error:  # noqa: BLE001 an effect is a stage's own code, and no fault of an item ends the thread
            if len(made) > 1:
                for m in made:
                    self._publish([m])
                return
            self._fail(made[0].claim, typed(made[0].claim, error))
            self._unpublished(made[0])
            return
        for m in made:
            if m.claim in fenced:
                self._fenced(m.claim, m)
            else:
                self._metrics.items.labels(m.claim.name, "completed").inc()

    def _fenced(self, c: Claim, made: Made | None) -> None:
        """Leave a claim that is not ours any more; of one that was cancelled meanwhile, nothing is kept."""
        log.warning("fenced", extra=ids(c))
        self._metrics.items.labels(c.name, "fenced").inc()
        if made is not None:
            if claims.look(self._ledger, [c]).cancelled:
                with self._ledger.write() as session:
                    artifacts.discard(session, made.artifacts)
            self._unpublished(made)
        claims.confirm_cancel(self._ledger, [c])

    def _unpublished(self, made: Made) -> None:
        """Leave no bytes behind that the cleaner could not know of."""
        artifacts.came_late(self._ledger, made.artifacts)

    def _fail(self, c: Claim, error: FpgaError) -> None:
        if error.code in FULL:
            self._pause(c, error)
            return
        try:
            state = claims.fail(
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
        self._metrics.items.labels(c.name, "failed" if state == "failed" else "again").inc()
        if state == "failed" and c.name == "ingest":
            with self._ledger.write() as session:
                artifacts.discard(session, [ref["artifact_id"] for ref in c.params["references"]])

    def _pause(self, c: Claim, error: FpgaError) -> None:
        """Stop the whole batch of a claim for want of room: no item is to blame, and each would fail the same way."""
        log.error("batch paused", extra={**ids(c), "code": error.code})
        with suppress(ConflictError):  # it has ended, or is being cancelled
            batches.pause(self._ledger, c.owner, c.batch_id, reason=f"{error.message} [{error.code}]")
        claims.release(self._ledger, [c])
        claims.confirm_cancel(self._ledger, [c])


def typed(c: Claim, error: Exception) -> FpgaError:
    """Return a fault of one item's own work as an error of ours."""
    if isinstance(error, FpgaError):
        return error
    log.error("item failed", exc_info=error, extra=ids(c))
    if is_out_of_memory(error):
        size = f"{c.params.get('width')}x{c.params.get('height')}"
        return FpgaError(f"the device has not enough memory for one item of {size}", code="out_of_memory")
    return FpgaError(f"{type(error).__name__} in stage {c.name}; the worker's log has the trace")


def ids(c: Claim) -> dict[str, object]:
    """Return the fields that tell a line of the log what it is about."""
    return {"batch": c.batch_id, "item": c.item_id, "stage": c.name, "attempt": c.token}
