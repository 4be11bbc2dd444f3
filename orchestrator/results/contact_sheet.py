"""One batch as one self-contained HTML page: results beside the people they should show, verdicts, failures.

Pictures are inline, there is no script, and the page's own policy forbids loading anything; it opens from disk, on a
phone and on paper. It knows only the values below: no ledger, no byte store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from orchestrator.results.reports import environment
from orchestrator.results.results_folder import write_new

VERDICTS = {"accepted": "accepted", "needs_review": "needs review", "rejected": "rejected"}
"""Smaller pictures are shown with hard pixels: enlarging smoothly would hide what they are."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A person of the batch: the label to show and the aligned face that enrolment kept, as PNG, if there is one."""

    label: str
    picture: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class PersonScore:
    """One intended person of a result: the key into `references`, and what the score stage found at their place.

    `face` is the row of the matrix that was matched, `nearest` the key of the person whom that face resembles most.
    """

    person: str
    similarity: float | None = None
    face: int | None = None
    nearest: str | None = None
    slot: str | None = None


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished portrait. `matrix`: cosines, found faces x people in the order of `people`."""

    custom_id: str
    picture: bytes
    prompt: str
    seed: int
    verdict: str | None
    people: Sequence[PersonScore] = ()
    matrix: Sequence[Sequence[float]] = ()
    layout: str | None = None
    seconds: float | None = None
    redraws: int = 0
    small_faces: str | None = None


@dataclass(frozen=True, kw_only=True)
class Failure:
    """One item without a picture, or one row that was left out (`stage` is then `validate`)."""

    custom_id: str
    code: str
    message: str
    stage: str | None = None
    attempt: int | None = None
    row: int | None = None


@dataclass(frozen=True, kw_only=True)
class ContactSheet:
    """All that the page shows. `references` maps the keys that results use to people."""

    title: str
    batch_id: str
    state: str
    results: Sequence[Result]
    references: Mapping[str, Reference]
    failures: Sequence[Failure] = ()
    counts: Mapping[str, int] = field(default_factory=dict)
    seconds: float | None = None
    model: str = ""
    preset: str = ""
    thresholds: Mapping[str, float] = field(default_factory=dict)
    made_at: datetime | None = None


def write_contact_sheet(path: Path, sheet: ContactSheet) -> Path:
    """Write the page to a new file and return its path.

    Raises:
        ConflictError: the file is there already.
        UsageError, TransientError: it cannot be written.
    """
    write_new(path, render_contact_sheet(sheet).encode())
    return path


def render_contact_sheet(sheet: ContactSheet) -> str:
    """Return the page; every text in it is escaped, whoever wrote it."""
    verdicts = {word: sum(result.verdict == word for result in sheet.results) for word in VERDICTS}
    return (
        environment()
        .get_template("contact_sheet.html")
        .render(
            sheet=sheet,
            verdicts={word: count for word, count in verdicts.items() if count},
            words=VERDICTS,
            keys={person: f"person-{n}" for n, person in enumerate(sheet.references)},
            faces={person: ref.picture for person, ref in sheet.references.items()},
        )
    )
