"""Stage `scan_photo`: finds the faces of a photo, says what is poor about each, and keeps them sealed for grouping.

The original is let go as soon as it was looked at: a scan needs no second copy of an archive. While one photo is
searched, the next ones are decoded in their guarded processes.
"""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from functools import partial

import numpy as np
from PIL import Image as Pillow
from sqlalchemy.orm import Session

from fpga_models.core.alignment import align
from fpga_models.diir.picture import Image
from fpga_models.faces import Face, FacePack
from fpga_models.faces.clusters import quality
from fpga_models.faces.domain import is_inside
from fpga_models.idzoom.annotate import frontal, sharpness
from orchestrator.contracts.photos import PhotoParams, SeenFace
from orchestrator.ledger import stage_results
from orchestrator.ledger.faces import scanned
from orchestrator.ledger.faces.scanned import NewFace
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows_people import found_face_place
from workers.photo import Decoded
from workers.runtime.domains import Made
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, version_of
from workers.stages.photos.ingest_photo import kept_face, look_at, said_of
from workers.stages.photos.photo_bytes import decoded
from workers.stages.portraits.ingest import BLURRED, SMALL_PX, TURNED

AHEAD = 2
"""So many photos are decoded while another is searched; each may take a few hundred MiB."""
DARK = 48
"""Mean grey level of an aligned face, of 255, below which it is said to be dark [ours]."""
HEAD, HEAD_PX, HEAD_QUALITY = 1.7, 224, 88
"""The kept picture of a head: its side over the longer side of the face's box, most px, quality of its JPEG."""


def scan_photo(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Look at the photos of these claims, one after the other."""
    version = version_of(context, held[0])
    pack, made = context.engine.faces(version), Made.of(version)
    with ThreadPoolExecutor(AHEAD) as pool:
        coming: deque[Claim] = deque(held)
        ready: dict[int, Future[Decoded]] = {}

        def decoding(c: Claim) -> Future[Decoded]:
            while coming and (len(ready) < AHEAD or c.stage_id not in ready):
                following = coming.popleft()
                if following.stage_id not in lease.stopped:
                    ready[following.stage_id] = pool.submit(decoded, context, following)
            return ready.pop(c.stage_id)

        yield from one_by_one(context, held, lease, lambda c: _scan(context, c, decoding(c).result(), pack, made))


def _scan(context: StageContext, c: Claim, photo: Decoded, pack: FacePack, made: Made) -> Outcome:
    looked = look_at(context, c, photo, pack)
    params, said = PhotoParams.load(c.params), said_of(photo, looked)
    place = partial(found_face_place, c.owner, said.pixels_sha256, pack.encoder_sha256)
    faces = _faces(context, photo.rgb, looked.faces, made, place)

    def write(session: Session, moment: datetime) -> None:
        if looked.new is not None:
            stage_results.keep(session, c.owner, looked.new, [], moment)
        scanned.enter(session, c, params, said, pack.encoder_sha256, faces, moment)

    return Outcome(result=said.dump(), write=write)


def _faces(
    context: StageContext,
    rgb: Image,
    found: Sequence[tuple[Face, float]],
    made: Made,
    belongs: Callable[[int], str],
) -> list[NewFace]:
    kinds = context.engine.guard().kinds([score for _, score in found])
    boxes = np.stack([face.box for face, _ in found]) if found else np.zeros((0, 4))
    faces = []
    for index, ((face, score), kind) in enumerate(zip(found, kinds, strict=True)):
        crop = align(rgb, face.kps5)
        place = _head(face.box, rgb.shape[1], rgb.shape[0])
        kept = kept_face(face, crop, score)
        seen = SeenFace(
            **kept.model_dump(),
            small=bool(min(face.box[2:] - face.box[:2]) < SMALL_PX),
            turned=frontal(face.kps5) < TURNED,
            blurred=sharpness(crop) < BLURRED,
            dark=bool(crop.mean() < DARK),
            inside=is_inside(kind, made.domain),
            alone=not any(_meets(place, boxes[other]) for other in range(len(boxes)) if other != index),
        )
        envelope = context.vault.new(belongs(index))
        faces.append(
            NewFace(
                seen=seen,
                quality=quality(seen.side, seen.score, seen.sharpness),
                data_key=envelope.key or "",
                embedding=context.vault.seal(envelope, face.embedding.astype(np.float32).tobytes()),
                crop=context.vault.seal(envelope, _jpeg(rgb, place)),
            )
        )
    return faces


def _head(box: np.ndarray[tuple[int, ...], np.dtype[np.floating]], width: int, height: int) -> tuple[int, ...]:
    """Return the square around a face, as far as it lies in the picture: left, top, right, bottom."""
    half = HEAD / 2 * float(max(box[2:] - box[:2]))
    middle = (box[:2] + box[2:]) / 2
    left, top = np.maximum(middle - half, 0).astype(int).tolist()
    right, bottom = np.ceil(np.minimum(middle + half, [width, height])).astype(int).tolist()
    return left, top, max(right, left + 1), max(bottom, top + 1)


def _meets(place: tuple[int, ...], box: np.ndarray[tuple[int, ...], np.dtype[np.floating]]) -> bool:
    across = min(place[2], box[2]) - max(place[0], box[0])
    along = min(place[3], box[3]) - max(place[1], box[1])
    return bool(across > 0 and along > 0)


def _jpeg(rgb: Image, place: tuple[int, ...]) -> bytes:
    left, top, right, bottom = place
    head = Pillow.fromarray(np.ascontiguousarray(rgb[top:bottom, left:right]))
    head.thumbnail((HEAD_PX, HEAD_PX), Pillow.Resampling.LANCZOS)
    out = io.BytesIO()
    head.save(out, "JPEG", quality=HEAD_QUALITY)
    return out.getvalue()
