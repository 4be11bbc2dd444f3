"""`fpga evaluate`: measures a preset. The networks run in a process of their own; this one never imports them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption

app = typer.Typer(name="evaluate", help="Measure a preset on people no training has seen.", no_args_is_help=True)
PROGRAM = "fpga_models.lab.measures.evaluate"
PAGE = "fpga_models.lab.measures.page"

PresetOption = Annotated[str, typer.Option("--preset", help="Which preset.")]
SeedOption = Annotated[int, typer.Option("--seed", help="Chooses the held-out people, their scenes and the noise.")]
CountOption = Annotated[int | None, typer.Option("--count", min=1, help="How many scenes.", show_default=False)]
SheetOption = Annotated[
    Path | None, typer.Option("--sheet", help="Write a sheet of pictures to this file, PNG or JPEG.")
]
KnobOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KNOB=VALUE", help="Change a knob of DIIR, such as lock=false.")
]
SourceOption = Annotated[
    str, typer.Option("--source", help="What damaged the faces: vae (the autoencoder alone) or generated.")
]


ModalOption = Annotated[Path | None, typer.Option("--modal", help="Modal weights that were merged into the preset.")]
BaseOption = Annotated[Path | None, typer.Option("--base", help="Folder of the UNet they were merged into.")]
AgainstOption = Annotated[
    list[str] | None,
    typer.Option("--against", metavar="[NAME=]DIR", help="Folder of another preset to compare with; may be repeated."),
]


@app.callback()
def evaluate() -> None:
    """Measure a preset on people no training has seen."""


@app.command()
def identity(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Are people recognisable, legible and sharp, and in groups who and where they should be?"""
    _measure("identity", preset, seed, count, sheet, as_json)


@app.command()
def restore(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    source: SourceOption = "vae",
    knobs: KnobOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """How much of the likeness that small faces lost does DIIR win back, and does the background stay?"""
    _measure("restore", preset, seed, count, sheet, as_json, ["--source", source, *_sets(knobs)])


@app.command()
def swap(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    knobs: KnobOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Does a face become another person's and stay where it is?"""
    _measure("swap", preset, seed, count, sheet, as_json, _sets(knobs))


@app.command()
def stylized(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    knobs: KnobOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Does DIIR also help faces in drawn pictures?"""
    _measure("stylized", preset, seed, count, sheet, as_json, _sets(knobs))


@app.command()
def control(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    modal: ModalOption = None,
    base: BaseOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Do people stand where they should, by which control image, and are branch and merged network the same?"""
    _measure("control", preset, seed, count, sheet, as_json, _files(modal, base, None))


@app.command()
def ablate(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    count: CountOption = None,
    source: SourceOption = "vae",
    against: AgainstOption = None,
    sheet: SheetOption = None,
    as_json: JsonOption = False,
) -> None:
    """What does each part contribute: masks, the parts of DIIR, and ways of training?"""
    others = ["--source", source, *_files(None, None, against)]
    _measure("ablate", preset, seed, count, sheet, as_json, others)


@app.command()
def page(
    preset: PresetOption = "mini",
    seed: SeedOption = 0,
    scale: Annotated[float, typer.Option(min=0.001, help="Share of the usual numbers of scenes.")] = 1.0,
    out: Annotated[Path, typer.Option(help="Where figures and pictures are kept.")] = Path("var/evaluation"),
    html: Annotated[Path, typer.Option(help="The page.")] = Path("docs/evaluation.html"),
    modal: ModalOption = None,
    base: BaseOption = None,
    against: AgainstOption = None,
) -> None:
    """Run every evaluation and write one page of figures, plots and pictures; a stopped run goes on where it was."""
    others = ["--scale", str(scale), "--out", str(out), "--html", str(html), *_files(modal, base, against)]
    measure_in_process(PAGE, preset, ["--seed", str(seed), *others])


def _sets(knobs: Sequence[str] | None) -> list[str]:
    return [part for knob in knobs or [] for part in ("--set", knob)]


def _files(modal: Path | None, base: Path | None, against: Sequence[str] | None) -> list[str]:
    named = [("--modal", modal), ("--base", base), *(("--against", folder) for folder in against or [])]
    return [part for name, path in named if path for part in (name, str(path))]


def _measure(
    what: str,
    preset: str,
    seed: int,
    count: int | None,
    sheet: Path | None,
    as_json: bool,
    others: Sequence[str] = (),
) -> None:
    """Run one evaluation in a process of its own and end as it ended."""
    arguments = ["--seed", str(seed), *(["--count", str(count)] if count else []), *others]
    arguments += [*(["--sheet", str(sheet)] if sheet else []), *(["--json"] if as_json else [])]
    measure_in_process(PROGRAM, preset, arguments, what)


def measure_in_process(module: str, preset: str, arguments: Sequence[str], *what: str) -> None:
    """Run a measuring program on a preset and end as it ended.

    Raises:
        NotFoundError: there is no such preset.
        UsageError: `no_worker`, this installation lacks the extra `worker`.
        FinishError: with the program's exit code.
    """
    import subprocess
    import sys

    from orchestrator.planning.presets import load_preset
    from orchestrator.runtime.running import check_computes_here
    from orchestrator.settings import get_settings

    check_computes_here()
    settings = get_settings()
    load_preset(settings.models_dir, preset)
    command = [sys.executable, "-m", module, *what, "--preset-dir", str(settings.models_dir / preset), *arguments]
    if code := subprocess.run(command, check=False).returncode:
        raise FinishError(code if code > 0 else 1)
