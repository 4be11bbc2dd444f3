import pytest
import torch
from torch import nn

from fpga_models.mini.muon import Muon, orthogonalised, split_parameters


@pytest.mark.parametrize("shape", [(16, 48), (48, 16), (32, 32)])
def test_orthogonalised_matrices_have_singular_values_near_one(shape: tuple[int, int]) -> None:
    torch.manual_seed(0)
    values = torch.linalg.svdvals(orthogonalised(torch.randn(shape)))
    assert values.min() > 0.3
    assert values.max() < 1.3


def test_every_update_of_a_convolution_has_the_size_of_an_adam_step() -> None:
    torch.manual_seed(0)
    conv = nn.Conv2d(16, 16, 3)
    before = conv.weight.detach().clone()
    conv(torch.randn(2, 16, 8, 8)).square().mean().backward()
    Muon([conv.weight], lr=1e-2).step()
    rms = (conv.weight - before).square().mean().sqrt().item()
    assert 0.1e-2 < rms < 0.3e-2


def test_it_fits_a_linear_map() -> None:
    torch.manual_seed(0)
    wanted, made = nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False)
    optimiser = Muon(made.parameters(), lr=5e-2)
    x = torch.randn(64, 8)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = (made(x) - wanted(x)).square().mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 * losses[0]


def test_split_gives_matrices_to_muon_and_vectors_to_the_other() -> None:
    matrices, others = split_parameters(nn.Sequential(nn.Conv2d(3, 4, 3), nn.LayerNorm(4)))
    assert [p.ndim for p in matrices] == [4]
    assert [p.ndim for p in others] == [1, 1, 1]
