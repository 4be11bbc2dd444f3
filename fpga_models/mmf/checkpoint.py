"""Checkpoints of a training run: safetensors and one JSON, never a pickle, and never half a checkpoint.

`checkpoint-<step>/` holds one file per part (weights, moving average, optimizer state); it is written beside and
renamed into place, `state.json` last. Randomness is a function of (seed, step), so the step is the whole random state.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor


def save(directory: Path, step: int, parts: Mapping[str, Mapping[str, Tensor]], state: Mapping[str, Any]) -> Path:
    """Write checkpoint `step` under `directory`; returns its folder."""
    final = directory / f"checkpoint-{step}"
    partial = directory / f".partial-{step}"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    for part, tensors in parts.items():
        save_file({k: v.detach().contiguous() for k, v in tensors.items()}, partial / f"{part}.safetensors")
    (partial / "state.json").write_text(json.dumps(dict(state) | {"step": step}, indent=1))
    shutil.rmtree(final, ignore_errors=True)
    partial.replace(final)
    return final


def latest(directory: Path) -> Path | None:
    """The newest complete checkpoint, if there is one."""
    found = [path.parent for path in directory.glob("checkpoint-*/state.json")]
    return max(found, key=lambda path: int(path.name.split("-")[1]), default=None)


def load(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any]]:
    """Parts and state of one checkpoint."""
    return {path.stem: load_file(path) for path in folder.glob("*.safetensors")}, read_state(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """The state of one checkpoint alone."""
    state: dict[str, Any] = json.loads((folder / "state.json").read_text())
    return state


def prune(directory: Path, keep: int, protected: Path | None = None) -> None:
    """Delete all but the newest `keep` checkpoints and the protected one."""
    folders = sorted(directory.glob("checkpoint-*"), key=lambda path: int(path.name.split("-")[1]))
    for folder in folders[:-keep]:
        if folder != protected:
            shutil.rmtree(folder, ignore_errors=True)
