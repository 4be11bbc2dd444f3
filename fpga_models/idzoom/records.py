"""One record of a data set: a picture and what is known of the people in it. Coordinates are px of the picture."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
STRATA = ("<4", "4-8", "8-16", "16-32", ">32")
"""Longer side of a face in per cent of the picture's longer side."""
_BOUNDS = (0.04, 0.08, 0.16, 0.32)
SCHEMA = "fpga/idzoom/1"


@dataclass(frozen=True, kw_only=True, eq=False)
class RecordPerson:
    """One person of a record.

    Attributes:
        label: pseudonym that the source gives, or None where people are found by their faces.
        box: (4,) left, top, right, bottom from hairline to chin; kps5: (5, 2); skeleton: (18, 3) OpenPose, seen last.
        score: of the detector, sharpness and frontal in [0, 1]; quality: their product.
        embedding: (E,) unit length, as wide as the recogniser's.
        share: longer side of the face over the longer side of the picture.
    """

    label: str | None
    box: Floats
    kps5: Floats
    skeleton: Floats
    score: float
    sharpness: float
    frontal: float
    embedding: Floats
    share: float

    @property
    def quality(self) -> float:
        """How much of the person's face there is to learn from, in [0, 1]."""
        return self.score * self.sharpness * self.frontal

    @property
    def side_px(self) -> float:
        """Longer side of the face."""
        return float((self.box[2:] - self.box[:2]).max())


@dataclass(frozen=True, kw_only=True)
class View:
    """A square of the picture (left, top, side) that is one training sample, and the places of the people in it."""

    left: int
    top: int
    side: int
    people: tuple[int, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """One picture; people from left to right. `key` is the beginning of the sha256 of the picture's bytes."""

    key: str
    sha256: str
    width: int
    height: int
    caption: str
    people: tuple[RecordPerson, ...]
    views: tuple[View, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Source, licence, consent: small JSON, the same for the whole data set."""

    def as_json(self) -> dict[str, object]:
        """Everything but the embeddings, which travel as an array beside it."""
        return {
            "schema": SCHEMA,
            "key": self.key,
            "sha256": self.sha256,
            "width": self.width,
            "height": self.height,
            "caption": self.caption,
            "people": [_person_json(person) for person in self.people],
            "views": [{"square": [v.left, v.top, v.side], "people": list(v.people)} for v in self.views],
            **self.facts,
        }


def stratum(share: float) -> int:
    """Index into STRATA of a face of this share of the picture."""
    return int(np.searchsorted(_BOUNDS, share, side="right"))


def from_json(values: Mapping[str, Any], embeddings: NDArray[np.floating]) -> Record:
    """The record that `as_json` wrote, with its embeddings (K, E).

    Raises:
        KeyError, TypeError, ValueError: it is not such a record.
    """
    if values["schema"] != SCHEMA:
        raise ValueError(f"schema {values['schema']!r} was got, {SCHEMA} was wanted")
    people = tuple(
        RecordPerson(
            label=entry["label"],
            box=np.asarray(entry["box"], np.float32).reshape(4),
            kps5=np.asarray(entry["face"]["kps5"], np.float32).reshape(5, 2),
            skeleton=np.asarray(entry["skeleton"], np.float32).reshape(18, 3),
            score=entry["face"]["score"],
            sharpness=entry["face"]["sharpness"],
            frontal=entry["face"]["frontal"],
            embedding=np.asarray(embedding, np.float32),
            share=entry["face"]["share"],
        )
        for entry, embedding in zip(values["people"], embeddings, strict=True)
    )
    views = tuple(
        View(left=left, top=top, side=side, people=tuple(entry["people"]))
        for entry in values["views"]
        for left, top, side in (entry["square"],)
    )
    return Record(
        key=values["key"],
        sha256=values["sha256"],
        width=values["width"],
        height=values["height"],
        caption=values["caption"],
        people=people,
        views=views,
    )


def _person_json(person: RecordPerson) -> dict[str, Any]:
    return {
        "label": person.label,
        "box": _rounded(person.box),
        "skeleton": _rounded(person.skeleton),
        "face": {
            "kps5": _rounded(person.kps5),
            "score": round(person.score, 4),
            "sharpness": round(person.sharpness, 4),
            "frontal": round(person.frontal, 4),
            "quality": round(person.quality, 4),
            "side_px": round(person.side_px, 1),
            "share": round(person.share, 5),
            "stratum": STRATA[stratum(person.share)],
        },
    }


def _rounded(values: NDArray[np.floating]) -> Any:
    return np.round(values.astype(float), 2).tolist()
