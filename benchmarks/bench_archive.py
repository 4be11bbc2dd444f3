"""Measures the restoration of an archive: speed against its slowest stage, a redo's gain, what every file came to.

    python benchmarks/bench_archive.py --count 500 --damaged 0.1 --json

Starts a deployment of its own in a temporary folder with two workers, one for the CPU stages and one for the networks,
as a host with a device has them. The slowest stage alone is the one whose attempts kept a worker busy longest; its
own speed is photos over that time. Run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select

from fpga_models.lab.synthetic import reference_crop
from fpga_models.lab.synthetic.archive import PEOPLE, Truth, write_archive
from orchestrator.contracts.photos import RedoOptions, RestoreOptions
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches, workers
from orchestrator.ledger.tables.rows import Artifact, Attempt, Batch, Item, Output, Stage
from orchestrator.models import registry
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.photos import feeding, restore
from orchestrator.settings import Settings, load_settings
from orchestrator.storage import open_store

ROOT = Path(__file__).parents[1]
OWNER = "local"
STATEMENT = "rendered people"
EDGES = (0, 16, 24, 32, 48, 64)
LOSSLESS = ("image/png", "image/tiff", "image/bmp")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--damaged", type=float, default=0.0)
    parser.add_argument("--redos", type=int, default=8)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fpga-bench-") as folder:
        found = measure(Path(folder), options)
    text = json.dumps(found, indent=2) if options.json else "\n".join(f"{k}: {v}" for k, v in found.items())
    sys.stdout.write(text + "\n")


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return the figures of one run."""
    source = folder / "album.zip"
    truths = write_archive(source, count=options.count, seed=options.seed, damaged=options.damaged)
    os.environ |= {
        "FPGA_STATE_DIR": str(folder / "state"),
        "FPGA_TORCH_THREADS": "1",
        "FPGA_OWNER": OWNER,
        "FPGA_IDLE_LOOK_SECONDS": "0.2",
    }
    settings = load_settings()
    settings.state_dir.mkdir(mode=0o700)
    schema.upgrade(settings.database_url)
    ledger = Ledger.of(settings)
    registry.ensure_registered(ledger, settings)
    with ExitStack() as stack:
        for number, queues in enumerate(("cpu.io", "gpu.restore")):
            stack.enter_context(worker(folder, number, queues))
        stack.enter_context(process([sys.executable, "-m", "orchestrator.runtime.sweeping"], folder / "sweeper.log"))
        wait(lambda: _ready(ledger) == 2, 300)
        enrol(ledger, settings)
        batch_id, seconds = run(ledger, settings, source)
        ratio = redo_ratio(ledger, settings, batch_id, options.redos)
    found = {**metrics(ledger, batch_id, seconds), "redo": ratio, "count": options.count, "seed": options.seed}
    return {**found, **outcome(ledger, batch_id, truths)}


@contextmanager
def worker(folder: Path, number: int, queues: str) -> Iterator[None]:
    """A Celery worker for these queues."""
    command = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-Q", queues, "-n", f"b{number}@bench"]
    with process(command, folder / f"worker-{number}.log"):
        yield


@contextmanager
def process(command: list[str], log: Path) -> Iterator[None]:
    """A process that is ended with the context."""
    with log.open("wb") as file, subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file) as started:
        try:
            yield
        finally:
            started.terminate()
            started.wait(60)


def enrol(ledger: Ledger, settings: Settings) -> None:
    """Add everybody whom the archive shows to the library: with known people the first photo is restored at once."""
    people = [
        NewPerson(
            handle=f"p{who}",
            pictures=tuple(Picture(name=f"{n}.png", data=_reference(who, n)) for n in range(2)),
            consent=ConsentGiven(scopes=("restore",), granted_by=STATEMENT),
        )
        for who in PEOPLE
    ]
    batch_id = identities.add(ledger, open_store(settings), settings, people, owner=OWNER)
    wait(lambda: _state(ledger, batch_id) in BATCH_ENDED, 300)


def _reference(who: int, number: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(reference_crop(who, np.random.default_rng([who, number]), 256).image).save(out, "PNG")
    return out.getvalue()


def run(ledger: Ledger, settings: Settings, source: Path) -> tuple[str, float]:
    """Restore the archive and return its batch and the seconds from the first file read to the last photo written."""
    options = RestoreOptions(unknown="keep")
    made = restore.submit(ledger, settings, source=str(source), options=options, owner=OWNER, fed=False)
    began = time.monotonic()
    feeding.feed(ledger, open_store(settings), settings, OWNER, made.batch_id, lambda _: None)
    wait(lambda: _state(ledger, made.batch_id) in BATCH_ENDED, 3600)
    return made.batch_id, time.monotonic() - began


def metrics(ledger: Ledger, batch_id: str, seconds: float) -> dict[str, Any]:
    """Return photos per second of the pipeline, of its slowest stage, and their ratio."""
    with ledger.read() as session:
        done = batches.counts(session, batch_id)["completed"]
        query = (
            select(Stage.name, Attempt.started_at, Attempt.ended_at, Attempt.group_size)
            .join(Attempt, Attempt.stage_id == Stage.id)
            .where(Stage.batch_id == batch_id, Attempt.ended_at.is_not(None))
        )
        busy: dict[str, float] = {}
        spans: dict[str, list[tuple[Any, Any]]] = {}
        for name, started, ended, _ in session.execute(query).tuples():
            spans.setdefault(name, []).append((started, ended))
    for name, found in spans.items():
        busy[name] = _covered(found)
    workers_of = {"cpu": sum(s for n, s in busy.items() if n != "restore"), "device": busy.get("restore", 0.0)}
    slowest = max(workers_of.values())
    return {
        "photos": done,
        "seconds": round(seconds, 2),
        "photos_per_second": round(done / seconds, 4),
        "busy_seconds": {name: round(value, 2) for name, value in busy.items()},
        "slowest_worker_photos_per_second": round(done / slowest, 4),
        "ratio": round(slowest / seconds, 4),
        "verdicts": _verdicts(ledger, batch_id),
    }


def outcome(ledger: Ledger, batch_id: str, truths: Sequence[Truth]) -> dict[str, Any]:
    """Return how every file ended against what it is, similarity before and after by face size, and the background."""
    wanted = {truth.path: truth.expected for truth in truths if truth.expected != "skipped"}
    with ledger.read() as session:
        items = {item.params["path"]: item for item in batches.items(session, batch_id)}
        outputs = session.execute(
            select(Output.scores, Artifact.media_type)
            .join(Artifact, Artifact.id == Output.artifact_id)
            .where(Output.batch_id == batch_id)
        ).tuples()
        scored = [(scores or {}, media_type) for scores, media_type in outputs]
    ended = {
        path: item.error_code or ("photo" if item.state == "completed" else item.state) for path, item in items.items()
    }
    wrong = {
        path: [wanted.get(path), ended.get(path)] for path in wanted | ended if wanted.get(path) != ended.get(path)
    }
    faces = [face for scores, _ in scored for face in scores["faces"] if face["outcome"] == "changed"]
    lossless = [scores["outside"]["max"] for scores, media_type in scored if media_type in LOSSLESS]
    return {
        "files": len(ended),
        "ended_otherwise": wrong,
        "codes": dict(Counter(code for code in ended.values() if code != "photo")),
        "won_back": {name: _mean_gain(found) for name, found in _by_size(faces).items()},
        "outside_lossless_max": max(lossless, default=None),
        "outside_lossless_photos": len(lossless),
    }


def _by_size(faces: Sequence[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    groups: dict[str, list[dict[str, Any]]] = {}
    for face in faces:
        left, top, right, bottom = face["box"]
        side = min(right - left, bottom - top)
        low = max(edge for edge in EDGES if edge <= max(side, EDGES[0]))
        groups.setdefault(f"{low} px and more", []).append(face)
    return dict(sorted(groups.items(), key=lambda group: int(group[0].split()[0])))


def _mean_gain(faces: Sequence[dict[str, Any]]) -> dict[str, float]:
    before, after = (sum(face[name] for face in faces) / len(faces) for name in ("before", "after"))
    return {"faces": len(faces), "before": round(before, 4), "after": round(after, 4)}


def redo_ratio(ledger: Ledger, settings: Settings, batch_id: str, count: int) -> dict[str, Any]:
    """Return how much faster a photo is done again from its inversion than without: device seconds, the same photos."""
    times: dict[bool, list[float]] = {False: [], True: []}
    for number, item_id in enumerate(_changed(ledger, batch_id)[:count]):
        for force in (number % 2 == 0, number % 2 == 1):
            redone = restore.redo(ledger, settings, OWNER, item_id, RedoOptions(seed=1000 + number, force=force))
            wait(lambda: _state(ledger, redone) in BATCH_ENDED, 600)  # noqa: B023 waited for within this turn
            with ledger.read() as session:
                said = session.scalars(
                    select(Stage.result).where(Stage.batch_id == redone, Stage.name == "restore")
                ).first()
            if said:
                times[force].append(said["seconds"])
    with_it, without = sum(times[False]), sum(times[True])
    return {
        "photos": len(times[True]),
        "seconds_with_kept_inversion": round(with_it, 2),
        "seconds_without": round(without, 2),
        "ratio": round(without / with_it, 3) if with_it else None,
    }


def _covered(spans: list[tuple[Any, Any]]) -> float:
    """Seconds during which at least one of these was under way: the members of a group overlap."""
    total, until = 0.0, None
    for started, ended in sorted(spans):
        if until is None or started > until:
            total += (ended - started).total_seconds()
            until = ended
        elif ended > until:
            total += (ended - until).total_seconds()
            until = ended
    return total


def _changed(ledger: Ledger, batch_id: str) -> list[str]:
    with ledger.read() as session:
        query = select(Item.id, Stage.result).join(Stage, Stage.item_id == Item.id)
        rows = session.execute(query.where(Item.batch_id == batch_id, Stage.name == "restore")).tuples().all()
    return [item_id for item_id, said in rows if said and said["inversions"]["made"]]


def _verdicts(ledger: Ledger, batch_id: str) -> dict[str, int]:
    with ledger.read() as session:
        return batches.verdict_counts(session, batch_id)


def _state(ledger: Ledger, batch_id: str) -> str:
    with ledger.read() as session:
        return session.get_one(Batch, batch_id).state


def _ready(ledger: Ledger) -> int:
    with ledger.read() as session:
        return sum(one.state == "ready" for one in workers.living(session, now(session)))


def wait(until: Any, seconds: float) -> None:
    """Wait until something holds.

    Raises:
        TimeoutError: it did not, for so long.
    """
    deadline = time.monotonic() + seconds
    while not until():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s in vain")
        time.sleep(0.1)


if __name__ == "__main__":
    main()
