from pathlib import Path

import numpy as np
import pytest

from fpga_models.idzoom.scenes import open_scenes
from fpga_models.lab.synthetic.dataset import (
    CONDITIONING_IDENTITIES,
    EVALUATION_IDENTITIES,
    RENDERED,
    TEST_IDENTITIES,
    TRAIN_IDENTITIES,
    aligned_crop,
    open_crops,
    render_crops,
    render_scenes,
    write_scenes,
)


def test_scenes_depend_on_seed_and_index_only(tmp_path: Path) -> None:
    render_scenes(tmp_path, 12, seed=3, identities=range(50), workers=1)
    before = open_scenes(tmp_path)
    images, captions = before.images.copy(), before.captions
    again = write_scenes(tmp_path, range(5, 9), seed=3, identities=range(50))
    after = open_scenes(tmp_path)
    assert np.array_equal(after.images, images)
    assert again == captions[5:9]
    assert len(after) == len(captions) == 12


def test_absent_people_are_marked_and_present_ones_have_masks(tmp_path: Path) -> None:
    render_scenes(tmp_path, 10, seed=0, identities=range(50), workers=1)
    scenes = open_scenes(tmp_path)
    for index, count in enumerate(scenes.count.tolist()):
        assert (scenes.identity[index, :count] >= 0).all()
        assert (scenes.identity[index, count:] == -1).all()
        assert len(set(scenes.identity[index, :count].tolist())) == count
        assert (scenes.mask[index, :count].max((1, 2)) > 200).all()
        assert scenes.mask[index, count:].sum() == 0


def test_crops_are_ordered_by_identity(tmp_path: Path) -> None:
    render_crops(tmp_path, seed=0, identities=range(7, 10), per_identity=2, workers=1)
    crops, identity = open_crops(tmp_path)
    assert identity.tolist() == [7, 7, 8, 8, 9, 9]
    assert crops.shape == (6, 112, 112, 3)
    assert crops.std(axis=(1, 2, 3)).min() > 10


def test_small_faces_give_softer_crops() -> None:
    def detail(face_px: float) -> float:
        crop = aligned_crop(np.random.default_rng(1), 5, face_px).astype(float)
        return float(np.abs(np.diff(crop, axis=0)).mean())

    assert detail(18) < 0.8 * detail(90)


def test_splits_share_no_identity() -> None:
    assert not set(CONDITIONING_IDENTITIES) & set(EVALUATION_IDENTITIES)
    assert not set(TRAIN_IDENTITIES) & set(TEST_IDENTITIES)


def test_rendering_goes_on_behind_the_last_whole_piece(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fpga_models.lab.synthetic.dataset.PIECE", 4)
    render_scenes(tmp_path, 6, seed=3, identities=range(50), workers=1, side=256)
    whole = open_scenes(tmp_path)
    images, captions = whole.images.copy(), whole.captions
    assert images.shape == (6, 256, 256, 3)
    (tmp_path / RENDERED).write_text("4")
    np.load(tmp_path / "images.npy", mmap_mode="r+")[4:] = 0
    render_scenes(tmp_path, 6, seed=3, identities=range(50), workers=1, side=256)
    assert np.array_equal(open_scenes(tmp_path).images, images)
    assert open_scenes(tmp_path).captions == captions
