"""Fits the guard that tells drawn faces from photographs, and prints what it gets wrong on faces it has not seen.

    python -m fpga_models.lab.domain_guard --photographs ORL PORTRAITS --held-out OTHERS --pack PACK

Folders hold pictures of real people, found by a face pack for photographs; drawn people are rendered from seeds. Each
face is also seen worn, as archives have them: small, soft, grey, grainy, compressed. Half of the drawn people and the
folders of `--held-out` are only measured. Nothing of the pictures is kept but one weight for each feature.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pictures
from safetensors.numpy import save_file

from fpga_models.core.presets import preset_directory
from fpga_models.faces import FacePack, align
from fpga_models.faces.domain import FILE, WORLD, Bounds, describe, recogniser
from fpga_models.lab.synthetic import KINDS, random_scene, render

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm")
SIZES = (0, 24, 48, 96, 4096)
RIDGE = 10.0
MISSED = 0.001
"""Share of real faces, and of drawn ones, that may lie beyond the other's bound, before the margin."""
MARGIN = 0.1
SEVERAL = 3


def worn(rng: np.random.Generator, crop: Image) -> Image:
    """Return an aligned face as an archive may show it."""
    if rng.random() < 0.3:
        crop = cv2.cvtColor(cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    side = int(rng.integers(20, 112))
    small = cv2.resize(crop, (side, side), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, crop.shape[1::-1], interpolation=cv2.INTER_CUBIC)
    grainy = np.clip(soft + rng.normal(0, rng.uniform(0, 7), soft.shape), 0, 255).astype(np.uint8)
    if rng.random() < 0.5:
        grainy = cv2.imdecode(cv2.imencode(".jpg", grainy, [cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(25, 90))])[1], 1)
    return np.asarray(grainy, np.uint8)


def real_faces(folders: Sequence[Path], pack: FacePack) -> Iterator[tuple[Image, float]]:
    """Yield aligned faces of all pictures below these folders, and the shorter side of each box, px."""
    for path in sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES):
        with Pictures.open(path) as opened:
            picture = np.asarray(opened.convert("RGB"))
        if max(picture.shape) < 200:  # a detector wants room around a face
            large = cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
            picture = cv2.copyMakeBorder(large, 80, 80, 80, 80, cv2.BORDER_REPLICATE)
        yield from _faces(pack, np.asarray(picture, np.uint8))


def drawn_faces(seed: int, scenes: int) -> Iterator[tuple[Image, float]]:
    """Yield aligned faces of rendered people of every kind of scene and size."""
    rng = np.random.default_rng(seed)
    pack = FacePack.load(preset_directory(WORLD) / "faces")
    for number in range(scenes):
        kind = KINDS[number % len(KINDS)]
        people = int(kind[-1]) if kind.startswith("group_") else 1
        seeds = (100_000 + rng.choice(10**6, people, replace=False)).tolist()
        yield from _faces(pack, render(random_scene(rng, seeds, kind, (128, 192, 256, 384)[number % 4])).image)


def fitted(drawn: Floats, real: Floats) -> Floats:
    """Weights (F + 1,) of the linear score that is -1 on drawn and 1 on real descriptions (N, F): ridge regression."""
    x, y = np.concatenate([drawn, real]), np.repeat([-1.0, 1.0], [len(drawn), len(real)])
    share = np.repeat([0.5 / len(drawn), 0.5 / len(real)], [len(drawn), len(real)])
    mean, spread = share @ x, x.std(axis=0) + 1e-6
    z = (x - mean) / spread
    weights = np.linalg.solve((z * share[:, None]).T @ z + RIDGE * np.eye(z.shape[1]), z.T @ (share * y)) / spread
    return np.append(weights, -mean @ weights).astype(np.float32)


def bounds_of(drawn: Floats, real: Floats) -> Bounds:
    """Bounds that keep all but MISSED of the other kind out, with a margin; they may not cross."""
    low, high = float(np.quantile(real, MISSED)) - MARGIN, float(np.quantile(drawn, 1 - MISSED)) + MARGIN
    return Bounds(drawn=min(low, high), photographs=max(low, high))


def means(rng: np.random.Generator, scores: Floats, count: int = SEVERAL) -> Floats:
    """Means of random groups of faces."""
    return np.asarray(scores[rng.permutation(len(scores))[: len(scores) // count * count]].reshape(-1, count).mean(1))


def rates(name: str, scores: Floats, sides: Floats, bounds: Bounds) -> str:
    """A table of what becomes of faces of one kind, by size."""
    lines = [f"{name:24} {'side px':>9} {'faces':>6} {'drawn':>7} {'border':>7} {'photo':>7}"]
    for low, high in [(0, 4096), *pairwise(SIZES)]:
        kinds = [bounds.kind(float(score)) for score in scores[(sides >= low) & (sides < high)]]
        shares = [kinds.count(kind) / max(len(kinds), 1) for kind in ("drawn", "border", "photographs")]
        lines.append(f"{'':24} {f'{low}-{high}':>9} {len(kinds):6d} " + " ".join(f"{share:7.4f}" for share in shares))
    return "\n".join(lines)


def _faces(pack: FacePack, picture: Image) -> Iterator[tuple[Image, float]]:
    for face in pack.detect(picture):
        yield align(picture, face.kps5), float(min(face.box[2:] - face.box[:2]))


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.lab.domain_guard")
    parser.add_argument("--photographs", type=Path, nargs="+", required=True)
    parser.add_argument("--held-out", type=Path, nargs="+", required=True)
    parser.add_argument("--pack", type=Path, required=True, help="folder of a face pack for photographs")
    parser.add_argument("--scenes", type=int, default=700)
    parser.add_argument("--out", type=Path, default=FILE)
    options = parser.parse_args()
    pack = FacePack.load(options.pack)
    report(
        list(drawn_faces(5, options.scenes)),
        list(real_faces(options.photographs, pack)),
        list(real_faces(options.held_out, pack)),
        options.out,
    )


def report(
    drawn: Sequence[tuple[Image, float]],
    real: Sequence[tuple[Image, float]],
    held_out: Sequence[tuple[Image, float]],
    out: Path,
) -> None:
    """Fit on the photographs and half of the drawn faces, print the rates on the others, and write the guard."""
    rng, session = np.random.default_rng(1), recogniser()

    def described(faces: Sequence[tuple[Image, float]]) -> tuple[Floats, Floats, Floats]:
        crops, sides = [crop for crop, _ in faces], np.array([side for _, side in faces])
        return describe(session, crops), describe(session, [worn(rng, crop) for crop in crops]), sides

    seen, unseen = described(drawn[: len(drawn) // 2]), described(drawn[len(drawn) // 2 :])
    known, other = described(real), described(held_out)
    weights = fitted(np.concatenate(seen[:2]), np.concatenate(known[:2]))

    def score(features: Floats) -> Floats:
        return np.asarray(features @ weights[:-1] + weights[-1])

    clean, old = [score(part) for part in unseen[:2]], [score(part) for part in other[:2]]
    one = bounds_of(np.concatenate(clean), np.concatenate(old))
    several = bounds_of(np.concatenate([means(rng, s) for s in clean]), np.concatenate([means(rng, s) for s in old]))
    tables = [
        rates("drawn, as rendered", clean[0], unseen[2], one),
        rates("drawn, worn", clean[1], unseen[2], one),
        rates("held out, as it is", old[0], other[2], one),
        rates("held out, worn", old[1], other[2], one),
        rates("fitted on, as it is", score(known[0]), known[2], one),
        rates("fitted on, worn", score(known[1]), known[2], one),
    ]
    print(f"one face: {one}\nmean of {SEVERAL}: {several}\n" + "\n".join(tables))  # noqa: T201
    facts = {"one": json.dumps(vars(one)), "several": json.dumps(vars(several))}
    save_file({"weights": weights}, out, facts)


if __name__ == "__main__":
    main()
