"""Stage `generate`: the method on a group of portraits; stores each picture with its record.

The pictures are drawn as one batch (MMF model with MGMICA). Then, where a request asks for it, small faces of each
are drawn again, larger (DIIR), one picture after the other.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from fpga_models.core.pipeline import PersonSlot, PortraitRequest
from fpga_models.diir import DiirResult, Restorer, restore_small_faces
from fpga_models.diir.restorer import OnStep
from fpga_models.diir.small_faces import small_people
from fpga_models.errors import ModelError as NetworkError
from fpga_models.faces.domain import Kind
from orchestrator.contracts.portraits import Generated, PortraitParams
from orchestrator.errors import ConsentError, ModelError, StageError
from orchestrator.ledger import identities
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.queue import outputs
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.queue.outputs import NewOutput
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.secrets.credentials import Story
from orchestrator.version import SOFTWARE
from workers.photo.picture import decode_crop, encode_png
from workers.runtime.domains import OUTSIDE, Made
from workers.runtime.engine import is_out_of_memory
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, StoppedError, facts_of, upload, version_of
from workers.stages.portraits.people import vectors_of

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
Ready = tuple[Claim, PortraitRequest]
DRAWN = 0.25
"""Share of the work on a picture with small faces that is done once it is drawn, about, measured [ours]."""
DIGITS = 4


def generate(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Make the portraits of these claims, those of equal shape as one batch of the networks."""
    version = version_of(context, held[0])
    restorer = Restorer(context.engine.portraits(version), context.engine.faces(version))
    for _, group in groupby(sorted(held, key=_shape), key=_shape):
        ready: list[Ready] = []
        for c in group:
            try:
                ready.append((c, _request(context, c, version)))
            except (ConsentError, ModelError, StageError) as error:
                yield c, error
        while ready:
            width, height = ready[0][1].width, ready[0][1].height
            part, ended = ready[: context.engine.largest_group(version, width, height)], set()
            try:
                for c, outcome in _make(context, part, version, restorer, lease):
                    ended.add(c.stage_id)
                    yield c, outcome
                full = False
            except (RuntimeError, MemoryError) as error:
                if len(part) == 1 or not is_out_of_memory(error):
                    raise
                full = True
            if full:  # out here nothing holds the tensors of the group that failed
                context.engine.ran_out(version, width, height, len(part))
            ready = [one for one in ready if one[0].stage_id not in ended and (full or one not in part)]


def _make(
    context: StageContext, ready: Sequence[Ready], version: ModelVersion, restorer: Restorer, lease: Lease
) -> Iterator[Ended]:
    again = {c.stage_id for c, request in ready if _restores(c, request)}

    def on_step(step: int, total: int) -> Collection[int]:
        if context.draining():
            raise DrainedError
        for c, _ in ready:
            lease.progress(c, step / (total + 1) * (DRAWN if c.stage_id in again else 1))
        return [i for i, (c, _) in enumerate(ready) if c.stage_id in lease.stopped]

    try:
        images = restorer.pipeline.generate([request for _, request in ready], on_step=on_step)
    except NetworkError as error:
        # the shape was checked per request, so this is about the group: let each bear its own
        for c, _ in ready:
            yield c, StageError(str(error), code=error.code)
        return
    drawn = [(*one, image) for one, image in zip(ready, images, strict=True) if image is not None]
    drawn.sort(key=lambda one: one[0].stage_id in again)  # what is finished need not wait for the others
    for place, (c, request, image) in enumerate(drawn):
        left = [waiting for waiting, *_ in drawn[place:]]
        try:
            restored = None
            if c.stage_id in again:
                on_face = _on_face(context, left, len(again), lease)
                on_face(0, 1)
                restored = restore_small_faces(restorer, image, request.people, seed=request.seed, on_step=on_face)
            yield c, _done(context, c, request, image, restored, version, len(ready))
        except StoppedError:
            continue
        except NetworkError as error:
            yield c, StageError(str(error), code=error.code)


def _restores(c: Claim, request: PortraitRequest) -> bool:
    """Whether faces of this picture are to be drawn again; requests from before there was the choice keep theirs."""
    small = small_people(request.people, min(request.width, request.height))
    return PortraitParams.load(c.params).small_faces == "restore" and bool(small)


def _on_face(context: StageContext, left: Sequence[Claim], pictures: int, lease: Lease) -> OnStep:
    """Return what watches over the first picture that is left; its steps bring those behind it nearer too."""

    def on_step(done: int, planned: int) -> None:
        if context.draining():
            raise DrainedError
        if left[0].stage_id in lease.stopped:
            raise StoppedError
        for c in left:
            lease.progress(c, 1 - (1 - DRAWN) * (len(left) - done / (planned + 1)) / pictures)

    return on_step


def _shape(c: Claim) -> tuple[int, int, int, float, float, str]:
    p = PortraitParams.load(c.params)
    return p.width, p.height, p.steps, p.guidance, p.id_scale, p.control


def _request(context: StageContext, c: Claim, version: ModelVersion) -> PortraitRequest:
    """Turn an item's parameters into what the networks take, with consent asked at this very moment."""
    p = PortraitParams.load(c.params)
    pack, made = context.engine.faces(version), Made.of(version)
    people = p.identities()
    with context.ledger.read() as session:
        vectors = vectors_of(context, session, c, people, scope="generate", pack=pack, made=made)
        found = identities.crops(session, people, unseal=context.vault.open)
    crops = {person: decode_crop(crop) for person, crop in found.items()}
    _check_domain(context, made, people, vectors, crops)
    return PortraitRequest(
        prompt=p.prompt,
        negative_prompt=p.negative_prompt,
        people=tuple(
            PersonSlot(
                embedding=vectors[person.identity],
                crop=crops.get(person.identity),
                kps5=_points(person.kps5),
                skeleton=_points(person.skeleton),
                mask=None,
            )
            for person in p.people
        ),
        width=p.width,
        height=p.height,
        seed=c.seed + c.round,
        steps=p.steps,
        guidance=p.guidance,
        id_scale=p.id_scale,
        control=p.control,
        control_scale=1.0 if p.control_scale is None else p.control_scale,
        masked=p.masked,
    )


def _check_domain(
    context: StageContext,
    made: Made,
    people: Sequence[str],
    vectors: Mapping[str, Floats],
    crops: Mapping[str, Image | None],
) -> None:
    """Refuse people whose references are of a domain that the preset was not made for, however they were enrolled.

    Raises:
        StageError: `outside_domain`.
    """
    guard = context.engine.guard()
    other: Kind = "photographs" if made.domain == "drawn" else "drawn"
    for person in people:
        crop = crops.get(person)
        clear = crop is not None and guard.together(guard.scores([crop])) == other
        if person not in vectors or clear:
            raise StageError(f"identity {person}: the reference is {made.refusal(other)}", code=OUTSIDE)


def _points(values: Sequence[Sequence[float]] | None) -> NDArray[np.float32] | None:
    return None if values is None else np.asarray(values, np.float32)


def _done(
    context: StageContext,
    c: Claim,
    request: PortraitRequest,
    drawn: Image,
    restored: DiirResult | None,
    version: ModelVersion,
    group: int,
) -> Outcome:
    """Encode a picture; the row that refers to it is written only with the result."""
    record = _record(context, c, request, restored, version, group)
    image = drawn if restored is None else np.asarray(restored.image, np.uint8)
    story = Story(what="A portrait, drawn from a description and reference pictures.", model=facts_of(version))
    signed = context.signer.sign(encode_png(image, record), "image/png", story)
    made = upload(c, signed.data, ".png", "image/png")
    output_id = new_id("out")

    def write(session: Session, moment: datetime) -> None:
        new = NewOutput(
            id=output_id,
            artifact_id=made.artifact,
            width=image.shape[1],
            height=image.shape[0],
            seed=request.seed,
            model_version_id=version.id,
            record=record,
        )
        outputs.show(session, c, outputs.add(session, c, new, moment))

    return Outcome(result=Generated(output=output_id, sha256=made.sha256).dump(), write=write, uploads=[made])


def _record(
    context: StageContext,
    c: Claim,
    request: PortraitRequest,
    restored: DiirResult | None,
    version: ModelVersion,
    group: int,
) -> dict[str, object]:
    """Everything that is needed to make this picture again."""
    return {
        "schema": "fpga/output/1",
        "software": SOFTWARE,
        "batch": c.batch_id,
        "item": c.item_id,
        "custom_id": c.custom_id,
        "preset": c.preset,
        "model_version": version.id,
        "model_sha256": version.tensor_sha256,
        "seed": request.seed,
        "params": c.params,
        "small_faces": _faces(restored),
        "profile": {**context.engine.profile(), "group": group},
    }


def _faces(restored: DiirResult | None) -> list[dict[str, Any]]:
    """What became of each small face; `person` counts the people of the request."""
    return [
        {
            "person": face.reference,
            "outcome": face.outcome,
            "before": None if face.before is None else round(face.before, DIGITS),
            "after": None if face.after is None else round(face.after, DIGITS),
        }
        for face in (restored.faces if restored else ())
        if face.reference is not None
    ]
