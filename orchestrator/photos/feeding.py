"""Fills an open restore batch from its source, a few photos at a time, so that the first are worked on at once.

One process feeds a batch at a time, by a lease in the ledger; killed, another goes on with what is not there yet.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.archive import Member, Photo, Refused
from orchestrator.archive.originals import keep_original
from orchestrator.archive.passed import Passed, keep_passed
from orchestrator.archive.reach import Reach, opened
from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.photos import Original, PhotoOptions, PhotoParams, SwapPlan
from orchestrator.errors import ConflictError, InputError, LimitError, StoreUnavailableError, TransientError, UsageError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BatchState, State
from orchestrator.ledger.faces import scanned
from orchestrator.ledger.faces.scanned import Known
from orchestrator.ledger.queue import batches, sweeper
from orchestrator.ledger.queue.batches import NewItem
from orchestrator.ledger.tables.rows import Batch
from orchestrator.photos.restore import limits_of
from orchestrator.planning.swaps import Made, paired, rules_for
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

log = logging.getLogger(__name__)
FIRST, CHUNK = 4, 64
"""Photos of the first chunk and of later ones."""
CHUNK_SECONDS = 2.0
WAIT_SECONDS = 2.0
MOST_ID = 200
AHEAD = 1000
"""So many photos of a scan wait for a worker before no more are read."""
FULL = ("store_full", "disk_full")
GOING = ("artifact_deleting", "artifact_gone")
"""The copy of a photo that was let go is just being deleted, and another file has the same bytes."""


@dataclass(kw_only=True)
class Fed:
    """What was read of a source so far."""

    photos: int = 0
    refused: int = 0
    new: int = 0
    known: list[str] = field(default_factory=list)
    """Files of a scan that were looked at before and have not changed."""
    skipped: Counter[str] = field(default_factory=Counter)
    passed: list[Passed] = field(default_factory=list)
    """Path and reason of each file that is no photo."""
    waiting: str | None = None
    """Why nothing is read at the moment, or None."""


Tick = Callable[[Fed], None]


def feed(
    ledger: Ledger,
    store: ByteStore,
    settings: Settings,
    owner: str,
    batch_id: str,
    tick: Tick,
    *,
    patient: bool = True,
) -> Fed:
    """Read the source of an open batch to its end and close the batch; `tick` is called after every chunk and wait.

    A full store pauses the batch with the reason; reading goes on when it was resumed. A store that does not answer is
    waited for, and so is room in the owner's quota.

    Args:
        patient: whether to wait here; else what would be waited for is raised, and a later call goes on.

    Raises:
        ConflictError: `feeding`, another process feeds this batch.
        NotFoundError, InputError: the source is gone, or cannot be read any more.
        ForbiddenError: its bucket is not granted any more.
        StoreUnavailableError, LimitError: as above, unless patient.
    """
    holder = f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"
    feeder = _Feeder(
        ledger=ledger, store=store, settings=settings, owner=owner, batch_id=batch_id, holder=holder, patient=patient
    )
    try:
        return feeder.run(tick)
    finally:
        photos.end_feeding(ledger, batch_id, holder)


def add(
    ledger: Ledger, store: ByteStore, settings: Settings, owner: str, batch_id: str, member: Photo | Refused
) -> list[str]:
    """Hand one photo to an open batch that has no source; return the custom_ids of what will be made of it.

    A photo that the batch has already is left out.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: the batch has a source that it is read from, or takes no more photos.
        StoreUnavailableError, TransientError: it cannot be stored now.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
    if batch.kind not in photos.READ or PhotoOptions.load(batch.options).source:
        raise ConflictError(f"batch {batch.id} is not handed its photos one by one", code="batch_has_source")
    feeder = _Feeder(ledger=ledger, store=store, settings=settings, owner=owner, batch_id=batch.id, holder="")
    stored: list[str] = []
    made = feeder.items(member, batch, Fed(photos=batch.total), set(), stored)
    batches.append(ledger, owner, batch.id, made, artifact_ids=stored)
    return [item.custom_id for item in made]


@dataclass(kw_only=True)
class _Feeder:
    ledger: Ledger
    store: ByteStore
    settings: Settings
    owner: str
    batch_id: str
    holder: str
    patient: bool = True
    before: Mapping[str, Known] = field(default_factory=dict)
    """What earlier scans looked at, by path."""

    def run(self, tick: Tick) -> Fed:
        """Read until there is no more, waiting for what is away if that was asked for."""
        while True:
            fed = Fed()
            try:
                self.read(fed, tick)
            except StoreUnavailableError as error:
                self.wait(error, fed, tick)
            except TransientError as error:
                if error.code not in GOING:
                    raise
                self.wait(error, fed, tick)
            except ConflictError as error:
                if error.code != "batch_closed":
                    raise
                return fed
            else:
                passed = keep_passed(self.ledger, self.store, self.owner, fed.passed)
                scanned.seen(self.ledger, fed.known, self.batch_id)
                read: JsonObject = {
                    "photos": fed.photos,
                    "known": len(fed.known),
                    "skipped": dict(fed.skipped),
                    "passed": dict(passed or {}),
                }
                kept = self.options().model_copy(update={"read": read})
                batches.close(self.ledger, self.owner, self.batch_id, options=kept.dump())
                return fed

    def read(self, fed: Fed, tick: Tick) -> None:
        """Go through the source from its beginning; what the batch has already is passed over unread."""
        self._lead()
        batch, known = self._known()
        chunk: list[NewItem] = []
        stored: list[str] = []
        since, most = time.monotonic(), FIRST
        options = PhotoOptions.load(batch.options)
        if options.scan and not options.force:
            with self.ledger.read() as session:
                self.before = scanned.known(session, self.owner, options.source or "")
        reach = Reach(settings=self.settings, owner=self.owner, operator=options.operator)
        limits = limits_of(self.settings, options.names)
        with opened(self.ledger, self.store, reach, options.source or "", limits) as source:
            for member in source.members():
                made = self.items(member, batch, fed, known, stored)
                chunk += made
                if len(chunk) >= most or (chunk and time.monotonic() - since > CHUNK_SECONDS):
                    self._append(chunk, stored, fed, tick)
                    chunk, stored, since, most = [], [], time.monotonic(), CHUNK
            self._append(chunk, stored, fed, tick)

    def wait(self, error: TransientError, fed: Fed, tick: Tick) -> None:
        """Wait until the store has room or answers again, or bytes that are on their way out are gone."""
        log.warning("feeding stopped", extra={"batch": self.batch_id, "code": error.code})
        if error.code in FULL:
            batches.pause(self.ledger, self.owner, self.batch_id, reason=f"{error.message} [{error.code}]")
        if not self.patient:
            raise error
        fed.waiting = error.message
        tick(fed)
        time.sleep(WAIT_SECONDS)
        while self._batch().state == "paused":
            self._lead()
            tick(fed)
            time.sleep(WAIT_SECONDS)
        fed.waiting = None

    def _lead(self) -> None:
        name, seconds = photos.feed_lease(self.batch_id), self.settings.lease_seconds
        if not sweeper.lead(self.ledger, holder=self.holder, owner=self.owner, seconds=seconds, name=name):
            raise ConflictError(f"another process reads the source of {self.batch_id}", code="feeding")

    def options(self) -> PhotoOptions:
        """Return the batch's options as they are now."""
        return PhotoOptions.load(self._batch().options)

    def _batch(self) -> Batch:
        with self.ledger.read() as session:
            return batches.one(session, self.batch_id)

    def _known(self) -> tuple[Batch, set[str]]:
        with self.ledger.read() as session:
            return batches.one(session, self.batch_id), batches.custom_ids(session, self.batch_id)

    def _append(self, chunk: list[NewItem], stored: list[str], fed: Fed, tick: Tick) -> None:
        self._lead()
        self._wait_for_room(fed, tick)
        if chunk:
            fed.new += self._append_as_it_fits(chunk, stored, fed, tick)
        tick(fed)

    def _wait_for_room(self, fed: Fed, tick: Tick) -> None:
        """Read no further ahead of the workers of a scan than so many photos: each is a copy until it was looked at."""
        while self._batch().kind == photos.SCAN:
            with self.ledger.read() as session:
                counts = batches.counts(session, self.batch_id)
            if counts[State.QUEUED] < AHEAD or self._batch().state == BatchState.CANCELLING:
                break
            fed.waiting = f"{counts[State.QUEUED]} photos are read and wait for a worker"
            if not self.patient and self._batch().state == BatchState.PAUSED:
                raise LimitError(fed.waiting, code="batch_paused")
            tick(fed)
            time.sleep(WAIT_SECONDS)
            self._lead()
        fed.waiting = None

    def _append_as_it_fits(self, chunk: list[NewItem], stored: list[str], fed: Fed, tick: Tick) -> int:
        """Append photos and return how many were new; where their owner's quota has no room, wait until it has."""
        while True:
            try:
                return batches.append(self.ledger, self.owner, self.batch_id, chunk, artifact_ids=stored)
            except LimitError as error:
                if len(chunk) > 1:
                    half = len(chunk) // 2
                    first = self._append_as_it_fits(chunk[:half], stored, fed, tick)
                    return first + self._append_as_it_fits(chunk[half:], [], fed, tick)
                if not self.patient:
                    raise
                fed.waiting = error.message
                tick(fed)
                time.sleep(WAIT_SECONDS)
                self._lead()
                fed.waiting = None

    def items(self, member: Member, batch: Batch, fed: Fed, known: set[str], stored: list[str]) -> list[NewItem]:
        """Return the items of one member of the source that the batch does not have yet."""
        if isinstance(member, Refused):
            fed.refused += 1
            made = [_item(PhotoParams(path=member.path), error=member.error)]
        elif isinstance(member, Photo):
            fed.photos += 1
            if (before := self.before.get(member.path)) and (before.size, before.modified) == (
                member.size,
                member.modified,
            ):
                fed.known.append(before.id)
                return []
            made = list(self._photo(member, batch, fed.photos - 1, known, stored))
        else:
            fed.skipped[member.reason] += 1
            fed.passed.append(Passed(path=member.path, reason=member.reason, left_behind=member.left_behind))
            return []
        return [item for item in made if item.custom_id not in known]

    def _photo(self, photo: Photo, batch: Batch, number: int, known: set[str], stored: list[str]) -> Iterator[NewItem]:
        try:
            wanted = _wanted(photo.path, number, PhotoOptions.load(batch.options).swap)
        except UsageError as error:
            yield _item(PhotoParams(path=photo.path), error=error)
            return
        missing = [made for made in wanted if _custom_id(made.path) not in known]
        if not missing:
            return
        facts = PhotoParams(
            path=photo.path,
            source_path=photo.path,
            modified=photo.modified,
            media_type=photo.media_type,
            notes=tuple(photo.notes),
        )
        try:
            kept = keep_original(self.ledger, self.store, self.owner, photo)
        except InputError as error:
            for made in missing:
                yield _item(facts.model_copy(update={"path": made.path}), error=error)
            return
        stored.append(kept.artifact_id)
        original = Original(artifact_id=kept.artifact_id, key=kept.key, sha256=kept.sha256, size=kept.size)
        for made in missing:
            asked = {"path": made.path, "original": original, "swap": made.rules}
            yield _item(facts.model_copy(update=asked), size=kept.size)


def _wanted(path: str, number: int, swap: SwapPlan | None) -> list[Made]:
    """Return what is to be made of one photo: itself restored, or each swap that is asked of it."""
    if swap is None:
        return [Made(path=path, rules=())]
    if swap.rules:
        rules = rules_for(path, swap.rules)
        if not rules:
            raise UsageError("no row of the map names this photo", code="not_in_map")
        return [Made(path=path, rules=tuple(rules))]
    return paired(path, number, swap.to, swap.pairs, swap.of)


def _custom_id(path: str) -> str:
    """Return the id of a photo in its batch: its path, or what fits of a long one with a hash."""
    if len(path) <= MOST_ID:
        return path
    return f"{path[: MOST_ID - 20]}#{hashlib.sha256(path.encode()).hexdigest()[:16]}"


def _item(
    params: PhotoParams, *, size: int = 0, error: InputError | UsageError | TransientError | None = None
) -> NewItem:
    return NewItem(
        custom_id=_custom_id(params.path),
        params=params.dump(),
        params_sha256=params.original.sha256 if params.original else "",
        seed=0,
        cost=size / 2**20,
        error=error,
    )
