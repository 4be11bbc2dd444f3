"""LoRA files folded into a UNet when it is loaded, so that nothing is left to pay for: W + weight alpha / rank up down.

diffusers', PEFT's and kohya's key names are read, by diffusers' own conversion.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
from diffusers.utils import convert_unet_state_dict_to_peft
from torch import Tensor, nn

from fpga_models.core.weights import read_safetensors
from fpga_models.errors import WeightsError


@torch.no_grad()
def fold(unet: UNet2DConditionModel, path: Path, weight: float = 1.0) -> int:
    """Add a LoRA to the weights of a UNet in place; returns how many layers it changed.

    Raises:
        WeightsError: not safetensors, no LoRA, parts for other networks, or layers of another base.
    """
    read, _ = read_safetensors(path)
    try:
        state, alphas = StableDiffusionXLPipeline.lora_state_dict(dict(read), unet_config=unet.config)
    except (ValueError, KeyError, IndexError) as error:
        raise WeightsError(f"{path.name} is no LoRA that can be read: {error}.") from error
    foreign = sorted(key for key in state if not key.startswith("unet."))
    if foreign or not state:
        raise WeightsError(
            f"{path.name} changes more than a UNet, such as {foreign[0]}; only that is folded."
            if foreign
            else f"{path.name} holds no LoRA."
        )
    layers = dict(unet.named_modules())
    state = convert_unet_state_dict_to_peft(state)
    scales = {key.replace(".lora_A.weight", ""): value for key, value in _renamed(alphas or {}).items()}
    downs = {key.removesuffix(".lora_A.weight"): value for key, value in state.items() if ".lora_A." in key}
    if not downs:
        raise WeightsError(f"{path.name} holds no LoRA: keys such as {sorted(state)[:2]}.")
    for name, down in downs.items():
        up = state.get(f"{name}.lora_B.weight")
        layer = layers.get(name.removeprefix("unet."))
        change = None if up is None else _product(up, down)
        if change is None or not isinstance(layer, nn.Linear | nn.Conv2d):
            raise WeightsError(f"{path.name} was made for another base: this UNet has no layer {name}.")
        if change.numel() != layer.weight.numel():
            raise WeightsError(f"{path.name} was made for another base: {name} is {tuple(change.shape)}.")
        scale = weight * float(scales.get(f"{name}.alpha", down.shape[0])) / down.shape[0]
        new = layer.weight.float() + scale * change.view_as(layer.weight).to(layer.weight.device)
        layer.weight.copy_(new.to(layer.weight.dtype))
    return len(downs)


def _renamed(alphas: Mapping[str, float]) -> dict[str, float]:
    renamed: dict[str, float] = convert_unet_state_dict_to_peft(dict(alphas))
    return renamed


def _product(up: Tensor, down: Tensor) -> Tensor:
    """up down of a linear layer, or of a convolution whose up is 1 x 1; float32."""
    return (up.float().flatten(1) @ down.float().flatten(1)).view(up.shape[0], *down.shape[1:])
