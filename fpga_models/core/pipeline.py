"""Portraits of given people at given places: a diffusers-layout folder in, uint8 pictures out.

    pipeline = PortraitPipeline.from_pretrained(preset_directory("mini"))
    (picture,) = pipeline.generate([PortraitRequest(prompt="portrait of a person", people=(slot,), ...)])

Knows no queue and no file of results. Noise comes from one CPU generator per request, so a seed means the same picture
whatever else is in the batch.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import ControlNetModel, DDIMScheduler, UNet2DConditionModel
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPTextModel, CLIPTokenizer

from fpga_models.core import autoencoder, ddim, weights
from fpga_models.core.adapters.hint import HintAdapter
from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.lora import fold
from fpga_models.core.alignment import CROP_SIDE
from fpga_models.core.autoencoder import Autoencoder, open_autoencoder
from fpga_models.core.bases.layout import check_kind
from fpga_models.core.bases.network import Added, Condition, Network, People
from fpga_models.core.control import ControlMode, Marks, control_flags, control_image, region_mask
from fpga_models.core.denoiser import Denoiser
from fpga_models.core.presets import Preset, read_preset
from fpga_models.core.sampling import DDIM, Sampler
from fpga_models.core.text import SecondEncoder, TextStates, encode, windows
from fpga_models.errors import EmbeddingError, PlacementError, RequestError

PARTS = (
    "unet/",
    "lora/",
    "vae/",
    "text_encoder",
    "tokenizer",
    "scheduler/",
    "controlnet/",
    "id_adapter",
    "hint",
    "preset.json",
)
"""What this pipeline reads of a preset folder, and therefore checks against its manifest."""

OnStep = Callable[[int, int], Collection[int] | None]


@dataclass(frozen=True, kw_only=True, eq=False)
class PersonSlot:
    """One person and their place.

    Attributes:
        embedding: (E,) face embedding, any length; used at unit length.
        kps5: (5, 2) face points in pixels, or None.
        skeleton: (18, 3) OpenPose joints in pixels with visibility, or None.
        mask: (H, W) in [0, 1], where this person acts; without it, a feathered ellipse around the face points.
        id_scale: strength of this person, on top of the request's.
        crop: (112, 112, 3) uint8 RGB, the face in ArcFace's frame (`faces.align`), for the local tokens; without it, or
            where the adapter has no local branch, the embedding alone acts.
    """

    embedding: NDArray[np.floating]
    kps5: NDArray[np.floating] | None = None
    skeleton: NDArray[np.floating] | None = None
    mask: NDArray[np.floating] | None = None
    id_scale: float = 1.0
    crop: NDArray[np.uint8] | None = None

    def marks(self) -> Marks:
        """The keypoints alone."""
        return Marks(kps5=self.kps5, skeleton=self.skeleton)


@dataclass(frozen=True, kw_only=True, eq=False)
class PortraitRequest:
    """One picture. `guidance` 1 means none; `id_scale` and `local_scale` 0 mean nobody in particular.

    `control_scale` is the strength of a ControlNet, where the preset has one. `masked` False lets every person act
    everywhere instead of in their mask, as published adapters do (and as the ablation of MGMICA).
    """

    prompt: str
    people: tuple[PersonSlot, ...]
    width: int
    height: int
    seed: int
    negative_prompt: str = ""
    steps: int = 20
    guidance: float = 2.0
    id_scale: float = 1.0
    local_scale: float = 1.0
    control: ControlMode = "landmark"
    control_scale: float = 1.0
    masked: bool = True


@dataclass(frozen=True, kw_only=True, eq=False)
class Running:
    """The part of a batch that is still wanted: everything a step needs, row i belonging to request `indices[i]`."""

    indices: tuple[int, ...]
    latents: Tensor  # (B, C, h, w)
    guidance: Tensor  # (B, 1, 1, 1)
    guided: Condition
    both: Condition  # the guided rows, then the unguided ones

    def without(self, dropped: Collection[int]) -> Running:
        """The same batch without these requests."""
        keep = [row for row, index in enumerate(self.indices) if index not in dropped]
        rows = torch.tensor(keep, dtype=torch.long, device=self.latents.device)
        return Running(
            indices=tuple(self.indices[row] for row in keep),
            latents=self.latents[rows],
            guidance=self.guidance[rows],
            guided=self.guided.select(rows),
            both=self.both.select(torch.cat([rows, rows + len(self.indices)])),
        )


class PortraitPipeline:
    """Networks of one preset, loaded once and kept warm."""

    def __init__(
        self,
        *,
        preset: Preset,
        denoiser: Network,
        vae: Autoencoder,
        text_encoder: CLIPTextModel,
        tokenizer: CLIPTokenizer,
        schedule: ddim.Schedule,
        second_encoder: SecondEncoder | None = None,
        model_sha256: str = "",
        offload: bool = False,
        scheduler_config: Mapping[str, Any] | None = None,
    ) -> None:
        self.preset = preset
        self.network = denoiser.eval()
        self.vae = vae.eval()
        self.text_encoder = text_encoder.eval()
        self.tokenizer = tokenizer
        self.second_encoder = second_encoder.eval() if second_encoder else None
        self.schedule = schedule
        self.model_sha256 = model_sha256
        self.offload = offload
        self.scheduler_config = scheduler_config or {}

    @classmethod
    def from_pretrained(
        cls, directory: Path, *, device: str = "cpu", dtype: torch.dtype | None = None, offload: bool | None = None
    ) -> PortraitPipeline:
        """Load a preset folder in diffusers' layout, safetensors only, after checking its manifest.

        Args:
            directory: holds unet/ vae/ text_encoder/ tokenizer/ scheduler/, id_adapter.safetensors, preset.json and
                weights.json; text_encoder_2/ and tokenizer_2/ for bases of the SDXL class; hint.safetensors (ours) or
                controlnet/ for the control image.
            device: any torch device.
            dtype: None means float32 on a CPU and float16 elsewhere.
            offload: keep the text encoders off the device between prompts; None decides by the card's memory.

        Raises:
            WeightsError: a file is missing, altered, or made for another base.
            PresetError: preset.json cannot be read.
        """
        manifest = weights.verify(directory, below=PARTS)
        check_kind(directory)
        dtype = dtype or (torch.float32 if torch.device(device).type == "cpu" else torch.float16)
        options = {"use_safetensors": True, "local_files_only": True, "torch_dtype": dtype}
        second = SecondEncoder.load(directory, dtype)
        scheduler = DDIMScheduler.from_pretrained(directory / "scheduler")
        preset = read_preset(directory)
        offload = _needs_offload(preset, device) if offload is None else offload
        text_device = "cpu" if offload else device
        return cls(
            preset=preset,
            denoiser=_load_denoiser(directory, preset, options).to(device, dtype),
            vae=_load_vae(directory / "vae", dtype, upcast=second is not None).to(device),
            text_encoder=CLIPTextModel.from_pretrained(directory / "text_encoder", **options).to(text_device),
            tokenizer=CLIPTokenizer.from_pretrained(directory / "tokenizer", local_files_only=True),
            second_encoder=second.to(text_device) if second else None,
            schedule=ddim.Schedule.of(scheduler),
            scheduler_config=scheduler.config,
            model_sha256=manifest["model_sha256"],
            offload=offload,
        )

    @property
    def denoiser(self) -> Denoiser:
        """The UNet with its adapters, for training and the laboratory; generation and restoration ask `network`.

        Raises:
            RequestError: the base has none.
        """
        if not isinstance(self.network, Denoiser):
            raise RequestError(f"Preset {self.preset.name} draws with {type(self.network).__name__}, not with a UNet.")
        return self.network

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        """Number format of the networks."""
        return next(self.network.parameters()).dtype

    @torch.no_grad()
    def generate(
        self, requests: Sequence[PortraitRequest], *, on_step: OnStep | None = None
    ) -> list[NDArray[np.uint8] | None]:
        """Draw a batch of requests of one size and one number of steps.

        Args:
            requests: what to draw; numbers of people may differ.
            on_step: called as (step done, steps in all) after every step; returns the indices of requests to drop.
                What it raises ends the batch.

        Returns:
            One (H, W, 3) RGB picture per request, None for the dropped ones.

        Raises:
            RequestError, PlacementError, EmbeddingError: bad input, before any work is done.
        """
        pictures: list[NDArray[np.uint8] | None] = [None] * len(requests)
        if not requests:
            return pictures
        for request in requests:
            check_request(request, self.preset)
        shapes = {(request.width, request.height, request.steps) for request in requests}
        if len(shapes) > 1:
            raise RequestError(f"A batch has one size and one number of steps; got (width, height, steps) {shapes}.")
        sampled = self._ddim if self.preset.sampler["name"] == DDIM else self._stock
        parts = self._parts(requests)
        for number, (count, part) in enumerate(sorted(parts.items())):
            begun = replace(self._start([requests[index] for index in part], count), indices=tuple(part))
            running = sampled(begun, [requests[index] for index in part], _later(on_step, number, len(parts)))
            if not running.indices:
                continue
            for index, picture in zip(running.indices, self.decode(running.latents), strict=True):
                pictures[index] = picture
        return pictures

    def _parts(self, requests: Sequence[PortraitRequest]) -> dict[int, list[int]]:
        """Requests by the windows that their prompts take: a long prompt changes no other request of its batch."""
        found = defaultdict[int, list[int]](list)
        for index, request in enumerate(requests):
            texts = (request.prompt, request.negative_prompt)
            found[max(windows(text, self.tokenizer) for text in texts)].append(index)
        return found

    def _ddim(self, running: Running, requests: Sequence[PortraitRequest], on_step: OnStep | None) -> Running:
        """Go down from noise by our own steps; dropped rows leave the batch at once."""
        pairs = ddim.trajectory(self.schedule, requests[0].steps)
        for done, (start, end) in enumerate(pairs, start=1):
            output = self._predict(running, start)
            running = replace(running, latents=ddim.step(self.schedule, running.latents, output, start=start, end=end))
            dropped = on_step(done, len(pairs)) if on_step else None
            if dropped:
                running = running.without(dropped)
            if not running.indices:
                break
        return running

    def _stock(self, running: Running, requests: Sequence[PortraitRequest], on_step: OnStep | None) -> Running:
        """Go down by the preset's sampler; it remembers steps of the whole batch, so dropped rows leave at the end."""
        options = {name: value for name, value in self.preset.sampler.items() if name != "name"}
        sampler = Sampler(self.preset.sampler["name"], self.scheduler_config, options)
        latents = sampler.start(running.latents, requests[0].steps, [request.seed for request in requests])
        timesteps, gone = list(sampler.timesteps()), set[int]()
        for done, timestep in enumerate(timesteps, start=1):
            shown = replace(running, latents=sampler.asked(latents, timestep))
            latents = sampler.step(latents, self._predict(shown, timestep), timestep)
            gone |= set(on_step(done, len(timesteps)) or ()) if on_step else set()
            if gone.issuperset(running.indices):
                break
        return replace(running, latents=latents).without(gone)

    def _start(self, requests: Sequence[PortraitRequest], count: int = 1) -> Running:
        """Noise and conditions of a fresh batch, its prompts in so many windows."""
        people = self.people(requests)
        control, flags = self._controls(requests)
        strength = torch.tensor([request.control_scale for request in requests], device=self.device)
        conditions = [
            self.prepare(prompts, people=who, control=control, flags=flags, strength=strength, count=count)
            for prompts, who in (
                ([request.prompt for request in requests], people),
                ([request.negative_prompt for request in requests], people.nobody()),
            )
        ]
        guidance = torch.tensor([request.guidance for request in requests], device=self.device, dtype=torch.float32)
        return Running(
            indices=tuple(range(len(requests))),
            latents=torch.stack([self.noise(request) for request in requests]).to(self.device),
            guidance=guidance[:, None, None, None],
            guided=conditions[0],
            both=conditions[0].join(conditions[1]),
        )

    def _predict(self, running: Running, timestep: int | Tensor) -> Tensor:
        """Network output with guidance towards prompt and identity; control stays in both branches."""
        latents = running.latents.to(self.dtype)
        if bool((running.guidance == 1).all()):
            return self._ask(latents, timestep, running.guided).float()
        both = self._ask(torch.cat([latents, latents]), timestep, running.both)
        guided, unguided = both.float().chunk(2)
        return unguided + running.guidance * (guided - unguided)

    def _ask(self, latents: Tensor, timestep: int | Tensor, condition: Condition) -> Tensor:
        at = torch.as_tensor(timestep, device=latents.device).expand(len(latents))
        output: Tensor = self.network(latents, at, condition)
        return output

    def prepare(
        self,
        prompts: Sequence[str],
        *,
        people: People,
        control: Tensor,
        flags: Tensor,
        strength: Tensor | None = None,
        count: int = 1,
    ) -> Condition:
        """The condition of a batch of prompts in `count` windows; control (B, 3, H, W) says how large pictures are."""
        text = self._encode(prompts, count)
        added = None
        if text.pooled is not None:
            height, width = control.shape[-2:]
            sizes = torch.tensor([[height, width, 0, 0, height, width]] * len(prompts)).to(text.pooled)
            added = Added(pooled=text.pooled, sizes=sizes)
        return self.network.prepare(
            text=text.states, people=people, control=control, flags=flags, added=added, strength=strength
        )

    def _encode(self, prompts: Sequence[str], count: int) -> TextStates:
        """Text states of prompts; encoders that are kept off the device come for as long as they are asked."""
        encoders = [self.text_encoder, *([self.second_encoder] if self.second_encoder else [])]
        if self.offload:
            for encoder in encoders:
                encoder.to(self.device)
        try:
            return encode(prompts, self.text_encoder, self.tokenizer, self.second_encoder, count=count)
        finally:
            if self.offload:
                for encoder in encoders:
                    encoder.to("cpu")

    def control_picture(
        self, people: Sequence[Marks], *, width: int, height: int, mode: ControlMode
    ) -> NDArray[np.float32]:
        """The control image (3, height, width) as the network knows it."""
        return control_image(people, width=width, height=height, mode=mode, drawing=self.network.drawing)

    def noise(self, request: PortraitRequest) -> Tensor:
        """Starting latents (C, h, w), float32, drawn on the CPU from the request's seed alone."""
        factor = self.preset.latent_factor
        shape = (self.network.latent_channels, request.height // factor, request.width // factor)
        return torch.randn(shape, generator=torch.Generator("cpu").manual_seed(request.seed))

    def people(self, requests: Sequence[PortraitRequest]) -> People:
        """Embeddings, crops, latent-size masks and scales, padded to one number of people with zero masks."""
        most = max(1, *(len(request.people) for request in requests))
        factor = self.preset.latent_factor
        cells = requests[0].height // factor, requests[0].width // factor
        width = self.network.embedding_dim
        embeddings = torch.zeros(len(requests), most, width)
        masks = torch.zeros(len(requests), most, *cells)
        scales, local_scales = torch.ones(len(requests), most), torch.ones(len(requests), most)
        crops = torch.zeros(len(requests), most, 3, CROP_SIDE, CROP_SIDE)
        present = torch.zeros(len(requests), most, dtype=torch.bool)
        for row, request in enumerate(requests):
            for place, person in enumerate(request.people):
                embeddings[row, place] = unit_embedding(person.embedding, width) * self.preset.embedding_length
                region = torch.from_numpy(person_mask(person, request.width, request.height))
                masks[row, place] = F.adaptive_max_pool2d(region[None], cells)[0] if request.masked else 1.0
                present[row, place] = True
                scales[row, place] = request.id_scale * person.id_scale
                local_scales[row, place] = request.local_scale * person.id_scale
                if person.crop is not None:
                    crops[row, place] = crop_planes(person.crop)
        return People(
            embeddings=embeddings.to(self.device, self.dtype),
            masks=masks.to(self.device, self.dtype),
            scales=scales.to(self.device, self.dtype),
            crops=crops.to(self.device, self.dtype) if bool(crops.any()) else None,
            local_scales=local_scales.to(self.device, self.dtype),
            pictures=self._pictures(requests, most),
            present=present.to(self.device),
        )

    def _pictures(self, requests: Sequence[PortraitRequest], most: int) -> Tensor | None:
        """Control pictures (B, K, 3, H, W) of each person alone, where a ControlNet reads identities."""
        if not self.network.apart:
            return None
        pictures = np.zeros((len(requests), most, 3, requests[0].height, requests[0].width), np.float32)
        for row, request in enumerate(requests):
            for place, person in enumerate(request.people):
                pictures[row, place] = self._picture([person], request)
        return torch.from_numpy(pictures).to(self.device, self.dtype)

    def _picture(self, people: Sequence[PersonSlot], request: PortraitRequest) -> NDArray[np.float32]:
        """The control picture of those of a request's people whose keypoints are known."""
        known = [person.marks() for person in people if person.kps5 is not None or person.skeleton is not None]
        return self.control_picture(known, width=request.width, height=request.height, mode=request.control)

    def _controls(self, requests: Sequence[PortraitRequest]) -> tuple[Tensor, Tensor]:
        """Control images (B, 3, H, W) and modality flags (B, 2)."""
        images = [self._picture(request.people, request) for request in requests]
        flags = torch.tensor([control_flags(request.control) for request in requests])
        return torch.from_numpy(np.stack(images)).to(self.device, self.dtype), flags.to(self.device, self.dtype)

    def decode(self, latents: Tensor) -> list[NDArray[np.uint8]]:
        """Pictures (H, W, 3) of latents (B, C, h, w)."""
        pixels = autoencoder.decode(self.vae, latents.to(self.dtype), factor=self.preset.latent_factor)
        bytes_ = (pixels.clamp(-1, 1) * 127.5 + 127.5).round().to(torch.uint8)
        return list(bytes_.permute(0, 2, 3, 1).cpu().numpy())


def _needs_offload(preset: Preset, device: str) -> bool:
    """Whether the card is too small for the text encoders beside the rest."""
    if preset.memory is None or not device.startswith("cuda"):
        return False
    return preset.memory.offloads(torch.cuda.mem_get_info(device)[1] / 2**30)


def _later(on_step: OnStep | None, before: int, parts: int) -> OnStep | None:
    """What watches over one of several parts that follow each other, as over a share of the whole."""
    if on_step is None or parts == 1:
        return on_step
    return lambda done, steps: on_step(before * steps + done, parts * steps)


def _load_vae(folder: Path, dtype: torch.dtype, *, upcast: bool) -> Autoencoder:
    """The autoencoder; one of SDXL's kind that overflows in 16 bit (`force_upcast`) runs in 32, as in diffusers."""
    vae = open_autoencoder(folder, dtype=dtype)
    if upcast and dtype == torch.float16 and vae.config.get("force_upcast", False):
        vae = open_autoencoder(folder)
    return vae


def _load_denoiser(directory: Path, preset: Preset, options: dict[str, Any]) -> Denoiser:
    """UNet, adapters and, where the preset has one, ControlNet."""
    unet = UNet2DConditionModel.from_pretrained(directory / "unet", low_cpu_mem_usage=False, **options)
    for lora in preset.loras:
        fold(unet, directory / lora["file"], float(lora.get("weight", 1.0)))
    shows = any(mode != "none" for mode in preset.controls)
    hint, controlnet = directory / "hint.safetensors", directory / "controlnet"
    return Denoiser(
        unet,
        IdAdapter.load(directory / "id_adapter.safetensors", unet),
        HintAdapter.load(hint) if hint.exists() or (not controlnet.exists() and shows) else None,
        ControlNetModel.from_pretrained(controlnet, low_cpu_mem_usage=False, **options)
        if controlnet.exists()
        else None,
        preset.control_states,
    )


def check_request(request: PortraitRequest, preset: Preset) -> None:
    """Refuse what the preset does not offer.

    Raises:
        RequestError: size, steps, guidance, id_scale, control or number of people.
    """
    if (request.width, request.height) not in preset.sizes:
        offered = ", ".join(f"{width}x{height}" for width, height in preset.sizes)
        raise RequestError(f"Size {request.width}x{request.height}: preset {preset.name} offers {offered}.")
    if len(request.people) > preset.max_people:
        raise RequestError(f"{len(request.people)} people: preset {preset.name} places at most {preset.max_people}.")
    if request.control not in preset.controls:
        raise RequestError(f"Control {request.control!r}: one of {', '.join(preset.controls)} wanted.")
    limits = {"local_scale": preset.limits["id_scale"], "control_scale": (1.0, 1.0)} | dict(preset.limits)
    for name in ("steps", "guidance", "id_scale", "local_scale", "control_scale"):
        low, high = limits[name]
        if not low <= (got := getattr(request, name)) <= high:
            raise RequestError(f"{name} {got}: {low} to {high} wanted.")


def unit_embedding(embedding: NDArray[np.floating], width: int) -> Tensor:
    """An embedding at unit length, (width,) float32.

    Raises:
        EmbeddingError: another width, not finite, or zero.
    """
    if embedding.shape != (width,):
        raise EmbeddingError(f"An embedding of shape {embedding.shape}: ({width},) wanted.")
    norm = float(np.linalg.norm(embedding.astype(np.float64)))
    if not np.isfinite(norm) or norm == 0:
        raise EmbeddingError(f"An embedding of length {norm}: finite numbers, not all zero, wanted.")
    return torch.from_numpy((embedding / norm).astype(np.float32))


def crop_planes(crop: NDArray[np.uint8]) -> Tensor:
    """An aligned crop as the local branch reads it, (3, 112, 112) float32 in [-1, 1].

    Raises:
        EmbeddingError: another shape or type.
    """
    wanted = (CROP_SIDE, CROP_SIDE, 3)
    if crop.shape != wanted or crop.dtype != np.uint8:
        raise EmbeddingError(f"An aligned crop of {crop.dtype} {crop.shape}: uint8 {wanted} wanted.")
    return torch.from_numpy(crop.astype(np.float32) / 127.5 - 1).permute(2, 0, 1)


def person_mask(person: PersonSlot, width: int, height: int) -> NDArray[np.float32]:
    """Where a person acts, (height, width) in [0, 1].

    Raises:
        PlacementError: a mask of another size or range, or nothing that tells the place.
    """
    if person.mask is None:
        return region_mask(person.marks().face_points(), width=width, height=height)
    if person.mask.shape != (height, width):
        raise PlacementError(f"A mask of shape {person.mask.shape}: ({height}, {width}) wanted.")
    if not (person.mask.min() >= 0 and person.mask.max() <= 1):
        raise PlacementError(f"Mask values {person.mask.min()} to {person.mask.max()}: 0 to 1 wanted.")
    return person.mask.astype(np.float32)
