"""Several training processes on one machine that average their state every few steps (local SGD, Stich 2019).

On busy CPU cores one thread per process and a rare exchange beats two threads that wait for each other at every
operation. With one process everything here does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor


def join(rank: int, world: int, store: Path) -> None:
    """Meet the other processes through a file that does not exist yet."""
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store.resolve()}", rank=rank, world_size=world)


def leave() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


@torch.no_grad()
def average_(tensors: Sequence[Tensor]) -> None:
    """Replace these float tensors, of any shape, by their mean over all processes."""
    if world_size() == 1:
        return
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    dist.all_reduce(flat)
    flat /= world_size()
    for tensor, mean in zip(tensors, torch.split(flat, [tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(mean.view_as(tensor))


def agree(value: float) -> float:
    """The value of process 0, in every process."""
    if world_size() == 1:
        return value
    shared = torch.tensor([value], dtype=torch.float64)
    dist.broadcast(shared, 0)
    return float(shared)
