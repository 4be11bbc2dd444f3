"""Cost per picture and peak memory of the data set builder on rendered pictures, and cached against uncached training.

    python benchmarks/bench_datasets.py 1000 10000 100000
    python benchmarks/bench_datasets.py 1000 10000 100000 --arrange   # only the last step, on invented faces
    python benchmarks/bench_datasets.py 100000 --stand-in               # the whole builder without the cost of networks
    python benchmarks/bench_datasets.py 1000 --training

Each size is built and published in a process of its own, by the code of planner, ledger, store, worker and sweeper.
Prints one JSON line for each size. All but `wall` are milliseconds of CPU, so that a busy machine changes them little.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from fpga_models.core.presets import SHIPPED
from fpga_models.core.vae import MiniVAE
from fpga_models.core.weights import bytes_sha256, file_sha256
from fpga_models.faces.pack import Face, FacePack
from fpga_models.faces.pose import PoseNetwork
from fpga_models.idzoom.annotate import AnnotateOptions, Label, RawPicture, stored
from fpga_models.idzoom.arrange import INDEX_SCHEMA, ArrangeOptions, arrange, index_tables
from fpga_models.idzoom.chunk import build_chunk
from fpga_models.idzoom.facts import schema as facts_schema
from fpga_models.idzoom.materialise import ShardFile, latents_of, materialise
from fpga_models.lab.mini.generator import build_trainer
from fpga_models.lab.rendered import rendered
from fpga_models.mmf.loop import LoopConfig
from fpga_models.mmf.samples.data import draw_batch, open_training_data
from fpga_models.mmf.samples.modes import ModePlan
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.ledger.datasets import resolve
from orchestrator.ledger.engine import schema
from orchestrator.ledger.queue.sweeper import sweep
from orchestrator.models import registry
from orchestrator.settings import Settings
from workers.runtime.process import Process

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
        "box": list(np.tile(np.array([0, 0, 40, 50], np.float32), (CHUNK, 1))),
        "quality": np.full(CHUNK, 0.5, np.float32),
        "side_px": np.full(CHUNK, 50, np.float32),
        "share": np.full(CHUNK, 0.4, np.float32),
        "stratum": np.full(CHUNK, 4, np.int8),
        "views": np.ones(CHUNK, np.int16),
        "look": list(rng.integers(0, 2**63, (CHUNK, 2)).astype(np.uint64)),
        "face_look": rng.integers(0, 2**63, CHUNK).astype(np.uint64),
        "embedding": list(faces.astype(np.float16)),
    }
    wanted = facts_schema(512)
    return pa.table({name: pa.array(columns[name], wanted.field(name).type) for name in wanted.names}, wanted)


def arrange_alone(count: int, folder: Path, *, by_face: bool) -> dict[str, float]:
    """Cost and memory of deciding over `count` invented pictures."""
    rng = np.random.default_rng(0)
    tables = []
    for number in range(count // CHUNK):
        tables.append(folder / f"{number:09d}.parquet")
        pq.write_table(invented(number, rng), tables[-1], compression="zstd")
    before = peak_mib()
    seconds, people = decide(tables, folder, by_face=by_face)
    return {
        "pictures": len(tables) * CHUNK,
        "arrange_ms": round(1000 * seconds / (len(tables) * CHUNK), 4),
        "people": people,
        "before_mib": before,
        "peak_mib": peak_mib(),
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


class Clock:
    """Seconds of CPU that drawing and networks take; with `stand_in` both are invented: what is left is the rest."""

    def __init__(self, *, stand_in: bool, by_face: bool) -> None:
        self.seconds = {"draw": 0.0, "networks": 0.0}
        self._shown: tuple[Label, ...] = ()
        self._by_face, self._stand_in = by_face, stand_in
        stage: Any = importlib.import_module(
            "workers.stages.datasets.annotate"
        )  # the package exports a function of this name
        stage.rendered = self._drawn
        networks: list[tuple[Any, str, Callable[..., Any]]] = [
            (FacePack, "detect", lambda _, image: [invented_face(label) for label in self._shown]),
            (PoseNetwork, "skeletons", lambda _, image, boxes, kps5: np.zeros((len(boxes), 18, 3), np.float32)),
        ]
        for kind, name, invented in networks:
            setattr(kind, name, self._timed(invented if stand_in else getattr(kind, name)))

    def _timed(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            began = time.process_time()
            found = function(*arguments)
            self.seconds["networks"] += time.process_time() - began
            return found

        return timed

    def _drawn(self, seed: int, indices: range) -> Iterator[RawPicture]:
        for index in indices:
            began = time.process_time()
            (picture,) = [invented_picture(index)] if self._stand_in else rendered(seed, range(index, index + 1))
            self.seconds["draw"] += time.process_time() - began
            self._shown = picture.labels
            yield replace(picture, labels=()) if self._by_face else picture


def invented_picture(index: int) -> RawPicture:
    """Coloured clouds with one to three people of 8000, none of whom can be seen."""
    rng = np.random.default_rng([index, 3])
    image = cv2.resize(rng.integers(0, 256, (16, 16, 3), np.uint8), (128, 128), interpolation=cv2.INTER_CUBIC)
    image, data, suffix = stored(image)
    places = [(128 * (place + 1) / (index % 3 + 2), 60.0) for place in range(index % 3 + 1)]
    labels = tuple(Label(person=f"render-{rng.integers(8000)}", nose=place) for place in places)
    return RawPicture(
        name=f"{index:08d}.png", sha256=bytes_sha256(data), data=data, suffix=suffix, image=image, labels=labels
    )


def invented_face(label: Label) -> Face:
    """A face of 40 px around a nose, with the same embedding each time for the same person."""
    centre = np.array(label.nose, np.float32)
    embedding = np.random.default_rng(int(label.person.partition("-")[2])).standard_normal(512).astype(np.float32)
    return Face(
        box=np.concatenate([centre - 20, centre + 20]),
        kps5=centre + np.array([[-8, -8], [8, -8], [0, 0], [-6, 10], [6, 10]], np.float32),
        score=0.9,
        embedding=embedding / np.linalg.norm(embedding),
    )


def build(count: int, folder: Path, *, by_face: bool, stand_in: bool) -> dict[str, Any]:
    """Build and publish a data set of `count` pictures with ledger, store, stages and sweeper in this one process."""
    clock = Clock(stand_in=stand_in, by_face=by_face)
    settings = Settings(state_dir=folder / "state", torch_threads=1, worker_queues="gpu.generate,cpu.io")
    settings.state_dir.mkdir(mode=0o700)
    schema.upgrade(settings.database_url)
    process = Process(settings)
    registry.ensure_registered(process.ledger, settings)
    wanted = BuildRequest(
        source=f"render:0:{count}",
        name="bench",
        preset="mini",
        licence="CC0-1.0",
        arrange={"min_pictures": 1, "split": 0.9},
    )
    wall, began = time.perf_counter(), time.process_time()
    begun = datasets.build(process.ledger, process.context.store, settings, wanted, owner=settings.owner)
    spent = dict.fromkeys(process.queues, 0.0)
    while not (found := datasets.progress(process.ledger, settings.owner, begun.batch_id)).ended:
        sweep(process.ledger, settings)
        for queue in spent:
            before = time.process_time()
            process.queues = [queue]
            process.run()
            spent[queue] += time.process_time() - before
    total, wall = time.process_time() - began, time.perf_counter() - wall
    assert found.version_id is not None, found.error
    with process.ledger.read() as session:
        facts = resolve(session, settings.owner, found.version_id).facts
    stored = sum(path.stat().st_size for path in settings.state_dir.rglob("*") if path.is_file())
    milliseconds = {
        **clock.seconds,
        "records": spent["gpu.generate"] - sum(clock.seconds.values()),
        "arrange": spent["cpu.io"],
        "ledger": total - sum(spent.values()),
        "total": total,
        "wall": wall,
    }
    return {
        "pictures": facts["pictures"],
        "ms_a_picture": {name: round(1000 * seconds / count, 3) for name, seconds in milliseconds.items()},
        "people": sum(side["people"] for side in facts["splits"].values()),
        "peak_mib": peak_mib(),
        "kib_a_picture": round(stored / 1024 / count, 1),
    }


def peak_mib() -> int:
    """The most memory of this process so far; `ru_maxrss` would count that of the process that started it too."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) // 1024


def training(count: int, folder: Path, rounds: int = 20) -> dict[str, Any]:
    """One training step of 32 views with cached latents, the same again as a null test, and with pictures to encode.

    A step without a cache reads its pictures out of PNG and sends them through the autoencoder.
    """
    faces, pose = FacePack.load(PRESET / "faces"), PoseNetwork.load(PRESET / "pose")
    options = AnnotateOptions(side=128, max_people=4)
    made = deque(build_chunk(rendered(0, range(count)), folder, faces, pose, options), maxlen=1).pop()
    decided = arrange(lambda: [pq.read_table(made.facts)], ArrangeOptions(min_pictures=1, split=1.0))
    pq.write_table(pa.concat_tables(index_tables([pq.read_table(made.facts)], decided)), folder / "index.parquet")
    shard = ShardFile(path=made.shard, sha256=file_sha256(made.shard))
    seconds = {}
    for name in ("first", "again"):
        began = time.process_time()
        materialise(folder / "index.parquet", [shard], PRESET / "vae", 128, folder / name, cache=folder / "pieces")
        seconds[name] = time.process_time() - began
    vae = MiniVAE.from_pretrained(PRESET / "vae", low_cpu_mem_usage=False).float()
    trainer, tokenizer = build_trainer(LoopConfig(seed=0))
    data = open_training_data(folder / "first", tokenizer)
    by_kind = data.indices_by_kind()
    shares = [float(len(kind)) for kind in by_kind]
    arms = ("cached", "null", "uncached")
    steps: dict[str, list[float]] = {name: [] for name in arms}
    for turn in range(-1, rounds):
        for name in arms:
            rng = np.random.default_rng(abs(turn))
            files = [stored(image)[1] for image in data.scenes.images[rng.integers(0, len(data.scenes), 32)]]
            began = time.process_time()
            if name == "uncached":
                decoded = [cv2.imdecode(np.frombuffer(f, np.uint8), cv2.IMREAD_COLOR) for f in files]
                latents_of(np.stack([np.asarray(image) for image in decoded]), vae)
            batch = draw_batch(data, by_kind, shares, plan=ModePlan(), count=32, step=max(turn, 0), rng=rng)
            trainer.train_step(batch, rng, 1e-4)
            if turn >= 0:  # the first round warms up
                steps[name].append(time.process_time() - began)
    return {
        "views": len(data.scenes),
        "materialise_cpu_s": round(seconds["first"], 2),
        "materialise_again_cpu_s": round(seconds["again"], 2),
        "step_cpu_ms": {name: round(1000 * float(np.median(took)), 1) for name, took in steps.items()},
        "uncached_over_cached": ratio(steps["uncached"], steps["cached"]),
        "null": ratio(steps["null"], steps["cached"]),
    }


def ratio(above: list[float], below: list[float]) -> dict[str, float]:
    """Median of the ratios of steps that followed each other, with a 95 % bootstrap interval."""
    ratios = np.array(above) / np.array(below)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.percentile(np.median(drawn, axis=1), [2.5, 97.5])
    return {"median": round(float(np.median(ratios)), 3), "low": round(float(low), 3), "high": round(float(high), 3)}


def main() -> None:
    """Command line; each size in a fresh process, so that its peak memory is its own."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="+")
    parser.add_argument("--by-face", action="store_true", help="people are found by their faces, not named")
    parser.add_argument("--arrange", action="store_true", help="measure only the decisions, on invented faces")
    parser.add_argument(
        "--stand-in", action="store_true", help="invent pictures and faces: what all but the networks costs"
    )
    parser.add_argument("--training", action="store_true", help="measure reading for training instead")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if len(options.sizes) > 1:
        names = ("by_face", "arrange", "stand_in", "training")
        flags = [f"--{name.replace('_', '-')}" for name in names if getattr(options, name)]
        for size in options.sizes:
            subprocess.run([sys.executable, __file__, str(size), *flags], check=True)
        return
    with TemporaryDirectory(prefix="fpga-bench-") as name:
        size = options.sizes[0]
        if options.training:
            found = training(size, Path(name))
        elif options.arrange:
            found = arrange_alone(size, Path(name), by_face=options.by_face)
        else:
            found = build(size, Path(name), by_face=options.by_face, stand_in=options.stand_in)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
