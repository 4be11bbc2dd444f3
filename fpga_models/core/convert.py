"""Published files into a preset folder, in a process of its own: the only place where a pickle is ever opened.

    python -m fpga_models.core.convert pickle ip-adapter.bin id_adapter.safetensors --sha256 ...
    python -m fpga_models.core.convert seal DIR --made made.json

`pickle` reads with torch's restricted loader (weights_only), and only a file whose sha256 is the one asked for. `seal`
writes the manifest of a finished folder.
"""

from __future__ import annotations

import argparse
import json
import pickle
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from fpga_models.core.weights import file_sha256, write_manifest
from fpga_models.errors import ModelError, WeightsError


def convert_pickle(source: Path, target: Path, sha256: str) -> None:
    """Write the tensors of a pickled checkpoint as safetensors; groups become prefixes of the keys.

    Raises:
        WeightsError: another sha256, something other than tensors in it, or not readable.
    """
    if (got := file_sha256(source)) != sha256:
        raise WeightsError(f"{source.name}: sha256 {got} was got, {sha256} was wanted; it was not opened.")
    try:
        found = torch.load(source, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        first = str(error).split("\n", 1)[0]
        raise WeightsError(f"{source.name} holds more than tensors, or is damaged: {first}") from error
    state = flat(found)
    if not state:
        raise WeightsError(f"{source.name} holds no tensors.")
    partial = target.with_name(f".partial-{target.name}")
    save_file({key: value.contiguous().clone() for key, value in state.items()}, partial, {"format": "pt"})
    partial.replace(target)


def flat(found: Any, prefix: str = "") -> dict[str, Tensor]:
    """Tensors of nested mappings by their joined keys.

    Raises:
        WeightsError: something else is in there.
    """
    if isinstance(found, Tensor):
        return {prefix: found}
    if not isinstance(found, Mapping):
        raise WeightsError(f"{prefix or 'the file'} is {type(found).__name__}, tensors were wanted.")
    state: dict[str, Tensor] = {}
    for key, value in found.items():
        state |= flat(value, f"{prefix}.{key}" if prefix else str(key))
    return state


def main() -> None:
    """Run the command line; exit 1 with one sentence on standard error."""
    parser = argparse.ArgumentParser(
        prog="python -m fpga_models.core.convert", description=(__doc__ or "").split("\n")[0]
    )
    commands = parser.add_subparsers(dest="command", required=True)
    one = commands.add_parser("pickle", help="a pickled checkpoint to safetensors")
    one.add_argument("source", type=Path)
    one.add_argument("target", type=Path)
    one.add_argument("--sha256", required=True)
    two = commands.add_parser("seal", help="write the manifest of a folder")
    two.add_argument("directory", type=Path)
    two.add_argument("--made", type=Path, required=True)
    options = parser.parse_args()
    try:
        if options.command == "pickle":
            convert_pickle(options.source, options.target, options.sha256)
        else:
            write_manifest(options.directory, json.loads(options.made.read_text()))
    except (ModelError, OSError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
