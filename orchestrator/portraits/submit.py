"""Submit of portraits: manifest bytes in, a committed batch out, or every wrong row with its number and nothing queued.

The same two functions stand behind the command line, flows and HTTP. Nothing is sent from here: the sweeper and idle
workers find what is committed.
"""

from __future__ import annotations

import csv
import gc
import hashlib
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.contracts.base import JsonObject, canonical_json
from orchestrator.contracts.portraits import BatchDefaults, PlanOptions, PortraitOptions, SubmitOptions
from orchestrator.errors import ConflictError, ConsentError, ManifestError, UsageError
from orchestrator.ledger import identities
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Batch
from orchestrator.ledger.views import history, standing
from orchestrator.models import registry
from orchestrator.pipelines import QUEUES
from orchestrator.planning import tokens
from orchestrator.planning.estimate import Eta, forecast
from orchestrator.planning.manifest import Format, as_utf8, read_manifest, separator_of
from orchestrator.planning.naming import folded
from orchestrator.planning.plan import IdentityFacts, Plan, PlannedItem, plan
from orchestrator.planning.presets import load_preset
from orchestrator.planning.rows import RowError
from orchestrator.portraits import candidate
from orchestrator.settings import Settings

KIND = "generate"
NEW = "new"
"""What a batch is called that is only thought of."""
NOTHING_SAID = SubmitOptions()


@dataclass(frozen=True, kw_only=True)
class Submission:
    """The answer to a submit: the batch, whether it had been made before, its items, and the rows left out.

    `candidate_batch_id` is the batch in which the candidate draws its share of the items as well.
    """

    batch_id: str
    repeated: bool
    planned: int
    errors: tuple[RowError, ...]
    candidate_batch_id: str | None = None
    notes: tuple[str, ...] = ()
    """As in a dry run."""


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What a submit would do: `eta` is None where it is not known, `ahead` counts items of other batches still open."""

    items: int
    errors: tuple[RowError, ...]
    missing_consents: list[str]
    people: int
    cost: float
    eta: Eta | None
    workers: int
    ahead: int
    notes: tuple[str, ...] = ()
    """What was read in another way than written, and what will not be heeded as written."""

    def as_json(self) -> dict[str, object]:
        """Return the object that the command line and HTTP answers share."""
        shown = asdict(self)
        return {"object": "batch.dry_run", **shown, "errors": [error.as_json() for error in self.errors]}

    @classmethod
    def of_json(cls, said: Mapping[str, Any]) -> DryRun:
        """Return the answer that an object of `as_json` tells of; names that a newer server added are left out."""
        known = {field.name: said[field.name] for field in fields(cls)}
        errors = tuple(RowError(**one) for one in said["errors"])
        eta = Eta(**said["eta"]) if said["eta"] else None
        return cls(**known | {"errors": errors, "eta": eta, "notes": tuple(said["notes"])})


def submit_portraits(
    ledger: Ledger,
    settings: Settings,
    *,
    manifest: bytes,
    format: Format,
    name: str,
    owner: str,
    options: SubmitOptions = NOTHING_SAID,
    idempotency_key: str | None = None,
) -> Submission:
    """Check a manifest, plan it and commit it as one batch.

    The same idempotency key with the same request answers with the batch that was made first, even where the library
    of people has changed since. A batch without a `model` of its own follows the champion.

    Raises:
        ManifestError: rows are wrong; `details["errors"]` lists them.
        ConsentError: the only thing wrong is missing consent.
        ConflictError: the idempotency key was used for another request.
        UsageError, NotFoundError, ModelError: an option, the preset or its files are wrong.
    """
    preset_name, defaults = options.preset or settings.preset, options.defaults()
    request = request_sha256(manifest, _request(options, preset_name))
    if idempotency_key is not None and (known := _repeated(ledger, owner, idempotency_key, request)):
        return known
    with _collector_paused():
        planned = _plan(ledger, settings, manifest, format, owner=owner, preset=preset_name, defaults=defaults)
        if planned.errors and not (options.skip_invalid and planned.items):
            raise _refusal(planned)
        new = NewBatch(
            owner=owner,
            kind=KIND,
            name=name,
            preset=preset_name,
            items=[_new_item(item) for item in planned.items],
            lane=options.lane,
            priority=options.priority,
            model_version_id=_version(ledger, settings, owner, preset_name, options.model),
            idempotency_key=idempotency_key,
            request_sha256=request,
            options=PortraitOptions(
                redraws=options.redraws,
                defaults=defaults,
                stop_after=options.stop_after,
                pinned=options.model is not None,
            ).dump(),
            rejected_rows=_rejected_rows(manifest, format, planned.errors),
            paused=options.paused,
            open=options.growing,
        )
        submitted, beside = candidate.submit(ledger, new, options.candidate_share)
    return Submission(
        batch_id=submitted.batch_id,
        repeated=submitted.repeated,
        planned=len(planned.items),
        errors=planned.errors,
        candidate_batch_id=beside,
        notes=planned.notes,
    )


def add_portraits(
    ledger: Ledger, settings: Settings, *, manifest: bytes, format: Format, owner: str, batch_id: str
) -> int:
    """Add rows to a growing batch and return how many were new; a `custom_id` that it has already is left out.

    Raises:
        NotFoundError: there is no such batch.
        ManifestError, ConsentError: as `submit_portraits`; nothing was added.
        ConflictError: the batch does not grow, or not any more.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
    if batch.kind != "generate":
        raise ConflictError(f"batch {batch.id} is no batch of portraits, but of kind {batch.kind}", code="bad_kind")
    defaults = PortraitOptions.load(batch.options).defaults
    planned = _plan(ledger, settings, manifest, format, owner=owner, preset=batch.preset, defaults=defaults)
    with ledger.read() as session:
        known = {folded(one): one for one in batches.custom_ids(session, batch.id)}
    errors = tuple(
        _taken(item, known)
        for item in planned.items
        if known.get(folded(item.custom_id), item.custom_id) != item.custom_id
    )
    if planned.errors or errors:
        raise _refusal(replace(planned, errors=(*planned.errors, *errors)))
    return batches.append(ledger, owner, batch.id, [_new_item(item) for item in planned.items])


def _taken(item: PlannedItem, known: Mapping[str, str]) -> RowError:
    other = known[folded(item.custom_id)]
    message = f"custom_id {item.custom_id!r} would name the same files as {other!r}, which the batch has"
    return RowError(row=item.row, field="custom_id", code="duplicate_custom_id", message=message)


def dry_run(
    ledger: Ledger,
    settings: Settings,
    *,
    manifest: bytes,
    format: Format,
    owner: str,
    options: PlanOptions = NOTHING_SAID,
) -> DryRun:
    """Say what a submit would do, changing nothing; the time counts what waits already, on the workers of now.

    Raises:
        NotFoundError, ModelError: the preset or its files are wrong.
        ManifestError: the manifest is too large.
    """
    name = options.preset or settings.preset
    planned = _plan(ledger, settings, manifest, format, owner=owner, preset=name, defaults=options.defaults())
    beside = Batch(id=NEW, owner=owner, kind=KIND, preset=name, lane="bulk", priority=0, options={})
    if isinstance(options, SubmitOptions):
        beside.lane, beside.priority = options.lane, options.priority
    with ledger.read() as session, session.no_autoflush:
        queue = standing.look(session, now(session), beside=beside, items=[_new_item(item) for item in planned.items])
        ahead = history.queued_ahead(session)
    living = len(queue.workers)
    if not living:
        queue = replace(queue, workers={"": QUEUES})
    return DryRun(
        items=len(planned.items),
        errors=planned.errors,
        missing_consents=planned.missing_consents(),
        people=len({person for item in planned.items for person in item.params.identities()}),
        cost=round(planned.cost, 3),
        eta=forecast(queue).get(NEW) if planned.items else None,
        workers=living,
        ahead=ahead,
        notes=planned.notes,
    )


def _version(ledger: Ledger, settings: Settings, owner: str, preset: str, model: str | None) -> str:
    """Return the version that draws a batch: the one that was named, else the champion of now.

    Raises:
        NotFoundError: there is no such version that this owner sees.
        ConflictError: it is of another preset.
    """
    if model is None:
        return registry.champion(ledger, settings, preset)
    registry.check_licences(settings, preset)
    with ledger.read() as session:
        version, _ = registry.find_version(session, model, owner)
    if version.preset != preset:
        raise ConflictError(f"version {version.id} is of preset {version.preset!r}, the batch of {preset!r}")
    return version.id


def _request(options: SubmitOptions, preset: str) -> JsonObject:
    """Return what makes two submits the same request; options that came later count only where they are used."""
    said = options.model_dump(mode="json", exclude=set(BatchDefaults.model_fields) | {"paused"})
    later = ("stop_after", "growing", "model", "candidate_share")
    kept = {name: value for name, value in said.items() if value or name not in later}
    return {**kept, "preset": preset, "defaults": options.defaults().dump()}


def request_sha256(manifest: bytes, options: JsonObject) -> str:
    """Return the hash by which a repeated request is known."""
    digest = hashlib.sha256(canonical_json(options).encode())
    digest.update(b"\n")
    digest.update(manifest)
    return digest.hexdigest()


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Keep the cycle collector from walking ten thousand fresh rows again and again: a quarter of the time [ours]."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def _repeated(ledger: Ledger, owner: str, key: str, request: str) -> Submission | None:
    with ledger.read() as session:
        known = batches.by_idempotency_key(session, owner, key)
    if known is None:
        return None
    if known.request_sha256 != request:
        raise ConflictError(
            f"idempotency key {key!r} belongs to batch {known.id} with another request", code="idempotency_conflict"
        )
    return Submission(batch_id=known.id, repeated=True, planned=known.total, errors=())


def _plan(
    ledger: Ledger,
    settings: Settings,
    manifest: bytes,
    format: Format,
    *,
    owner: str,
    preset: str,
    defaults: BatchDefaults,
) -> Plan:
    facts = load_preset(settings.models_dir, preset)
    if not facts.draws:
        raise UsageError(
            f"preset {preset!r} finds and recognises people, it draws nothing; pull one that does: "
            "`fpga model pull sdxl` or `fpga model pull sd15`",
            code="no_generator",
        )
    checked = read_manifest(manifest, format)
    with ledger.read() as session:
        known = known_identities(session, owner)
    planned = plan(checked.rows, preset=facts, known_identities=known, defaults=defaults)
    errors = sorted((*checked.errors, *planned.errors), key=lambda error: error.row)
    counter = tokens.counter(settings.models_dir, preset)
    unread = tokens.notes(planned.items, counter) if counter else ()
    return Plan(items=planned.items, errors=tuple(errors), notes=(*checked.notes, *planned.notes, *unread))


def known_identities(session: Session, owner: str) -> dict[str, IdentityFacts]:
    """Return the living people of an owner by handle and by id, with the scopes that hold now and those that lapsed."""
    ever = identities.scopes_ever(session, owner)
    seen = identities.domains(session, owner)
    known: dict[str, IdentityFacts] = {}
    for handle, (identity_id, allowed) in identities.scopes(session, owner, now(session)).items():
        lapsed = ever.get(identity_id, frozenset()) - allowed
        facts = IdentityFacts(id=identity_id, scopes=allowed, lapsed=lapsed, domain=seen.get(identity_id))
        known[handle] = known[identity_id] = facts
    return known


def _new_item(item: PlannedItem) -> NewItem:
    return NewItem(
        custom_id=item.custom_id,
        params=item.params.dump(),
        params_sha256=item.params_sha256,
        seed=item.seed,
        cost=item.cost,
        identities=item.params.identities(),
    )


def _refusal(planned: Plan) -> UsageError:
    """Return the error that refuses a manifest: about consent where nothing else is wrong."""
    errors = planned.errors
    rows = len({error.row for error in errors})
    listed = [error.as_json() for error in errors]
    if all(error.code == "consent_missing" for error in errors):
        sentences = planned.missing_consents()
        more = f" (and {len(sentences) - 3} more)" if len(sentences) > 3 else ""
        return ConsentError(f"{'; '.join(sentences[:3])}{more}; nothing was submitted", errors=listed)
    first = errors[0]
    wrong = "1 row is" if rows == 1 else f"{rows} rows are"
    return ManifestError(
        f"{wrong} wrong, nothing was submitted; the first is row {first.row}: {first.message}", errors=listed
    )


def _rejected_rows(manifest: bytes, format: Format, errors: Sequence[RowError]) -> list[dict[str, Any]]:
    """Return one entry for each wrong row: row, custom_id as far as it can be read, the first error, and the others."""
    by_row: dict[int, list[RowError]] = {}
    for error in errors:
        by_row.setdefault(error.row, []).append(error)
    custom_ids = _custom_ids(manifest, format, by_row)
    entries = []
    for row, found in by_row.items():
        entry: dict[str, Any] = {"row": row, "custom_id": custom_ids.get(row)}
        entry |= {"field": found[0].field, "code": found[0].code, "message": found[0].message}
        if len(found) > 1:
            entry["more"] = [{"field": e.field, "code": e.code, "message": e.message} for e in found[1:]]
        entries.append(entry)
    return entries


def _custom_ids(manifest: bytes, format: Format, rows: Iterable[int]) -> dict[int, str]:
    """Read the custom_id of wrong rows as well as it goes, so that errors can be joined on it."""
    wanted = set(rows)
    if not wanted:
        return {}
    found = _json_custom_ids(manifest, wanted) if format == "jsonl" else _csv_custom_ids(manifest, wanted)
    return {row: value.strip()[:120] for row, value in found if isinstance(value, str) and value.strip()}


def _json_custom_ids(manifest: bytes, wanted: set[int]) -> Iterator[tuple[int, object]]:
    for number, line in enumerate(io.BytesIO(as_utf8(manifest, [])), start=1):
        if number in wanted:
            with suppress(ValueError, RecursionError):
                value = json.loads(line)
                yield number, value.get("custom_id") if isinstance(value, dict) else None


def _csv_custom_ids(manifest: bytes, wanted: set[int]) -> Iterator[tuple[int, object]]:
    text = as_utf8(manifest, []).decode("utf-8", "replace")
    separator, told = separator_of(text)
    header: list[str] | None = None
    with suppress(csv.Error):
        for number, cells in enumerate(csv.reader(io.StringIO(text, newline=""), delimiter=separator), start=1):
            if header is None and not (told and number == 1) and any(cell.strip() for cell in cells):
                header = [cell.strip().lower() for cell in cells]
            elif header is not None and number in wanted:
                yield number, dict(zip(header, cells, strict=False)).get("custom_id")
