"""Restoration of photo archives and swaps of faces: an open batch, fed from its source while its photos are worked on.

`submit` refuses what cannot work before anything is queued; `feed` reads the source once, in any process, and goes on
where a killed one stopped; `redo` makes one photo again with other settings.
"""

from __future__ import annotations

import codecs
import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.archive import Limits, Photo, Refused
from orchestrator.archive.reach import KEPT, Reach, opened
from orchestrator.contracts.base import digest
from orchestrator.contracts.batches import Lane
from orchestrator.contracts.photos import (
    Attestation,
    Ingested,
    PhotoOptions,
    PhotoParams,
    RedoOptions,
    RestoreOptions,
    SwapPlan,
)
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import ConflictError, ConsentError, NotFoundError, UsageError
from orchestrator.ledger import audit, photos
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import State
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.views import listings
from orchestrator.models import registry
from orchestrator.planning.plan import IdentityFacts
from orchestrator.planning.presets import Preset, load_preset
from orchestrator.portraits.submit import known_identities
from orchestrator.settings import Settings

AS_ASKED = {"task", "fidelity", "min_face", "good", "candidates", "format", "gps", "force", "mirror", "names"}
"""Options that the batch keeps as they were asked."""
STATEMENT = "the owner states that the people of this archive may be restored"


@dataclass(frozen=True, kw_only=True)
class Look:
    """What a source holds, as far as names and first bytes tell; for a dry run."""

    photos: int
    size: int
    skipped: dict[str, int]
    refused: tuple[dict[str, str], ...]
    known_people: int
    preset: str
    domain: str
    """What the preset was made for: `drawn` people or `photographs`; faces of the other kind stay as they are."""
    draws: bool
    """Whether the preset restores; one without a generator finds, pairs and reports."""
    cluster: bool
    must_attest: bool
    """Whether a submit will want to know on what ground unknown people may be restored."""

    def as_json(self) -> dict[str, object]:
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
    lane: Lane = "bulk",
    priority: int = 0,
    out: str | None = None,
    idempotency_key: str | None = None,
    fed: bool = True,
    paused: bool = False,
    operator: bool = False,
) -> Submitted:
    """Open a batch for a source, without reading more of it than whether it can be read; `feed` fills the batch.

    Args:
        source: folder, glob, zip, tar, single photo or `s3://bucket/prefix`; None for a batch that is handed its
            photos one by one (`feeding.add`) until somebody closes it.
        out: folder or `s3://bucket/prefix` that whoever feeds the batch also writes finished photos to.
        fed: whether the sweeper reads the source and writes to `out`; else the caller does.
        operator: whether buckets are opened with the AWS_* variables, or only those that the owner was granted.

    Raises:
        ForbiddenError: the source or the target is a bucket that the owner was not granted.
        NotFoundError, InputError: the source is not there, or cannot be read as a whole.
        ConsentError: a person does not allow it, or nobody answers for unknown people.
        UsageError, ModelError: an option, the preset or its files are wrong.
        ConflictError: the idempotency key was used for another request.
    """
    SubmitOptions.asked(lane=lane, priority=priority)
    place = source and absolute(source)
    reach = Reach(settings=settings, owner=owner, operator=operator)
    if out and out.startswith("s3://"):
        reach.place(out, "write")
    if place:
        with opened(ledger, None, reach, place, limits_of(settings, options.names)):
            pass
    preset_name = preset or settings.preset
    kept = _kept(ledger, owner, options, load_preset(settings.models_dir, preset_name))
    request = {"source": place, "out": out, "preset": preset_name, "lane": lane, "priority": priority}
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
            request_sha256=digest([request, kept.dump()]),
            options=kept.model_copy(
                update={"source": place, "out": absolute(out) if out else None, "operator": operator}
            ).dump(),
            flow=fed and source is not None,
            effects=(photos.SERVE,) if fed and source is not None else (),
            paused=paused,
            open=True,
        ),
    )
    if not submitted.repeated and kept.attestation:
        with ledger.write() as session:
            detail = {"text_sha256": kept.attestation.text_sha256}
            audit.write(session, owner, "archive.attest", submitted.batch_id, detail, now(session))
    return submitted


def look(
    ledger: Ledger,
    settings: Settings,
    *,
    source: str,
    options: RestoreOptions,
    owner: str,
    preset: str | None = None,
) -> Look:
    """Say what a source holds and who could be restored in it, changing nothing; for whoever runs the command.

    Raises:
        as `submit`.
    """
    # what a submit will ask for is said, not asked
    chosen = load_preset(settings.models_dir, preset or settings.preset)
    kept = _kept(ledger, owner, options.model_copy(update={"attested": options.attested or STATEMENT}), chosen)
    count, size, skipped, refused = 0, 0, dict[str, int](), []
    reach = Reach(settings=settings, owner=owner, operator=True)
    with opened(ledger, None, reach, absolute(source), limits_of(settings, options.names)) as found:
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
        known_people=len(kept.identities),
        preset=chosen.name,
        domain=chosen.domain,
        draws=chosen.draws,
        cluster=kept.cluster,
        must_attest=kept.cluster and not (options.attested or "").strip(),
    )


def redo(ledger: Ledger, settings: Settings, owner: str, item_id: str, options: RedoOptions) -> str:
    """Make one photo of an earlier batch again with other settings, as a batch of its own; return its id.

    What was found out about the photo is used again: its faces, and the inversions of their crops.

    Raises:
        NotFoundError: there is no such item.
        ConflictError: the photo was never looked at, or is still being worked on.
    """
    with ledger.read() as session:
        item = listings.item(session, owner, item_id)
        batch = batches.one(session, item.batch_id)
        found = photos.said(session, item.id, Ingested)
        shown = photos.shown(session, item.id)
    if batch.kind == photos.KIND and found is None:
        found = PhotoParams.load(item.params).ingested
    if batch.kind != photos.KIND or found is None or item.state not in (State.COMPLETED, State.FAILED, State.HELD):
        raise ConflictError(
            f"item {item_id} is no photo that was looked at and has ended; it is {item.state}", code="item_not_ready"
        )
    before = PhotoOptions.load(batch.options)
    kept = before.model_copy(
        update={
            **options.model_dump(exclude={"seed"}, exclude_none=True),
            "people_of": before.people_of or batch.id,
            "redo_of": item.id,
        }
    )
    found = found.model_copy(update={"reused_from": found.reused_from or item.id})
    params = PhotoParams.load(item.params).model_copy(update={"ingested": found})
    new = NewItem(
        custom_id=item.custom_id,
        params=params.dump(),
        params_sha256=digest([params.dump(), kept.dump()]),
        seed=item.seed if options.seed is None else options.seed,
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
            options=kept.dump(),
            flow=False,
        ),
    ).batch_id


def absolute(source: str) -> str:
    """Return a source or target that means the same in another process."""
    return source if source.startswith(("s3://", KEPT)) else str(Path(source).expanduser().absolute())


def limits_of(settings: Settings, names: str = "cp437") -> Limits:
    """Return how an archive is read.

    Raises:
        UsageError: `bad_names`, there is no such code page.
    """
    try:
        codecs.lookup(names)
    except LookupError as error:
        raise UsageError(f"there is no code page {names!r}; wanted one such as cp866", code="bad_names") from error
    return Limits(member_bytes=settings.max_photo_bytes, names=names)


def _kept(ledger: Ledger, owner: str, options: RestoreOptions, preset: Preset) -> PhotoOptions:
    """Return what the batch keeps of what was asked: people as ids, with their consent of now."""
    with ledger.read() as session:
        known = known_identities(session, owner)
    asked = options.model_dump(include=AS_ASKED)
    if options.mirror and options.gps == "strip":
        raise UsageError(
            "films and side files are mirrored as they are, with the positions in them; leave out one of the two, "
            "mirror or strip",
            code="bad_options",
        )
    if options.task == "swap":
        return PhotoOptions(**asked, swap=_swap(known, options, preset))
    named = (options.everyone,) if options.everyone else options.only
    wanted = [_allowed(known, who, "restore", preset) for who in named]
    if not named:
        fitting = [facts for facts in known.values() if facts.domain in (None, preset.domain)]
        wanted = sorted({facts.id for facts in fitting if "restore" in facts.scopes})
    cluster = options.unknown == "cluster" or (options.unknown is None and not wanted)
    if cluster and options.everyone:
        raise UsageError("with one person for all photos nobody is unknown", code="bad_people")
    return PhotoOptions(
        **asked,
        everyone=options.everyone is not None,
        cluster=cluster,
        identities=tuple(dict.fromkeys(wanted)),
        attestation=_attestation(owner, options) if cluster else None,
    )


def _swap(known: Mapping[str, IdentityFacts], options: RestoreOptions, preset: Preset) -> SwapPlan:
    if not options.rules and not options.to:
        raise UsageError("a swap needs --to or --map", code="swap_without_people")
    handles = {facts.id: handle for handle, facts in known.items() if handle != facts.id}
    to = [_allowed(known, who, "swap", preset) for who in options.to]
    return SwapPlan(
        rules=tuple(
            rule.model_copy(
                update={
                    "to": _allowed(known, rule.to, "swap", preset),
                    "of": _allowed(known, rule.of, "swap", preset) if rule.of else None,
                }
            )
            for rule in options.rules
        ),
        to=tuple((identity, handles[identity]) for identity in to),
        of=_allowed(known, options.of, "swap", preset) if options.of else None,
        pairs=options.pairs,
    )


def _attestation(owner: str, options: RestoreOptions) -> Attestation:
    text = (options.attested or "").strip()
    if not text:
        raise ConsentError(
            "this archive shows people who are not in the library; say on what ground you may restore them with "
            "--attest, or add them to the library with the scope restore",
            code="attestation_missing",
        )
    return Attestation(by=owner, text=text, text_sha256=hashlib.sha256(text.encode()).hexdigest(), means=STATEMENT)


def _allowed(known: Mapping[str, IdentityFacts], who: str, scope: str, preset: Preset) -> str:
    facts = known.get(who)
    if facts is None:
        raise NotFoundError(f"there is no identity {who!r}", code="identity_not_found")
    if scope not in facts.scopes:
        raise ConsentError(f"identity {who!r} does not allow {scope!r}", identity=facts.id)
    if facts.domain not in (None, preset.domain):
        raise UsageError(preset.refusal(who), code="outside_domain")
    return facts.id
