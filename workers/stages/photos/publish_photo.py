"""Stage `publish_photo`: writes the restored photo in its own format, with its metadata, as the item's output."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.contracts.photos import (
    Ingested,
    JudgedPhoto,
    PhotoOptions,
    PhotoParams,
    Published,
    Restored,
    ScoredPhoto,
    WhyUnchanged,
)
from orchestrator.errors import StageError
from orchestrator.ledger import artifacts, photos
from orchestrator.ledger.queue import outputs
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.queue.outputs import NewOutput
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.pictures import MEDIA_TYPES, photo_format
from orchestrator.secrets import credentials
from orchestrator.secrets.credentials import Signed
from orchestrator.version import SOFTWARE
from workers.photo import Encoded, OutputOptions, Patch, encode_photo
from workers.photo.write import CLAIMS
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, facts_of, one_by_one, version_of
from workers.signing import sign_photo
from workers.stages.photos.photo_bytes import ingested, limits, original, read_patches, store_bytes
from workers.stages.photos.score_photo import UNTOUCHED

SUFFIXES = {
    "image/jpeg": ".jpg",
    "image/png": ".png",
    "image/webp": ".webp",
    "image/tiff": ".tif",
    "image/gif": ".gif",
    "image/bmp": ".bmp",
    "image/avif": ".avif",
    "image/heif": ".heic",
}


KEPT = "the content credential of the source is kept as an ingredient of the new one"
DONE = {
    "restore": "Faces of the photo were drawn anew after reference pictures of the same people.",
    "swap": "Faces of the photo were replaced by those of other people.",
}


@dataclass(frozen=True, kw_only=True)
class Story:
    """What the stages before said of one photo."""

    found: Ingested
    made: Restored
    scored: ScoredPhoto
    version: ModelVersion


def publish_photo(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Write the photos of these claims, one after the other."""
    return one_by_one(context, held, lease, lambda c: _publish(context, c))


def _publish(context: StageContext, c: Claim) -> Outcome:
    story = _story(context, c)
    data = original(context, c)
    asked = PhotoOptions.load(c.options)
    options = OutputOptions(format=asked.format, gps=asked.gps)
    rows = []
    for number, candidate in enumerate(story.made.candidates):
        record = _record(context, c, story, number)
        patches = read_patches(context, candidate.patches)
        encoded = encode_photo(data, patches, record=record, options=options, limits=limits(context))
        signed = _signed(context, story, asked, data, patches, encoded)
        rows.append(_output(context, c, story, number, encoded, signed, record))
    chosen = story.scored.chosen
    best = rows[chosen]

    def write(session: Session, moment: datetime) -> None:
        made = []
        for new in rows:
            artifacts.confirm(session, new.artifact_id)
            made.append(outputs.add(session, c, new, moment))
        outputs.choose(session, c, made[chosen], best.verdict, best.similarity)

    scores = rows[chosen].scores or {}
    return Outcome(result=Published(outside=scores["outside"], suffix=scores["suffix"]).dump(), write=write)


def _story(context: StageContext, c: Claim) -> Story:
    with context.ledger.read() as session:
        made = photos.said(session, c.item_id, Restored)
        scored = photos.said(session, c.item_id, ScoredPhoto)
    if made is None or scored is None:
        raise StageError(f"item {c.item_id} was not restored and scored", code="restore_missing")
    return Story(found=ingested(context, c), made=made, scored=scored, version=version_of(context, c))


def _signed(
    context: StageContext, story: Story, asked: PhotoOptions, data: bytes, patches: list[Patch], encoded: Encoded
) -> Signed:
    """Sign what was changed, as the last thing that is done to it; a photo that stays, stays to the last byte."""
    if not encoded.changed:
        return Signed(data=encoded.data)
    told = credentials.Story(
        what=DONE[asked.task],
        model=facts_of(story.version),
        source=(data, MEDIA_TYPES[photo_format(data[:64]) or ""]),
        keep_source=asked.gps == "keep",
        regions=[(patch.left, patch.top, patch.rgba.shape[1], patch.rgba.shape[0]) for patch in patches],
    )
    return sign_photo(context.signer, encoded.data, encoded.media_type, told, limits(context))


def _output(
    context: StageContext,
    c: Claim,
    story: Story,
    number: int,
    encoded: Encoded,
    signed: Signed,
    record: dict[str, Any],
) -> NewOutput:
    stored = store_bytes(context, c.owner, signed.data, SUFFIXES[encoded.media_type], encoded.media_type)
    judged = _judged(story, number, encoded)
    previews = story.scored.previews if number == story.scored.chosen else None
    scores = {
        **judged.dump(),
        "outside": encoded.outside,
        "suffix": encoded.suffix,
        "changed": encoded.changed,
        "aside": encoded.aside,
        "notes": [*PhotoParams.load(c.params).notes, *story.found.notes, *_notes(encoded, signed)],
        "previews": previews.dump() if previews else None,
        "reused_from": story.made.reused_from,
        "judge": story.scored.judge,
    }
    return NewOutput(
        round=number,
        artifact_id=stored.artifact_id,
        width=story.found.width,
        height=story.found.height,
        seed=story.made.candidates[number].seed,
        model_version_id=story.version.id,
        record={**record, "faces": judged.dump()["faces"], "verdict": judged.verdict},
        verdict=judged.verdict,
        similarity=judged.similarity,
        scores=scores,
    )


def _notes(encoded: Encoded, signed: Signed) -> list[str]:
    notes = [KEPT if note == CLAIMS and signed.kept_source else note for note in encoded.notes]
    return [*notes, signed.why_not] if signed.why_not else notes


def _judged(story: Story, number: int, encoded: Encoded) -> JudgedPhoto:
    """Return the verdict on one version; a photo that could not be written with its change is unchanged."""
    judged = story.scored.candidates[number]
    if encoded.stays is None:
        return judged
    reason = WhyUnchanged(**encoded.stays)
    stayed = {"outcome": "photo_stays", "reason": reason.message}
    faces = tuple(face if face.outcome in UNTOUCHED else face.model_copy(update=stayed) for face in judged.faces)
    return JudgedPhoto(verdict="unchanged", reason=reason, faces=faces)


def _record(context: StageContext, c: Claim, story: Story, number: int) -> dict[str, Any]:
    """Everything that says how this picture came to be; people by id, files by hash, no name and no path."""
    asked, original = PhotoOptions.load(c.options), PhotoParams.load(c.params).original
    assert original is not None, "what was restored was read"
    judged = story.scored.candidates[number].dump()
    return {
        "schema": "fpga/restored/1",
        "software": SOFTWARE,
        "batch": c.batch_id,
        "item": c.item_id,
        "task": asked.task,
        "preset": c.preset,
        "model_version": story.version.id,
        "model_sha256": story.version.tensor_sha256,
        "source_sha256": original.sha256,
        "seed": story.made.candidates[number].seed,
        "params": {"fidelity": asked.fidelity, **story.made.settings},
        "faces": judged["faces"],
        "verdict": judged["verdict"],
        "reused_from": story.made.reused_from,
        "profile": context.engine.profile(),
    }
