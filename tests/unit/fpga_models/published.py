"""Random networks as others publish theirs: a folder in diffusers' layout, or one checkpoint in Stability's."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.core.weights import write_manifest
from orchestrator.models.pull import read_catalog, write_index

SIDE = 64
RESNET = {"norm1": "in_layers.0", "conv1": "in_layers.2", "time_emb_proj": "emb_layers.1", "norm2": "out_layers.0",
          "conv2": "out_layers.3", "conv_shortcut": "skip_connection"}  # fmt: skip
UNET_ENDS = {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2",
             "add_embedding.linear_1": "label_emb.0.0", "add_embedding.linear_2": "label_emb.0.2",
             "conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}  # fmt: skip
VAE_ATTENTION = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}
OPEN_CLIP = {"layer_norm1": "ln_1", "layer_norm2": "ln_2", "mlp.fc1": "mlp.c_fc", "mlp.fc2": "mlp.c_proj",
             "self_attn.out_proj": "attn.out_proj"}  # fmt: skip


def facts(name: str) -> dict[str, Any]:
    """preset.json as `fpga model pull` writes it."""
    mini = json.loads((preset_directory("mini") / "preset.json").read_text())
    catalog = read_catalog(name)
    return catalog.preset | {
        "name": name, "title": catalog.title, "licence": catalog.licence, "size": catalog.preset["sizes"][0],
        "layouts": mini["layouts"], "components": [],
    }  # fmt: skip


def save_base(pipeline: PortraitPipeline, folder: Path) -> None:
    """Write the base alone; the pipeline's UNet is given back as it was published."""
    pipeline.denoiser.release().save_pretrained(folder / "unet")
    pipeline.vae.save_pretrained(folder / "vae")
    pipeline.text_encoder.save_pretrained(folder / "text_encoder")
    pipeline.tokenizer.save_pretrained(folder / "tokenizer")
    if pipeline.second_encoder:
        pipeline.second_encoder.encoder.save_pretrained(folder / "text_encoder_2")
        pipeline.second_encoder.tokenizer.save_pretrained(folder / "tokenizer_2")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    ).save_pretrained(folder / "scheduler")
    write_index(folder)


def save(pipeline: PortraitPipeline, name: str, folder: Path) -> None:
    """Write a whole preset, base and adapters."""
    save_base(pipeline, folder)
    assert pipeline.denoiser.controlnet is not None
    pipeline.denoiser.controlnet.save_pretrained(folder / "controlnet")
    pipeline.denoiser.id_adapter.save(folder / "id_adapter.safetensors", dtype=torch.float32, metadata={})
    (folder / "preset.json").write_text(json.dumps(facts(name) | {"sizes": [[SIDE, SIDE]], "size": [SIDE, SIDE]}))
    write_manifest(folder, {"command": "test"})


def single_file(pipeline: PortraitPipeline) -> dict[str, Tensor]:
    """The tensors of a base under the names of Stability's own checkpoints."""
    unet, large = pipeline.denoiser.release(), pipeline.second_encoder is not None
    attended = [i for i, kind in enumerate(unet.config.up_block_types) if kind.startswith("CrossAttn")]
    state = {f"model.diffusion_model.{unet_key(key, attended)}": value for key, value in unet.state_dict().items()}
    state |= {
        f"first_stage_model.{vae_key(key)}": _conv(key, value) for key, value in pipeline.vae.state_dict().items()
    }
    first = "conditioner.embedders.0." if large else "cond_stage_model."
    for key, value in pipeline.text_encoder.state_dict().items():
        state[f"{first}transformer.text_model.{key.removeprefix('text_model.')}"] = value
    if pipeline.second_encoder:
        state |= open_clip(pipeline.second_encoder.encoder.state_dict())
    return {key: value.detach().clone().contiguous() for key, value in state.items()}


def unet_key(key: str, attended: Collection[int]) -> str:
    for ours, theirs in UNET_ENDS.items():
        if key.startswith(f"{ours}."):
            return key.replace(ours, theirs, 1)
    parts = key.split(".")
    if parts[0] == "mid_block":
        place = {"resnets.0": 0, "attentions.0": 1, "resnets.1": 2}[".".join(parts[1:3])]
        return f"middle_block.{place}.{_inner(parts[3:], parts[1])}"
    side, block, kind, layer, rest = parts[0], int(parts[1]), parts[2], int(parts[3]), parts[4:]
    if kind == "downsamplers":
        return f"input_blocks.{3 * (block + 1)}.0.op.{rest[-1]}"
    if kind == "upsamplers":
        return f"output_blocks.{3 * block + 2}.{2 if block in attended else 1}.conv.{rest[-1]}"
    number = 3 * block + layer + (1 if side == "down_blocks" else 0)
    place = 0 if kind == "resnets" else 1
    return f"{'input' if side == 'down_blocks' else 'output'}_blocks.{number}.{place}.{_inner(rest, kind)}"


def _inner(rest: list[str], kind: str) -> str:
    return ".".join([RESNET[rest[0]], *rest[1:]]) if kind == "resnets" else ".".join(rest)


def vae_key(key: str) -> str:
    parts = key.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut").split(".")
    if parts[0] not in ("encoder", "decoder") or parts[1] not in ("down_blocks", "up_blocks", "mid_block"):
        return ".".join(parts)
    if parts[1] == "mid_block":
        if parts[2] == "resnets":
            return ".".join([parts[0], "mid", f"block_{int(parts[3]) + 1}", *parts[4:]])
        rest = ".".join(parts[4:])
        for ours, theirs in VAE_ATTENTION.items():
            rest = rest.replace(f"{ours}.", f"{theirs}.")
        return f"{parts[0]}.mid.attn_1.{rest}"
    number = int(parts[2]) if parts[1] == "down_blocks" else 3 - int(parts[2])
    there = f"{parts[0]}.{parts[1].removesuffix('_blocks')}.{number}"
    if parts[3] == "resnets":
        return ".".join([there, "block", *parts[4:]])
    return f"{there}.{parts[3].removesuffix('rs')}.conv.{parts[-1]}"


def _conv(key: str, value: Tensor) -> Tensor:
    """Attention of the old autoencoders is made of convolutions of 1 x 1."""
    return value[:, :, None, None] if "attentions" in key and value.ndim == 2 else value


def open_clip(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    prefix, found = "conditioner.embedders.1.model.", dict[str, Tensor]()
    for key, value in state.items():
        short = key.removeprefix("text_model.")
        if short == "text_projection.weight":
            found[f"{prefix}text_projection"] = value.T
        elif short.startswith("embeddings.position_embedding"):
            found[f"{prefix}positional_embedding"] = value
        elif short.startswith("embeddings.token_embedding"):
            found[f"{prefix}token_embedding.weight"] = value
        elif short.startswith("final_layer_norm"):
            found[f"{prefix}ln_final.{short.rsplit('.', 1)[1]}"] = value
        elif short.startswith("encoder.layers."):
            number, inner = short.removeprefix("encoder.layers.").split(".", 1)
            if inner.startswith("self_attn.q_proj."):
                end = inner.rsplit(".", 1)[1]
                three = [state[key.replace("q_proj", other)] for other in ("q_proj", "k_proj", "v_proj")]
                found[f"{prefix}transformer.resblocks.{number}.attn.in_proj_{end}"] = torch.cat(three)
            elif not inner.startswith("self_attn.") or inner.startswith("self_attn.out_proj"):
                for ours, theirs in OPEN_CLIP.items():
                    inner = inner.replace(ours, theirs)
                found[f"{prefix}transformer.resblocks.{number}.{inner}"] = value
    return found
