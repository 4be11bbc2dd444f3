"""Restoration of photo archives and swaps of faces: an open batch, fed from its source while its photos are worked on.

`submit` refuses what cannot work before anything is queued; `feed` reads the source once, in any process, and goes on
where a killed one stopped; `redo` makes one photo again with other settings.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

from orchestrator.archive import Limits, Photo, Refused
from orchestrator.archive.reach import KEPT, Reach, opened
from orchestrator.errors import ConflictError, ConsentError, NotFoundError, UsageError
from orchestrator.ledger import audit, photos
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.tables.rows import Batch, Item
from orchestrator.models import registry
from orchestrator.planning.swaps import Pairs, Rule
from orchestrator.portraits.submit import check_options, known_identities
from orchestrator.settings import Settings

MOST_CANDIDATES = 8
MOST_RULES = 20_000
WORDS: Mapping[str, tuple[str | None, ...]] = {
    "task": ("restore", "swap"),
    "format": ("same", "png"),
    "gps": ("keep", "strip"),
    "unknown": (None, "cluster", "keep"),
    "pairs": ("zip", "product"),
}
"""Options that are one of a few words."""
STATEMENT = "the owner states that the people of this archive may be restored"


@dataclass(frozen=True, kw_only=True)
class RestoreOptions:
    """What people may ask of a restoration or a swap.

    Attributes:
        task: `restore` or `swap`.
        fidelity: 0 trusts the references, 1 the photo; see `fpga_models.diir.dial`.
        min_face: faces with a shorter side, in px of the photo, stay as they are.
        good: faces at least so like their person stay as they are; None tries every face.
        candidates: versions of every photo, 1 to 8; the best becomes the result, the others are kept beside it.
        format: `same` as the source, or `png`.
        gps: whether recorded positions stay in the files.
        only: people of the library (handle or id) to restore; empty for everybody who allows it.
        everyone: the one person whom every photo shows.
        unknown: `cluster` finds unknown people by their faces and takes their best ones as references, `keep` leaves
            them as they are, None clusters where no known person can be restored.
        attested: the owner's statement that unknown people may be restored; needed for `cluster`.
        rules: of a swap by a map.
        to, of, pairs: of a swap without one: who comes in, whose face goes (None: the largest), and how people and
            photos meet.
        force: make everything anew, even what was made before.
    """

    task: Literal["restore", "swap"] = "restore"
    fidelity: float = 0.5
    min_face: int = 0
    good: float | None = None
    candidates: int = 1
    format: Literal["same", "png"] = "same"
    gps: Literal["keep", "strip"] = "keep"
    only: tuple[str, ...] = ()
    everyone: str | None = None
    unknown: Literal["cluster", "keep"] | None = None
    attested: str | None = None
    rules: tuple[Rule, ...] = ()
    to: tuple[str, ...] = ()
    of: str | None = None
    pairs: Pairs = "product"
    force: bool = False

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> RestoreOptions:
        """Return options from plain JSON, as schedules and HTTP have them; `rules` are objects with `photo`, `to`, ...

        Raises:
            UsageError: a name or a word is not known.
        """
        given: dict[str, Any] = dict(facts)
        unknown = sorted(given.keys() - {field.name for field in fields(cls)})
        if unknown:
            raise UsageError(f"there is no option {unknown[0]!r} of a restoration", code="bad_option")
        for name, allowed in WORDS.items():
            if name in given and given[name] not in allowed:
                raise UsageError(
                    f"{name} is one of {', '.join(map(str, allowed))}, got {given[name]!r}", code="bad_option"
                )
        for name in ("only", "to"):
            given[name] = tuple(given.get(name, ()))
        given["rules"] = tuple(
            Rule(to=rule["to"], photo=rule.get("photo", "*"), face=rule.get("face"), of=rule.get("from"))
            for rule in given.get("rules", ())
        )
        return cls(**given)


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a source holds, as far as names and first bytes tell; for a dry run."""

    photos: int
    size: int
    skipped: dict[str, int]
    refused: tuple[dict[str, str], ...]
    known_people: int
    cluster: bool
    must_attest: bool
    """Whether a submit will want to know on what ground unknown people may be restored."""

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line and HTTP answers share."""
        return {"object": "restore.dry_run", **asdict(self)}


def submit(
    ledger: Ledger,
    settings: Settings,
    *,
    source: str | None,
    options: RestoreOptions,
    owner: str,
    name: str | None = None,
    preset: str | None = None,
    lane: str = "bulk",
    priority: int = 0,
    out: str | None = None,
    idempotency_key: str | None = None,
    flow: bool = True,
    paused: bool = False,
    operator: bool = False,
) -> Submitted:
    """Open a batch for a source, without reading more of it than whether it can be read; `feed` fills the batch.

    Args:
        source: folder, glob, zip, tar, single photo or `s3://bucket/prefix`; None for a batch that is handed its
            photos one by one (`feeding.add`) until somebody closes it.
        out: folder or `s3://bucket/prefix` that whoever feeds the batch also writes finished photos to.
        flow: whether the flow `restore_archive` feeds and watches it; else the caller does.
        operator: whether buckets are opened with the AWS_* variables, or only those that the owner was granted.

    Raises:
        ForbiddenError: the source or the target is a bucket that the owner was not granted.
        NotFoundError, InputError: the source is not there, or cannot be read as a whole.
        ConsentError: a person does not allow it, or nobody answers for unknown people.
        UsageError, ModelError: an option, the preset or its files are wrong.
        ConflictError: the idempotency key was used for another request.
    """
    check_options(lane, priority, 0)
    place = source and absolute(source)
    reach = Reach(settings=settings, owner=owner, operator=operator)
    if out and out.startswith("s3://"):
        reach.place(out, "write")
    if place:
        with opened(ledger, None, reach, place, limits_of(settings)):
            pass
    preset_name = preset or settings.preset
    facts = _facts(ledger, owner, options)
    request = {"source": place, "out": out, "preset": preset_name, "lane": lane, "priority": priority, **facts}
    digest = hashlib.sha256(json.dumps(request, sort_keys=True, default=str).encode()).hexdigest()
    submitted = batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=photos.KIND,
            name=name or (source and (Path(source.rstrip("/")).name or source)) or "photos",
            preset=preset_name,
            items=(),
            lane=lane,
            priority=priority,
            model_version_id=registry.champion(ledger, settings, preset_name),
            idempotency_key=idempotency_key,
            request_sha256=digest,
            options={
                "source": place,
                "out": out and absolute(out),
                "operator": operator,
                **facts,
            },
            flow=flow and source is not None,
            paused=paused,
            open=True,
        ),
    )
    if not submitted.repeated and facts["attestation"]:
        with ledger.write() as session:
            detail = {"text_sha256": facts["attestation"]["text_sha256"]}
            audit.write(session, owner, "archive.attest", submitted.batch_id, detail, now(session))
    return submitted


def look(ledger: Ledger, settings: Settings, *, source: str, options: RestoreOptions, owner: str) -> Look:
    """Say what a source holds and who could be restored in it, changing nothing; for whoever runs the command.

    Raises:
        as `submit`.
    """
    # what a submit will ask for is said, not asked
    facts = _facts(ledger, owner, replace(options, attested=options.attested or STATEMENT))
    count, size, skipped, refused = 0, 0, dict[str, int](), []
    reach = Reach(settings=settings, owner=owner, operator=True)
    with opened(ledger, None, reach, absolute(source), limits_of(settings)) as found:
        for member in found.members():
            if isinstance(member, Photo):
                count, size = count + 1, size + member.size
            elif isinstance(member, Refused):
                refused.append({"path": member.path, "code": member.error.code, "message": member.error.message})
            else:
                skipped[member.reason] = skipped.get(member.reason, 0) + 1
    return Look(
        photos=count,
        size=size,
        skipped=skipped,
        refused=tuple(refused),
        known_people=len(facts["identities"]),
        cluster=facts["cluster"],
        must_attest=facts["cluster"] and not (options.attested or "").strip(),
    )


def redo(
    ledger: Ledger,
    settings: Settings,
    owner: str,
    item_id: str,
    *,
    fidelity: float | None = None,
    candidates: int | None = None,
    good: float | None = None,
    min_face: int | None = None,
    seed: int | None = None,
    force: bool = False,
) -> str:
    """Make one photo of an earlier batch again with other settings, as a batch of its own; return its id.

    What was found out about the photo is used again: its faces, and the inversions of their crops.

    Raises:
        NotFoundError: there is no such item.
        ConflictError: the photo was never looked at, or is still being worked on.
        UsageError: a setting is out of range.
    """
    with ledger.read() as session:
        item = session.get(Item, item_id)
        if item is None or item.owner != owner:
            raise NotFoundError(f"there is no item {item_id!r}", code="item_not_found")
        batch = session.get_one(Batch, item.batch_id)
        said = photos.said(session, item.id, "ingest_photo") or item.params.get("ingested")
        shown = photos.shown(session, item.id)
    if batch.kind != photos.KIND or said is None or item.state not in ("completed", "failed", "held"):
        raise ConflictError(
            f"item {item_id} is no photo that was looked at and has ended; it is {item.state}", code="item_not_ready"
        )
    asked = {"fidelity": fidelity, "candidates": candidates, "good": good, "min_face": min_face}
    options = {
        **batch.options,
        **{name: value for name, value in asked.items() if value is not None},
        "force": force,
        "people_of": batch.options.get("people_of") or batch.id,
        "redo_of": item.id,
    }
    _check_numbers(options)
    params = {**item.params, "ingested": {**said, "reused_from": said["reused_from"] or item.id}}
    digest = hashlib.sha256(json.dumps([params, options], sort_keys=True).encode()).hexdigest()
    new = NewItem(
        custom_id=item.custom_id,
        params=params,
        params_sha256=digest,
        seed=item.seed if seed is None else seed,
        cost=item.cost,
        identities=tuple(shown),
    )
    return batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=photos.KIND,
            name=f"{batch.name} (redo)",
            preset=batch.preset,
            first="restore",
            items=[new],
            lane="interactive",
            model_version_id=registry.champion(ledger, settings, batch.preset),
            parent_id=batch.id,
            options=options,
            flow=False,
        ),
    ).batch_id


def absolute(source: str) -> str:
    """Return a source or target that means the same in another process."""
    return source if source.startswith(("s3://", KEPT)) else str(Path(source).expanduser().absolute())


def limits_of(settings: Settings) -> Limits:
    """Return how much of an archive is read."""
    return Limits(member_bytes=settings.max_photo_bytes)


def _facts(ledger: Ledger, owner: str, options: RestoreOptions) -> dict[str, Any]:
    """Check the options and return what the batch keeps of them: people as ids, with their consent of now."""
    given = asdict(options)
    _check_numbers(given)
    with ledger.read() as session:
        known = known_identities(session, owner)
    handles = {facts.id: handle for handle, facts in known.items() if handle != facts.id}
    kept = {name: given[name] for name in ("task", "fidelity", "min_face", "good", "candidates", "format", "gps")}
    kept |= {"force": options.force, "everyone": options.everyone is not None, "attestation": None, "cluster": False}
    if options.task == "swap":
        if len(options.rules) > MOST_RULES:
            raise UsageError(f"a map holds at most {MOST_RULES} rows, got {len(options.rules)}", code="map_too_long")
        if not options.rules and not options.to:
            raise UsageError("a swap needs --to or --map", code="swap_without_people")
        rules = [rule.as_json() for rule in options.rules]
        for rule in rules:
            rule["to"] = _allowed(known, rule["to"], "swap")
            rule["from"] = _allowed(known, rule["from"], "swap") if rule["from"] else None
        to = [_allowed(known, who, "swap") for who in options.to]
        of = _allowed(known, options.of, "swap") if options.of else None
        swap = {"rules": rules, "to": [[i, handles[i]] for i in to], "from": of, "pairs": options.pairs}
        return {**kept, "identities": [], "swap": swap}
    named = (options.everyone,) if options.everyone else options.only
    wanted = [_allowed(known, who, "restore") for who in named]
    if not named:
        wanted = sorted({facts.id for facts in known.values() if "restore" in facts.scopes})
    cluster = options.unknown == "cluster" or (options.unknown is None and not wanted)
    if cluster and options.everyone:
        raise UsageError("with one person for all photos nobody is unknown", code="bad_people")
    if cluster and not (options.attested or "").strip():
        raise ConsentError(
            "this archive shows people who are not in the library; say on what ground you may restore them with "
            "--attest, or add them to the library with the scope restore",
            code="attestation_missing",
        )
    if cluster:
        text = (options.attested or "").strip()
        kept["attestation"] = {
            "by": owner,
            "text": text,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "means": STATEMENT,
        }
    return {**kept, "cluster": cluster, "identities": list(dict.fromkeys(wanted))}


def _allowed(known: dict[str, Any], who: str, scope: str) -> str:
    facts = known.get(who)
    if facts is None:
        raise NotFoundError(f"there is no identity {who!r}", code="identity_not_found")
    if scope not in facts.scopes:
        raise ConsentError(f"identity {who!r} does not allow {scope!r}", identity=facts.id)
    return str(facts.id)


def _check_numbers(options: dict[str, Any]) -> None:
    ranges: Sequence[tuple[str, float, float]] = (
        ("fidelity", 0, 1),
        ("min_face", 0, 10_000),
        ("good", -1, 2),
        ("candidates", 1, MOST_CANDIDATES),
    )
    for name, low, high in ranges:
        value = options.get(name)
        if value is not None and not low <= value <= high:
            raise UsageError(f"{name} is {low} to {high}, got {value}", code=f"bad_{name}")
