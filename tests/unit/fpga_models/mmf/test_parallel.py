from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import torch

from fpga_models.mmf import parallel

PROCESS = """
import sys
from pathlib import Path
import torch
from fpga_models.mmf import parallel
rank, store = int(sys.argv[1]), Path(sys.argv[2])
parallel.join(rank, 2, store)
tensors = [torch.full((2, 3), float(rank)), torch.tensor([10.0 * rank])]
parallel.average_(tensors)
print(tensors[0].flatten().tolist(), tensors[1].tolist(), parallel.agree(float(rank) + 7))
parallel.leave()
"""


def test_two_processes_average_their_tensors_and_agree_on_the_first_ones_number(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PROCESS, str(rank), str(tmp_path / "store")], stdout=subprocess.PIPE, text=True
        )
        for rank in range(2)
    ]
    printed = [process.communicate(timeout=120)[0].strip() for process in processes]
    assert printed == ["[0.5, 0.5, 0.5, 0.5, 0.5, 0.5] [5.0] 7.0"] * 2


def test_alone_nothing_changes() -> None:
    tensor = torch.ones(3)
    parallel.average_([tensor])
    assert torch.equal(tensor, torch.ones(3))
    assert parallel.agree(2.5) == 2.5
    assert (parallel.rank(), parallel.world_size()) == (0, 1)
