from __future__ import annotations

import numpy as np
import pytest

from fpga_models.metrics.restoration import background, border_gradient_ratio, by_size, small, won_back


def picture(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def disc(radius: float = 8.0, feather: float = 6.0) -> np.ndarray:
    ys, xs = np.mgrid[0:40, 0:60]
    return np.clip((radius + feather - np.hypot(ys - 20, xs - 30)) / feather, 0, 1)


def test_half_of_the_loss_won_back_is_one_half() -> None:
    before, ceiling = np.array([0.5, 0.7]), np.array([0.9, 0.9])
    found = won_back(before, (before + ceiling) / 2, ceiling)
    assert found.share == pytest.approx(0.5)
    assert found.before == pytest.approx(0.6)
    assert found.count == 2


def test_making_it_worse_is_negative() -> None:
    assert won_back(np.array([0.5]), np.array([0.4]), np.array([0.9])).share == pytest.approx(-0.25)


def test_nothing_lost_is_nothing_won() -> None:
    assert won_back(np.array([0.9]), np.array([0.9]), np.array([0.9])).share == 0
    assert won_back(*(np.zeros(0),) * 3).count == 0


def test_the_interval_holds_the_share_and_narrows_with_more_faces() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (20, 2000):
        before = rng.uniform(0.4, 0.6, count)
        found = won_back(before, before + 0.2 + rng.normal(0, 0.05, count), np.full(count, 0.9))
        assert found.ci95[0] < found.share < found.ci95[1]
        widths.append(found.ci95[1] - found.ci95[0])
    assert widths[1] < widths[0] / 5


def test_faces_are_sorted_by_size_and_empty_bins_left_out() -> None:
    sizes = np.array([17.0, 19.9, 20.0, 300.0])
    values = np.array([0.1, 0.2, 0.3, 0.4])
    bins = by_size(sizes, values, values, values + 0.1)
    assert {name: found.count for name, found in bins.items()} == {"16-20": 2, "20-24": 1, "64+": 1}
    assert small(np.array([15.9, 16, 28, 28.1])).tolist() == [False, True, True, False]


def test_a_change_inside_the_mask_is_no_background_change() -> None:
    original, mask = picture(), disc()
    restored = original.copy()
    restored[mask > 0] = 0

    found = background(original, restored, mask)

    assert (found.changed_pixels, found.max_change, found.psnr, found.ssim) == (0, 0, None, pytest.approx(1))


def test_one_changed_pixel_outside_is_seen_with_its_size() -> None:
    original, mask = picture(), disc()
    restored = original.copy()
    restored[1, 1, 2] ^= 64

    found = background(original, restored, mask)

    assert found.changed_pixels == 1
    assert found.max_change == 64
    assert found.psnr == pytest.approx(10 * np.log10(255**2 / (64**2 / (3 * (mask == 0).sum()))))
    assert found.ssim < 1


def test_sixteen_bits_and_grey_are_compared_in_their_own_steps() -> None:
    original = picture().astype(np.uint16)[..., 0] * 257
    restored = original.copy()
    restored[0, 0] ^= 1
    assert background(original, restored, disc()).max_change == 1


def test_pictures_of_different_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(39, 60, 3\)"):
        background(picture(), picture()[1:], disc())


def test_a_seam_raises_the_border_gradient_and_a_clean_edit_does_not() -> None:
    original = (np.random.default_rng(0).normal(120, 4, (40, 60, 3))).astype(np.uint8)
    mask = disc()
    brighter = np.clip(original.astype(int) + 60, 0, 255)
    soft = (original + mask[..., None] * (brighter - original)).round().astype(np.uint8)
    hard = np.where((mask > 0.2)[..., None], brighter, original).astype(np.uint8)

    assert border_gradient_ratio(original, original, mask) == 1
    assert border_gradient_ratio(original, hard, mask) > 3 * border_gradient_ratio(original, soft, mask)


def test_without_a_ring_there_is_no_seam() -> None:
    assert border_gradient_ratio(picture(), picture(1), np.zeros((40, 60))) == 1
