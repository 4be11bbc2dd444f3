"""The diffusion part of DIIR: a batch of crops is inverted, then sampled back with the wanted identities.

    path  = DDIM inversion of the encoded crop up to t*, without guidance and identity      [paper: DDIM inversion]
    z     = path[-1], inside the mask with a share gamma of fresh noise                     [ours]
    after every step back:  z = M z + (1 - M) path[i]                                       [ours: background lock]

Knows nothing of the picture that the crops come from, nor of whether the result is any good.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from fpga_models.core import autoencoder, ddim
from fpga_models.core.bases.network import Condition
from fpga_models.core.control import ControlMode, Marks, control_flags
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.diir.inversions import Inversions, crop_key
from fpga_models.diir.picture import Floats, Image
from fpga_models.diir.settings import DiirSettings
from fpga_models.errors import RequestError


@dataclass(frozen=True, kw_only=True, eq=False)
class CropEdit:
    """One crop to edit.

    Attributes:
        pixels: (n, n, 3) RGB.
        kps5: (5, 2) landmarks of the face, in pixels of the crop.
        mask: (n, n) in [0, 1], where it may change.
        embedding: (E,) the wanted identity.
        current: (E,) the identity that the face has now, with which the path is inverted if the settings say so.
        seed: of the fresh noise.
        crop: (112, 112, 3) aligned face of the wanted identity for the local tokens, or None.
    """

    pixels: Image
    kps5: Floats
    mask: NDArray[np.float32]
    embedding: Floats
    current: Floats
    seed: int
    crop: Image | None = None


def steps_to(schedule: ddim.Schedule, t_star: float, steps: int) -> list[tuple[int, int]]:
    """(from, to) pairs from t* down to the clean end in even, closed steps; inversion climbs the same ones.

    Raises:
        RequestError: more steps than there are timesteps below t*.
    """
    top = min(round(t_star * schedule.length), schedule.length) - 1
    if steps > top + 1:
        raise RequestError(f"{steps} steps up to t* {t_star}: at most {top + 1} wanted.")
    grid = np.linspace(top, -1, steps + 1).round().astype(int).tolist()
    return list(pairwise(grid))


@torch.no_grad()
def edit_crops(
    pipeline: PortraitPipeline,
    crops: Sequence[CropEdit],
    settings: DiirSettings,
    *,
    t_star: float,
    on_step: Callable[[], None],
    inversions: Inversions | None = None,
) -> list[Image]:
    """Edit crops of one size as one batch; returns them decoded, whole, colours not yet matched.

    Args:
        pipeline: its networks and schedule are used, its preset's sizes are not checked.
        crops: of one side, divisible by the latent factor.
        settings: the knobs.
        t_star: of this try.
        on_step: called after every step, inversion included; what it raises ends the work.
        inversions: paths that were climbed before; those of these crops are taken from it, the others added to it.
    """
    pairs = steps_to(pipeline.schedule, t_star, settings.steps_at(t_star))
    wanted, nobody = _conditions(pipeline, crops, settings)
    path = _path(pipeline, crops, pairs, settings, Inversions() if inversions is None else inversions, on_step)
    fresh = torch.stack([_noise(crop.seed, path[0].shape[1:]) for crop in crops]).to(path[0])
    mask = latent_masks(crops, (path[0].shape[2], path[0].shape[3])).to(path[0])
    latents = renoise(pipeline.schedule, path, fresh, mask, at=pairs[0][0], gamma=settings.gamma)
    both = wanted.join(nobody)
    for index, (start, end) in enumerate(pairs):
        output = _guided(pipeline, latents, start, wanted, both, settings.guidance)
        latents = ddim.step(pipeline.schedule, latents, output, start=start, end=end)
        if settings.lock:
            latents = mask * latents + (1 - mask) * path[-2 - index]
        on_step()
    return [np.asarray(picture) for picture in pipeline.decode(latents)]


def renoise(
    schedule: ddim.Schedule, path: Sequence[Tensor], fresh: Tensor, mask: Tensor, *, at: int, gamma: float
) -> Tensor:
    """The end of the path with a share `gamma` of its noise replaced inside the mask, at the same noise level.

    z = s x0 + n (sqrt(1 - gamma^2) eps + gamma fresh), where eps is what the path added to the clean latents.
    """
    signal, noise = schedule.scales(at)
    eps = (path[-1] - signal * path[0]) / noise
    mixed = signal * path[0] + noise * ((1 - gamma**2) ** 0.5 * eps + gamma * fresh)
    start: Tensor = path[-1] + mask * (mixed - path[-1])
    return start


def encode(pipeline: PortraitPipeline, pictures: Sequence[Image]) -> Tensor:
    """Mean latents (B, C, h, w), float32, of RGB pictures of one size, scaled as the UNet sees them."""
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).to(pipeline.device, pipeline.dtype)
    return autoencoder.encode(pipeline.vae, pixels / 127.5 - 1)


def latent_masks(crops: Sequence[CropEdit], cells: tuple[int, int]) -> Tensor:
    """Masks on the latent grid, (B, 1, h, w): the mean of each cell."""
    masks = torch.from_numpy(np.stack([crop.mask for crop in crops]))[:, None]
    return F.adaptive_avg_pool2d(masks, cells)


def _conditions(
    pipeline: PortraitPipeline, crops: Sequence[CropEdit], settings: DiirSettings, *, current: bool = False
) -> tuple[Condition, Condition]:
    """With and without the wanted (or `current`) identities; text, landmarks and places are the same in both."""
    shown = settings.landmarks and "landmark" in pipeline.preset.controls
    mode: ControlMode = "landmark" if shown else "none"
    requests = [
        PortraitRequest(
            prompt=settings.prompt,
            people=(_slot(crop, current),),
            width=crop.pixels.shape[1],
            height=crop.pixels.shape[0],
            seed=crop.seed,
            id_scale=settings.id_scale,
            local_scale=settings.local_scale,
        )
        for crop in crops
    ]
    people = pipeline.people(requests)
    images = [
        pipeline.control_picture(
            [Marks(kps5=crop.kps5)], width=crop.pixels.shape[1], height=crop.pixels.shape[0], mode=mode
        )
        for crop in crops
    ]
    control = torch.from_numpy(np.stack(images)).to(pipeline.device, pipeline.dtype)
    flags = torch.tensor([control_flags(mode)] * len(crops)).to(control)
    prompts = [settings.prompt] * len(crops)
    strength = torch.full((len(crops),), float(pipeline.preset.defaults.get("control_scale", 1.0))).to(control)
    wanted, without = (
        pipeline.prepare(prompts, people=who, control=control, flags=flags, strength=strength)
        for who in (people, people.nobody())
    )
    return wanted, without


def _slot(crop: CropEdit, current: bool) -> PersonSlot:
    if current:
        return PersonSlot(embedding=crop.current, kps5=crop.kps5)
    return PersonSlot(embedding=crop.embedding, kps5=crop.kps5, crop=crop.crop)


def _path(
    pipeline: PortraitPipeline,
    crops: Sequence[CropEdit],
    pairs: list[tuple[int, int]],
    settings: DiirSettings,
    inversions: Inversions,
    on_step: Callable[[], None],
) -> list[Tensor]:
    """Latents (B, C, h, w) from clean to t*, one per level: inverted, or for the ablation noised along a line."""
    levels = [start for start, _ in reversed(pairs)]
    if not settings.inversion:
        clean = encode(pipeline, [crop.pixels for crop in crops])
        fresh = torch.stack([_noise(crop.seed, clean.shape[1:]) for crop in crops]).to(clean)
        scales = [pipeline.schedule.scales(level) for level in levels]
        return [clean, *(signal * clean + noise * fresh for signal, noise in scales)]
    keys = [_crop_key(crop, settings) for crop in crops]
    known = {key: inversions.get(key, levels) for key in keys}
    if missing := [crop for crop, key in zip(crops, keys, strict=True) if known[key] is None]:
        inverted = torch.stack(_invert(pipeline, missing, pairs, settings, on_step), dim=1)
        for crop, latents in zip(missing, inverted, strict=True):
            key = _crop_key(crop, settings)
            inversions.add(key, levels, latents)
            known[key] = latents
    together = torch.stack([latents.to(pipeline.device) for key in keys if (latents := known[key]) is not None], dim=1)
    return list(together)


def _invert(
    pipeline: PortraitPipeline,
    crops: Sequence[CropEdit],
    pairs: list[tuple[int, int]],
    settings: DiirSettings,
    on_step: Callable[[], None],
) -> list[Tensor]:
    """Invert crops as one batch; latents (B, C, h, w), clean ones first."""
    current, nobody = _conditions(pipeline, crops, settings, current=True)
    condition = current if settings.own_identity else nobody

    def predict(latents: Tensor, timestep: int) -> Tensor:
        output = _ask(pipeline, latents, timestep, condition)
        on_step()
        return output

    clean = encode(pipeline, [crop.pixels for crop in crops])
    return ddim.invert(pipeline.schedule, clean, predict, pairs)


def _crop_key(crop: CropEdit, settings: DiirSettings) -> str:
    """Name of everything that the path of a crop depends on, but for networks and timesteps."""
    facts = repr((crop.pixels.shape, settings.landmarks, settings.prompt, settings.own_identity)).encode()
    current = np.asarray(crop.current, np.float32).tobytes() if settings.own_identity else b""
    points = np.asarray(crop.kps5, np.float32).tobytes()
    return crop_key(facts, np.ascontiguousarray(crop.pixels).tobytes(), points, current)


def _guided(
    pipeline: PortraitPipeline, latents: Tensor, timestep: int, wanted: Condition, both: Condition, guidance: float
) -> Tensor:
    if guidance == 1:
        return _ask(pipeline, latents, timestep, wanted)
    with_id, without = _ask(pipeline, torch.cat([latents, latents]), timestep, both).chunk(2)
    return without + guidance * (with_id - without)


def _ask(pipeline: PortraitPipeline, latents: Tensor, timestep: int, condition: Condition) -> Tensor:
    steps = torch.full((len(latents),), timestep, device=latents.device)
    output: Tensor = pipeline.network(latents.to(pipeline.dtype), steps, condition)
    return output.float()


def _noise(seed: int, shape: Sequence[int]) -> Tensor:
    """On the CPU, so that a seed means the same noise on every device."""
    return torch.randn(tuple(shape), generator=torch.Generator("cpu").manual_seed(seed))
