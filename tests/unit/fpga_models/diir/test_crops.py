from __future__ import annotations

import numpy as np
import pytest

from fpga_models.diir.crops import Crop, forward_cost, native_side, plan_crop, waves


def plan(box: tuple[float, ...], width: int = 200, height: int = 100) -> Crop:
    return plan_crop(np.array(box), width=width, height=height, factor=2.0, offered=[128])


def test_a_crop_is_a_square_of_twice_the_face_around_it() -> None:
    assert plan((90, 40, 106, 60)) == Crop(left=78, top=30, side=40, native=128)


@pytest.mark.parametrize("box", [(-6, -4, 14, 16), (190, 88, 206, 104), (0, 0, 9, 9), (10, 5, 190, 99), (3, 40, 5, 41)])
def test_a_crop_lies_inside_the_picture(box: tuple[float, ...]) -> None:
    crop = plan(box)
    assert crop.left >= 0
    assert crop.top >= 0
    assert crop.left + crop.side <= 200
    assert crop.top + crop.side <= 100
    assert crop.side >= 2


def test_points_go_to_the_crop_and_scale_with_it() -> None:
    crop = Crop(left=10, top=20, side=32, native=128)
    assert crop.to_native(np.array([[10, 20], [42, 52], [26, 36]])).tolist() == [[0, 0], [128, 128], [64, 64]]


def test_edges_on_the_picture_border_are_told_from_inner_ones() -> None:
    crop = Crop(left=0, top=10, side=50, native=128)
    assert crop.inner_edges(50, 100) == (False, True, False, True)


def test_a_pass_at_1024_costs_what_sdxl_costs_against_512() -> None:
    assert forward_cost(1024) / forward_cost(512) == pytest.approx(6.76 / 1.59, rel=0.01)
    assert forward_cost(512) == 1


@pytest.mark.parametrize(("side", "native"), [(90, 512), (512, 512), (640, 512), (900, 1024), (3000, 1024)])
def test_the_larger_size_is_taken_only_where_detail_is_worth_it(side: int, native: int) -> None:
    assert native_side(side, [1024, 512]) == native


def test_crops_that_overlap_go_into_different_waves() -> None:
    crops = [Crop(left=x, top=0, side=20, native=128) for x in (0, 10, 20, 40)]

    groups = waves(crops)

    assert groups == [[0, 2, 3], [1]]
    assert not crops[0].overlaps(crops[2])
    assert crops[0].overlaps(crops[1])
