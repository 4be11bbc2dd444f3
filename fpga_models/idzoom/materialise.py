"""A data set version as the folder that training reads: arrays of scenes, latents, embeddings, captions.

    python -m fpga_models.idzoom.materialise --export DIR --preset-dir fpga_models/weights/mini --out var/data

Each shard becomes arrays of its own first, kept in a cache under a hash of everything they depend on, so that a
version that shares shards with an earlier one costs only what is new. Layout: scenes.py and mmf/data.py;
`scenes` is the train side, `scenes_test` the other.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress

from fpga_models.core.alignment import CROP_SIDE, align
from fpga_models.core.autoencoder import Autoencoder, encode, open_autoencoder
from fpga_models.core.control import region_mask
from fpga_models.core.presets import read_preset
from fpga_models.core.weights import file_sha256
from fpga_models.idzoom.arrange import INDEX_SCHEMA, SPLITS
from fpga_models.idzoom.errors import NoRecordsError, ShardError
from fpga_models.idzoom.records import Record, View
from fpga_models.idzoom.scenes import KINDS, MASK_SIDE, MAX_PEOPLE, Arrays, scene_arrays
from fpga_models.idzoom.shards import Sample, content_sha256, read_samples

FORMAT = 2
PARTS = dict(zip(SPLITS, ("scenes", "scenes_test"), strict=True))
REFERENCES = 8
"""Embeddings kept for each person, of as many different pictures as there are [ours]."""
KIND_SHARES = ((0.36, "portrait"), (0.19, "half_body"), (0.0, "full_body"))
"""Height of the face over the side of the view from which a single person is called so, as the renderer draws them."""
BATCH = 64
Report = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ShardFile:
    """A shard on this machine and the sha256 that its bytes must have."""

    path: Path
    sha256: str


def materialise(
    index: Path,
    shards: Sequence[ShardFile],
    vae: Path,
    side: int,
    out: Path,
    *,
    cache: Path | None = None,
    report: Report = lambda done, total: None,
) -> Path:
    """Write the training folder of a version and return it; a whole one that is there already is kept.

    Args:
        index: parquet file of the version; its column `shard` counts in `shards`.
        vae: folder of the preset's autoencoder; latents are scaled as the UNet sees them.
        side: of the pictures, pixels: what the preset draws.
        cache: where arrays of single shards are kept; `out/../chunks` by default.
        report: called with (shards done, shards in all).

    Raises:
        ShardError: the index or a shard was altered, or they do not belong together.
        NoRecordsError: the train side is empty.
        OSError: the disk is full; nothing half-written is ever taken for whole.
    """
    facts = {"format": FORMAT, "index": file_sha256(index), "vae": _vae_sha256(vae), "side": side}
    marker = out / "materialised.json"
    if marker.is_file() and json.loads(marker.read_text()) == facts:
        return out
    cache = cache or out.parent / "chunks"
    kept = _kept(index, len(shards))
    network: list[Autoencoder] = []  # loaded only when a shard is new
    pieces = []
    for number, (shard, people) in enumerate(zip(shards, kept, strict=True)):
        key = content_sha256({**facts, "index": _people_key(people), "shard": shard.sha256})
        folder = cache / key
        if not (folder / "whole").is_file():
            if not network:
                network.append(open_autoencoder(vae))
            _write_piece(folder, shard, people, network[0], side)
        pieces.append(folder)
        report(number + 1, len(shards))
    _assemble(pieces, out, side)
    marker.write_text(json.dumps(facts))
    return out


def decoded(sample: Sample) -> NDArray[np.uint8]:
    """The picture of a sample, (H, W, 3) RGB.

    Raises:
        ShardError: it is not the picture that the record describes.
    """
    image = cv2.imdecode(np.frombuffer(sample.picture, np.uint8), cv2.IMREAD_COLOR)
    if image is None or image.shape[:2] != (sample.record.height, sample.record.width):
        raise ShardError(f"Record {sample.record.key} says {sample.record.width}x{sample.record.height}, not so.")
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _view_arrays(image: NDArray[np.uint8], record: Record, view: View, side: int) -> Arrays:
    zoom = side / view.side
    cut = image[view.top : view.top + view.side, view.left : view.left + view.side]
    how = cv2.INTER_AREA if zoom < 1 else cv2.INTER_LINEAR
    arrays: Arrays = {name: np.zeros(shape, dtype) for name, (shape, dtype) in scene_arrays(side).items()}
    arrays["images"] = cv2.resize(cut, (side, side), interpolation=how) if zoom != 1 else cut.copy()
    corner = np.array([view.left, view.top], np.float32)
    for place, number in enumerate(view.people):
        person = record.people[number]
        arrays["box"][place] = (person.box - np.tile(corner, 2)) * zoom
        arrays["kps5"][place] = (person.kps5 - corner) * zoom
        arrays["skeleton"][place] = _skeleton(person.skeleton, corner, zoom, side)
        points = arrays["kps5"][place] * (MASK_SIDE / side)
        arrays["mask"][place] = np.round(region_mask(points, width=MASK_SIDE, height=MASK_SIDE) * 255)
    arrays["count"][...] = len(view.people)
    face = float(arrays["box"][0, 3] - arrays["box"][0, 1]) / side
    arrays["kind"][...] = KINDS.index(_kind(len(view.people), face))
    return arrays


def _skeleton(
    skeleton: NDArray[np.float32], corner: NDArray[np.float32], zoom: float, side: int
) -> NDArray[np.float32]:
    moved = skeleton.copy()
    moved[:, :2] = (skeleton[:, :2] - corner) * zoom
    inside = (moved[:, :2] >= 0).all(1) & (moved[:, :2] < side).all(1)
    moved[~inside | (skeleton[:, 2] == 0)] = 0
    return moved


def _kind(people: int, face: float) -> str:
    if people > 1:
        return f"group_{people}"
    return next(kind for least, kind in KIND_SHARES if face >= least)


def _kept(index: Path, shards: int) -> list[dict[str, tuple[str, list[str]]]]:
    """For each shard, by record key: the side and the people of the pictures that are kept."""
    found: list[dict[str, tuple[str, list[str]]]] = [{} for _ in range(shards)]
    try:
        file = pq.ParquetFile(index)
        if file.schema_arrow.names != INDEX_SCHEMA.names:
            raise ShardError(f"{index.name} has columns {file.schema_arrow.names}, {INDEX_SCHEMA.names} were wanted.")
        for batch in file.iter_batches(columns=["key", "shard", "person", "split"]):
            rows = (batch.column(i).to_pylist() for i in range(4))
            for key, shard, person, split in zip(*rows, strict=True):
                if split is not None:
                    found[shard].setdefault(key, (split, []))[1].append(person)
    except (pa.ArrowException, OSError, IndexError) as error:
        raise ShardError(f"{index.name} is not the index of these {shards} shards: {error}.") from error
    return found


def _people_key(people: dict[str, tuple[str, list[str]]]) -> str:
    return content_sha256({key: [split, *names] for key, (split, names) in people.items()})


def _write_piece(
    folder: Path, shard: ShardFile, people: dict[str, tuple[str, list[str]]], vae: Autoencoder, side: int
) -> None:
    """Write the arrays of one shard, the marker `whole` last; an empty shard has only the marker."""
    if (got := file_sha256(shard.path)) != shard.sha256:
        raise ShardError(f"{shard.path.name} has sha256 {got[:12]}…, the version says {shard.sha256[:12]}….")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rows: dict[str, list[Any]] = {name: [] for name in scene_arrays(side)}
    shown: list[dict[str, Any]] = []
    faces: dict[str, list[Any]] = {"person": [], "embedding": [], "crop": []}
    left = dict(people)
    with shard.path.open("rb") as source:
        for sample in read_samples(source):
            kept = left.pop(sample.record.key, None)
            if kept is None:
                continue
            split, names = kept
            faces["person"] += names
            image = decoded(sample)
            faces["embedding"] += [person.embedding for person in sample.record.people]
            faces["crop"] += [align(image, person.kps5) for person in sample.record.people]
            for view in sample.record.views:
                for name, value in _view_arrays(image, sample.record, view, side).items():
                    rows[name].append(value)
                who = [names[i] for i in view.people]
                shown.append({"caption": sample.record.caption, "people": who, "split": split})
    if left:
        raise ShardError(f"{shard.path.name} lacks {len(left)} records that the index names.")
    if shown:
        for name, values in rows.items():
            np.save(folder / f"{name}.npy", np.stack(values))
        np.save(folder / "latents.npy", latents_of(np.stack(rows["images"]), vae))
        np.save(folder / "embeddings.npy", np.stack(faces["embedding"]).astype(np.float16))
        np.save(folder / "crops.npy", np.stack(faces["crop"]))
    (folder / "views.json").write_text(json.dumps({"views": shown, "faces": faces["person"]}, ensure_ascii=False))
    (folder / "whole").touch()


def latents_of(images: NDArray[np.uint8], vae: Autoencoder) -> NDArray[np.float16]:
    """Latents (N, C, h, w) of pictures (N, H, W, 3) RGB: the mode of what the encoder says, as the UNet sees them."""
    return np.concatenate([_encode(images[start : start + BATCH], vae) for start in range(0, len(images), BATCH)])


@torch.inference_mode()
def _encode(images: NDArray[np.uint8], vae: Autoencoder) -> NDArray[np.float16]:
    pixels = torch.from_numpy(images.astype(np.float32) / 127.5 - 1).permute(0, 3, 1, 2)
    encoded = encode(vae, pixels.contiguous(memory_format=torch.channels_last))
    found: NDArray[np.float16] = encoded.numpy().astype(np.float16)
    return found


def _assemble(pieces: Sequence[Path], out: Path, side: int) -> None:
    """Lay the pieces end to end into memory-mapped arrays, one side after the other."""
    shutil.rmtree(out, ignore_errors=True)
    (out / "latents").mkdir(parents=True)
    said = [json.loads((piece / "views.json").read_text()) for piece in pieces]
    people = {name: i for i, name in enumerate(sorted({name for one in said for name in one["faces"]}))}
    for split, part in PARTS.items():
        chosen = [[i for i, view in enumerate(one["views"]) if view["split"] == split] for one in said]
        total = sum(len(rows) for rows in chosen)
        if total == 0:
            if split == SPLITS[0]:
                raise NoRecordsError("The train side of the data set has no pictures.")
            continue
        _write_part(out, part, side, total, pieces, chosen, said, people)
    _write_references(out, pieces, _references(said, people))


def _write_part(
    out: Path,
    part: str,
    side: int,
    total: int,
    pieces: Sequence[Path],
    chosen: Sequence[list[int]],
    said: Sequence[dict[str, Any]],
    people: dict[str, int],
) -> None:
    (out / part).mkdir()
    targets: Arrays = {
        name: np.lib.format.open_memmap(out / part / f"{name}.npy", "w+", dtype, (total, *shape))
        for name, (shape, dtype) in scene_arrays(side).items()
    }
    latents = None
    start = 0
    with (out / part / "captions.jsonl").open("w") as captions:
        for piece, rows, one in zip(pieces, chosen, said, strict=True):
            if not rows:
                continue
            end = start + len(rows)
            for name, target in targets.items():
                target[start:end] = np.load(piece / f"{name}.npy", mmap_mode="r")[rows]
            found = np.load(piece / "latents.npy", mmap_mode="r")
            if latents is None:
                shape = (total, *found.shape[1:])
                latents = np.lib.format.open_memmap(out / "latents" / f"{part}.npy", "w+", np.float16, shape)
            latents[start:end] = found[rows]
            for row, number in enumerate(rows, start=start):
                view = one["views"][number]
                who = [people[name] for name in view["people"]]
                targets["identity"][row] = who + [-1] * (MAX_PEOPLE - len(who))
                captions.write(json.dumps({"caption": view["caption"]}, ensure_ascii=False) + "\n")
            start = end
    for array in [*targets.values(), latents]:
        assert isinstance(array, np.memmap), "arrays of a part are mapped from files"
        array.flush()


def _references(said: Sequence[dict[str, Any]], people: dict[str, int]) -> NDArray[np.int64]:
    """Where the references of each person are, (P, REFERENCES, 2) piece and row; fewer pictures are repeated."""
    found = np.zeros((len(people), REFERENCES, 2), np.int64)
    counts = np.zeros(len(people), np.int64)
    for piece, one in enumerate(said):
        for row, name in enumerate(one["faces"]):
            number = people[name]
            if counts[number] < REFERENCES:
                found[number, counts[number]] = piece, row
            counts[number] += 1
    for number in np.flatnonzero(counts < REFERENCES).tolist():
        found[number] = found[number, np.arange(REFERENCES) % counts[number]]
    return found


def _write_references(out: Path, pieces: Sequence[Path], where: NDArray[np.int64]) -> None:
    """Write the embeddings (P, R, 512), unit length, and the aligned crops (P * R, 112, 112, 3) that they are of."""
    (out / "crops").mkdir()
    flat = where.reshape(-1, 2)
    shape = (len(flat), CROP_SIDE, CROP_SIDE, 3)
    crops = np.lib.format.open_memmap(out / "crops" / "crops.npy", "w+", np.uint8, shape)
    embeddings: NDArray[np.float32] | None = None
    for number, piece in enumerate(pieces):
        slots = np.flatnonzero(flat[:, 0] == number)
        if len(slots) == 0:
            continue
        vectors = np.load(piece / "embeddings.npy").astype(np.float32)
        if embeddings is None:
            embeddings = np.zeros((len(flat), vectors.shape[1]), np.float32)
        embeddings[slots] = vectors[flat[slots, 1]]
        crops[slots] = np.load(piece / "crops.npy", mmap_mode="r")[flat[slots, 1]]
    assert embeddings is not None, "the train side is not empty"
    embeddings /= np.maximum(np.linalg.norm(embeddings, axis=1, keepdims=True), 1e-6)
    np.save(out / "embeddings.npy", embeddings.reshape(*where.shape[:2], -1))
    crops.flush()


def _vae_sha256(vae: Path) -> str:
    return content_sha256({file.name: file_sha256(file) for file in sorted(vae.glob("*.safetensors"))})


def shard_files(folder: Path, names: Iterable[str]) -> list[ShardFile]:
    """Shards of a folder by their names, which begin with their sha256."""
    return [ShardFile(path=folder / name, sha256=name.partition(".")[0]) for name in names]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--export", type=Path, required=True, help="folder that `fpga dataset export --raw` wrote")
    parser.add_argument("--preset-dir", type=Path, default=Path("fpga_models/weights/mini"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    facts = json.loads((options.export / "version.json").read_text())
    shards = shard_files(options.export, facts["shards"])
    index = options.export / "index.parquet"
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("shards", total=len(shards))
        materialise(
            index,
            shards,
            options.preset_dir / "vae",
            read_preset(options.preset_dir).sizes[0][0],
            options.out,
            report=lambda done, _: progress.update(task, completed=done),
        )
    sys.stdout.write(f"{options.out}\n")


if __name__ == "__main__":
    main()
