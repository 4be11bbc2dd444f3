"""Copies of data sets on this machine's disk: what training unpacked goes when somebody in it withdraws."""

from __future__ import annotations

import shutil

from orchestrator.ledger import datasets
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings


def drop_withdrawn(ledger: Ledger, settings: Settings) -> int:
    """Remove the local copies of data sets that hold somebody who withdrew; return how many there were.

    Every worker does this for its own disk between two looks for work, an erase for the machine that it runs on.
    Which unpacked chunks show whom nobody knows here, so with the first copy they all go; they are made again.
    """
    root = settings.state_dir / "datasets"
    folders = [path for path in (*root.glob("*"), *root.glob("shards/*")) if path.is_dir()]
    held = {path.name for path in folders} - {"shards", "chunks"}
    if not held:
        return 0
    with ledger.read() as session:
        gone = datasets.tainted_contents(session, held)
    for path in folders:
        if path.name in gone:
            shutil.rmtree(path, ignore_errors=True)
    if gone:
        shutil.rmtree(root / "chunks", ignore_errors=True)
    return len(gone)
