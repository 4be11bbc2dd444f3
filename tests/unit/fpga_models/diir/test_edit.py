from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.diir import RESTORE
from fpga_models.diir.edit import CropEdit, edit_crops, encode, latent_masks, renoise, steps_to
from fpga_models.diir.masks import face_mask
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import RequestError
from tests.unit.fpga_models.diir.conftest import as_transformer, scene

QUIET = replace(RESTORE, t_star=0.5, id_scale=0.8, steps=3, guidance=1.0, gamma=0.0)
BATCH_TOLERANCE = 1  # grey levels


@pytest.fixture(params=["unet", "transformer"])
def pipeline(request: pytest.FixtureRequest, pipeline: PortraitPipeline) -> PortraitPipeline:
    """Every property of DIIR holds behind either kind of base."""
    return pipeline if request.param == "unet" else as_transformer(pipeline)


def crop(seed: int = 3) -> CropEdit:
    shown = scene("portrait", seed)
    points = shown.people[0].kps5
    rng = np.random.default_rng(seed)
    return CropEdit(
        pixels=shown.image,
        kps5=points,
        mask=face_mask(points, (), side=128, inner_edges=(True,) * 4, dilation=1.0, feather=0.3),
        embedding=rng.standard_normal(512),
        current=rng.standard_normal(512),
        seed=seed,
    )


def edit(pipeline: PortraitPipeline, settings: DiirSettings, *crops: CropEdit) -> list[np.ndarray]:
    return edit_crops(pipeline, crops, settings, t_star=settings.t_star, on_step=lambda: None)


def outside(weight: np.ndarray) -> np.ndarray:
    """Pixels whose latent cell no mask touches."""
    cells = weight.reshape(16, 8, 16, 8).max(axis=(1, 3))
    return np.kron(cells, np.ones((8, 8))) == 0


def test_steps_are_closed_and_end_clean(pipeline: PortraitPipeline) -> None:
    pairs = steps_to(pipeline.schedule, 0.5, 4)
    assert pairs[0][0] == 499
    assert pairs[-1][1] == -1
    assert all(first[1] == second[0] for first, second in pairwise(pairs))


def test_more_steps_than_timesteps_are_refused(pipeline: PortraitPipeline) -> None:
    with pytest.raises(RequestError, match="at most 10"):
        steps_to(pipeline.schedule, 0.01, 11)


def test_encoding_then_decoding_returns_the_picture(pipeline: PortraitPipeline) -> None:
    one = crop()
    (back,) = pipeline.decode(encode(pipeline, [one.pixels]))
    assert np.abs(back.astype(int) - one.pixels).max() <= 1


def test_without_identity_and_guidance_the_inversion_is_undone(pipeline: PortraitPipeline) -> None:
    one = crop()
    (back,) = edit(pipeline, replace(QUIET, steps=8, id_scale=0.0, lock=False), one)
    assert np.abs(back.astype(int) - one.pixels).mean() < 6  # nobody's tokens leave with the scale: nearly, not exactly


def test_an_edit_towards_the_identity_that_was_inverted_with_leaves_the_face(pipeline: PortraitPipeline) -> None:
    one = crop()
    one = replace(one, current=one.embedding)
    settings = replace(QUIET, steps=100, id_scale=5.0, t_star=0.3, lock=False)

    (kept,), (edited,) = edit(pipeline, replace(settings, own_identity=True), one), edit(pipeline, settings, one)

    error, change = (np.abs(picture.astype(int) - one.pixels).mean() for picture in (kept, edited))
    assert error < 0.7 * change


def test_the_lock_returns_the_background_and_without_it_the_background_drifts(pipeline: PortraitPipeline) -> None:
    one = crop()
    free = outside(one.mask)
    settings = replace(QUIET, guidance=4.0, id_scale=2.0, gamma=0.5)

    (locked,), (drifted,) = edit(pipeline, settings, one), edit(pipeline, replace(settings, lock=False), one)

    assert free.any()
    assert np.abs(locked.astype(int) - one.pixels)[free].max() <= 1
    assert np.abs(drifted.astype(int) - one.pixels)[free].max() > 3
    assert np.abs(locked.astype(int) - one.pixels)[~free].max() > 3


@pytest.mark.parametrize(
    "change",
    [
        *({"inversion": False}, {"own_identity": True}, {"landmarks": False}, {"id_scale": 0.0}),
        *({"gamma": 0.6}, {"guidance": 5.0}, {"t_star": 0.8}),
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_switch_changes_the_edit(pipeline: PortraitPipeline, change: dict[str, float]) -> None:
    one = crop()
    settings = replace(QUIET, id_scale=1.5, guidance=2.0)
    (plain,), (switched,) = edit(pipeline, settings, one), edit(pipeline, replace(settings, **change), one)
    unread = "landmarks" in change and "landmark" not in pipeline.preset.controls
    assert np.array_equal(plain, switched) == unread


def test_crops_of_one_batch_do_not_touch_each_other(pipeline: PortraitPipeline) -> None:
    first, second = crop(3), crop(4)
    settings = replace(QUIET, guidance=2.0, gamma=0.3)

    together = edit(pipeline, settings, first, second)

    for got, alone in zip(together, (edit(pipeline, settings, first), edit(pipeline, settings, second)), strict=True):
        assert np.abs(got.astype(int) - alone[0]).max() <= BATCH_TOLERANCE


def test_the_same_seed_gives_the_same_edit(pipeline: PortraitPipeline) -> None:
    settings = replace(QUIET, gamma=0.5)
    assert np.array_equal(edit(pipeline, settings, crop())[0], edit(pipeline, settings, crop())[0])
    other = replace(crop(), seed=99)
    assert not np.array_equal(edit(pipeline, settings, crop())[0], edit(pipeline, settings, other)[0])


def test_renoising_keeps_the_noise_level_and_stays_inside_the_mask(pipeline: PortraitPipeline) -> None:
    generator = torch.Generator().manual_seed(0)
    clean, eps, fresh = (torch.randn(1, 4, 64, 64, generator=generator) for _ in range(3))
    signal, share = pipeline.schedule.scales(600)
    noised = signal * clean + share * eps
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., :32] = 1

    start = renoise(pipeline.schedule, [clean, noised], fresh, mask, at=600, gamma=0.6)

    added = (start - signal * clean) / share
    assert torch.equal(start[..., 32:], noised[..., 32:])
    assert float(added[..., :32].std()) == pytest.approx(1, abs=0.03)
    correlation = (added[..., :32] * eps[..., :32]).mean()
    assert float(correlation) == pytest.approx(0.8, abs=0.05)
    unchanged = renoise(pipeline.schedule, [clean, noised], fresh, mask, at=600, gamma=0.0)
    assert torch.allclose(unchanged, noised, atol=1e-5)


def test_latent_masks_are_the_mean_of_each_cell() -> None:
    one = replace(crop(), mask=np.pad(np.ones((128, 4), np.float32), ((0, 0), (0, 124))))
    assert latent_masks([one], (16, 16))[0, 0, 3].tolist() == [0.5] + [0.0] * 15
