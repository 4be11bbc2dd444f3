"""The sweeper's side of restorations: it reads their sources into open batches and writes what is finished to `out`.

Neither hangs on Prefect. Each archive is read in a thread of its own under a lease in the ledger, so that another
process goes on when this one is killed; whatever one archive says or waits for stops no other.
"""

from __future__ import annotations

import logging
import threading
import time

from orchestrator import logs
from orchestrator.archive.reach import Reach
from orchestrator.contracts.photos import PhotoOptions
from orchestrator.errors import ConflictError, FpgaError, LimitError, TransientError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED, BatchState
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch
from orchestrator.photos import feeding
from orchestrator.photos.feeding import FULL, Fed
from orchestrator.results.delivery import Delivery
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

log = logging.getLogger(__name__)
END_SECONDS = 8.0
AT_ONCE = 32
"""So many archives are read at a time; one that waits for a store, a quota or its owner is not among them."""
REST_SECONDS, LONGEST_REST_SECONDS = 5.0, 600.0
"""Between two steps of writing, and before what could not be read now is tried again; it doubles while that fails."""


READABLE = (BatchState.IN_PROGRESS, BatchState.PAUSED)


class _StopError(Exception):
    """This process ends; another one, or its next life, reads on."""


class Readers:
    """The archives that this process reads and writes; `look` begins what is to be done."""

    def __init__(self, ledger: Ledger, store: ByteStore, settings: Settings, stop: threading.Event) -> None:
        self._ledger, self._store, self._settings, self._stop = ledger, store, settings, stop
        self._lock = threading.Lock()
        self._in_hand: dict[str, threading.Thread] = {}
        self._due: dict[str, float] = {}
        self._in_vain: dict[str, int] = {}
        self._full: set[str] = set()
        self._deliveries: dict[str, Delivery] = {}
        self._adopted = False

    def look(self) -> int:
        """Begin with every archive that is not in hand and whose rest is over; return how many those are."""
        if not self._adopted:
            photos.adopt(self._ledger)
            self._adopted = True
        with self._ledger.read() as session:
            found = photos.to_serve(session)
        begun = 0
        for batch in found:
            with self._lock:
                if len(self._in_hand) >= AT_ONCE:
                    break
                if batch.id in self._in_hand or self._due.get(batch.id, 0.0) > time.monotonic():
                    continue
                if batch.open and batch.state == BatchState.PAUSED and batch.id in self._full:
                    continue  # for want of room: whoever resumes it has made some
                # a daemon: a source that does not answer may not keep this process from ending
                thread = threading.Thread(target=self._serve, args=(batch,), name=f"archive {batch.id}", daemon=True)
                self._in_hand[batch.id] = thread
            thread.start()
            begun += 1
        return begun

    def close(self) -> None:
        """Wait a while until all threads have given up what they hold, which they do once the stop is set."""
        until = time.monotonic() + END_SECONDS
        with self._lock:
            left = list(self._in_hand.values())
        for thread in left:
            thread.join(max(0.0, until - time.monotonic()))

    def _serve(self, batch: Batch) -> None:
        times = self._in_vain.pop(batch.id, 0)
        self._in_vain[batch.id] = times + 1
        with logs.surviving("archive put off", batch=batch.id):
            if batch.open and batch.state in READABLE:
                self._read(batch)
            else:
                self._write(batch)
            del self._in_vain[batch.id]
            times = 0
        with self._lock:
            self._due[batch.id] = time.monotonic() + min(LONGEST_REST_SECONDS, REST_SECONDS * 2**times)
            del self._in_hand[batch.id]

    def _read(self, batch: Batch) -> None:
        def tick(_fed: Fed) -> None:
            if self._stop.is_set():
                raise _StopError
            with logs.surviving("results wait to be written", batch=batch.id):
                if delivery := self._delivery(batch):
                    delivery.step()

        self._full.discard(batch.id)
        try:
            feeding.feed(self._ledger, self._store, self._settings, batch.owner, batch.id, tick, patient=False)
        except _StopError:
            pass
        except LimitError:
            with self._ledger.read() as session:
                if batches.one(session, batch.id).total == batch.total:
                    raise  # no room at all: it rests longer each time
        except TransientError as error:
            if error.code in FULL:
                self._full.add(batch.id)
            raise
        except ConflictError as error:
            if error.code != "feeding":
                raise
        except FpgaError as error:
            log.warning("archive cannot be read on", extra={"batch": batch.id, "error": error.code})
            batches.close(self._ledger, batch.owner, batch.id, rejected=error)

    def _write(self, batch: Batch) -> None:
        failures: dict[str, FpgaError] = {}
        try:
            delivery = self._delivery(batch)
            if delivery and batch.state not in BATCH_ENDED:
                delivery.step()
                return
            if delivery:
                delivery.finish()
                failures = delivery.failures
        except TransientError:
            raise
        except FpgaError as error:
            failures = {"": error}
        problem = None
        if failures:
            path, first = next(iter(failures.items()))
            problem = (
                f"{len(failures)} results were not written: {path or 'all of them'}: {first.message} [{first.code}]"
            )
            log.warning("results not written", extra={"batch": batch.id, "count": len(failures), "error": first.code})
        photos.served(self._ledger, batch.id, problem)
        self._deliveries.pop(batch.id, None)

    def _delivery(self, batch: Batch) -> Delivery | None:
        options = PhotoOptions.load(batch.options)
        if options.out is None:
            return None
        if batch.id not in self._deliveries:
            reach = Reach(settings=self._settings, owner=batch.owner, operator=options.operator)
            self._deliveries[batch.id] = Delivery(self._ledger, self._store, batch.owner, batch.id, options.out, reach)
        return self._deliveries[batch.id]
