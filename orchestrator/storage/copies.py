"""Copies of data sets on this machine's disk: what training unpacked goes when somebody in it withdraws."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Collection
from pathlib import Path


def drop_withdrawn(root: Path, withdrawn: Callable[[Collection[str]], Collection[str]]) -> int:
    """Remove the local copies of data sets that hold somebody who withdrew; return how many there were.

    Every worker does this for its own disk between two looks for work, an erase for the machine that it runs on.
    Which unpacked chunks show whom nobody knows here, so with the first copy they all go; they are made again.

    Args:
        root: the folder of the copies; those of whole data sets are named by the hash of their content.
        withdrawn: says which of these hashes must go.
    """
    folders = [path for path in (*root.glob("*"), *root.glob("shards/*")) if path.is_dir()]
    held = {path.name for path in folders} - {"shards", "chunks"}
    if not held:
        return 0
    gone = withdrawn(held)
    for path in folders:
        if path.name in gone:
            shutil.rmtree(path, ignore_errors=True)
    if gone:
        shutil.rmtree(root / "chunks", ignore_errors=True)
    return len(gone)
