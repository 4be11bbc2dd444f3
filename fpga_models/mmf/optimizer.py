"""Muon for matrices, AdamW for the rest (or for all), as one optimizer whose state is a flat dictionary of tensors.

Muon replaces a matrix's momentum by its nearest orthogonal matrix (Jordan et al. 2024), here scaled to the root mean
square of an Adam update (Moonlight: 0.2 * sqrt(max dimension)), so that both share one learning rate. A convolution
counts as the matrix (out, in * kernel).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from fpga_models.errors import DivergedError

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """Constants of both halves; only matrices and kernels decay."""

    muon: bool = True
    momentum: float = 0.95
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 0.0
    newton_steps: int = 5
    clip_norm: float = 1.0


def orthogonalise(matrices: Tensor, steps: int) -> Tensor:
    """Nearest orthogonal matrices, roughly, of (N, rows, cols) by Newton-Schulz iteration in bfloat16."""
    a, b, c = NEWTON_SCHULZ
    wide = matrices.shape[-2] <= matrices.shape[-1]
    x = (matrices if wide else matrices.transpose(-1, -2)).bfloat16()
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.transpose(-1, -2)
        x = a * x + (b * gram + c * gram @ gram) @ x
    result: Tensor = (x if wide else x.transpose(-1, -2)).to(matrices.dtype)
    return result


class MuonAdamW:
    """One step updates every parameter in place; `state` holds every tensor needed to continue."""

    def __init__(
        self,
        named: Iterable[tuple[str, nn.Parameter]],
        config: OptimizerConfig,
        factors: Mapping[str, float] | None = None,
    ) -> None:
        """Take the trainable ones of these parameters; `factors` multiply the rate of names with this beginning."""
        self.config = config
        self.parameters = {name: p for name, p in named if p.requires_grad}
        self.steps = 0
        self.state: dict[str, Tensor] = {}
        self._stacks: dict[tuple[int, int, float], list[str]] = defaultdict(list)
        self._others: dict[float, list[str]] = defaultdict(list)
        for name, p in self.parameters.items():
            factor = next((value for start, value in (factors or {}).items() if name.startswith(start)), 1.0)
            if config.muon and p.ndim >= 2 and "embedding" not in name:
                self._stacks[p.shape[0], p[0].numel(), factor].append(name)
                self.state[f"{name}/momentum"] = torch.zeros_like(p)
            else:
                self._others[factor].append(name)
                self.state[f"{name}/mean"] = torch.zeros_like(p)
                self.state[f"{name}/square"] = torch.zeros_like(p)

    @torch.no_grad()
    def step(self, rate: float) -> float:
        """Clip, update with this learning rate, clear gradients; returns the gradient norm before clipping.

        Raises:
            DivergedError: the norm is not finite; nothing was updated.
        """
        present = [p for p in self.parameters.values() if p.grad is not None]
        norm = float(nn.utils.clip_grad_norm_(present, self.config.clip_norm, foreach=True))
        if not math.isfinite(norm):
            raise DivergedError(f"The gradient's norm is {norm} after {self.steps} updates: a finite one was wanted.")
        self.steps += 1
        for (rows, columns, factor), names in self._stacks.items():
            self._muon((rows, columns), self._with_gradient(names), rate * factor)
        for factor, names in self._others.items():
            self._adamw(self._with_gradient(names), rate * factor)
        for p in present:
            p.grad = None
        return norm

    def load(self, state: Mapping[str, Tensor], steps: int) -> None:
        """Continue from `state` of another one, after its `steps`."""
        for name, value in state.items():
            self.state[name].copy_(value)
        self.steps = steps

    def _with_gradient(self, names: list[str]) -> list[str]:
        return [name for name in names if self.parameters[name].grad is not None]

    def _muon(self, shape: tuple[int, int], names: list[str], rate: float) -> None:
        if not names:
            return
        updates = []
        for name in names:
            gradient = _gradient(self.parameters[name])
            momentum = self.state[f"{name}/momentum"].lerp_(gradient, 1 - self.config.momentum)
            updates.append(gradient.lerp(momentum, self.config.momentum).reshape(shape))  # Nesterov
        scale = 0.2 * max(shape) ** 0.5
        for name, update in zip(names, orthogonalise(torch.stack(updates), self.config.newton_steps), strict=True):
            p = self.parameters[name]
            self._decay(p, rate)
            p.add_(update.reshape(p.shape), alpha=-rate * scale)

    def _adamw(self, names: list[str], rate: float) -> None:
        if not names:
            return
        first, second = self.config.betas
        parameters: list[Tensor] = [self.parameters[name] for name in names]
        for p in parameters:
            self._decay(p, rate)
        gradients = [_gradient(self.parameters[name]) for name in names]
        means = [self.state[f"{name}/mean"] for name in names]
        squares = [self.state[f"{name}/square"] for name in names]
        torch._foreach_lerp_(means, gradients, 1 - first)
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - second)
        deviations = torch._foreach_sqrt(squares)
        torch._foreach_div_(deviations, (1 - second**self.steps) ** 0.5)
        torch._foreach_add_(deviations, 1e-8)
        torch._foreach_addcdiv_(parameters, means, deviations, -rate / (1 - first**self.steps))

    def _decay(self, parameter: Tensor, rate: float) -> None:
        if self.config.weight_decay and parameter.ndim >= 2:
            parameter.mul_(1 - rate * self.config.weight_decay)


def _gradient(parameter: nn.Parameter) -> Tensor:
    assert parameter.grad is not None, "only parameters with a gradient are updated"
    return parameter.grad
