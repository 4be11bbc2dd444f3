"""Measures what the parts of the method cost, as ratios of times taken in turns within one run.

    python -m fpga_models.lab.speed --preset-dir DIR --rounds 20 --json

Ratios survive a busy or throttled machine where times do not: both sides of each are run in turns, and a null test runs
one side against itself; if that is off by more than 3 %, the run is void and says so. Latency does not depend on weight
values, so a network may be of random weights. On a CUDA device times are taken after synchronisation.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from fpga_models.core.multi_id_attention import IdentityCondition
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.diir import RESTORE
from fpga_models.diir.edit import CropEdit, edit_crops
from fpga_models.errors import ModelError
from fpga_models.lab.random_networks import BASES, random_pipeline

Work = Callable[[], object]
LEAST_SECONDS = 0.05
"""One sample takes at least so long; shorter work is repeated within it."""
NULL_TOLERANCE = 0.03
GOALS = {
    "merged_over_plain": ("<=", 1.01),
    "unmerged_over_merged": (">=", 1.30),
    "four_identities_over_none": ("<=", 1.10),
    "diir_one_face_over_full_image": ("<=", 0.30),
}
"""Goals on a CPU, performance.md P1, P2 and P6."""
TOKENS = 16
"""Length of a prompt in the measured step, beside the identities' own tokens."""


class CounterError(ModelError):
    """A measured rate lies above what the device can do, so one of the counters is wrong."""

    code = "counter_wrong"


@dataclass(frozen=True, kw_only=True)
class Ratio:
    """Median and 10-90 % range of time(above) / time(below) over the rounds, and the median times in milliseconds."""

    median: float
    p10: float
    p90: float
    above_ms: float
    below_ms: float
    rounds: int


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is compared: the time of `above` over that of `below`."""

    name: str
    above: Work
    below: Work


def in_turns(above: Work, below: Work, *, rounds: int, device: torch.device) -> Ratio:
    """Time both sides in turns, the first of each round changing, after one warm-up of each."""
    for work in (above, below):
        _seconds(work, 1, device)
    repeats = max(1, round(LEAST_SECONDS / max(_seconds(below, 1, device), 1e-6)))
    pairs = []
    for number in range(rounds):
        sides = [above, below] if number % 2 == 0 else [below, above]
        taken = [_seconds(work, repeats, device) / repeats for work in sides]
        pairs.append(taken if number % 2 == 0 else taken[::-1])
    times = np.asarray(pairs)
    ratios = times[:, 0] / times[:, 1]
    low, middle, high = np.percentile(ratios, [10, 50, 90])
    above_ms, below_ms = np.median(times, axis=0) * 1000
    return Ratio(
        median=round(float(middle), 4),
        p10=round(float(low), 4),
        p90=round(float(high), 4),
        above_ms=round(float(above_ms), 3),
        below_ms=round(float(below_ms), 3),
        rounds=rounds,
    )


def _seconds(work: Work, repeats: int, device: torch.device) -> float:
    _wait(device)
    began = time.perf_counter()
    for _ in range(repeats):
        work()
    _wait(device)
    return time.perf_counter() - began


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@torch.inference_mode()
def pairs(pipeline: PortraitPipeline) -> list[Pair]:
    """Everything that is compared, for the networks of one pipeline; the null test first."""
    plain = copy.deepcopy(pipeline.denoiser).release()
    merged_of = RepControlNet(copy.deepcopy(plain))
    merged_of.merge()
    branch_of = RepControlNet(copy.deepcopy(plain))
    branch_of.inject()
    step, merged, branch = (_step(unet, pipeline) for unet in (plain, merged_of.unet, branch_of.unet))
    nobody = _identities(pipeline, 0)
    found = [
        Pair(name="null", above=step, below=step),
        Pair(name="merged_over_plain", above=merged, below=step),
        Pair(name="unmerged_over_merged", above=branch, below=merged),
    ]
    for count, word in ((1, "one_identity"), (2, "two_identities"), (4, "four_identities")):
        found.append(Pair(name=f"{word}_over_none", above=_identities(pipeline, count), below=nobody))
    side = min(pipeline.preset.sizes[0])
    found.append(
        Pair(name="diir_one_face_over_full_image", above=_restoration(pipeline, side), below=_image(pipeline, 2 * side))
    )
    eight = _step(plain, pipeline, batch=8)
    found.append(Pair(name="eight_singles_over_batch_of_eight", above=lambda: [step() for _ in range(8)], below=eight))
    return found


def _step(unet: UNet2DConditionModel, pipeline: PortraitPipeline, batch: int = 1) -> Work:
    """One forward of a stock UNet."""
    latents, text = _inputs(pipeline, batch)
    more = _more(pipeline, batch)
    at = torch.full((batch,), 500, device=pipeline.device)

    @torch.inference_mode()
    def work() -> Tensor:
        output: Tensor = unet(latents, at, encoder_hidden_states=text, return_dict=False, **more)[0]
        return output

    return work


def _identities(pipeline: PortraitPipeline, count: int) -> Work:
    """One forward of the product's UNet with so many identities, their keys and values cached as in a run."""
    latents, text = _inputs(pipeline, 1)
    more = _more(pipeline, 1)
    at = torch.full((1,), 500, device=pipeline.device)
    identity = _condition(pipeline, count) if count else None

    @torch.inference_mode()
    def work() -> Tensor:
        output: Tensor = pipeline.denoiser.unet(
            latents,
            at,
            encoder_hidden_states=text,
            cross_attention_kwargs={"identity": identity},
            return_dict=False,
            **more,
        )[0]
        return output

    return work


@torch.inference_mode()
def _condition(pipeline: PortraitPipeline, count: int) -> IdentityCondition:
    """People side by side in equal stripes of the picture."""
    adapter = pipeline.denoiser.id_adapter
    embeddings = torch.nn.functional.normalize(torch.randn(1, count, adapter.config.embedding_dim), dim=-1)
    cells = min(pipeline.preset.sizes[0]) // pipeline.preset.latent_factor
    masks = torch.zeros(1, count, cells, cells)
    for place, columns in enumerate(np.array_split(np.arange(cells), count)):
        masks[0, place, :, columns] = 1
    embeddings, masks, scales = (
        values.to(pipeline.device, pipeline.dtype) for values in (embeddings, masks, torch.ones(1, count))
    )
    return IdentityCondition(tokens=adapter.image_proj(embeddings), masks=masks, scales=scales)


def _restoration(pipeline: PortraitPipeline, side: int) -> Work:
    """DIIR of one face in a crop of the preset's size: inversion and guided steps back, as it is shipped."""
    grey = np.full((side, side, 3), 127, np.uint8)
    width = pipeline.denoiser.id_adapter.config.embedding_dim
    embedding = np.zeros(width, np.float32)
    embedding[0] = 1
    middle = np.array([[0.42, 0.42], [0.58, 0.42], [0.5, 0.5], [0.44, 0.6], [0.56, 0.6]], np.float32) * side
    mask = np.zeros((side, side), np.float32)
    mask[side // 4 : -side // 4, side // 4 : -side // 4] = 1
    crop = CropEdit(pixels=grey, kps5=middle, mask=mask, embedding=embedding, current=embedding, seed=0)
    return lambda: edit_crops(pipeline, [crop], RESTORE, t_star=RESTORE.t_star, on_step=lambda: None)


def _image(pipeline: PortraitPipeline, side: int) -> Work:
    """A guided picture of this side with as many steps as the preset's default, decoded: twice the crop."""
    cells = side // pipeline.preset.latent_factor
    latents = torch.randn(2, pipeline.denoiser.unet.config.in_channels, cells, cells)
    latents = latents.to(pipeline.device, pipeline.dtype)
    _, text = _inputs(pipeline, 2)
    more = _more(pipeline, 2)
    at = torch.full((2,), 500, device=pipeline.device)
    steps = int(pipeline.preset.defaults["steps"])

    @torch.inference_mode()
    def work() -> object:
        for _ in range(steps):
            pipeline.denoiser.unet(latents, at, encoder_hidden_states=text, return_dict=False, **more)
        return pipeline.decode(latents[:1].float())

    return work


def _inputs(pipeline: PortraitPipeline, batch: int) -> tuple[Tensor, Tensor]:
    """Latents of the preset's size and text states, the same in every call."""
    cells = min(pipeline.preset.sizes[0]) // pipeline.preset.latent_factor
    config = pipeline.denoiser.unet.config
    dice = torch.Generator().manual_seed(0)
    latents = torch.randn(batch, config.in_channels, cells, cells, generator=dice)
    text = torch.randn(batch, TOKENS, config.cross_attention_dim, generator=dice)
    return latents.to(pipeline.device, pipeline.dtype), text.to(pipeline.device, pipeline.dtype)


def _more(pipeline: PortraitPipeline, batch: int) -> dict[str, Any]:
    """What bases of the SDXL class read besides, as arguments of the UNet."""
    if pipeline.second_encoder is None:
        return {}
    width = pipeline.second_encoder.encoder.config.projection_dim
    pooled, sizes = (torch.zeros(batch, n, device=pipeline.device, dtype=pipeline.dtype) for n in (width, 6))
    return {"added_cond_kwargs": {"text_embeds": pooled, "time_ids": sizes}}


def share_of_floor(flops: float, seconds: float, peak: float) -> float:
    """How much of the device's peak (floating point operations per second) the work reached, in percent.

    Raises:
        CounterError: above 100 %.
    """
    share = 100 * flops / seconds / peak
    if share > 100:
        raise CounterError(f"{share:.0f} % of the device's peak was got, at most 100 % is possible.")
    return share


def peak_rate(device: torch.device, dtype: torch.dtype, side: int = 1024) -> float:
    """Operations per second that a large matrix product reaches here: the best of ten."""
    one, other = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(_seconds(lambda: one @ other, 1, device) for _ in range(10))
    return 2 * side**3 / best


def measure(pipeline: PortraitPipeline, *, rounds: int, only: Sequence[str] = (), console: Console) -> dict[str, Any]:
    """Run the comparisons and return the report as plain JSON."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    chosen = [pair for pair in pairs(pipeline) if not only or pair.name in ("null", *only)]
    ratios: dict[str, Ratio] = {}
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("comparisons", total=len(chosen))
        for pair in chosen:
            progress.update(task, description=pair.name)
            ratios[pair.name] = in_turns(pair.above, pair.below, rounds=rounds, device=pipeline.device)
            progress.advance(task)
    null = ratios.pop("null")
    return {
        "object": "bench.model",
        "preset": pipeline.preset.name,
        "model_sha256": pipeline.model_sha256,
        "device": torch.cuda.get_device_name(pipeline.device) if pipeline.device.type == "cuda" else "cpu",
        "dtype": str(pipeline.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "null": asdict(null),
        "void": abs(null.median - 1) > NULL_TOLERANCE,
        "ratios": {name: asdict(ratio) for name, ratio in ratios.items()},
        "goals": {name: f"{sign} {value}" for name, (sign, value) in GOALS.items()},
        "step": _step_facts(pipeline, null.below_ms / 1000),
    }


@torch.inference_mode()
def _step_facts(pipeline: PortraitPipeline, seconds: float) -> dict[str, float]:
    """What one plain step is: operations, and the share of the measured peak that they reach."""
    latents, text = _inputs(pipeline, 1)
    more = _more(pipeline, 1)
    at = torch.full((1,), 500, device=pipeline.device)
    with FlopCounterMode(display=False) as counter:
        pipeline.denoiser.unet(latents, at, encoder_hidden_states=text, return_dict=False, **more)
    flops, peak = float(counter.get_total_flops()), peak_rate(pipeline.device, pipeline.dtype)
    return {
        "gflop": round(flops / 1e9, 3),
        "milliseconds": round(seconds * 1000, 3),
        "peak_gflop_per_s": round(peak / 1e9, 1),
        "percent_of_floor": round(share_of_floor(flops, seconds, peak), 1),
    }


def render(report: dict[str, Any]) -> Table:
    """The report as a table for people."""
    state = "VOID: the null test is off" if report["void"] else f"null test {report['null']['median']:.3f}"
    table = Table(title=f"{report['preset']}, {report['device']}, {report['threads']} threads; {state}")
    for name in ("comparison", "median", "10-90 %", "goal", "ms", "ms of the other"):
        table.add_column(name, justify="left" if name == "comparison" else "right")
    for name, r in report["ratios"].items():
        row = (f"{r['median']:.3f}", f"{r['p10']:.3f}-{r['p90']:.3f}", report["goals"].get(name, ""))
        table.add_row(name, *row, f"{r['above_ms']:.2f}", f"{r['below_ms']:.2f}")
    return table


def _open(preset: Path | None, base: str | None, device: str) -> PortraitPipeline:
    if preset:
        return PortraitPipeline.from_pretrained(preset, device=device)
    return random_pipeline(BASES[str(base)], dtype=torch.bfloat16, device=device)


def main(arguments: Sequence[str] | None = None) -> int:
    """Command line; exit code 1 when the run is void."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--preset-dir", type=Path)
    source.add_argument("--random", choices=sorted(BASES), help="a published base at full size, with random weights")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", nargs="*", default=(), help="names of comparisons; the null test always runs")
    parser.add_argument("--json", action="store_true", dest="as_json")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    console = Console(stderr=True)
    try:
        pipeline = _open(options.preset_dir, options.random, options.device)
        report = measure(pipeline, rounds=options.rounds, only=options.only, console=console)
    except ModelError as error:
        console.print(f"error: {error}", style="red")
        return 1
    if options.as_json:
        sys.stdout.write(json.dumps(report, indent=1) + "\n")
    else:
        Console().print(render(report))
    return int(report["void"])


if __name__ == "__main__":
    raise SystemExit(main())
