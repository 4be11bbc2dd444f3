"""Cost per picture and peak memory of the data set builder on rendered pictures, and cached against uncached training.

    python scripts/bench_datasets.py 1000 10000 100000
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

    def read() -> Iterator[pa.Table]:
        for path in tables:
            table = pq.read_table(path)
            yield table.set_column(3, "label", pa.nulls(len(table), pa.string())) if by_face else table

    began = time.perf_counter()
    decided = arrange(read, ArrangeOptions(min_pictures=1, split=0.9))
    with pq.ParquetWriter(folder / "index.parquet", INDEX_SCHEMA, compression="zstd") as writer:
        for table in index_tables(read(), decided):
            writer.write_table(table)
    arranging = time.perf_counter() - began
    return {
        "pictures": count,
        "draw_ms": round(1000 * drawing / count, 3),
        "annotate_ms": round(1000 * annotating / count, 3),
        "arrange_ms": round(1000 * arranging / count, 4),
        "people": len(set(decided.person.tolist())),
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
    parser.add_argument("--training", action="store_true", help="measure reading for training instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if len(options.sizes) > 1:
        flags = [flag for flag, on in (("--by-face", options.by_face), ("--training", options.training)) if on]
        for size in options.sizes:
            subprocess.run([sys.executable, __file__, str(size), *flags], check=True)
        return
    with TemporaryDirectory(prefix="fpga-bench-") as name:
        size = options.sizes[0]
        found = training(size, Path(name)) if options.training else build(size, Path(name), by_face=options.by_face)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
