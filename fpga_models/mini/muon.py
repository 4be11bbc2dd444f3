"""Muon: momentum whose matrices are orthogonalised before the step (Keller Jordan, 2024), for convolutions too.

Everything that is not a matrix (biases, norms) belongs to AdamW; `split_parameters` makes the two lists.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # quintic Newton-Schulz iteration of the Muon write-up


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, orthogonalised, scaled to the RMS of an Adam step: 0.2 sqrt(max(rows, columns))."""

    def __init__(
        self, params: Iterable[Tensor], lr: float = 3e-3, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no closure is ever given
        """Apply one update; parameters with two or more dimensions are seen as (rows, rest)."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                if not state:
                    state["momentum_buffer"] = torch.zeros_like(parameter)
                buffer: Tensor = state["momentum_buffer"]
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"]).reshape(parameter.shape[0], -1)
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - group["lr"] * group["weight_decay"])
                parameter.add_(orthogonalised(update).view_as(parameter), alpha=-group["lr"] * scale)


def orthogonalised(matrix: Tensor, steps: int = 5) -> Tensor:
    """Nearest (semi-)orthogonal matrix to (rows, columns), roughly: singular values end between 0.7 and 1.2."""
    a, b, c = _COEFFICIENTS
    x = matrix / (matrix.norm() + 1e-7)
    tall = x.shape[0] > x.shape[1]
    if tall:
        x = x.T
    for _ in range(steps):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = x.T if tall else x
    return result


def split_parameters(module: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """Trainable parameters of the module: (matrices and kernels for Muon, the rest for AdamW)."""
    trainable = [parameter for parameter in module.parameters() if parameter.requires_grad]
    return [p for p in trainable if p.ndim >= 2], [p for p in trainable if p.ndim < 2]
