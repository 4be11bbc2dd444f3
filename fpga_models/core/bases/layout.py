"""Folders of a base in diffusers' layout: what kind they are, told from their configuration alone, and what fits them.

`check_kind` reads configuration files only. `check_networks` reads the headers of the large files and fits adapters,
ControlNet and LoRAs onto networks without memory (meta tensors); only text encoders and autoencoder are really loaded.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, ControlNetModel, UNet2DConditionModel
from safetensors import SafetensorError, safe_open
from transformers import CLIPTextModel, CLIPTextModelWithProjection

from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.adapters.lora import fold
from fpga_models.errors import WeightsError

WEIGHTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "model"}
SCHEDULERS_OF_OTHERS = ("FlowMatch", "EDM", "CosineDPM", "DDPMWuerstchen")
MINI_VAE = "MiniVAE"


def check_kind(directory: Path) -> None:
    """Refuse a folder of another kind of base before any of its weights are read.

    Raises:
        WeightsError: a transformer, another network in `unet/`, a flow-matching scheduler, or no safetensors.
    """
    check_configs(directory)
    for part, name in WEIGHTS.items():
        found = sorted(path.name for path in (directory / part).glob(f"{name}*"))
        if not any(file in (f"{name}.safetensors", f"{name}.safetensors.index.json") for file in found):
            raise WeightsError(
                f"{directory.name}/{part} has {', '.join(found) or 'no weights'}; {name}.safetensors was wanted "
                "(shards with their index will do, a variant such as fp16 must be renamed, .bin is never read)."
            )


def check_configs(directory: Path) -> None:
    """Refuse by its configuration files what is no base of the SD 1.5 or SDXL class.

    Raises:
        WeightsError: naming the file, what it says and what was wanted.
    """
    if (directory / "transformer").is_dir():
        raise WeightsError(f"{directory.name} is a transformer base; a UNet of the SD 1.5 or SDXL class was wanted.")
    unet = _read(directory, "unet/config.json")
    _is(directory, "unet/config.json", unet.get("_class_name"), "UNet2DConditionModel")
    if unet.get("addition_embed_type") not in (None, "text_time") or unet.get("encoder_hid_dim_type"):
        raise WeightsError(
            f"{directory.name}/unet/config.json wants {unet.get('encoder_hid_dim_type') or unet['addition_embed_type']}"
            " as condition; a UNet of the SD 1.5 or SDXL class was wanted."
        )
    vae = _read(directory, "vae/config.json")
    if vae.get("_class_name") != MINI_VAE:
        _is(directory, "vae/config.json", vae.get("_class_name"), "AutoencoderKL")
    _is(directory, "unet/config.json in_channels", unet.get("in_channels", 4), vae.get("latent_channels", 4))
    if vae.get("latents_mean") is not None:
        raise WeightsError(f"{directory.name}/vae/config.json has latents_mean, which no base of these classes has.")
    encoders = {"text_encoder": "CLIPTextModel"}
    if unet.get("addition_embed_type") == "text_time":
        encoders["text_encoder_2"] = "CLIPTextModelWithProjection"
    for part, wanted in encoders.items():
        kinds = _read(directory, f"{part}/config.json").get("architectures") or ["no class"]
        _is(directory, f"{part}/config.json", kinds[0], wanted)
    _check_scheduler(directory)


def _check_scheduler(directory: Path) -> None:
    scheduler = _read(directory, "scheduler/scheduler_config.json")
    kind = str(scheduler.get("_class_name", ""))
    if kind.startswith(SCHEDULERS_OF_OTHERS):
        why = "flow matching" if kind.startswith("FlowMatch") else "another parametrisation of noise"
        raise WeightsError(
            f"{directory.name}/scheduler/scheduler_config.json says {kind}: {why}; a noise-predicting base was wanted."
        )
    predicts = scheduler.get("prediction_type", "epsilon")
    if predicts not in ("epsilon", "v_prediction"):
        raise WeightsError(
            f"{directory.name}/scheduler/scheduler_config.json says prediction_type {predicts}; epsilon or "
            "v_prediction was wanted."
        )


def check_networks(directory: Path, loras: Mapping[str, float]) -> None:
    """Hold the weights of a folder against its configuration, and adapters, ControlNet and LoRAs against its UNet.

    Args:
        directory: a folder that `check_kind` has passed, with id_adapter.safetensors.
        loras: weight by file, relative to the folder.

    Raises:
        WeightsError: a file is cut or missing, or was made for another base.
    """
    unet = _unet_without_memory(directory)
    for path, weight in loras.items():
        fold(unet, directory / path, weight)
    IdAdapter.load(directory / "id_adapter.safetensors", unet)
    if (directory / "controlnet").is_dir():
        _check_control(directory, unet)
    _loads(AutoencoderKL, directory / "vae")
    _loads(CLIPTextModel, directory / "text_encoder")
    if (directory / "text_encoder_2").is_dir():
        _loads(CLIPTextModelWithProjection, directory / "text_encoder_2")


def _unet_without_memory(directory: Path) -> UNet2DConditionModel:
    """The UNet of a folder on the meta device, after its files were found to hold just its tensors."""
    try:
        with torch.device("meta"):
            unet: UNet2DConditionModel = UNet2DConditionModel.from_config(_read(directory, "unet/config.json"))
    except (TypeError, ValueError, KeyError) as error:
        raise WeightsError(f"{directory.name}/unet/config.json cannot be built: {error}.") from error
    wanted = {key: tuple(value.shape) for key, value in unet.state_dict().items()}
    got = _shapes(directory / "unet")
    if differing := sorted(key for key in wanted.keys() | got.keys() if wanted.get(key) != got.get(key)):
        first = differing[0]
        raise WeightsError(
            f"{directory.name}/unet does not hold what its config.json says: {first} is {got.get(first)}, "
            f"{wanted.get(first)} was wanted ({len(differing)} keys differ)."
        )
    return unet


def _shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors in the safetensors files of a folder, by their headers."""
    found: dict[str, tuple[int, ...]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, framework="pt") as file:
                found |= {key: tuple(file.get_slice(key).get_shape()) for key in file.keys()}  # noqa: SIM118
        except (OSError, SafetensorError) as error:
            raise WeightsError(f"{folder.name}/{path.name} is not a whole safetensors file: {error}.") from error
    return found


def _check_control(directory: Path, unet: UNet2DConditionModel) -> None:
    """A ControlNet adds to the UNet's skips, so both must have the same blocks."""
    control = ControlNetModel.load_config(directory / "controlnet")
    for name in ("block_out_channels", "down_block_types", "layers_per_block", "cross_attention_dim"):
        ours, theirs = unet.config[name], control.get(name, unet.config[name])
        if json.dumps(ours) != json.dumps(theirs):
            raise WeightsError(f"The ControlNet was made for another base: its {name} is {theirs}, this UNet's {ours}.")


def _loads(kind: Any, folder: Path) -> None:
    options = {"use_safetensors": True, "local_files_only": True, "torch_dtype": torch.float16}
    try:
        _, info = kind.from_pretrained(folder, output_loading_info=True, **options)
    except (OSError, SafetensorError, RuntimeError, ValueError, TypeError) as error:
        raise WeightsError(f"{folder.name} cannot be loaded: {_first_line(error)}") from error
    wrong = sorted(map(str, [*info["missing_keys"], *info["mismatched_keys"]]))
    if wrong:
        raise WeightsError(f"{folder.name} does not hold what its config.json says: {wrong[0]} ({len(wrong)} keys).")


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n", 1)[0]


def _read(directory: Path, name: str) -> dict[str, Any]:
    try:
        found = json.loads((directory / name).read_text())
    except (OSError, ValueError) as error:
        raise WeightsError(f"{directory.name}/{name} cannot be read: {error}.") from error
    if not isinstance(found, dict):
        raise WeightsError(f"{directory.name}/{name} holds {type(found).__name__}, an object was wanted.")
    return found


def _is(directory: Path, what: str, got: object, wanted: object) -> None:
    if got != wanted:
        raise WeightsError(f"{directory.name}/{what} says {got or 'no class'}; {wanted} was wanted.")
