"""One training run from a preset folder to a preset folder: MMF, then Clone Face Tuning, then the merge.

    python -m fpga_models.mmf.train --plan plan.json --data DIR --out DIR

Knows no queue and no database: progress goes out as data, and the caller is asked after every step whether to stop. A
run that was stopped or killed continues from its newest checkpoint and ends, on a CPU and with the same number of
threads, in the same weights bit for bit.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import cv2
import torch

from fpga_models.core.weights import read_manifest
from fpga_models.errors import ModelError, PlanError
from fpga_models.mmf import checkpoint
from fpga_models.mmf.loop import Trainer
from fpga_models.mmf.merge_check import merged_difference
from fpga_models.mmf.plan import TrainPlan
from fpga_models.mmf.start import export_preset
from fpga_models.mmf.validation import face_errors, sample_sheet
from fpga_models.mmf.workbench import Stage, Workbench

ProgressKind = Literal["step", "clones", "checkpoint", "validation", "sample", "preset"]


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What happened: numbers of the last steps, or a file that is complete now.

    Attributes:
        step, steps: over both stages.
        metrics: losses, rate, samples_per_s; for `validation` own_id, no_id, wrong_id.
        path: checkpoint folder, PNG of samples, preset folder.
    """

    kind: ProgressKind
    stage: str
    step: int
    steps: int
    metrics: dict[str, float] = field(default_factory=dict)
    path: str | None = None

    def as_json(self) -> dict[str, object]:
        """The record as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended.

    Attributes:
        preset: the finished preset folder; None when the run was stopped.
        checkpoint: the newest one; None when the plan has no steps.
        stages: preset folder at the end of each stage, the last one the same as `preset`'s content.
    """

    preset: Path | None
    step: int
    finished: bool
    checkpoint: Path | None
    stages: dict[str, Path]


Report = Callable[[Progress], None]


def train(
    plan: TrainPlan, data: Path, out: Path, *, report: Report = lambda _: None, stop: Callable[[], bool] = lambda: False
) -> TrainResult:
    """Run the plan on a data folder, or continue it; everything is kept under `out`.

    Raises:
        PlanError: `out` was begun with another plan.
        DataError: the data cannot be read or is not of the preset's shape.
        WeightsError, PresetError: the start is not a sound preset.
        DivergedError: a loss is not finite; the checkpoints before it stay.
    """
    begin(plan, out)
    bench = Workbench.open(plan, data, out)
    stages: dict[str, Path] = {}
    for stage in bench.stages():
        trainer = bench.trainer(stage)
        if trainer is not None:
            finished = run_stage(bench, trainer, stage, report, stop)
            if not finished:
                return TrainResult(
                    preset=None, step=trainer.step, finished=False, checkpoint=checkpoint.latest(out), stages=stages
                )
            trainer.adopt_ema()
            export_stage(bench, stage, trainer)
            report(_progress("preset", bench, stage, trainer.step, path=bench.preset_of(stage)))
        stages[stage.name] = bench.preset_of(stage)
    preset = out / "preset"
    difference = merged_difference(bench.trainee, bench.pipeline.schedule, bench.held_out)
    export_preset(bench.trainee, Path(plan.start), preset, made(bench) | {"merged_difference": difference})
    bench.save_modal(out / "modal.safetensors")
    return TrainResult(preset=preset, step=plan.steps, finished=True, checkpoint=checkpoint.latest(out), stages=stages)


def run_stage(bench: Workbench, trainer: Trainer, stage: Stage, report: Report, stop: Callable[[], bool]) -> bool:
    """Train to the last step of a stage; False when the caller wanted to stop before."""
    plan, steps = bench.plan, defaultdict[str, float](float)
    draw = bench.sampler(trainer, stage, lambda n: report(_progress("clones", bench, stage, trainer.step, {"kept": n})))
    since, counted = time.monotonic(), 0
    while trainer.step < stage.last:
        rng = trainer.rng()
        rate = stage.plan.learning_rate_at(trainer.step - stage.first)
        for name, value in trainer.train_step(draw(trainer.step, rng), rng, rate).items():
            steps[name] += value
        counted += 1
        ended = trainer.step == stage.last
        if trainer.step % plan.report_every == 0 or ended:
            seconds = time.monotonic() - since
            means = {name: value / counted for name, value in steps.items()}
            speed = {"rate": rate, "samples_per_s": round(counted * plan.batch_size / seconds, 1)}
            report(_progress("step", bench, stage, trainer.step, means | speed))
            steps.clear()
            since, counted = time.monotonic(), 0
        stopping = not ended and stop()
        if trainer.step % plan.save_every == 0 or ended or stopping:
            folder = trainer.save(bench.out, {"stage": stage.name})
            checkpoint.prune(bench.out, keep=plan.keep)
            report(_progress("checkpoint", bench, stage, trainer.step, path=folder))
        if trainer.step % plan.validate_every == 0 or ended:
            validate(bench, trainer, stage, report)
        if stopping:
            return False
    return True


def validate(bench: Workbench, trainer: Trainer, stage: Stage, report: Report) -> None:
    """Report the errors of the moving average on held-out scenes, and a sheet of pictures."""
    with trainer.with_ema() as trainee:
        errors = face_errors(trainee, trainer.schedule, bench.held_out, trainer.config.bfloat16)
        report(_progress("validation", bench, stage, trainer.step, errors))
        few = bench.held_out.rows(torch.arange(min(8, len(bench.held_out))))
        sheet = sample_sheet(trainee, trainer.schedule, bench.pipeline.vae, few)
    path = bench.out / "samples" / f"{trainer.step:06d}.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR))
    report(_progress("sample", bench, stage, trainer.step, path=path))


def export_stage(bench: Workbench, stage: Stage, trainer: Trainer) -> None:
    """Write the preset as it is at the end of a stage."""
    export_preset(bench.trainee, Path(bench.plan.start), bench.preset_of(stage), made(bench) | {"steps": trainer.step})


def made(bench: Workbench) -> dict[str, Any]:
    """How the weights came about, for their manifest."""
    manifest = read_manifest(Path(bench.plan.start))
    start = {"model_sha256": manifest["model_sha256"], "made": manifest.get("made", {})}
    plan = bench.plan.as_json() | {"start": manifest["model_sha256"]}
    facts = {"command": "python -m fpga_models.mmf.train", "plan": plan, "steps": bench.plan.steps, "start": start}
    return facts | {"data": dict(bench.source)}


def begin(plan: TrainPlan, out: Path) -> None:
    """Note the plan in `out`, or check that it is the one noted there; device and place of the start may be others.

    Raises:
        PlanError: another plan was begun here.
    """
    out.mkdir(parents=True, exist_ok=True)
    path = out / "plan.json"
    facts = json.loads(json.dumps(plan.as_json())) | {"start": read_manifest(Path(plan.start))["model_sha256"]}
    if path.exists():
        noted = json.loads(path.read_text())
        other = sorted(key for key in facts if key != "device" and noted.get(key) != facts[key])
        if other:
            raise PlanError(f"{out} was begun with another plan: {other[0]} was {noted.get(other[0])!r} there.")
    path.write_text(json.dumps(facts, indent=1) + "\n")


def _progress(
    kind: ProgressKind,
    bench: Workbench,
    stage: Stage,
    step: int,
    metrics: dict[str, float] | None = None,
    path: Path | None = None,
) -> Progress:
    return Progress(
        kind=kind,
        stage=stage.name,
        step=step,
        steps=bench.plan.steps,
        metrics=metrics or {},
        path=str(path) if path else None,
    )


def main() -> int:
    """Command line: progress as JSON lines on stdout; exit code 1 with a sentence for a bad plan, data or weights."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plan", type=Path, required=True, help="JSON with the fields of TrainPlan")
    parser.add_argument("--start", help="preset folder to begin from, in place of the plan's")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)

    def report(progress: Progress) -> None:
        line = json.dumps(progress.as_json())
        with (options.out / "metrics.jsonl").open("a") as log:
            log.write(line + "\n")
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

    try:
        facts = json.loads(options.plan.read_text()) | ({"start": options.start} if options.start else {})
        train(TrainPlan.from_json(facts), options.data, options.out, report=report)
    except (ModelError, OSError, json.JSONDecodeError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
