"""Renders the mini world ahead into memory-mapped arrays: scenes with ground truth, and aligned face crops.

    python -m fpga_models.lab.synthetic.dataset --out var/mini --count 40000 --seed 0 --workers 2

Every picture depends only on the seed and its index, never on the number of workers. Stopped and started again, it goes
on behind the last whole piece. From 256 pixels on (`--side 256`) the world is drawn fine.
"""

import argparse
import json
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fpga_models.core.alignment import CROP_SIDE, align
from fpga_models.idzoom.scenes import KINDS, MASK_SIDE, Arrays, ArraySpec, create_arrays, open_arrays, scene_arrays
from fpga_models.lab.synthetic.render import PersonTruth, render
from fpga_models.lab.synthetic.sampling import random_scene
from fpga_models.lab.synthetic.scene import Scene, drawn_fine, number_of_people

SIZE = 128
PIECE = 250  # rows that one worker renders at a time
KIND_SHARES = {"portrait": 0.45, "half_body": 0.06, "full_body": 0.06, "group_2": 0.2, "group_3": 0.13, "group_4": 0.1}
RENDERED = "rendered.txt"  # how many rows of a folder are there
CROP_FACES = {False: (18.0, 90.0), True: (26.0, 180.0)}  # px, of pictures drawn flat and fine
CONDITIONING_IDENTITIES = range(0, 4000)  # the recogniser whose embeddings condition the generator
EVALUATION_IDENTITIES = range(4000, 8000)  # the independent encoder that scores
TRAIN_IDENTITIES = range(0, 8000)  # autoencoder and generator
TEST_IDENTITIES = range(100_000, 200_000)  # never trained on

SCENE_ARRAYS = scene_arrays(SIZE)
CROP_ARRAYS: ArraySpec = {
    "crops": ((CROP_SIDE, CROP_SIDE, 3), np.uint8),
    "crop_identity": ((), np.int32),
    "crop_face_px": ((), np.float32),
}


def open_crops(folder: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Open aligned crops (M, 112, 112, 3) RGB uint8 and their identities (M,)."""
    arrays = open_arrays(folder, CROP_ARRAYS, "r")
    return arrays["crops"], arrays["crop_identity"]


def scene_of(seed: int, index: int, identities: range, side: int = SIZE) -> Scene:
    """The scene with this index of the data set with this seed."""
    rng = np.random.default_rng([seed, index])
    kind = str(rng.choice(list(KIND_SHARES), p=list(KIND_SHARES.values())))
    people = rng.choice(len(identities), number_of_people(kind), replace=False) + identities.start
    return random_scene(rng, people.tolist(), kind, side, fine=drawn_fine(side))


def write_scenes(folder: Path, indices: range, seed: int, identities: range) -> list[str]:
    """Render the scenes with these indices into the arrays of the folder and return their captions."""
    cv2.setNumThreads(1)
    arrays = open_arrays(folder, SCENE_ARRAYS, "r+")
    captions = []
    for index in indices:
        scene = scene_of(seed, index, identities, arrays["images"].shape[1])
        rendered = render(scene)
        arrays["images"][index] = rendered.image
        arrays["count"][index] = len(rendered.people)
        arrays["kind"][index] = KINDS.index(scene.kind)
        arrays["identity"][index] = -1
        for place, person in enumerate(rendered.people):
            _write_person(arrays, index, place, person)
        captions.append(rendered.caption)
    return captions


def _write_person(arrays: Arrays, index: int, place: int, person: PersonTruth) -> None:
    arrays["identity"][index, place] = person.identity
    arrays["box"][index, place] = person.box
    arrays["kps5"][index, place] = person.kps5
    arrays["skeleton"][index, place] = person.skeleton
    arrays["mask"][index, place] = cv2.resize(person.mask, (MASK_SIDE, MASK_SIDE), interpolation=cv2.INTER_AREA)


def aligned_crop(
    rng: np.random.Generator, identity: int, face_px: float, *, fine: bool = False
) -> npt.NDArray[np.uint8]:
    """Render this person with a face of about this height in pixels and align it to 112x112, slightly off."""
    probe = random_scene(rng, [identity], "portrait", SIZE)
    box_height = 1.62 * probe.people[0].pose.unit
    size = round(face_px / box_height)
    rendered = render(random_scene(rng, [identity], "portrait", size, fine=fine))
    (person,) = rendered.people
    kps = person.kps5 + rng.normal(0, 0.012, (5, 2)) * face_px
    return align(rendered.image, kps.astype(np.float32))


def write_crops(
    folder: Path, indices: range, seed: int, identities: range, per_identity: int, side: int = SIZE
) -> list[str]:
    """Render the crops with these indices into the arrays of the folder; returns no captions."""
    cv2.setNumThreads(1)
    arrays = open_arrays(folder, CROP_ARRAYS, "r+")
    low, high = CROP_FACES[drawn_fine(side)]
    for index in indices:
        rng = np.random.default_rng([seed, 1, index])
        identity = identities[index // per_identity]
        face_px = float(np.exp(rng.uniform(np.log(low), np.log(high))))
        arrays["crops"][index] = aligned_crop(rng, identity, face_px, fine=drawn_fine(side))
        arrays["crop_identity"][index] = identity
        arrays["crop_face_px"][index] = face_px
    return []


def _in_parallel(
    work: Callable[[range], list[str]], rows: range, workers: int, title: str
) -> Iterator[tuple[int, list[str]]]:
    """Run the work on the rows piece by piece; yields each piece's end and captions in their order."""
    pieces = [range(start, min(start + PIECE, rows.stop)) for start in range(rows.start, rows.stop, PIECE)]
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with multiprocessing.get_context("spawn").Pool(workers) as pool, Progress(*columns) as progress:
        task = progress.add_task(title, total=rows.stop, completed=rows.start)
        for piece, captions in zip(pieces, pool.imap(work, pieces), strict=True):
            progress.advance(task, len(piece))
            yield piece.stop, captions


def begin_arrays(folder: Path, spec: ArraySpec, count: int) -> int:
    """Make the arrays of a folder unless they are there; returns how many of their rows are rendered already."""
    marker = folder / RENDERED
    if marker.exists() and len(np.load(folder / f"{next(iter(spec))}.npy", mmap_mode="r")) == count:
        return int(marker.read_text())
    create_arrays(folder, spec, count)
    return 0


def render_scenes(folder: Path, count: int, seed: int, identities: range, workers: int, side: int = SIZE) -> None:
    """Write `count` scenes of these people under `folder`."""
    done = begin_arrays(folder, scene_arrays(side), count)
    lines = folder / "captions.jsonl"
    kept = lines.read_text().splitlines(keepends=True)[:done] if done else []
    lines.write_text("".join(kept))
    work = partial(write_scenes, folder, seed=seed, identities=identities)
    for end, captions in _in_parallel(work, range(done, count), workers, f"{count} scenes"):
        with lines.open("a") as file:
            file.writelines(json.dumps({"caption": caption}) + "\n" for caption in captions)
        (folder / RENDERED).write_text(str(end))


def render_crops(folder: Path, seed: int, identities: range, per_identity: int, workers: int, side: int = SIZE) -> None:
    """Write aligned crops of these people under `folder`, ordered by identity, as pictures of this side show them."""
    count = len(identities) * per_identity
    done = begin_arrays(folder, CROP_ARRAYS, count)
    work = partial(write_crops, folder, seed=seed, identities=identities, per_identity=per_identity, side=side)
    for end, _ in _in_parallel(work, range(done, count), workers, f"{count} crops"):
        (folder / RENDERED).write_text(str(end))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("var/mini"))
    parser.add_argument("--part", choices=("scenes", "crops"), help="else both")
    parser.add_argument("--side", type=int, default=SIZE, help="of a picture in pixels")
    parser.add_argument("--count", type=int, default=40_000, help="training scenes")
    parser.add_argument("--test-count", type=int, default=1_000, help="scenes of people never trained on")
    parser.add_argument("--crops-per-identity", type=int, default=8)
    parser.add_argument("--people", type=int, default=len(TRAIN_IDENTITIES), help="that are trained on")
    parser.add_argument("--test-people", type=int, default=500, help="whose crops figures are measured on")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    out, seed, workers, side = options.out, options.seed, options.workers, options.side
    people = TRAIN_IDENTITIES[: options.people]
    source = json.dumps({"source": f"render:{seed}:{options.count}"}) + "\n"
    if options.part != "crops":
        render_scenes(out / "scenes_test", options.test_count, seed + 1, TEST_IDENTITIES, workers, side)
        render_scenes(out / "scenes", options.count, seed, people, workers, side)
        (out / "source.json").write_text(source)
    if options.part != "scenes":
        shown = TEST_IDENTITIES[: options.test_people]
        render_crops(out / "crops_test", seed + 1, shown, options.crops_per_identity, workers, side)
        render_crops(out / "crops", seed, people, options.crops_per_identity, workers, side)
        (out / "crops" / "source.json").write_text(source)


if __name__ == "__main__":
    main()
