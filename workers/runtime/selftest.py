"""Multiplies two matrices on a device and compares with the known answer: `python -m workers.runtime.selftest cuda:1`.

Prints one sentence; exit code 1 where the device is not there or computes wrongly.
"""

from __future__ import annotations

import sys
import time

import torch

SIZE = 256


def main() -> int:
    """Test the device that the command line names."""
    device = sys.argv[1]
    began = time.monotonic()
    try:
        left = torch.arange(SIZE, dtype=torch.float32, device=device).repeat(SIZE, 1)  # (SIZE, SIZE), equal rows
        product = left @ torch.eye(SIZE, device=device)
        right = bool(torch.equal(product, left))
    except (RuntimeError, AssertionError) as error:
        sys.stdout.write(f"device {device} cannot be used: {str(error).splitlines()[0]}\n")
        return 1
    name = torch.cuda.get_device_name(device) if device.startswith("cuda") else "the processor"
    state = f"computes right, in {time.monotonic() - began:.2f} s" if right else "computes wrongly"
    sys.stdout.write(f"device {device}, {name}, {state}\n")
    return 0 if right else 1


if __name__ == "__main__":
    raise SystemExit(main())
