"""A batch of restored photos as one HTML page with a slider on each, and a folder of small pictures beside it.

It opens from disk, loads nothing from elsewhere, and knows only the values below.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.results.reports import environment
from orchestrator.results.results_folder import write_new

SCRIPT = """for (const one of document.querySelectorAll(".pair")) {
  one.querySelector("input").addEventListener("input", (event) => {
    one.style.setProperty("--at", event.target.value + "%");
  });
}"""
"""The only script of the page; its hash is in the page's policy, so that no other runs."""


@dataclass(frozen=True, kw_only=True)
class Photo:
    """One restored photo: `before` and `after` are small JPEGs, `faces` rows of person, outcome, before, after."""

    path: str
    verdict: str
    reason: str
    size: str
    faces: Sequence[Mapping[str, Any]]
    notes: Sequence[str]
    reused: bool
    before: Callable[[], bytes]
    after: Callable[[], bytes]


@dataclass(frozen=True, kw_only=True)
class BeforeAfter:
    """All that the page shows."""

    title: str
    batch_id: str
    state: str
    facts: Mapping[str, str]
    photos: Sequence[Photo]
    failures: Sequence[Mapping[str, str]]
    others: Sequence[tuple[str, str]] = ()
    """Path of each file of the source that is no photo, and why it was passed over."""
    near: Sequence[tuple[str, str]] = ()
    """Photos that look the same, which were not merged."""


def write_before_after(path: Path, sheet: BeforeAfter) -> Path:
    """Write the page and its pictures, which go into `<name>_files` beside it; return the page's path.

    Raises:
        ConflictError: a file is there already.
        UsageError, TransientError: it cannot be written.
    """
    folder = path.with_name(f"{path.stem}_files")
    names = []
    for number, photo in enumerate(sheet.photos, start=1):
        pair = {side: f"{folder.name}/{number:05d}-{side}.jpg" for side in ("before", "after")}
        write_new(path.parent / pair["before"], photo.before())
        write_new(path.parent / pair["after"], photo.after())
        names.append(pair)
    write_new(path, render(sheet, names).encode())
    return path


def render(sheet: BeforeAfter, names: Sequence[Mapping[str, str]]) -> str:
    """Return the page; every text in it is escaped, whoever wrote it."""
    digest = base64.b64encode(hashlib.sha256(SCRIPT.encode()).digest()).decode()
    return (
        environment()
        .get_template("before_after.html")
        .render(sheet=sheet, pairs=list(zip(sheet.photos, names, strict=True)), script=SCRIPT, digest=digest)
    )
