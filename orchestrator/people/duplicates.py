"""Whether two entries of the library are the same person: their references compared, recogniser by recogniser."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sqlalchemy.orm import Session

from orchestrator.ledger import evaluations, identities, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings


@dataclass(frozen=True, kw_only=True)
class Alike:
    """Two entries whose mean faces resemble each other as two pictures of one person do; `pair` is the threshold."""

    first: str
    second: str
    likeness: float
    pair: float

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {"object": "identity.alike", **asdict(self)}


def alike(ledger: Ledger, settings: Settings, owner: str) -> list[Alike]:
    """Return pairs of entries that may be one person, most alike first.

    References of a recogniser that no registered version has are left out: nobody knows its threshold.
    """
    vault = Vault.of(settings)
    vectors: dict[str, dict[str, list[NDArray[np.float32]]]] = defaultdict(lambda: defaultdict(list))
    with ledger.read() as session:
        lines = _lines(session)
        for person, _ in identities.listing(session, owner):
            for row in identities.embedded(session, person.id):
                vector = np.frombuffer(vault.open(row.envelope, row.embedding), np.float32)
                vectors[row.encoder][person.handle or person.id].append(vector)
    found = []
    for encoder, people in vectors.items():
        if encoder not in lines:
            continue
        means = {name: np.mean(rows, axis=0) for name, rows in people.items()}
        for first, second in combinations(sorted(means), 2):
            a, b = means[first], means[second]
            likeness = float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))
            if likeness >= lines[encoder]:
                found.append(Alike(first=first, second=second, likeness=round(likeness, 4), pair=lines[encoder]))
    return sorted(found, key=lambda one: -one.likeness)


def _lines(session: Session) -> dict[str, float]:
    """The threshold of pairing of every recogniser that a registered version has."""
    lines: dict[str, float] = {}
    for version, _ in models.listing(session):
        for name, entry in version.manifest.get("files", {}).items():
            if name.startswith("faces/"):
                lines.setdefault(entry["sha256"], evaluations.thresholds(session, version).pair)
    return lines
