import numpy as np
import pytest
from insightface.utils.face_align import arcface_dst, estimate_norm, norm_crop

from fpga_models.core.alignment import similarity
from fpga_models.faces import LandmarksError, align

PICTURE = np.random.default_rng(0).integers(0, 256, (160, 140, 3), dtype=np.uint8)


def landmarks(seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return (arcface_dst * rng.uniform(0.3, 1.5) + rng.normal(0, 3, (5, 2)) + rng.uniform(0, 40, 2)).astype(np.float32)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("seed", range(5))
def test_alignment_is_insightfaces_own_up_to_the_half_pixel_of_the_convention(seed: int) -> None:
    points = landmarks(seed)

    assert np.allclose(similarity(points.astype(np.float64), arcface_dst), estimate_norm(points), atol=1e-3)
    ours, theirs = align(PICTURE, points + 0.5), norm_crop(PICTURE, points)
    assert np.abs(ours.astype(int) - theirs.astype(int)).max() <= 2


def test_a_face_already_in_the_frame_is_left_alone() -> None:
    crop = align(PICTURE, arcface_dst + 0.5)

    assert np.abs(crop.astype(int) - PICTURE[:112, :112]).max() <= 1


@pytest.mark.parametrize("wrong", [np.zeros((4, 2)), np.full((5, 2), np.nan), np.ones((5, 2))])
def test_landmarks_that_are_not_five_different_finite_points_are_refused(wrong: np.ndarray) -> None:
    with pytest.raises(LandmarksError, match="Five"):
        align(PICTURE, wrong)
