"""What runs by the clock: add, list, change, remove, run now, and the look that makes batches of times that have come.

The ledger keeps the schedules and the sweeper looks at them; no Prefect server, flow or worker has to be alive for a
batch to be made. Rules for missed, overlapping and repeated times: docs/schedules.md.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import islice

from sqlalchemy.orm import Session

from orchestrator import logs
from orchestrator.contracts.base import JsonObject
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.contracts.schedules import RunObject, ScheduledPortraits, ScheduledTraining, ScheduleObject
from orchestrator.errors import ConflictError, FpgaError, NotFoundError, TransientError, UsageError
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import schedules
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.tables.rows_schedules import Schedule, ScheduleRun
from orchestrator.models import training
from orchestrator.models.training import Recipe
from orchestrator.planning import clock
from orchestrator.planning.clock import CATCH_UPS, OVERLAPS
from orchestrator.planning.manifest import Format
from orchestrator.portraits.submit import submit_portraits
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
PORTRAITS, TRAINING = "portraits", "training"
PATIENCE = timedelta(minutes=10)
"""So long a time is tried again where a store or the database does not answer; then it has failed."""
LATE = timedelta(minutes=5)
"""A time that nobody looked at for so long is late: no sweeper runs."""


@dataclass(frozen=True, kw_only=True)
class Timing:
    """When, by which clock, and what becomes of times that were missed or meet the run before."""

    cron: str
    timezone: str = "UTC"
    catch_up: str = "latest"
    overlap: str = "skip"

    def check(self, moment: datetime) -> list[datetime]:
        """Return the next five times.

        Raises:
            UsageError: the cron line, the zone or a rule cannot be used.
        """
        for name, value, known in (("catch_up", self.catch_up, CATCH_UPS), ("overlap", self.overlap, OVERLAPS)):
            if value not in known:
                raise UsageError(f"{name} is one of {', '.join(known)}, got {value!r}", code=f"bad_{name}")
        return clock.check(self.cron, self.timezone, moment)


def add_portraits(
    ledger: Ledger,
    store: ByteStore,
    *,
    owner: str,
    name: str,
    timing: Timing,
    manifest: bytes,
    format: Format,
    options: SubmitOptions,
    replace: bool = False,
) -> ScheduleObject:
    """Keep a manifest and make a batch of it whenever its time comes; return the schedule.

    The same again changes nothing and is as good as the first time.

    Raises:
        UsageError: the name, the cron line, the zone or a rule cannot be used.
        ConflictError: another schedule has this name, unless it is to be replaced.
        StoreUnavailableError: the manifest cannot be stored; nothing was changed.
    """
    if options.growing:
        raise UsageError("a batch of a schedule does not grow: nobody would close it", code="bad_growing")
    sha256 = hashlib.sha256(manifest).hexdigest()
    key = f"s/{owner}/{sha256}.{format}"
    task = ScheduledPortraits(key=key, sha256=sha256, format=format, options=options).dump()
    _check(ledger, owner, PORTRAITS, name, timing, task, replace=replace)
    store.put(key, manifest, media_type="text/plain", sha256=sha256)
    return _put(ledger, owner, PORTRAITS, name, timing, task)


def add_training(
    ledger: Ledger, *, owner: str, name: str, timing: Timing, recipe: Recipe, replace: bool = False
) -> ScheduleObject:
    """Train whenever the time comes, on whatever is the newest version of the data set then; return the schedule.

    Raises:
        UsageError, ConflictError: as `add_portraits`.
    """
    task = ScheduledTraining(recipe=recipe.model_dump(mode="json")).dump()
    _check(ledger, owner, TRAINING, name, timing, task, replace=replace)
    return _put(ledger, owner, TRAINING, name, timing, task)


def listing(ledger: Ledger, owner: str, kind: str | None = PORTRAITS) -> list[ScheduleObject]:
    """Return an owner's schedules by name, with their next times and what became of the last."""
    with ledger.read() as session:
        moment = now(session)
        return [as_object(session, row, moment) for row in schedules.listing(session, owner, kind)]


def remove(ledger: Ledger, store: ByteStore, owner: str, name: str, kind: str = PORTRAITS) -> str | None:
    """Remove a schedule and its manifest, unless another stands on the same; return the batch it still has under way.

    Raises:
        NotFoundError: this owner has none of this name.
    """
    with ledger.read() as session:
        row = schedules.get(session, owner, kind, name)
        under_way = schedules.unended(session, row.id)
    task = schedules.remove(ledger, owner, kind, name)
    if kind == PORTRAITS:
        key = ScheduledPortraits.load(task).key
        with ledger.read() as session:
            used = schedules.refers_to(session, key)
        if not used:
            store.delete(key)
    return under_way.id if under_way else None


def run_now(
    ledger: Ledger, store: ByteStore, settings: Settings, owner: str, name: str, kind: str = PORTRAITS
) -> JsonObject:
    """Run a schedule once, now, whatever it has under way; return what became of it.

    Raises:
        NotFoundError: this owner has none of this name.
        FpgaError: no batch could be made; the schedule remembers why.
    """
    with ledger.read() as session:
        row, moment = schedules.get(session, owner, kind, name), now(session)
    batch_id = _make(ledger, store, settings, row, moment)
    return {"object": "schedule.run", "name": name, "batch_id": batch_id, "outcome": "made", "due_at": _iso(moment)}


def look(ledger: Ledger, store: ByteStore, settings: Settings) -> int:
    """Deal with every time that has come; return how many batches were made. One bad schedule stops no other."""
    with ledger.read() as session:
        rows = [row for row in schedules.listing(session) if row.active]
    made = 0
    for row in rows:
        with logs.surviving("schedule put off", schedule=row.id):
            made += _look(ledger, store, settings, row)
    return made


def late(ledger: Ledger) -> Iterator[tuple[str, datetime]]:
    """Yield (name, time) of schedules whose time has come long ago and that nobody looked at."""
    with ledger.read() as session:
        rows, moment = schedules.listing(session), now(session)
    for row in rows:
        coming = next(clock.times(row.cron, row.timezone, row.looked_at), None) if row.active else None
        if coming is not None and moment - coming > LATE:
            yield row.name, coming


def as_object(session: Session, row: Schedule, moment: datetime, *, created: bool | None = None) -> ScheduleObject:
    """Return the object that command line, HTTP and pages share."""
    last, under_way = schedules.last_run(session, row.id), schedules.unended(session, row.id)
    coming = tuple(_iso(tick) for tick in islice(clock.times(row.cron, row.timezone, moment), clock.SHOWN))
    shown = coming if row.active else ()
    return ScheduleObject(
        id=row.id,
        name=row.name,
        kind=row.kind,
        cron=row.cron,
        timezone=row.timezone,
        catch_up=row.catch_up,
        overlap=row.overlap,
        active=row.active,
        task=row.task,
        next_run=shown[0] if shown else None,
        next_runs=shown,
        last_run=_run_object(last) if last else None,
        under_way=under_way.id if under_way else None,
        created=created,
    )


def _run_object(run: ScheduleRun) -> RunObject:
    return RunObject(
        due_at=_iso(run.due_at),
        outcome=run.outcome,  # type: ignore[arg-type]  # checked by the table
        code=run.code,
        message=run.message,
        batch_id=run.batch_id,
        at=_iso(run.at),
    )


def _check(
    ledger: Ledger, owner: str, kind: str, name: str, timing: Timing, task: JsonObject, *, replace: bool
) -> None:
    if not NAME.fullmatch(name):
        raise UsageError(f"a schedule's name is 1 to 63 of a-z 0-9 _ -, got {name[:80]!r}", code="bad_name")
    with ledger.read() as session:
        timing.check(now(session))
        known = schedules.find(session, owner, kind, name)
    if known is None or replace or (known.task == task and _timing(known) == timing):
        return
    raise ConflictError(
        f"there is another schedule {name!r}; remove it first, or say that this one replaces it (--replace)",
        code="schedule_exists",
    )


def _put(ledger: Ledger, owner: str, kind: str, name: str, timing: Timing, task: JsonObject) -> ScheduleObject:
    fresh = schedules.put(
        ledger,
        owner=owner,
        kind=kind,
        name=name,
        cron=timing.cron,
        timezone=timing.timezone,
        catch_up=timing.catch_up,
        overlap=timing.overlap,
        task=task,
    )
    with ledger.read() as session:
        return as_object(session, schedules.get(session, owner, kind, name), now(session), created=fresh)


def _timing(row: Schedule) -> Timing:
    return Timing(cron=row.cron, timezone=row.timezone, catch_up=row.catch_up, overlap=row.overlap)


def _look(ledger: Ledger, store: ByteStore, settings: Settings, row: Schedule) -> int:
    with ledger.read() as session:
        moment = now(session)
        waits = schedules.waiting(session, row.id)
        done = schedules.dealt_with(session, row.id)
        under_way = schedules.unended(session, row.id)
    made = 0
    if waits is not None and under_way is None:
        made += bool(_try(ledger, store, settings, row, waits.due_at, moment))
        with ledger.read() as session:
            under_way = schedules.unended(session, row.id)
    found = clock.due(
        row.cron,
        row.timezone,
        after=row.looked_at,
        moment=moment,
        catch_up=row.catch_up,  # type: ignore[arg-type]  # checked by the table
        done=done,
    )
    for due_at in found.run:
        if under_way is not None and row.overlap != "allow":
            _meet(ledger, row, due_at, under_way)
            continue
        batch_id = _try(ledger, store, settings, row, due_at, moment)
        if batch_id is not None:
            made += 1
            with ledger.read() as session:
                under_way = schedules.unended(session, row.id)
    if found.run or found.missed or row.looked_at > moment:
        schedules.looked(ledger, row.id, found.until, found.missed)
    return made


def _meet(ledger: Ledger, row: Schedule, due_at: datetime, under_way: Batch) -> None:
    """Note that the run before has not ended yet."""
    waits = row.overlap == "queue"
    then = "runs when that has ended" if waits else "is skipped"
    error = ConflictError(
        f"batch {under_way.id} of the run before is {under_way.state}; this one {then}", code="overlap"
    )
    schedules.note(ledger, row.id, due_at, "waiting" if waits else "skipped", error=error)


def _try(
    ledger: Ledger, store: ByteStore, settings: Settings, row: Schedule, due_at: datetime, moment: datetime
) -> str | None:
    """Make the batch of one time; a failure is noted.

    Raises:
        TransientError: something does not answer; the time is tried again.
    """
    try:
        return _make(ledger, store, settings, row, due_at)
    except TransientError:
        if moment - due_at <= PATIENCE:
            raise
    except FpgaError:
        pass
    return None


def _make(ledger: Ledger, store: ByteStore, settings: Settings, row: Schedule, due_at: datetime) -> str:
    key = f"schedule:{row.id}:{due_at.isoformat()}"
    try:
        if row.kind == PORTRAITS:
            task = ScheduledPortraits.load(row.task)
            batch_id = submit_portraits(
                ledger,
                settings,
                manifest=store.get(task.key, sha256=task.sha256),
                format=task.format,
                name=row.name,
                owner=row.owner,
                options=task.options,
                idempotency_key=key,
            ).batch_id
        else:
            recipe = training.read_recipe(ScheduledTraining.load(row.task).recipe)
            batch_id = training.submit(ledger, settings, recipe, owner=row.owner, idempotency_key=key).batch_id
    except FpgaError as error:
        if isinstance(error, NotFoundError) and error.code == "object_missing":
            error = NotFoundError("its manifest is not in the store any more; add the schedule again", code=error.code)
        schedules.note(ledger, row.id, due_at, "failed", error=error)
        raise error from None
    schedules.note(ledger, row.id, due_at, "made", batch_id=batch_id)
    return batch_id


def _iso(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
