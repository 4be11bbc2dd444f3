from pathlib import Path

import torch
from torch import nn
from torch.optim import AdamW, Optimizer

from fpga_models.mini.checkpoint import load_checkpoint, save_checkpoint
from fpga_models.mini.muon import Muon, split_parameters


def _start() -> tuple[nn.Module, list[Optimizer]]:
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    matrices, others = split_parameters(module)
    return module, [Muon(matrices, lr=1e-2), AdamW(others, lr=1e-2)]


def _train(module: nn.Module, optimisers: list[Optimizer], steps: range) -> None:
    for step in steps:
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        module.zero_grad()
        module(x).square().mean().backward()
        for optimiser in optimisers:
            optimiser.step()


def test_an_interrupted_training_continues_exactly(tmp_path: Path) -> None:
    straight, optimisers = _start()
    _train(straight, optimisers, range(6))

    first, first_optimisers = _start()
    _train(first, first_optimisers, range(3))
    save_checkpoint(tmp_path / "c.safetensors", first, first_optimisers, {"step": 3, "seconds": 1.5})
    second, second_optimisers = _start()
    numbers = load_checkpoint(tmp_path / "c.safetensors", second, second_optimisers)
    _train(second, second_optimisers, range(int(numbers["step"]), 6))

    assert numbers == {"step": 3, "seconds": 1.5}
    for name, value in straight.state_dict().items():
        assert torch.equal(value, second.state_dict()[name]), name
