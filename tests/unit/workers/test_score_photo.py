"""What a photo is called of which no face was changed."""

from __future__ import annotations

import pytest

from orchestrator.contracts.photos import FaceReport
from workers.stages.photos.score_photo import why_unchanged


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        (("similarity_did_not_rise",), "similarity_did_not_rise"),
        (("good_already", "landmarks_moved"), "landmarks_moved"),
        (("no_reference",), "no_reference"),
        (("good_already", "face_too_small"), "good_already"),
        ((), "no_face"),
    ],
)
def test_a_photo_that_stays_says_why(outcomes: tuple[str, ...], code: str) -> None:
    reports = [FaceReport(box=(0, 0, 9, 9), kps5=((1, 1),) * 5, outcome=one, reason="") for one in outcomes]

    assert why_unchanged(reports, None).code == code
