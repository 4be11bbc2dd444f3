import numpy as np
import pytest

from fpga_models.metrics.contrasts import contrast

PICTURES = np.repeat(np.arange(30), 2)


def faces(mean: float, seed: int = 0) -> np.ndarray:
    return mean + np.random.default_rng(seed).normal(0, 0.05, 60)


def test_a_part_whose_absence_lowers_the_measure_hurts() -> None:
    found = contrast(faces(0.7), faces(0.5, seed=1), PICTURES)

    assert found["verdict"] == "hurts"
    assert found["difference"] == pytest.approx(found["without"] - found["with"])
    assert found["ci95"][0] < found["difference"] < found["ci95"][1] < 0


def test_where_less_is_better_a_higher_value_hurts() -> None:
    assert contrast(faces(0.1), faces(0.3), PICTURES, better="lower")["verdict"] == "hurts"
    assert contrast(faces(0.3), faces(0.1), PICTURES, better="lower")["verdict"] == "helps"


def test_a_difference_within_the_noise_does_not_hurt() -> None:
    assert contrast(faces(0.5), faces(0.5, seed=9), PICTURES)["verdict"] == "does not"


def test_a_face_that_one_side_lost_is_left_out() -> None:
    kept, left_out = faces(0.5), faces(0.5)
    left_out[3] = np.nan

    found = contrast(kept, left_out, PICTURES)

    assert (found["count"], found["difference"]) == (59, 0.0)


def test_a_handful_of_pictures_is_no_evidence() -> None:
    few = PICTURES[:10]  # five pictures

    assert contrast(faces(0.7)[:10], faces(0.2)[:10], few)["verdict"] == "too few"
