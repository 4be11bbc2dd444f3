"""One page of everything measured: figures beside targets, plots and pictures in a single HTML file.

    python -m fpga_models.lab.measures.page --preset-dir DIR --seed 7 --out var/evaluation --html docs/evaluation.html

Runs every evaluation that `--out` does not hold yet for these weights, seed and count, each saved as soon as it is
done, so a stopped run goes on where it was. `--scale 0.1` takes a tenth of the scenes.
"""

import argparse
import base64
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from fpga_models.core import weights
from fpga_models.errors import ModelError
from fpga_models.lab.measures.evaluate import COUNTS, bars, begin, measure, named_folders
from fpga_models.lab.measures.plots import Bar
from fpga_models.lab.measures.plots import bars as plot
from fpga_models.lab.measures.sheet import write_picture
from fpga_models.lab.measures.targets import compare

SHEET_WIDTH = 900

Figures = Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class Part:
    """One evaluation of the page, under a name of its own."""

    name: str
    what: str
    count: int
    options: Mapping[str, Any]


def parts(scale: float, options: argparse.Namespace) -> list[Part]:
    """Everything that is measured, in the order of the page."""

    def part(name: str, what: str, **extra: Any) -> Part:
        given = {key: value for key, value in extra.items() if value}
        return Part(name=name, what=what, count=max(round(scale * COUNTS[what]), 1), options=given)

    return [
        part("identity", "identity"),
        part("restore", "restore"),
        part("restore-generated", "restore", source="generated"),
        part("swap", "swap"),
        part("stylized", "stylized"),
        part("control", "control", modal=options.modal, base=options.base),
        part("ablate", "ablate", against=named_folders(options.against or [])),
    ]


def is_done(file: Path, part: Part, seed: int, model_sha256: str) -> bool:
    """Whether this file holds the part for these weights and options."""
    if not file.is_file():
        return False
    kept = json.loads(file.read_text())
    wanted = {"seed": seed, "count": part.count, "model_sha256": model_sha256, "options": written(part.options)}
    return all(kept[name] == value for name, value in wanted.items())


def written(options: Mapping[str, Any]) -> dict[str, str]:
    """Options as they are kept beside the figures."""
    return {name: str(value) for name, value in options.items()}


def run(options: argparse.Namespace) -> None:
    """Measure what is missing, one file of figures and one of pictures each."""
    model = weights.read_manifest(options.preset_dir)["model_sha256"]
    options.out.mkdir(parents=True, exist_ok=True)
    for part in parts(options.scale, options):
        file = options.out / f"{part.name}.json"
        if is_done(file, part, options.seed, model):
            continue
        with bars() as progress:
            progress.console.print(f"{part.name}, {part.count} scenes")
            figures, pictures, _ = measure(
                part.what,
                options.preset_dir,
                seed=options.seed,
                count=part.count,
                track=partial(begin, progress),
                threads=options.threads,
                device=options.device,
                **part.options,
            )
        write_picture(file.with_suffix(".jpg"), pictures)
        figures["options"] = written(part.options)
        file.write_text(json.dumps(figures, indent=1, allow_nan=False) + "\n")


def plots(reports: Mapping[str, Figures]) -> Iterator[tuple[str, str, Markup]]:
    """Plots as (part, title, SVG)."""
    if one := reports.get("identity"):
        yield from _identity_plots(one)
    for name in ("restore", "restore-generated"):
        if name in reports:
            bins = reports[name]["won_back"]["by_bin"]
            rows = [
                Bar(label=f"{size} px ({part['count']})", value=part["share"], interval=part["ci95"])
                for size, part in bins.items()
            ]
            yield name, "Share of the lost likeness won back, by face size", Markup(plot(rows, unit="share"))
    if one := reports.get("swap"):
        rows = [
            Bar(label=f"{size} px", value=part["swapped"], marks={"real": part["real"]})
            for size, part in one["by_bin"].items()
        ]
        yield "swap", "The new person is the nearest of 500, by face size; mark: real faces", Markup(plot(rows))
    if one := reports.get("stylized"):
        rows = [
            Bar(label=f"{style}, {when}", value=part[when], marks={"undamaged": part["ceiling"]})
            for style, part in one["styles"].items()
            for when in ("before", "after")
        ]
        yield "stylized", "Likeness to the photograph; mark: undamaged in this style", Markup(plot(rows))
    if one := reports.get("control"):
        variants = one["modes"] | ({"branch": one["branch"]} if one["branch"] else {})
        variants |= {f"strength {share}": part for share, part in (one["strength"] or {}).items()}
        rows = [Bar(label=name, value=part["landmark_error"], interval=part["ci95"]) for name, part in variants.items()]
        yield "control", "Landmark error by control; less is better", Markup(plot(rows, unit="eye distances"))


def _identity_plots(one: Figures) -> Iterator[tuple[str, str, Markup]]:
    rows = [
        Bar(label=f"{size} px", value=p["mean"], interval=p["ci95"], marks={"floor": p["floor"], "real": p["ceiling"]})
        for size, p in one["by_size"].items()
    ]
    yield (
        "identity",
        "Face similarity by face size; marks: strangers and real renders",
        Markup(plot(rows, unit="cosine")),
    )
    rows = [
        Bar(label=f"{people} people, {name}", value=group[name]["accuracy"], interval=group[name]["ci95"])
        for people, group in one["assignment"].items()
        for name in ("masked", "unmasked", "real")
    ]
    yield "identity", "Everybody in their own place, with masks, without, and in real renders", Markup(plot(rows))
    if read := one["legibility"]:
        rows = [
            Bar(label=name, value=p["generated"], marks={"most frequent answer": p["floor"], "real": p["real"]})
            for name, p in read["traits"].items()
        ]
        title = f"Traits read rightly off {read['faces']} faces over 48 px; marks: guessing and real renders"
        yield "identity", title, Markup(plot(rows))
    rows = [
        Bar(label=f"{part}, {size} px", value=p[part])
        for part in ("face", "eyes")
        for size, p in one["sharpness"]["by_size"].items()
    ]
    rows += [
        Bar(label=f"{part}, autoencoder alone", value=one["sharpness"]["autoencoder"][part])
        for part in ("face", "eyes")
    ]
    yield "identity", "Gradient energy over that of real renders", Markup(plot(rows, unit="share"))


def page(folder: Path) -> str:
    """The page of all reports in a folder."""
    reports = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    environment = Environment(
        loader=PackageLoader("fpga_models.lab.measures"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    drawn: dict[str, list[tuple[str, Markup]]] = {}
    for part, title, svg in plots(reports):
        drawn.setdefault(part, []).append((title, svg))
    pictures = {
        file.stem: base64.b64encode(_small(file)).decode()
        for file in sorted(folder.glob("*.jpg"))
        if file.stem in reports
    }
    return environment.get_template("evaluation.html").render(
        reports=reports, targets=list(compare(reports)), plots=drawn, pictures=pictures
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 1 where the preset cannot be measured."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset-dir", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help=f"share of {COUNTS} scenes")
    parser.add_argument("--out", type=Path, default=Path("var/evaluation"), help="where figures and pictures are kept")
    parser.add_argument("--html", type=Path, default=Path("docs/evaluation.html"))
    parser.add_argument(
        "--against", action="append", metavar="[NAME=]DIR", help="another preset folder to compare with"
    )
    parser.add_argument("--modal", type=Path, help="modal weights that were merged into the preset")
    parser.add_argument("--base", type=Path, help="folder of the UNet they were merged into")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    try:
        run(options)
    except ModelError as error:
        sys.stderr.write(f"{error.code}: {error}\n")
        return 1
    options.html.write_text(page(options.out))
    sys.stderr.write(f"written: {options.html}\n")
    return 0


def _small(file: Path) -> bytes:
    """A sheet as the page shows it: at most 900 px wide, so that the page can be kept in the repository."""
    picture = cv2.imdecode(np.frombuffer(file.read_bytes(), np.uint8), cv2.IMREAD_COLOR)
    assert picture is not None, "the page wrote this picture itself"
    scale = min(1.0, SHEET_WIDTH / picture.shape[1])
    smaller = cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)
    return bytes(cv2.imencode(".jpg", smaller, [cv2.IMWRITE_JPEG_QUALITY, 72])[1])


if __name__ == "__main__":
    raise SystemExit(main())
