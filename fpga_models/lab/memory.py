"""What a base of published size needs of a card's memory, computed on meta tensors: no weights, no card.

    python -m fpga_models.lab.memory sdxl

Every tensor that an operation makes is counted until it is freed; attention counts its output alone, as the fused
kernels of a card keep no scores. What a card adds (context, workspaces of convolutions) is not in it.
"""

from __future__ import annotations

import argparse
import sys
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.fx.experimental import _config as fx_config
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from fpga_models.core import autoencoder
from fpga_models.core.memory import Need
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.lab.random_networks import BASES, Base, random_pipeline

GIB = 2**30
DTYPE = torch.float16


class Fused(TorchFunctionMode):
    """Attention as a fused kernel sees it: queries in, an output of their shape out."""

    def __torch_function__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.nn.functional.scaled_dot_product_attention:
            return torch.empty_like(args[0])
        return func(*args, **(kwargs or {}))


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch has no types here
    """Counts the bytes of live tensors and remembers the most; weights were there before and are left out."""

    def __init__(self, weights: torch.nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live, self.peak = 0, 0
        self._known = {value.untyped_storage()._cdata for value in weights.state_dict(keep_vars=True).values()}

    def __torch_dispatch__(self, func: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(found):
            if isinstance(tensor, torch.Tensor):
                self._count(tensor)
        return found

    def _count(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        self._known.add(key)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._free, key, storage.nbytes())

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def measure(base: Base, *, pictures: int = 2) -> tuple[Need, dict[str, float]]:
    """Lay a base out on meta tensors, run a guided step and the decoder; what it needs, and its weights by part."""
    folded = replace(base, adapter=replace(base.adapter, rank=0))  # LoRA is folded into the base's own weights
    pipeline = random_pipeline(folded, dtype=DTYPE, device="meta")
    width, height = base.preset["sizes"][0]
    latents = torch.empty(2 * pictures, 4, height // 8, width // 8, dtype=DTYPE, device="meta")
    with torch.no_grad(), fx_config.patch(meta_nonzero_assume_all_nonzero=True):  # type: ignore[attr-defined]
        condition = _condition(pipeline, pictures, width, height)
        with _metered(pipeline.denoiser) as step:
            pipeline.denoiser(latents, torch.empty(2 * pictures, device="meta"), condition)
        with _metered(pipeline.vae) as decode:
            at_once = max(1, autoencoder.PIXELS_AT_ONCE // (width * height))
            some = torch.empty(at_once, *latents.shape[1:], dtype=DTYPE, device="meta")
            autoencoder.decode(pipeline.vae, some, factor=8)
    parts = {
        "unet": pipeline.denoiser.unet, "controlnet": pipeline.denoiser.controlnet,
        "identity adapter": pipeline.denoiser.id_adapter, "autoencoder": pipeline.vae,
        "text encoders": torch.nn.ModuleList(
            [pipeline.text_encoder, *([pipeline.second_encoder.encoder] if pipeline.second_encoder else [])]
        ),
    }  # fmt: skip
    weights = {name: sum(p.numel() for p in part.parameters()) * 2 / GIB for name, part in parts.items()}
    need = Need(
        weights=sum(weights.values()),
        text=weights["text encoders"],
        step=step.peak / pictures / GIB,
        decode=decode.peak / GIB,
    )
    return need, weights


@contextmanager
def _metered(weights: torch.nn.Module) -> Iterator[Meter]:
    with Fused(), Meter(weights) as meter:
        yield meter


def _condition(pipeline: PortraitPipeline, pictures: int, width: int, height: int) -> Any:
    """The condition of one person a picture, guided and not, as `generate` prepares it."""
    points = np.array([[0.4, 0.4], [0.6, 0.4], [0.5, 0.5], [0.42, 0.6], [0.58, 0.6]]) * [width, height]
    one = PersonSlot(embedding=np.ones(512), kps5=points, skeleton=np.ones((18, 3)))
    asked = PortraitRequest(
        prompt="", people=(one,), width=width, height=height, seed=0, control=pipeline.preset.controls[0]
    )
    return pipeline._start([asked] * pictures).both


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m fpga_models.lab.memory")
    parser.add_argument("base", choices=sorted(BASES))
    need, weights = measure(BASES[parser.parse_args().base])
    lines = [f"{name:<18}{size:6.2f} GiB" for name, size in weights.items()]
    lines += [
        f"{'weights':<18}{need.weights:6.2f} GiB",
        f"step {need.step:.2f} GiB a picture, decode {need.decode:.2f}",
    ]
    for card in (8, 12, 16, 24):
        off = need.offloads(card)
        held = need.weights - (need.text if off else 0.0)
        said = f"{need.group(card - held)} at once" if need.fits(card, offload=off) else "not even one"
        lines.append(f"{card:>3} GiB: {said}{', text encoders off the card' if off else ''}")
    sys.stdout.write("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
