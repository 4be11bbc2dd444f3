"""Measures a preset on held-out people, with an encoder that training never used.

    python -m fpga_models.lab.measures.evaluate identity --preset-dir DIR --seed 7 --count 200 --json --sheet sheet.png
    ... restore --source generated --set lock=false      any knob of DIIR
    ... swap | stylized | control | ablate
    ... page --out DIR --html page.html                   all of them, then one page of figures and pictures

Figures go to stdout, progress to stderr. What is measured is said in the modules of `evaluations`.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from fpga_models.diir import RESTORE, TASKS, DiirSettings
from fpga_models.errors import ModelError, RequestError
from fpga_models.lab.evaluations import ablations, control, identity, restore, stylized, swap
from fpga_models.lab.measures.bench import Bench, Track, untracked
from fpga_models.lab.measures.sheet import Image, write_picture
from fpga_models.lab.measures.trials import Advance

EVALUATIONS: Mapping[str, Callable[..., tuple[Any, Image]]] = {
    "identity": identity.measure,
    "restore": restore.measure,
    "swap": swap.measure,
    "stylized": stylized.measure,
    "control": control.measure,
    "ablate": ablations.measure,
}
TABLES: Mapping[str, Callable[[Any], str]] = {
    "identity": identity.render_table,
    "restore": restore.render_table,
    "swap": swap.render_table,
    "stylized": stylized.render_table,
    "control": control.render_table,
    "ablate": ablations.render_table,
}
OPTIONS = {
    "restore": {"source", "settings"},
    "swap": {"settings"},
    "stylized": {"settings"},
    "control": {"modal", "base"},
    "ablate": {"source", "against"},
}
"""What each evaluation takes besides seed and count."""
COUNTS = {"identity": 200, "restore": 40, "swap": 60, "stylized": 16, "control": 40, "ablate": 40}
"""Scenes by default."""


def measure(
    what: str,
    preset_dir: Path,
    *,
    seed: int,
    count: int,
    track: Track = untracked,
    threads: int = 1,
    device: str = "cpu",
    **options: Any,
) -> tuple[dict[str, object], Image, str]:
    """Run one evaluation on a preset folder.

    Args:
        what: one of EVALUATIONS.
        options: of that evaluation's `measure`.

    Returns:
        Its figures ready for JSON, with seed, count, preset, model_sha256 and seconds; its picture sheet; a table.

    Raises:
        ModelError: a file of the preset is missing, altered or of another kind.
    """
    began = time.monotonic()
    bench = Bench.load(preset_dir, seed=seed, count=count, track=track, threads=threads, device=device)
    found, pictures = EVALUATIONS[what](bench, **options)
    facts = {
        "seed": seed,
        "count": count,
        "preset": bench.pipeline.preset.name,
        "model_sha256": bench.pipeline.model_sha256,
        "seconds": round(time.monotonic() - began, 1),
    }
    return asdict(found) | facts, pictures, TABLES[what](found)


def changed_settings(preset: DiirSettings, changes: Sequence[str]) -> DiirSettings:
    """A DIIR preset with `name=value` changes, values as in JSON; raises RequestError for anything else."""
    values: dict[str, Any] = {}
    for change in changes:
        name, _, value = change.partition("=")
        if name not in DiirSettings.__dataclass_fields__:
            raise RequestError(f"{name} is no knob; one of {', '.join(DiirSettings.__dataclass_fields__)} is wanted")
        try:
            values[name] = json.loads(value)
        except json.JSONDecodeError as error:
            raise RequestError(f"{change}: a value as in JSON is wanted, such as 0.5 or false.") from error
    return replace(preset, **values)


def named_folders(given: Sequence[str]) -> dict[str, Path]:
    """Folders by name, from `NAME=DIR` or `DIR` (named like its last part).

    Raises:
        RequestError: two of one name.
    """
    folders: dict[str, Path] = {}
    for one in given:
        name, equals, path = one.partition("=")
        folder = Path(path if equals else one)
        name = name if equals else folder.name
        if name in folders:
            raise RequestError(f"Two presets to compare with are called {name}; give names as NAME=DIR.")
        folders[name] = folder
    return folders


def positive(text: str) -> int:
    """A count from 1 on; raises ValueError for anything else."""
    if (number := int(text)) < 1:
        raise ValueError
    return number


def begin(progress: Progress, title: str, total: int) -> Advance:
    """A bar of its own for a part of the work."""
    return partial(progress.advance, progress.add_task(title, total=total))


def bars() -> Progress:
    """Progress with the time remaining, on stderr."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line; options of the evaluation itself end up in `options`."""
    parser = argparse.ArgumentParser(
        prog="python -m fpga_models.lab.measures.evaluate",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("what", choices=list(EVALUATIONS))
    parser.add_argument("--preset-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=positive, help=f"scenes; by default {COUNTS}")
    parser.add_argument("--source", choices=["vae", "generated"], help="restore, ablate: what damaged the faces")
    parser.add_argument("--set", action="append", default=[], metavar="KNOB=VALUE", dest="changes", help="DIIR only")
    parser.add_argument(
        "--against", action="append", metavar="[NAME=]DIR", help="ablate: another preset folder to compare with"
    )
    parser.add_argument("--modal", type=Path, help="control: modal weights that were merged into the preset")
    parser.add_argument("--base", type=Path, help="control: folder of the UNet they were merged into")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--sheet", type=Path)
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    options = parser.parse_args(arguments)
    options.count = COUNTS[options.what] if options.count is None else options.count
    options.own = {name: value for name in ("source", "modal", "base") if (value := getattr(options, name))}
    try:
        if options.against:
            options.own["against"] = named_folders(options.against)
        if options.changes:
            options.own["settings"] = changed_settings(TASKS.get(options.what, RESTORE), options.changes)
    except RequestError as error:
        parser.error(str(error))
    if foreign := options.own.keys() - OPTIONS.get(options.what, set()):
        parser.error(f"evaluate {options.what} does not take {', '.join(sorted(foreign))}")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line, measure, print; exit code 1 where the preset cannot be measured."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        with bars() as progress:
            figures, pictures, table = measure(
                options.what,
                options.preset_dir,
                seed=options.seed,
                count=options.count,
                track=partial(begin, progress),
                threads=options.threads,
                device=options.device,
                **options.own,
            )
    except ModelError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    if options.sheet:
        write_picture(options.sheet, pictures)
    sys.stdout.write(json.dumps(figures, indent=2, allow_nan=False) + "\n" if options.json else table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
