"""Renders a photo archive with ground truth, a part of it damaged in every way that strangers' archives are.

    python -m fpga_models.lab.synthetic.archive var/album.zip --count 500 --seed 1 --damaged 0.1

OUT is a folder, or a file that ends in .zip, .tar or .tar.gz; the truth is written beside it as OUT.truth.jsonl. Faces
are worn: taken down in size and up again, with noise, as scans of old prints are. The same seed gives the same archive.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from fpga_models.lab.synthetic.archive.files import DAMAGES, Damage, Sink, open_sink
from fpga_models.lab.synthetic.render import Rendered, render
from fpga_models.lab.synthetic.sampling import random_scene
from fpga_models.lab.synthetic.scene import number_of_people

PEOPLE = range(200_100, 200_112)
"""Twelve people whom no training has seen, who come back through the whole archive."""
KINDS = {"portrait": 0.3, "half_body": 0.15, "full_body": 0.05, "group_2": 0.2, "group_3": 0.15, "group_4": 0.15}
FORMS = {"jpg": 0.6, "png": 0.15, "tif": 0.08, "webp": 0.05, "png16": 0.04, "grey": 0.04, "cmyk": 0.04}
ALBUMS = ("1978 Wedding", "1983/Summer", "1983/Christmas", "1991 Zürich", "scans/box 1", "scans/box 2/prints")
SIZES = (192, 256, 320, 384)
ORIENTATION, CAMERA, SHOT_AT = 0x0112, 0x0110, 0x9003
PIXELS = npt.NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What one file of the archive is.

    Attributes:
        path: in the archive, as a reader that shows it safely gives it.
        kind: of scene, of damage, or of what else lies about.
        expected: `photo`, `skipped`, or the code of the refusal.
        people: identity seeds from left to right.
        boxes: their faces, x0, y0, x1, y1, in the upright photo.
        size: (width, height), upright.
    """

    path: str
    kind: str
    expected: str = "photo"
    people: tuple[int, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    size: tuple[int, int] = (0, 0)
    notes: dict[str, Any] = field(default_factory=dict)


def write_archive(
    out: Path, *, count: int, seed: int, damaged: float = 0.1, people: Sequence[int] = PEOPLE
) -> list[Truth]:
    """Write an archive of about `count` files and return the truth about each, in the order they were written.

    Args:
        out: a folder that does not exist yet, or a .zip, .tar or .tar.gz file.
        count: files, those that are damaged included; a few that are no photos come on top.
        seed: of everything.
        damaged: share of files that cannot become photos; every way that `out` knows comes up in turn.
        people: identity seeds that the photos show.

    Raises:
        ValueError: the share is not in [0, 1).
    """
    if not 0 <= damaged < 1:
        raise ValueError(f"a share of damaged files is at least 0 and below 1, got {damaged}")
    truths = []
    with open_sink(out) as sink:
        ways = [damage for damage in DAMAGES if damage.name in sink.can]
        for number, planned in enumerate(_plan(count, seed, damaged)):
            rng = np.random.default_rng([seed, number])
            if planned is None:
                truths.append(_photo(sink.add, rng, number, people))
            else:
                truths += _damaged(sink, rng, number, ways[planned % len(ways)], people)
        for name, data in {
            "1983/notes.txt": b"found in the attic\n",
            "1983/.DS_Store": b"\0\0\0\1Bud1",
            "scans/box 1/print.xmp": b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>",
        }.items():
            sink.add(name, data)
            truths.append(Truth(path=name, kind="bystander", expected="skipped"))
    return truths


def worn(rng: np.random.Generator, picture: PIXELS) -> PIXELS:
    """Return a picture (H, W, 3) as an old print or a small scan shows it: soft and grainy."""
    height, width = picture.shape[:2]
    scale = float(rng.uniform(1.5, 3.5))
    small = cv2.resize(picture, (round(width / scale), round(height / scale)), interpolation=cv2.INTER_AREA)
    soft = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    grain = rng.normal(0, rng.uniform(2, 7), soft.shape)
    result: PIXELS = np.clip(soft + grain, 0, 255).astype(np.uint8)
    return result


def crowd(rng: np.random.Generator, people: Sequence[int], rows: int = 6, columns: int = 10, side: int = 128) -> PIXELS:
    """Return one picture of many faces, 60 unless told: a school photograph of portraits side by side."""
    drawn = [render(random_scene(rng, [person], "portrait", side)).image for person in people]
    faces = [drawn[i % len(drawn)][:, :: -1 if i // len(drawn) % 2 else 1] for i in range(rows * columns)]
    return np.vstack([np.hstack(faces[row * columns : (row + 1) * columns]) for row in range(rows)])


def encoded(rng: np.random.Generator, picture: PIXELS, form: str, *, orientation: int = 1) -> bytes:
    """Return a picture as a file of one of FORMS, stored turned so that `orientation` puts it upright."""
    turns = {1: picture, 3: picture[::-1, ::-1], 6: np.rot90(picture, 1), 8: np.rot90(picture, -1)}
    stored = np.ascontiguousarray(turns[orientation])
    if form == "png16":
        deep = stored.astype(np.uint16) * 257 ^ rng.integers(0, 64, stored.shape, np.uint16)
        return bytes(cv2.imencode(".png", cv2.cvtColor(deep, cv2.COLOR_RGB2BGR))[1])
    image = Image.fromarray(stored)
    out = io.BytesIO()
    if form in ("jpg", "grey", "cmyk"):
        mode = {"jpg": "RGB", "grey": "L", "cmyk": "CMYK"}[form]
        quality = int(rng.integers(75, 96))
        image.convert(mode).save(out, "JPEG", quality=quality, exif=_exif(rng, orientation), dpi=(300, 300))
    else:
        settings: dict[str, dict[str, Any]] = {"tif": {"compression": "tiff_lzw"}, "webp": {"lossless": True}}
        options = settings.get(form, {})
        image.save(out, {"tif": "TIFF", "webp": "WEBP", "png": "PNG"}[form], **options)
    return out.getvalue()


def _plan(count: int, seed: int, damaged: float) -> Iterator[int | None]:
    """Yield, for each file, None for a photo or the running number of its damage."""
    bad = round(count * damaged)
    places = set(np.random.default_rng([seed, 2**31]).permutation(count)[:bad].tolist())
    number = 0
    for place in range(count):
        yield number if place in places else None
        number += place in places


def _photo(add: Callable[[str, bytes], None], rng: np.random.Generator, number: int, people: Sequence[int]) -> Truth:
    form = str(rng.choice(list(FORMS), p=list(FORMS.values())))
    orientation = int(rng.choice([1, 1, 1, 6, 8, 3])) if form in ("jpg", "grey", "cmyk") else 1
    kind, shown = _scene(rng, number, people)
    picture = worn(rng, shown.image if isinstance(shown, Rendered) else shown)
    path = _name(rng, number, form)
    add(path, encoded(rng, picture, form, orientation=orientation))
    truths = shown.people if isinstance(shown, Rendered) else ()
    return Truth(
        path=path,
        kind=kind,
        people=tuple(person.identity for person in truths),
        boxes=tuple(person.box for person in truths),
        size=(picture.shape[1], picture.shape[0]),
        notes={"form": form, "orientation": orientation},
    )


def _scene(rng: np.random.Generator, number: int, people: Sequence[int]) -> tuple[str, Rendered | PIXELS]:
    """Draw a scene; the eleventh file is a crowd of 60, the seventh a landscape with nobody in it."""
    if number == 10:
        return "crowd", crowd(rng, people)
    side = int(rng.choice(SIZES))
    if number == 6:
        ramp = np.linspace(70, 220, side)[:, None, None] * np.array([0.7, 0.9, 1.1])
        return "nobody", np.broadcast_to(np.clip(ramp, 0, 255), (side, side, 3)).astype(np.uint8)
    kind = str(rng.choice(list(KINDS), p=list(KINDS.values())))
    shown = rng.choice(len(people), number_of_people(kind), replace=False)
    return kind, render(random_scene(rng, [people[i] for i in shown], kind, side))


def _damaged(sink: Sink, rng: np.random.Generator, number: int, damage: Damage, people: Sequence[int]) -> list[Truth]:
    who, first = people[number % len(people)], _name(rng, number, "jpg")
    shown = render(random_scene(rng, [who], "portrait", 192))
    path = damage.write(sink, first, encoded(rng, shown.image, "jpg"), encoded(rng, shown.image, "png"))
    bad = Truth(path=path, kind=damage.name, expected=damage.code)
    if damage.name != "duplicate":
        return [bad]
    boxes = tuple(person.box for person in shown.people)
    return [Truth(path=first, kind="portrait", people=(who,), boxes=boxes, size=(192, 192)), bad]


def _name(rng: np.random.Generator, number: int, form: str) -> str:
    ending = {"png16": "png", "grey": "JPG", "cmyk": "jpeg"}.get(form, form)
    return f"{ALBUMS[int(rng.integers(len(ALBUMS)))]}/IMG_{number:04d}.{ending}"


def _exif(rng: np.random.Generator, orientation: int) -> bytes:
    block = Image.Exif()
    block[ORIENTATION], block[CAMERA] = orientation, "Rendered 1"
    block.get_ifd(0x8769)[SHOT_AT] = f"{int(rng.integers(1975, 2020))}:07:14 12:00:00"
    if rng.random() < 0.5:
        block.get_ifd(0x8825).update({1: "N", 2: (47.0, 22.0, 12.5), 3: "E", 4: (8.0, 32.0, 1.0)})
    return block.tobytes()


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--damaged", type=float, default=0.1)
    options = parser.parse_args()
    truths = write_archive(options.out, count=options.count, seed=options.seed, damaged=options.damaged)
    beside = options.out.with_name(f"{options.out.name}.truth.jsonl")
    beside.write_text("".join(json.dumps(asdict(truth), ensure_ascii=False) + "\n" for truth in truths))
