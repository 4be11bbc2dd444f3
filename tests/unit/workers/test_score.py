from __future__ import annotations

import numpy as np
import pytest

from fpga_models.faces.pack import Face
from orchestrator.ledger.evaluations import Thresholds
from workers.stages.portraits.score import judge

PLACE = np.array([[(40, 40), (60, 40), (50, 50), (42, 60), (58, 60)]], np.float32)
WANTED = np.eye(1, 512, dtype=np.float32)


def face(similarity: float) -> Face:
    embedding = np.zeros(512, np.float32)
    embedding[:2] = similarity, np.sqrt(1 - similarity**2)
    box = np.array((30, 25, 70, 75), np.float32)
    return Face(box=box, kps5=PLACE[0], score=0.9, embedding=embedding)


def thresholds(eyes: float | None) -> Thresholds:
    return Thresholds(accept=0.5, review=0.3, pair=0.5, origin="test", eyes=eyes)


@pytest.mark.parametrize(
    ("similarity", "differ", "line", "verdict"),
    [
        (0.9, 3.0, 7.0, "accepted"),
        (0.9, 9.0, 7.0, "needs_review"),
        (0.9, 9.0, None, "accepted"),
        (0.9, None, 7.0, "accepted"),
        (0.4, 3.0, 7.0, "needs_review"),
        (0.1, 9.0, 7.0, "rejected"),
    ],
)
def test_eyes_that_differ_are_for_a_person_to_look_at(
    similarity: float, differ: float | None, line: float | None, verdict: str
) -> None:
    scores = judge([face(similarity)], WANTED, PLACE, thresholds(line), [differ])
    assert scores.verdict == verdict
    assert scores.people[0].eyes == differ
    assert scores.thresholds["eyes"] == line
