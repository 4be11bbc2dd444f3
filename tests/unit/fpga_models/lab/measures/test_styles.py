import numpy as np
import pytest

from fpga_models.faces import FacePack
from fpga_models.lab.measures.styles import STYLES
from fpga_models.lab.synthetic import random_scene, render
from fpga_models.metrics.assignment import ABSENT, match_places


@pytest.mark.parametrize("style", STYLES)
def test_a_style_changes_the_picture_always_alike_and_leaves_faces_where_they_are(style: str, pack: FacePack) -> None:
    shown = render(random_scene(np.random.default_rng(4), [5, 6], "group_2", 128))
    before = shown.image.copy()

    drawn = STYLES[style](shown.image)

    assert drawn.shape == shown.image.shape
    assert drawn.dtype == np.uint8
    assert np.array_equal(drawn, STYLES[style](shown.image))
    assert np.array_equal(shown.image, before)
    assert np.abs(drawn.astype(int) - shown.image).mean() > 10
    found = np.array([face.kps5 for face in pack.detect(drawn)], np.float32).reshape(-1, 5, 2)
    assert (match_places(np.stack([p.kps5 for p in shown.people]), found) != ABSENT).all()
