"""Pictures that others collected to break readers: the tests of Pillow, out of its source package that pip fetches.

Each is changed in a process that may die of it, and compared as libvips shows it before and after.
"""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pytest

from orchestrator.pictures import photo_format
from tests.integration.archive.test_corpus import by_vips, tried
from tests.services.photographs import sdist

MOST_BYTES = 3_000_000
FLAT = ("imagedraw_floodfill_RGBA.png", "transparent_background_text.png", "uncompressed_la.png")
"""All but transparent where we change them, so nothing is to be seen."""
UNREAD = "cannot read the source"


def outcome(path: Path) -> tuple[str, list[str]]:
    """What became of one file, and what is wrong with it."""
    case = tried(0, path.name, path.read_bytes(), "restore")
    if case.fate == "changed" and case.reach.size > 1:
        by_vips(case)
    if case.fate.startswith("stays") and case.out != case.data:
        case.faults.append("stays, but not by its bytes")
    return case.fate, [fault for fault in case.faults if UNREAD not in fault]


@pytest.mark.slow  # some 750 pictures, after a download of 47 MB
def test_no_picture_of_others_breaks_anything_or_is_changed_in_silence() -> None:
    root = sdist("pillow") / "Tests" / "images"
    files = [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size < MOST_BYTES]
    photos = [path for path in files if photo_format(path.read_bytes()[:64])]
    fates, wrong = Counter[str](), {}
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as pool:
        for path, done in [(path, pool.submit(outcome, path)) for path in photos]:
            try:
                fate, faults = done.result()
            except BrokenProcessPool:
                pytest.fail(f"{path.name}, or one beside it, ended the process")
            fates[fate] += 1
            if faults and path.name not in FLAT:
                wrong[path.name] = faults

    assert wrong == {}
    assert fates["changed"] > 500, fates
    assert np.sum(list(fates.values())) == len(photos) > 700
