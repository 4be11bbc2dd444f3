"""Puts a trained and measured preset where it ships from: its own verdict thresholds and figures go with it.

python -m fpga_models.lab.mini.ship --preset var/mini/mmf/preset --verdict verdict.json --figures figures.json --out DIR
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fpga_models.core import weights
from fpga_models.core.presets import FILE

MEMORIES = 3
"""Runs before this one whose story stays in the manifest."""


def ship(preset: Path, out: Path, *, verdict: Mapping[str, Any], figures: Mapping[str, Any] | None) -> dict[str, Any]:
    """Copy a preset folder with these verdict thresholds and figures; returns the new manifest.

    The folder `out` is replaced as a whole.
    """
    partial = out.with_name(f".partial-{out.name}")
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(preset, partial)
    facts = json.loads((partial / FILE).read_text()) | {"verdict": dict(verdict)}
    (partial / FILE).write_text(json.dumps(facts, indent=1) + "\n")
    made = weights.read_manifest(partial).get("made", {})
    manifest = weights.write_manifest(partial, story(made, MEMORIES) | {"figures": figures})
    shutil.rmtree(out, ignore_errors=True)
    partial.replace(out)
    return manifest


def story(made: Mapping[str, Any], depth: int) -> dict[str, Any]:
    """How the weights came about, without the figures of earlier weights and what lies more than `depth` runs back."""
    told = {key: value for key, value in made.items() if key not in ("figures", "start")}
    start = made.get("start")
    if not isinstance(start, Mapping) or depth == 0:
        return told
    return told | {"start": dict(start) | {"made": story(start.get("made", {}), depth - 1)}}


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", type=Path, required=True)
    parser.add_argument("--verdict", type=Path, required=True, help="what metrics.calibrate printed")
    parser.add_argument("--figures", type=Path, help="what metrics.evaluate printed")
    parser.add_argument("--out", type=Path, default=Path("fpga_models/weights/mini"))
    options = parser.parse_args()
    figures = json.loads(options.figures.read_text()) if options.figures else None
    ship(options.preset, options.out, verdict=json.loads(options.verdict.read_text()), figures=figures)


if __name__ == "__main__":
    main()
