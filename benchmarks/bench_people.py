"""Measures a scan of an archive of photographs: photos a second, memory, and whether killing it loses or doubles any.

    python -m benchmarks.bench_people --count 5000 --kills 2

The photos are rendered backgrounds of a photograph's size with ORL faces in them, which pip fetches; a few are copies
and a few are damaged. The command line and the worker are killed with SIGKILL, so often, and started again. What is
said of memory is the resident size of the worker's processes, and of the command, over the photos done.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import asdict, dataclass, field
from pathlib import Path
from unittest.mock import patch

import cv2
import numpy as np
from PIL import Image
from sqlalchemy import func, select

from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.faces import reports
from orchestrator.ledger.tables.rows import Attempt, Batch, Item, Stage
from orchestrator.ledger.tables.rows_people import FoundFace, ScannedPhoto
from orchestrator.models import registry
from orchestrator.settings import load_settings
from tests.services import photographs
from tests.services.photographs import Picture

ROOT = Path(__file__).parents[1]
OWNER = "local"
SIZES = ((1600, 1200), (1200, 1600), (2400, 1600))
COPIES, DAMAGED = 50, 100
"""One photo in so many."""


@dataclass(kw_only=True)
class Figures:
    """What one run came to; `pairs` are shares of pairs of faces in one group that show one person, and the reverse."""

    photos: int
    killed: int
    seconds: float
    photos_a_second: float
    doubled: int
    lost: int
    faces: int
    people: int
    pure: float
    whole: float
    damaged: int
    failed: int
    worker_mib: list[tuple[int, int]] = field(default_factory=list)
    command_mib: list[tuple[int, int]] = field(default_factory=list)


def render(folder: Path, count: int, seed: int = 1) -> tuple[dict[str, list[int]], int]:
    """Write photos; return {path: the people in it, from the left}, and how many files are damaged."""
    rng = np.random.default_rng(seed)
    faces = photographs.orl()
    shown: dict[str, list[int]] = {}
    damaged = 0
    for number in range(count):
        path = folder / f"{number // 500:02d}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        name = str(path.relative_to(folder))
        if number % COPIES == COPIES - 1:
            before = folder / f"{(number - 1) // 500:02d}" / f"{number - 1:05d}.jpg"
            shutil.copy(before, path)
            shown[name] = shown[str(before.relative_to(folder))]
            continue
        picture, people = _photo(rng, faces)
        Image.fromarray(picture).save(path, quality=88)
        if number % DAMAGED == DAMAGED - 3:
            path.write_bytes(path.read_bytes()[:900])
            damaged += 1
            continue
        shown[name] = people
    return shown, damaged


def _photo(rng: np.random.Generator, faces: list[tuple[int, Picture]]) -> tuple[Picture, list[int]]:
    width, height = SIZES[int(rng.integers(len(SIZES)))]
    rough = rng.integers(60, 190, (height // 40, width // 40, 3), dtype=np.uint8)
    picture = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    picture = cv2.add(picture, rng.integers(0, 12, picture.shape, dtype=np.uint8))
    people = []
    count = int(rng.integers(1, 4))
    for slot, index in enumerate(rng.choice(len(faces), count, replace=False).tolist()):
        person, face = faces[index]
        if person in people:
            continue
        side = int(rng.integers(260, width // count - 20))
        small = cv2.resize(face, (side, side * face.shape[0] // face.shape[1]), interpolation=cv2.INTER_AREA)
        small = small[: height - 20]
        top, left = int(rng.integers(0, height - small.shape[0])), slot * (width // count) + 5
        picture[top : top + small.shape[0], left : left + side] = small
        people.append(person)
    return np.asarray(picture, np.uint8), people


def run(folder: Path, count: int, kills: int, seed: int = 1) -> Figures:
    """Render, scan with kills, and compare what was found with what was rendered."""
    shown, damaged = render(folder / "album", count, seed)
    environment = {
        **os.environ,
        "FPGA_STATE_DIR": str(folder / "state"),
        "FPGA_MODELS_DIR": str(photographs.models()),
        "FPGA_OWNER": OWNER,
        "FPGA_TORCH_THREADS": "1",
        "FPGA_IDLE_LOOK_SECONDS": "0.2",
        "FPGA_LEASE_SECONDS": "10",
        "FPGA_HEARTBEAT_SECONDS": "2",
        "OMP_NUM_THREADS": "1",
    }
    with patch.dict(os.environ, environment):
        settings = load_settings()
    settings.state_dir.mkdir(mode=0o700)
    schema.upgrade(settings.database_url)
    ledger = Ledger.of(settings)
    registry.ensure_registered(ledger, settings)
    figures = Figures(
        photos=count, killed=0, seconds=0, photos_a_second=0, doubled=0, lost=0, faces=0, people=0, pure=0, whole=0,
        damaged=damaged, failed=0,
    )  # fmt: skip
    sweeper = _start([sys.executable, "-m", "orchestrator.runtime.sweeping"], folder / "sweeper.log", environment)
    try:
        _scan(ledger, folder, environment, figures, kills)
    finally:
        _kill(sweeper)
    _compare(ledger, folder / "album", shown, figures)
    ledger.dispose()
    return figures


def _scan(ledger: Ledger, folder: Path, environment: dict[str, str], figures: Figures, kills: int) -> None:
    worker = [sys.executable, "-m", "celery", "-A", "workers", "worker", "-Q", "cpu.io", "-n", "b@bench"]
    command = [sys.executable, "-m", "orchestrator.cli.app", "people", "scan", str(folder / "album"), "--feed", "here"]
    began = time.monotonic()
    while True:
        works = _start(worker, folder / "worker.log", environment)
        scans = _start(command, folder / "scan.log", environment)
        limit = figures.photos * (figures.killed + 1) // (kills + 1) if figures.killed < kills else None
        while scans.poll() is None:
            time.sleep(1)
            done = _done(ledger)
            figures.worker_mib.append((done, _mib(works)))
            figures.command_mib.append((done, _mib(scans)))
            if limit is not None and done >= limit:
                break
        else:
            _kill(works)
            break
        _kill(scans)
        _kill(works)
        figures.killed += 1
    figures.seconds = round(time.monotonic() - began, 1)
    figures.photos_a_second = round(figures.photos / figures.seconds, 2)


def _compare(ledger: Ledger, album: Path, shown: dict[str, list[int]], figures: Figures) -> None:
    found: dict[str, Counter[int]] = defaultdict(Counter)
    with ledger.read() as session:
        done = select(Attempt.stage_id).join(Stage).where(Stage.name == "scan_photo", Attempt.outcome == "completed")
        twice = select(func.count()).select_from(done.group_by(Attempt.stage_id).having(func.count() > 1).subquery())
        figures.doubled = session.scalar(twice) or 0
        rows = session.scalar(select(func.count(ScannedPhoto.id))) or 0
        figures.lost = len(shown) - rows
        figures.faces = session.scalar(select(func.count(FoundFace.id))) or 0
        figures.failed = session.scalar(select(func.count(Item.id)).where(Item.state == "failed")) or 0
        scans = select(func.count(Batch.id)).where(Batch.kind == "scan")
        assert session.scalar(scans) == 1, "a scan that was killed goes on and does not begin again"
        for photo in reports.photos(session, OWNER, str(album)):
            people = shown[photo.path]
            if len(photo.faces) == len(people):
                for face, person in zip(photo.faces, people, strict=True):
                    found[face.person_id or face.id][person] += 1
    figures.people = sum(one.total() > 1 for one in found.values())
    total = sum((one for one in found.values()), Counter[int]())
    right = sum(n * (n - 1) for one in found.values() for n in one.values())
    together = sum(one.total() * (one.total() - 1) for one in found.values())
    same = sum(n * (n - 1) for n in total.values())
    figures.pure, figures.whole = round(right / max(1, together), 4), round(right / max(1, same), 4)


def _done(ledger: Ledger) -> int:
    with ledger.read() as session:
        ended = Item.state.in_(("completed", "failed", "held"))
        scan = select(Batch.id).where(Batch.kind == "scan")
        return session.scalar(select(func.count(Item.id)).where(ended, Item.batch_id.in_(scan))) or 0


def _start(command: list[str], log: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    with log.open("ab") as file:
        return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file, env=environment, start_new_session=True)


def _kill(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _mib(process: subprocess.Popen[bytes]) -> int:
    """Resident size of a process and its lasting children, without those that decode a photo, MiB."""
    pages = 0
    for place in Path("/proc").glob("[0-9]*"):
        try:
            session = int((place / "stat").read_text().rpartition(")")[2].split()[3])
            if session == process.pid and b"workers.photo.child" not in (place / "cmdline").read_bytes():
                pages += int((place / "statm").read_text().split()[1])
        except OSError:
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") >> 20


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fpga-people-") as folder:
        figures = run(Path(folder), options.count, options.kills, options.seed)
    said = asdict(figures)
    for name in ("worker_mib", "command_mib"):
        samples = said[name]
        step = max(1, len(samples) // 12)
        said[name] = samples[::step]
    sys.stdout.write(json.dumps(said) + "\n")


if __name__ == "__main__":
    main()
