"""Cost per picture and peak memory of the data set builder on rendered pictures, and cached against uncached training.

    python scripts/bench_datasets.py 1000 10000 100000
    python scripts/bench_datasets.py 1000 10000 100000 --arrange     # only the last step, on tables of invented faces
    python scripts/bench_datasets.py 1000 --training

Each size runs in a process of its own: chunk after chunk as one worker does it, then the arrangement of all of them.
Prints one JSON line for each size; times are of this machine and say something only while it does nothing else.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fpga_models.faces.pack import FacePack
from fpga_models.faces.pose import PoseNetwork
from fpga_models.idzoom.annotate import AnnotateOptions
from fpga_models.idzoom.arrange import INDEX_SCHEMA, ArrangeOptions, arrange, index_tables
from fpga_models.idzoom.chunk import build_chunk, rendered
from fpga_models.idzoom.facts import SCHEMA
from fpga_models.idzoom.materialise import ShardFile, latents_of, materialise
from fpga_models.mini.generator import build_trainer
from fpga_models.mmf.data import draw_batch, open_training_data
from fpga_models.mmf.loop import LoopConfig
from fpga_models.mmf.modes import ModePlan
from fpga_models.presets import SHIPPED
from fpga_models.vae import MiniVAE
from fpga_models.weights import file_sha256

CHUNK = 256
PRESET = SHIPPED / "mini"


def invented(number: int, rng: np.random.Generator) -> pa.Table:
    """A chunk's table of one face for each picture, of 8000 people."""
    people = rng.integers(0, 8000, CHUNK)
    faces = np.stack([np.random.default_rng([int(person), 5]).standard_normal(512) for person in people])
    faces += 0.3 * rng.standard_normal(faces.shape)
    faces /= np.linalg.norm(faces, axis=1, keepdims=True)
    columns = {
        "key": [f"{number:016x}{place:016x}"[::-1] for place in range(CHUNK)],
        "place": np.zeros(CHUNK, np.int16),
        "faces": np.ones(CHUNK, np.int16),
        "label": [f"per_{person}" for person in people],
        "width": np.full(CHUNK, 128, np.int32),
        "height": np.full(CHUNK, 128, np.int32),
        "box": list(np.tile(np.float32([0, 0, 40, 50]), (CHUNK, 1))),
        "quality": np.full(CHUNK, 0.5, np.float32),
        "side_px": np.full(CHUNK, 50, np.float32),
        "share": np.full(CHUNK, 0.4, np.float32),
        "stratum": np.full(CHUNK, 4, np.int8),
        "views": np.ones(CHUNK, np.int16),
        "look": list(rng.integers(0, 2**63, (CHUNK, 2)).astype(np.uint64)),
        "face_look": rng.integers(0, 2**63, CHUNK).astype(np.uint64),
        "embedding": list(faces.astype(np.float16)),
    }
    return pa.table({name: pa.array(columns[name], SCHEMA.field(name).type) for name in SCHEMA.names}, schema=SCHEMA)


def arrange_alone(count: int, folder: Path, *, by_face: bool) -> dict[str, float]:
    """Cost and memory of deciding over `count` invented pictures."""
    rng = np.random.default_rng(0)
    tables = []
    for number in range(count // CHUNK):
        tables.append(folder / f"{number:09d}.parquet")
        pq.write_table(invented(number, rng), tables[-1], compression="zstd")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds, people = decide(tables, folder, by_face=by_face)
    return {
        "pictures": len(tables) * CHUNK,
        "arrange_ms": round(1000 * seconds / (len(tables) * CHUNK), 4),
        "people": people,
        "before_mib": round(before / 1024),
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def decide(tables: list[Path], folder: Path, *, by_face: bool) -> tuple[float, int]:
    """Arrange stored tables and write their index; return the seconds and the number of people found."""

    def read() -> Iterator[pa.Table]:
        for path in tables:
            table = pq.read_table(path)
            yield table.set_column(3, "label", pa.nulls(len(table), pa.string())) if by_face else table

    began = time.perf_counter()
    decided = arrange(read, ArrangeOptions(min_pictures=1, split=0.9))
    with pq.ParquetWriter(folder / "index.parquet", INDEX_SCHEMA, compression="zstd") as writer:
        for table in index_tables(read(), decided):
            writer.write_table(table)
    return time.perf_counter() - began, len(set(decided.person.tolist()))


def build(count: int, folder: Path, *, by_face: bool) -> dict[str, float]:
    """Build a set of `count` pictures below a folder; shards are thrown away but for the newest."""
    faces, pose = FacePack.load(PRESET / "faces"), PoseNetwork.load(PRESET / "pose")
    options = AnnotateOptions(side=128, max_people=4)
    tables: list[Path] = []
    drawing = annotating = 0.0
    for start in range(0, count, CHUNK):
        began = time.perf_counter()
        pictures = list(rendered(0, range(start, min(start + CHUNK, count))))
        middle = time.perf_counter()
        made = deque(build_chunk(pictures, folder, faces, pose, options), maxlen=1).pop()
        drawing, annotating = drawing + middle - began, annotating + time.perf_counter() - middle
        tables.append(made.facts.rename(folder / f"{start:09d}.parquet"))

    arranging, people = decide(tables, folder, by_face=by_face)
    return {
        "pictures": count,
        "draw_ms": round(1000 * drawing / count, 3),
        "annotate_ms": round(1000 * annotating / count, 3),
        "arrange_ms": round(1000 * arranging / count, 4),
        "people": people,
        "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
    }


def training(count: int, folder: Path, rounds: int = 20) -> dict[str, float]:
    """One training step of 32 views with cached latents and with pictures to encode, in turn."""
    faces, pose = FacePack.load(PRESET / "faces"), PoseNetwork.load(PRESET / "pose")
    options = AnnotateOptions(side=128, max_people=4)
    made = deque(build_chunk(rendered(0, range(count)), folder, faces, pose, options), maxlen=1).pop()
    decided = arrange(lambda: [pq.read_table(made.facts)], ArrangeOptions(min_pictures=1, split=1.0))
    pq.write_table(pa.concat_tables(index_tables([pq.read_table(made.facts)], decided)), folder / "index.parquet")
    shard = ShardFile(path=made.shard, sha256=file_sha256(made.shard))
    times: dict[str, list[float]] = {"first": [], "again": []}
    for name in times:
        began = time.perf_counter()
        materialise(folder / "index.parquet", [shard], PRESET / "vae", folder / name, cache=folder / "pieces")
        times[name].append(time.perf_counter() - began)
    vae = MiniVAE.from_pretrained(PRESET / "vae", low_cpu_mem_usage=False).float()
    trainer, tokenizer = build_trainer(LoopConfig(seed=0))
    data = open_training_data(folder / "first", tokenizer)
    by_kind = data.indices_by_kind()
    shares = [float(len(kind)) for kind in by_kind]
    steps: dict[str, list[float]] = {"cached": [], "uncached": []}
    for turn in range(2 * rounds):
        name, rng = ("cached", "uncached")[turn % 2], np.random.default_rng(turn)
        began = time.perf_counter()
        if name == "uncached":  # what the cached latents save: the autoencoder on the pictures of the batch
            latents_of(data.scenes.images[rng.integers(0, len(data.scenes), 32)], vae)
        batch = draw_batch(data, by_kind, shares, plan=ModePlan(), count=32, step=turn, rng=rng)
        trainer.train_step(batch, rng, 1e-4)
        steps[name].append(time.perf_counter() - began)
    medians = {name: float(np.median(took)) for name, took in steps.items()}
    return {
        "views": len(data.scenes),
        "materialise_s": round(times["first"][0], 2),
        "materialise_again_s": round(times["again"][0], 2),
        "step_cached_ms": round(1000 * medians["cached"], 1),
        "step_uncached_ms": round(1000 * medians["uncached"], 1),
        "uncached_over_cached": round(medians["uncached"] / medians["cached"], 3),
    }


def main() -> None:
    """Command line; each size in a fresh process, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--by-face", action="store_true", help="people are found by their faces, not named")
    parser.add_argument("--arrange", action="store_true", help="measure only the decisions, on invented faces")
    parser.add_argument("--training", action="store_true", help="measure reading for training instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if len(options.sizes) > 1:
        flags = [f"--{name.replace('_', '-')}" for name in ("by_face", "arrange", "training") if getattr(options, name)]
        for size in options.sizes:
            subprocess.run([sys.executable, __file__, str(size), *flags], check=True)
        return
    with TemporaryDirectory(prefix="fpga-bench-") as name:
        size = options.sizes[0]
        if options.training:
            found = training(size, Path(name))
        else:
            found = (arrange_alone if options.arrange else build)(size, Path(name), by_face=options.by_face)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
