"""Operating points of a recogniser on pictures of known people: at which cosine two faces are one person's.

    python -m fpga_models.faces.operating_points PACK PEOPLE

PEOPLE holds one folder a person with their pictures; the largest face of each is taken. Prints JSON: thresholds, the
error rates that they have on these pictures, and how many faces, people and pairs there were. Keeps nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fpga_models.errors import ModelError, RequestError
from fpga_models.faces import FacePack

Floats = NDArray[np.float32]
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".pgm")
LEAST_PEOPLE = 8
STEP = 1e-3
"""A threshold lies so far above the last stranger that it keeps out."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Shares of pairs of strangers that may pass, from strict to lenient [ours]."""

    pair: float = 1e-3
    accept: float = 1e-3
    review: float = 1e-2


@dataclass(frozen=True, kw_only=True)
class OperatingPoints:
    """Cosines, and what they get wrong on the pictures they were measured on.

    Attributes:
        pair, accept, review: as in the ledger's thresholds; review never above accept.
        false_match_rate: pairs of strangers that reach `pair`.
        false_non_match_rate: pairs of one person that do not.
        people, faces, same_pairs, stranger_pairs: how many there were.
        same_mean, stranger_mean: mean cosines.
    """

    pair: float
    accept: float
    review: float
    false_match_rate: float
    false_non_match_rate: float
    people: int
    faces: int
    same_pairs: int
    stranger_pairs: int
    same_mean: float
    stranger_mean: float


def operating_points(vectors: Floats, people: NDArray[np.int64], rates: Rates | None = None) -> OperatingPoints:
    """Set thresholds from unit embeddings (N, E) and the number (N,) of the person of each.

    Raises:
        RequestError: fewer than 8 people, or nobody with two pictures.
    """
    rates = rates or Rates()
    upper = np.triu_indices(len(vectors), k=1)
    cosines = (vectors @ vectors.T)[upper]
    same = (people[:, None] == people[None])[upper]
    own, other = cosines[same], cosines[~same]
    count = len(np.unique(people))
    if count < LEAST_PEOPLE or not len(own):
        raise RequestError(
            f"{count} people and {len(own)} pairs of pictures of one person: at least {LEAST_PEOPLE} people are "
            "wanted, some of them with two pictures or more."
        )

    def keeps_out(share: float) -> float:
        return round(float(np.quantile(other, 1 - share, method="higher")) + STEP, 4)

    pair, accept = keeps_out(rates.pair), keeps_out(rates.accept)
    return OperatingPoints(
        pair=pair,
        accept=accept,
        review=min(accept, keeps_out(rates.review)),
        false_match_rate=float((other >= pair).mean()),
        false_non_match_rate=float((own < pair).mean()),
        people=count,
        faces=len(vectors),
        same_pairs=len(own),
        stranger_pairs=len(other),
        same_mean=round(float(own.mean()), 4),
        stranger_mean=round(float(other.mean()), 4),
    )


@dataclass(frozen=True, kw_only=True)
class SizeRates:
    """What thresholds get wrong on faces of one size, compared with faces as they are.

    Attributes:
        side: shorter side of the face's box, px.
        false_match: {threshold: share of pairs of strangers that reach it}.
        false_non_match: {threshold: share of pairs of one person that do not}.
    """

    side: int
    false_match: dict[float, float]
    false_non_match: dict[float, float]


def rates_by_size(pack: FacePack, folder: Path, sides: Sequence[int], thresholds: Sequence[float]) -> list[SizeRates]:
    """Shrink every picture until its face has a size, and compare it with the pictures of all as they are.

    The landmarks are those of the large face, so that what is measured is the recogniser.

    Args:
        folder: one folder a person with their pictures.
    """
    large, people = [], []
    small: dict[int, list[Floats]] = {side: [] for side in sides}
    for number, person in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for picture in _pictures(person):
            faces = pack.detect(picture)
            if not faces:
                continue
            face = max(faces, key=lambda one: float(np.prod(one.box[2:] - one.box[:2])))
            large.append(face.embedding)
            people.append(number)
            for side in sides:
                scale = min(1.0, side / float(min(face.box[2:] - face.box[:2])))
                size = tuple(max(1, round(length * scale)) for length in picture.shape[1::-1])
                shrunk = cv2.resize(picture, size, interpolation=cv2.INTER_AREA)
                small[side].append(pack.embed(np.asarray(shrunk, np.uint8), face.kps5 * scale))
    same = np.equal.outer(people, people)
    others = ~np.eye(len(people), dtype=bool)
    found = []
    for side in sides:
        cosines = np.stack(small[side]) @ np.stack(large).T
        own, strangers = cosines[same & others], cosines[~same]
        found.append(
            SizeRates(
                side=side,
                false_match={line: round(float((strangers >= line).mean()), 6) for line in thresholds},
                false_non_match={line: round(float((own < line).mean()), 4) for line in thresholds},
            )
        )
    return found


def embeddings(pack: FacePack, folder: Path) -> tuple[Floats, NDArray[np.int64], int]:
    """Embeddings (N, E) of the largest faces, the person (N,) of each, and how many pictures showed none."""
    vectors, people, without = [], [], 0
    for number, person in enumerate(sorted(path for path in folder.iterdir() if path.is_dir())):
        for picture in _pictures(person):
            faces = pack.detect(picture)
            if not faces:
                without += 1
                continue
            largest = max(faces, key=lambda face: float(np.prod(face.box[2:] - face.box[:2])))
            vectors.append(largest.embedding)
            people.append(number)
    stacked = np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)
    return stacked, np.array(people, np.int64), without


def _pictures(folder: Path) -> Iterator[NDArray[np.uint8]]:
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in SUFFIXES:
            continue
        try:
            with Image.open(path) as opened:
                yield np.asarray(ImageOps.exif_transpose(opened).convert("RGB"))
        except (UnidentifiedImageError, OSError) as error:
            raise RequestError(f"{path.parent.name}/{path.name} cannot be read as a picture: {error}.") from error


def main() -> None:
    """Run the command line; exit 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.faces.operating_points")
    parser.add_argument("pack", type=Path, help="folder of a face pack")
    parser.add_argument("people", type=Path, help="one folder a person")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sides", type=int, nargs="*", default=[], help="print rates for faces of these sizes, px")
    parser.add_argument("--thresholds", type=float, nargs="*", default=[], help="the cosines that --sides is asked of")
    options = parser.parse_args()
    try:
        if options.sides:
            pack = FacePack.load(options.pack, device=options.device)
            rates = rates_by_size(pack, options.people, options.sides, options.thresholds)
            sys.stdout.write(json.dumps([asdict(one) for one in rates]) + "\n")
            return
        vectors, people, without = embeddings(FacePack.load(options.pack, device=options.device), options.people)
        found = asdict(operating_points(vectors, people)) | {"without_face": without}
    except (ModelError, OSError) as error:
        sys.exit(str(error))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
