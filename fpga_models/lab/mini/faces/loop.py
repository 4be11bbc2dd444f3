"""The one training loop of the three face networks: clock, learning rate, checkpoint, progress with ETA.

The budget is processor time, so a busy machine takes longer and not fewer steps; the learning rate follows the share of
the minutes spent. Batches are drawn from (seed, step) alone, so a resumed run sees what it would have seen.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from fpga_models.mmf import checkpoint
from fpga_models.mmf.optimizer import MuonAdamW, OptimizerConfig

SECONDS_BETWEEN_CHECKPOINTS = 60.0
CLIP_NORM = 5.0


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


def build_optimizer(module: nn.Module, schedule: Schedule) -> MuonAdamW:
    """Return what trains this module; biases and norms do not decay."""
    config = OptimizerConfig(
        muon=schedule.muon, betas=(0.9, 0.98), weight_decay=schedule.weight_decay, clip_norm=CLIP_NORM
    )
    return MuonAdamW(module.named_parameters(), config)


def train(
    modules: dict[str, nn.Module],
    loss_of: Callable[[np.random.Generator, float], Tensor],
    schedule: Schedule,
    folder: Path,
) -> int:
    """Minimise `loss_of(generator, share)` for the given time; continues from a checkpoint in `folder`.

    Returns:
        The number of steps taken in all; the final state is in `folder`.
    """
    whole = nn.ModuleDict(modules)
    optimizer = build_optimizer(whole, schedule)
    step, seconds = _resume(whole, optimizer, folder)
    whole.train()
    total, saved_at, mean = schedule.minutes * 60, seconds, math.nan
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(folder.name, total=total)
        progress.update(task, completed=seconds)
        while seconds < total:
            began = time.process_time()
            share = seconds / total
            loss = loss_of(np.random.default_rng([schedule.seed, step]), share)
            torch.autograd.backward(loss)
            optimizer.step(learning_rate(schedule, share))
            step += 1
            seconds += time.process_time() - began
            mean = loss.item() if math.isnan(mean) else 0.95 * mean + 0.05 * loss.item()
            progress.update(task, completed=seconds, description=f"{folder.name} step {step} loss {mean:.3f}")
            if seconds - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                _save(whole, optimizer, folder, step, seconds)
                saved_at = seconds
                progress.console.print(f"{folder.name} {seconds:.0f} s, step {step}, loss {mean:.3f}")
    _save(whole, optimizer, folder, step, seconds)
    whole.eval()
    return step


def _save(whole: nn.Module, optimizer: MuonAdamW, folder: Path, step: int, seconds: float) -> None:
    checkpoint.save(folder, step, {"weights": whole.state_dict(), "optimiser": optimizer.state}, {"seconds": seconds})
    checkpoint.prune(folder, keep=1)


def _resume(whole: nn.Module, optimizer: MuonAdamW, folder: Path) -> tuple[int, float]:
    """Steps taken and seconds spent so far."""
    newest = checkpoint.latest(folder)
    if newest is None:
        return 0, 0.0
    parts, state = checkpoint.load(newest)
    whole.load_state_dict(parts["weights"])
    optimizer.load(parts["optimiser"], int(state["step"]))
    return int(state["step"]), float(state["seconds"])
