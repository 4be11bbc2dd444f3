"""What each part of training contributes: the same start, steps and samples with one thing changed, measured in pairs.

    python benchmarks/ablate_training.py --data var/mini --out var/ablations --steps 120 --clone-steps 40

Trains one preset folder after another (what is finished is kept, so a stopped run is started again) and then lets all
draw the same held-out scenes. Prints JSON: for each change the paired differences with their 95 % intervals.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import cv2
import torch

from fpga_models.core.presets import SHIPPED
from fpga_models.lab.evaluations.ablations import ablate_training
from fpga_models.lab.measures.bench import Bench
from fpga_models.lab.measures.restorations import mixed_trials
from fpga_models.lab.measures.trials import GROUP_KINDS, SINGLE_KINDS
from fpga_models.metrics.contrasts import Contrast
from fpga_models.mmf.loop import Losses
from fpga_models.mmf.plan import StagePlan, TrainPlan
from fpga_models.mmf.samples.modes import ModePlan
from fpga_models.mmf.train import train

WHOLE = "alternated, C4"
LOSSES = Losses(localisation=0.01, drafted=0.2, drafts=4, eyes=1.5)


def plans(start: Path, *, steps: int, clone_steps: int, batch_size: int, seed: int) -> dict[str, TrainPlan]:
    """The complete method, then one change at a time; without clone tuning its steps go to MMF."""
    whole = TrainPlan(
        start=str(start),
        seed=seed,
        batch_size=batch_size,
        mmf=StagePlan(steps=steps, rate=8e-4, warmup=20, anneal=0.85),
        clone=StagePlan(steps=clone_steps, rate=3e-4, warmup=10, anneal=0.8),
        losses=LOSSES,
        local_tokens=8,
        save_every=1000,
        validate_every=1000,
    )
    only_mmf = replace(whole, mmf=replace(whole.mmf, steps=steps + clone_steps), clone=replace(whole.clone, steps=0))
    return {
        WHOLE: whole,
        "skeleton only": replace(whole, modes=ModePlan(shares=(0.9, 0, 0.05, 0.05))),
        "landmark only": replace(whole, modes=ModePlan(shares=(0, 0.9, 0.05, 0.05))),
        "no clone tuning": only_mmf,
        "C1": replace(whole, recipe="C1"),
        "C3": replace(whole, recipe="C3"),
        "strict order": replace(whole, modes=ModePlan(order="strict")),
        "stage-wise order": replace(whole, modes=ModePlan(order="stagewise", period=steps)),
        "no eye loss": replace(whole, losses=replace(LOSSES, eyes=0.0)),
        "no identity loss": replace(whole, losses=replace(LOSSES, drafted=0.0)),
        "identity loss on photographs, not drafts": replace(whole, losses=replace(LOSSES, drafted=0.0, identity=0.1)),
        "no localisation loss": replace(whole, losses=replace(LOSSES, localisation=0.0)),
        "C2": replace(whole, recipe="C2", clones=64),
    }


def measure(folders: Mapping[str, Path], *, seed: int, count: int) -> dict[str, dict[str, Contrast]]:
    """Paired differences of every folder to the whole method, on `count` single portraits and `count` groups."""
    bench = Bench.load(folders[WHOLE], seed=seed, count=count)
    gallery = bench.gallery(4 * count)
    singles, groups = (mixed_trials(gallery, k, count, seed, bench.side) for k in (SINGLE_KINDS, GROUP_KINDS))
    others = {name: folder for name, folder in folders.items() if name != WHOLE}
    return ablate_training(bench, gallery, others, singles, groups)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--out", type=Path, default=Path("var/ablations"))
    parser.add_argument("--start", type=Path, default=SHIPPED / "mini")
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--clone-steps", type=int, default=40)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--count", type=int, default=60, help="single portraits, and as many groups")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", help="names of changes; all by default")
    options = parser.parse_args()
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    wanted = plans(
        options.start,
        steps=options.steps,
        clone_steps=options.clone_steps,
        batch_size=options.batch_size,
        seed=options.seed,
    )
    folders = {}
    for name, plan in wanted.items():
        if options.only and name not in (WHOLE, *options.only):
            continue
        out = options.out / name.replace(" ", "-").replace(",", "")
        began = time.monotonic()
        if not (out / "preset" / "weights.json").exists():
            sys.stderr.write(f"training: {name}\n")
            train(plan, options.data, out)
            sys.stderr.write(f"  {time.monotonic() - began:.0f} s\n")
        folders[name] = out / "preset"
    json.dump(measure(folders, seed=options.seed, count=options.count), sys.stdout, indent=1)


if __name__ == "__main__":
    main()
