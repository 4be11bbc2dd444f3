"""How long people wait with one worker: for the first picture, and for what is urgent beside a bulk batch.

python -m benchmarks.latency --items 48          # one worker in this process, the mini preset

Prints times in units of a group (the median time from claim to claim of drawings), so that the machine does not matter:
the first picture of a batch, an interactive pair of portraits and a person who is added while the bulk batch runs; and
what the bulk batch takes by itself and with those beside it.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path

from pydantic import JsonValue
from sqlalchemy import func, select

from orchestrator import logs
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Attempt, Output, Stage
from orchestrator.models import registry
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.settings import Settings
from orchestrator.storage import open_store
from workers.runtime.process import Process

POLL_SECONDS = 0.02
PERSON = Path(__file__).parents[1] / "examples" / "people" / "ada"


def item(number: int, steps: int) -> batches.NewItem:
    """Return a portrait of nobody in particular."""
    params: dict[str, JsonValue] = {
        "prompt": "photo of a person, plain background",
        "people": [],
        "width": 128,
        "height": 128,
        "steps": steps,
        "guidance": 1.0,
        "id_scale": 1.0,
        "control": "landmark",
        "preset": "mini",
    }
    return batches.NewItem(custom_id=f"c{number}", params=params, params_sha256=f"{number:064d}", seed=number)


class Bench:
    """One worker and its ledger."""

    def __init__(self, folder: Path, *, group: int, steps: int) -> None:
        self.settings = Settings(
            state_dir=folder, group_size=group, torch_threads=1, worker_queues="gpu.generate,cpu.io"
        )
        self.steps = steps
        schema.upgrade(self.settings.database_url)
        self.ledger = Ledger(self.settings.database_url)
        registry.ensure_registered(self.ledger, self.settings)

    def enrol(self) -> str:
        """Add one of the example people and return the batch."""
        pictures = [Picture(name=path.name, data=path.read_bytes()) for path in sorted(PERSON.iterdir())]
        consent = ConsentGiven(scopes=("generate",), granted_by="bench")
        person = NewPerson(handle="ada", pictures=tuple(pictures), consent=consent)
        return identities.add(self.ledger, open_store(self.settings), self.settings, [person], owner="local")

    def submit(self, count: int, lane: str = "bulk") -> str:
        """Submit so many portraits and return the batch."""
        items = [item(number, self.steps) for number in range(count)]
        version = registry.champion(self.ledger, self.settings, "mini")
        new = batches.NewBatch(
            owner="local",
            kind="generate",
            name=lane,
            preset="mini",
            items=items,
            lane=lane,
            model_version_id=version,
            flow=False,
        )
        return batches.submit(self.ledger, new).batch_id

    def wait(self, batch_id: str, *, drawn: int = 0) -> float:
        """Return the seconds until so many pictures of a batch are drawn, or until it has ended."""
        began = time.monotonic()
        while True:
            with self.ledger.read() as session:
                ended = batches.get(session, "local", batch_id).finished_at is not None
                count = session.scalar(select(func.count(Output.id)).where(Output.batch_id == batch_id)) or 0
            if ended or (drawn and count >= drawn):
                return time.monotonic() - began
            time.sleep(POLL_SECONDS)

    def group_seconds(self, batch_id: str) -> float:
        """Return the median time between the beginnings of two groups of drawings."""
        with self.ledger.read() as session:
            query = select(Attempt.started_at).join(Stage, Stage.id == Attempt.stage_id)
            query = query.where(Stage.batch_id == batch_id, Stage.name == "generate").distinct()
            began = sorted(session.scalars(query))
        return statistics.median((b - a).total_seconds() for a, b in itertools.pairwise(began))


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=48)
    parser.add_argument("--group", type=int, default=8)
    parser.add_argument("--steps", type=int, default=6)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder) / "state", group=given.group, steps=given.steps)
        logs.setup(bench.settings)
        process = Process(bench.settings)
        bench.submit(given.group)
        process.run()  # networks are loaded, code is warm
        spent = time.process_time()
        bench.submit(given.items)
        process.run()
        alone = time.process_time() - spent
        busy = threading.Thread(target=process.run, daemon=True)
        began, spent = time.monotonic(), time.process_time()
        bulk = bench.submit(given.items)
        busy.start()
        first = bench.wait(bulk, drawn=1)
        urgent, person = bench.submit(2, "interactive"), bench.enrol()
        submitted = time.monotonic()
        waited = {"interactive pair finished": bench.wait(urgent)}
        bench.wait(person)
        waited["person added, behind the pair"] = time.monotonic() - submitted
        bench.wait(bulk)
        wall, spent = time.monotonic() - began, time.process_time() - spent
        group = bench.group_seconds(bulk)
        busy.join()
        for what, seconds in {"first picture": first, **waited}.items():
            sys.stdout.write(f"{what}: {seconds / group:.2f} groups ({seconds:.2f} s)\n")
        sys.stdout.write(f"a group: {group:.2f} s; {given.items} pictures: {wall:.1f} s, {spent:.1f} s of processor, ")
        sys.stdout.write(f"{alone:.1f} s of it without the others\n")
        process.end()


if __name__ == "__main__":
    main()
