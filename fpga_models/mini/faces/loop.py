"""The one training loop of the three face networks: clock, learning rate, checkpoint, progress with ETA.

The budget is wall time: the learning rate follows the share of the minutes spent, so a busy machine takes fewer
steps instead of longer. Batches are drawn from (seed, step) alone, so a resumed run sees what it would have seen.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fpga_models.mini.checkpoint import load_checkpoint, save_checkpoint
from fpga_models.mini.muon import Muon, split_parameters

SECONDS_BETWEEN_CHECKPOINTS = 60.0


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """How long and how fast to train: `lr` is the peak after `warmup` (a share of the time), cosine to zero.

    With `muon`, matrices and kernels are trained by Muon and the rest by AdamW; without, everything by AdamW.
    """

    minutes: float
    seed: int = 0
    lr: float = 2e-3
    weight_decay: float = 0.02
    warmup: float = 0.03
    muon: bool = False


def learning_rate(schedule: Schedule, share: float) -> float:
    """Return the rate at `share` in [0, 1] of the run."""
    if share < schedule.warmup:
        return schedule.lr * (share / schedule.warmup + 1e-3)
    through = (share - schedule.warmup) / (1 - schedule.warmup)
    return schedule.lr * 0.5 * (1 + math.cos(math.pi * min(through, 1.0)))


def build_optimisers(module: nn.Module, schedule: Schedule) -> list[torch.optim.Optimizer]:
    """Return what trains this module; biases and norms do not decay."""
    matrices, rest = split_parameters(module)
    decayed = {"params": matrices, "weight_decay": schedule.weight_decay}
    plain = {"params": rest, "weight_decay": 0.0}
    if schedule.muon:
        return [Muon(matrices, schedule.lr, weight_decay=schedule.weight_decay), _adamw([plain], schedule)]
    return [_adamw([decayed, plain], schedule)]


def _adamw(groups: list[dict[str, Any]], schedule: Schedule) -> torch.optim.AdamW:
    return torch.optim.AdamW(groups, lr=schedule.lr, betas=(0.9, 0.98))


def train(
    modules: dict[str, nn.Module],
    loss_of: Callable[[np.random.Generator, float], Tensor],
    schedule: Schedule,
    path: Path,
) -> int:
    """Minimise `loss_of(generator, share)` for the given time, resuming from `path` if it is there.

    Returns:
        The number of steps taken in all; the final state is in `path`.
    """
    whole = nn.ModuleDict(modules)
    optimisers = build_optimisers(whole, schedule)
    numbers = load_checkpoint(path, whole, optimisers) if path.exists() else {"step": 0, "seconds": 0.0}
    step, seconds = int(numbers["step"]), numbers["seconds"]
    whole.train()
    total, saved_at, mean = schedule.minutes * 60, seconds, math.nan
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(path.stem, total=total)
        progress.update(task, completed=seconds)
        while seconds < total:
            began = time.perf_counter()
            share = seconds / total
            for optimiser in optimisers:
                for group in optimiser.param_groups:
                    group["lr"] = learning_rate(schedule, share)
            loss = loss_of(np.random.default_rng([schedule.seed, step]), share)
            whole.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            torch.nn.utils.clip_grad_norm_(whole.parameters(), 5.0)
            for optimiser in optimisers:
                optimiser.step()
            step += 1
            seconds += time.perf_counter() - began
            mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
            progress.update(task, completed=seconds, description=f"{path.stem} step {step} loss {mean:.3f}")
            if seconds - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                save_checkpoint(path, whole, optimisers, {"step": step, "seconds": seconds})
                saved_at = seconds
                progress.console.print(f"{path.stem} {seconds:.0f} s, step {step}, loss {mean:.3f}")
    save_checkpoint(path, whole, optimisers, {"step": step, "seconds": seconds})
    whole.eval()
    return step
