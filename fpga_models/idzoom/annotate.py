"""From a raw picture to a record: faces, embeddings, skeletons, masks, quality, views. One picture at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from fpga_models.core.alignment import align
from fpga_models.core.control import region_mask
from fpga_models.faces.pack import Face, FacePack
from fpga_models.faces.pose import PoseNetwork, heads
from fpga_models.idzoom.records import Floats, Image, Record, RecordPerson
from fpga_models.idzoom.shards import Sample
from fpga_models.idzoom.views import squares

MASK_SIDE = 64
KEY_LENGTH = 32
LONGEST, LOSSLESS = 2048, 512
"""Longest side in px of a picture in a record, and of one that is kept without loss [ours]."""
COUNTS = ("a person", "two people", "three people", "four people")
Captioner = Callable[[Image, int], str]
"""Writes a caption from a picture (H, W, 3) uint8 RGB and the number of people in it."""


@dataclass(frozen=True, kw_only=True)
class Label:
    """Who somebody is, by the source: a pseudonym, and the nose's place in px where the source knows it."""

    person: str
    nose: tuple[float, float] | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class RawPicture:
    """A picture before anything is known: pixels (H, W, 3) uint8 RGB, and `stored` as bytes with their suffix.

    `sha256` is that of the file as it came: what the record is named by.
    """

    name: str
    sha256: str
    data: bytes
    suffix: str
    image: Image
    labels: tuple[Label, ...] = ()
    caption: str | None = None


@dataclass(frozen=True, kw_only=True)
class Refused:
    """An unusable picture: `code` is no_face, face_too_small, outside_domain, label_unclear or a decoder's."""

    name: str
    code: str
    message: str


@dataclass(frozen=True, kw_only=True)
class AnnotateOptions:
    """Sizes of the preset, the smallest useful face in px, and what every record says of its origin.

    `refusal` says of the aligned faces of a picture why the preset was not made for them, or None.
    """

    side: int
    max_people: int
    smallest_face: float = 12.0
    facts: Mapping[str, Any] = field(default_factory=dict)
    refusal: Callable[[Sequence[Image]], str | None] = lambda _: None


def annotate(
    raw: RawPicture,
    faces: FacePack,
    pose: PoseNetwork | None,
    options: AnnotateOptions,
    captioner: Captioner | None = None,
) -> Sample | Refused:
    """Look at one picture and write down everything that training needs of it.

    Without a pose network skeletons have nose and eyes alone, which the detector sees.
    """
    found = faces.detect(raw.image)
    if not found:
        return Refused(name=raw.name, code="no_face", message="no face was found")
    large = [face for face in found if _side(face) >= options.smallest_face]
    if not large:
        got, wanted = max(_side(face) for face in found), options.smallest_face
        sentence = f"the largest face is {got:.0f} px, {wanted:.0f} are wanted"
        return Refused(name=raw.name, code="face_too_small", message=sentence)
    if refusal := options.refusal([align(raw.image, face.kps5) for face in large]):
        return Refused(name=raw.name, code="outside_domain", message=refusal)
    labels = match_labels(large, raw.labels)
    if labels is None:
        sentence = f"{len(raw.labels)} people are named, {len(large)} faces were found, and who is who is not clear"
        return Refused(name=raw.name, code="label_unclear", message=sentence)
    people = _people(raw.image, large, labels, pose)
    height, width = raw.image.shape[:2]
    record = Record(
        key=raw.sha256[:KEY_LENGTH],
        sha256=raw.sha256,
        width=width,
        height=height,
        caption=raw.caption or (captioner(raw.image, len(people)) if captioner else plain_caption(len(people))),
        people=people,
        views=squares(width, height, [p.box for p in people], side=options.side, max_people=options.max_people),
        facts=options.facts,
    )
    if not record.views:
        sentence = f"no square of {options.side} px with at most {options.max_people} whole faces can be cut"
        return Refused(name=raw.name, code="no_view", message=sentence)
    return Sample(record=record, picture=raw.data, suffix=raw.suffix, masks=head_masks(people, width, height))


def match_labels(found: Sequence[Face], labels: Sequence[Label]) -> list[str | None] | None:
    """The label of each face from left to right, None for a face that nobody named; None at all when it is not clear.

    Labels with a place go to the face there; labels without one are read from left to right, and a single one means
    the largest face.
    """
    if not labels:
        return [None] * len(found)
    if all(label.nose is not None for label in labels):
        return _by_place(found, labels)
    if len(labels) == 1:
        largest = max(range(len(found)), key=lambda i: _side(found[i]))
        return [labels[0].person if i == largest else None for i in range(len(found))]
    return [label.person for label in labels] if len(labels) == len(found) else None


def _by_place(found: Sequence[Face], labels: Sequence[Label]) -> list[str | None]:
    named: list[str | None] = [None] * len(found)
    noses = np.array([label.nose for label in labels])
    for i, face in enumerate(found):
        distances = np.linalg.norm(noses - face.kps5[2], axis=1)
        nearest = int(distances.argmin())
        if distances[nearest] < 0.4 * _side(face):
            named[i] = labels[nearest].person
    return named


def plain_caption(people: int) -> str:
    """What can be said of any picture: `photo of two people` [ours]."""
    return f"photo of {COUNTS[people - 1] if people <= len(COUNTS) else f'{people} people'}"


def stored(image: Image) -> tuple[Image, bytes, str]:
    """A decoded picture (H, W, 3) RGB as records keep it: the pixels, their bytes and suffix.

    At most 2048 px long, no metadata: a data set needs neither the camera nor the place. Small ones are PNG, which
    loses nothing, others JPEG at quality 95.
    """
    longest = max(image.shape[:2])
    if longest > LONGEST:
        size = (round(image.shape[1] * LONGEST / longest), round(image.shape[0] * LONGEST / longest))
        image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
    small = longest <= LOSSLESS
    suffix, options = ("png", []) if small else ("jpg", [cv2.IMWRITE_JPEG_QUALITY, 95])
    return image, cv2.imencode(f".{suffix}", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), options)[1].tobytes(), suffix


def head_masks(people: Sequence[RecordPerson], width: int, height: int) -> NDArray[np.uint8]:
    """Regions in which each person acts, (K, 64, 64) uint8 over the whole picture, 255 inside."""
    scale = np.array([MASK_SIDE / width, MASK_SIDE / height])
    masks = [region_mask(person.kps5 * scale, width=MASK_SIDE, height=MASK_SIDE) for person in people]
    return np.round(np.stack(masks) * 255).astype(np.uint8)


def sharpness(crop: Image) -> float:
    """How sharp an aligned crop (112, 112, 3) is, in [0, 1): the share of its gradient that a small blur takes away."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY).astype(np.float32)
    blurred = cv2.GaussianBlur(grey, (0, 0), 2.0)
    edges, left = (sum(float(np.abs(np.diff(plane, axis=axis)).mean()) for axis in (0, 1)) for plane in (grey, blurred))
    return float(np.clip((edges - left) / max(edges, 1.0), 0, 1))


def frontal(kps5: Floats) -> float:
    """How frontal a face looks, in [0, 1]: 1 when the nose lies midway between the eyes, 0 when it is beside one."""
    eye, other, nose = kps5[0], kps5[1], kps5[2]
    across = other - eye
    along = float((nose - eye) @ across) / max(float(across @ across), 1e-6)
    return float(np.clip(1 - 2 * abs(along - 0.5), 0, 1))


def _people(
    image: Image, found: Sequence[Face], labels: Sequence[str | None], pose: PoseNetwork | None
) -> tuple[RecordPerson, ...]:
    points = np.stack([f.kps5 for f in found])
    skeletons = pose.skeletons(image, np.stack([f.box for f in found]), points) if pose else heads(points)
    longest = max(image.shape[:2])
    return tuple(
        RecordPerson(
            label=label,
            box=face.box,
            kps5=face.kps5,
            skeleton=skeleton,
            score=face.score,
            sharpness=sharpness(align(image, face.kps5)),
            frontal=frontal(face.kps5),
            embedding=face.embedding,
            share=_side(face) / longest,
        )
        for face, label, skeleton in zip(found, labels, skeletons, strict=True)
    )


def _side(face: Face) -> float:
    return float((face.box[2:] - face.box[:2]).max())
