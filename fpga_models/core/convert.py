"""Published files into a preset folder, in a process of its own: the only place where a pickle is ever opened.

    python -m fpga_models.core.convert pickle ip-adapter.bin id_adapter.safetensors --sha256 ...
    python -m fpga_models.core.convert single checkpoint.safetensors DIR --like PRESET
    python -m fpga_models.core.convert configs DIR
    python -m fpga_models.core.convert seal DIR --made made.json [--networks --lora lora/style.safetensors=0.8]

`pickle` reads with torch's restricted loader (weights_only), and only a file whose sha256 is the one asked for.
`single` takes a checkpoint of one file apart into diffusers' layout. `configs` refuses a folder that is no base of
ours. `seal` writes the manifest of a finished folder, after its parts were found to fit each other (`--networks`).
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from fpga_models.core.bases import layout
from fpga_models.core.weights import file_sha256, write_manifest
from fpga_models.errors import ModelError, WeightsError


def convert_pickle(source: Path, target: Path, sha256: str) -> None:
    """Write the tensors of a pickled checkpoint as safetensors; groups become prefixes of the keys.

    Raises:
        WeightsError: another sha256, something other than tensors in it, or not readable.
    """
    if (got := file_sha256(source)) != sha256:
        raise WeightsError(f"{source.name}: sha256 {got} was got, {sha256} was wanted; it was not opened.")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).split("\n", 1)[0]
        raise WeightsError(f"{source.name} holds more than tensors, or is damaged: {first}") from error
    state = flat(found)
    if not state:
        raise WeightsError(f"{source.name} holds no tensors.")
    partial = target.with_name(f".partial-{target.name}")
    save_file({key: value.contiguous().clone() for key, value in state.items()}, partial, {"format": "pt"})
    partial.replace(target)


def flat(found: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested mappings by their joined keys.

    Raises:
        WeightsError: something else is in there.
    """
    if isinstance(found, Tensor):
        return {prefix: found}
    if not isinstance(found, Mapping):
        raise WeightsError(f"{prefix or 'the file'} is {type(found).__name__}, tensors were wanted.")
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        state |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return state


UNET, VAE = "model.diffusion_model.input_blocks.0.0.weight", "first_stage_model.decoder.conv_in.weight"
POSITIONS = "transformer.text_model.embeddings.position_embedding.weight"
ONE_ENCODER = (UNET, VAE, f"cond_stage_model.{POSITIONS}")
TWO_ENCODERS = (UNET, VAE, f"conditioner.embedders.0.{POSITIONS}", "conditioner.embedders.1.model.positional_embedding")


def convert_single(source: Path, target: Path, like: Path) -> None:
    """Write a checkpoint of one file as a folder in diffusers' layout, in 16 bit, with the configuration of `like`.

    Its own autoencoder is marked `force_upcast` where it is of SDXL's kind, since most of those overflow in 16 bit.

    Raises:
        WeightsError: the file is cut, or holds something other than a whole base of the class of `like`.
    """
    large = (like / "text_encoder_2").is_dir()
    kind = StableDiffusionXLPipeline if large else StableDiffusionPipeline
    try:
        with safe_open(source, framework="pt") as file:
            keys = set(file.keys())
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{source.name} is not a whole safetensors file: {error}.") from error
    if missing := [key for key in (TWO_ENCODERS if large else ONE_ENCODER) if key not in keys]:
        raise WeightsError(
            f"{source.name} is no checkpoint of the class of {like.name}: it has no {missing[0]}, but keys such as "
            f"{', '.join(sorted(keys)[:2])}."
        )
    try:
        pipeline = kind.from_single_file(
            str(source), config=str(like), local_files_only=True, torch_dtype=torch.float16,
            safety_checker=None, feature_extractor=None, image_encoder=None,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, KeyError, TypeError) as error:
        first = str(error).strip().split("\n", 1)[0]
        raise WeightsError(f"{source.name} was made for another base than {like.name}: {first}") from error
    if large:
        pipeline.vae.register_to_config(force_upcast=True)
    if "v_pred" in keys:
        zero = {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in keys else {}
        pipeline.scheduler.register_to_config(prediction_type="v_prediction", **zero)
    pipeline.save_pretrained(target, safe_serialization=True)


def main() -> None:
    """Run the command line; exit 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m fpga_models.core.convert", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pickle", help="a pickled checkpoint to safetensors")
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--sha256", required=True)
    two = commands.add_parser("seal", help="write the manifest of a folder")
    two.add_argument("directory", type=Path)
    two.add_argument("--made", type=Path, required=True)
    two.add_argument("--networks", action="store_true", help="refuse it if its parts do not fit each other")
    two.add_argument("--lora", action="append", default=[], help="of the folder, FILE=WEIGHT")
    three = commands.add_parser("single", help="a checkpoint of one file to a folder")
    three.add_argument("source", type=Path)
    three.add_argument("target", type=Path)
    three.add_argument("--like", type=Path, required=True)
    four = commands.add_parser("configs", help="refuse a folder by its configuration files")
    four.add_argument("directory", type=Path)
    options = parser.parse_args()
    try:
        if options.command == "pickle":
            convert_pickle(options.source, options.target, options.sha256)
        elif options.command == "single":
            convert_single(options.source, options.target, options.like)
        elif options.command == "configs":
            layout.check_configs(options.directory)
        else:
            if options.networks:
                layout.check_kind(options.directory)
                loras = (lora.rpartition("=") for lora in options.lora)
                layout.check_networks(options.directory, {path: float(weight) for path, _, weight in loras})
            write_manifest(options.directory, json.loads(options.made.read_text()))
    except (ModelError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
