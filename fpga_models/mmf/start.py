"""The networks that a run begins from, and the preset folder that it ends in."""

from __future__ import annotations

import json
import shutil
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from diffusers import UNet2DConditionModel

from fpga_models.core import weights
from fpga_models.core.adapters.id_adapter import IdAdapter, IdProjector
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import FILE
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.mmf.loop import Trainee

CHANGED = ("unet/diffusion_pytorch_model.safetensors", "id_adapter.safetensors", "hint.safetensors")
"""Files of a preset that training writes anew; all others are taken over."""


def open_start(preset: Path, device: str) -> PortraitPipeline:
    """Networks of a preset in float32, its identity adapter as it was in training.

    Raises:
        WeightsError, PresetError: the folder is not a sound preset.
    """
    pipeline = PortraitPipeline.from_pretrained(preset, device=device, dtype=torch.float32)
    unfold_input_scale(pipeline.denoiser.id_adapter)
    return pipeline


@torch.no_grad()
def unfold_input_scale(adapter: IdAdapter) -> None:
    """Undo what saving did to the projector: the input is scaled to entries of order one, the weights are small."""
    projector = adapter.image_proj
    if not isinstance(projector, IdProjector):
        return
    scale = adapter.config.embedding_dim**0.5 / adapter.config.input_scale
    projector.get_parameter("proj.0.weight").div_(scale)
    projector.input_scale = adapter.config.embedding_dim**0.5
    adapter.config = replace(adapter.config, input_scale=projector.input_scale)


def export_preset(trainee: Trainee, start: Path, out: Path, made: Mapping[str, Any]) -> dict[str, Any]:
    """Write the start's preset folder with the merged UNet and the trained adapters; returns its manifest.

    The folder appears when it is complete.
    """
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(start, partial)
    denoiser, half = trainee.denoiser, torch.float16
    licence = {"modelspec.license": json.loads((start / FILE).read_text())["licence"]}
    denoiser.id_adapter.save(partial / "id_adapter.safetensors", dtype=half, metadata=licence)
    assert denoiser.hint is not None, "a preset of ours has a hint adapter"
    denoiser.hint.save(partial / "hint.safetensors", dtype=half, metadata=licence)
    merged_unet(denoiser.unet, trainee.rep).half().save_pretrained(partial / "unet", safe_serialization=True)
    return finish_preset(partial, out, CHANGED, made)


def finish_preset(partial: Path, out: Path, changed: Collection[str], made: Mapping[str, Any]) -> dict[str, Any]:
    """Note the checksums of the files that were changed in a folder and put it where it belongs; returns its manifest.

    The folder `out` appears complete, or is replaced as a whole.
    """
    facts = json.loads((partial / FILE).read_text())
    for component in facts["components"]:
        if component["file"] in changed:
            component["sha256"] = weights.file_sha256(partial / component["file"])
    (partial / FILE).write_text(json.dumps(facts, indent=1) + "\n")
    for path in partial.rglob("*.safetensors"):
        path.chmod(0o644)  # safetensors makes files that only their owner can read
    manifest = weights.write_manifest(partial, made)
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return manifest


def merged_unet(unet: UNet2DConditionModel, rep: RepControlNet | None) -> UNet2DConditionModel:
    """A stock UNet of its own with base and modal weights merged; the given one stays as it is."""
    config = {key: value for key, value in unet.config.items() if key != "_name_or_path"}
    merged: UNet2DConditionModel = UNet2DConditionModel.from_config(config)
    merged.load_state_dict(rep.merged_state() if rep else unet.state_dict())
    return merged
