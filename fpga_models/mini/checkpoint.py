"""Training checkpoints as one safetensors file: weights, optimiser states and a few numbers, replaced atomically."""

import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer


def save_checkpoint(path: Path, module: nn.Module, optimisers: Sequence[Optimizer], numbers: dict[str, float]) -> None:
    """Write weights, optimiser states and numbers; a reader sees the old file or the new one, never a half."""
    tensors: dict[str, Tensor] = {f"module.{name}": value for name, value in module.state_dict().items()}
    for i, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"optimiser.{i}.{index}.{key}": torch.as_tensor(value) for key, value in state.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    copies = {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in tensors.items()}
    save_file(copies, partial, metadata={"numbers": json.dumps(numbers)})
    partial.replace(path)


def load_checkpoint(path: Path, module: nn.Module, optimisers: Sequence[Optimizer]) -> dict[str, float]:
    """Restore what `save_checkpoint` wrote and return its numbers."""
    with safe_open(path, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 not a dict
        numbers: dict[str, float] = json.loads(file.metadata()["numbers"])
    module.load_state_dict({n.removeprefix("module."): t for n, t in tensors.items() if n.startswith("module.")})
    for i, optimiser in enumerate(optimisers):
        whole = optimiser.state_dict()
        whole["state"] = {}
        for name, value in tensors.items():
            if name.startswith(f"optimiser.{i}."):
                _, _, index, key = name.split(".")
                whole["state"].setdefault(int(index), {})[key] = value
        optimiser.load_state_dict(whole)
    return numbers
