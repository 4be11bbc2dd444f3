"""Rendered people that come with every installation, for whoever wants to see something before adding somebody real."""

from __future__ import annotations

from pathlib import Path

from orchestrator.errors import UsageError
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture

DRAWN = Path(__file__).with_name("drawn")
FOLDER = DRAWN / "people"
MANIFEST = DRAWN / "portraits.jsonl"
SUFFIXES = (".png", ".jpg", ".webp")


def available() -> bool:
    """Say whether the examples came with this installation."""
    return FOLDER.is_dir()


def people(known: set[str], *, scopes: tuple[str, ...] = ("generate",), folder: Path = FOLDER) -> list[NewPerson]:
    """Return the example people whose handles are not `known` yet.

    Raises:
        UsageError: the folder is not there.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is missing", code="no_examples")
    found = [one for one in sorted(folder.iterdir()) if one.is_dir() and one.name not in known]
    return [_person(one, scopes) for one in found]


def _person(folder: Path, scopes: tuple[str, ...]) -> NewPerson:
    pictures = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES]
    return NewPerson(
        handle=folder.name,
        pictures=tuple(Picture(name=path.name, data=path.read_bytes()) for path in pictures),
        consent=ConsentGiven(scopes=scopes, granted_by="demo"),
    )
