"""Makes the weights of the mini preset from nothing: every step of the recipe in order (`make weights`).

    python -m fpga_models.mini --data var/mini --out fpga_models/weights/mini

About three hours on two cores. A step whose product exists is skipped, and the long ones continue from their own
checkpoints, so a stopped run is simply started again. Delete a product to make it anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Step:
    """One command; done when `product` exists, always run without one. `output` takes what the command prints."""

    module: str
    arguments: tuple[str, ...]
    product: Path | None
    output: Path | None = None


def recipe(data: Path, out: Path, *, minutes: float, workers: int, seed: int) -> list[Step]:
    """The steps in order; `minutes` is the generator's training time."""
    faces, vae, run, draft = data / "faces", data / "vae", data / "generator", data / "draft"
    verdict, figures = data / "verdict.json", data / "figures.json"
    common = ("--data", str(data), "--seed", str(seed))

    def train_faces(part: str, length: float, product: Path) -> Step:
        arguments = (part, *common, "--out", str(faces), "--minutes", str(length))
        return Step(module="fpga_models.mini.faces", arguments=arguments, product=product)

    def export(folder: Path, product: Path | None, *extra: str) -> Step:
        sources = ("--run", str(run), "--vae", str(vae), "--faces", str(faces), "--out", str(folder))
        return Step(module="fpga_models.mini.export", arguments=(*sources, *extra), product=product)

    return [
        Step(
            module="fpga_models.synthetic.dataset",
            arguments=("--out", str(data), "--seed", str(seed), "--workers", str(workers)),
            product=data / "crops_test" / "crops.npy",
        ),
        train_faces("encoder_a", 10, faces / "pack" / "recogniser.onnx"),
        train_faces("embeddings", 0, data / "embeddings.npy"),
        train_faces("detector", 10, faces / "pack" / "detector.onnx"),
        train_faces("encoder_b", 13, faces / "eval" / "evaluator.onnx"),
        train_faces("traits", 6, faces / "eval" / "traits.onnx"),
        Step(
            module="fpga_models.mini.faces.pose",
            arguments=(*common, "--out", str(faces), "--minutes", "9"),
            product=faces / "pose" / "pose.onnx",
        ),
        Step(module="fpga_models.mini.vae", arguments=(*common, "--out", str(vae)), product=vae / "report.json"),
        Step(
            module="fpga_models.mini.cache_latents",
            arguments=("--data", str(data), "--vae", str(vae), "--out", str(data / "latents")),
            product=data / "latents" / "scenes.npy",
        ),
        Step(
            module="fpga_models.mini.generator",
            arguments=(*common, "--out", str(run), "--minutes", str(minutes), "--workers", str(workers)),
            product=run / "finished.json",
        ),
        export(draft, draft / "weights.json"),
        Step(
            module="fpga_models.metrics.calibrate",
            arguments=("--preset-dir", str(draft)),
            product=verdict,
            output=verdict,
        ),
        Step(
            module="fpga_models.metrics.evaluate",
            arguments=("identity", "--preset-dir", str(draft), "--count", "200", "--json"),
            product=figures,
            output=figures,
        ),
        export(out, None, "--verdict", str(verdict), "--figures", str(figures)),
    ]


def run_step(step: Step) -> None:
    """Run one step in a process of its own; its output file appears only when it succeeded."""
    command = [sys.executable, "-m", step.module, *step.arguments]
    if step.output is None:
        subprocess.run(command, check=True)
        return
    finished = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    step.output.write_text(finished.stdout)


def main() -> int:
    """Command line; exit code 1 when a step fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"), help="where everything in between is kept")
    parser.add_argument("--out", type=Path, default=Path("fpga_models/weights/mini"))
    parser.add_argument("--minutes", type=float, default=70.0, help="training time of the generator")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    steps = recipe(options.data, options.out, minutes=options.minutes, workers=options.workers, seed=options.seed)
    for number, step in enumerate(steps, start=1):
        title = f"[{number}/{len(steps)}] {step.module} {' '.join(step.arguments)}\n"
        if step.product and step.product.exists():
            sys.stderr.write(f"done {title}")
            continue
        sys.stderr.write(title)
        try:
            run_step(step)
        except subprocess.CalledProcessError as error:
            sys.stderr.write(f"{step.module} ended with exit code {error.returncode}; start again to continue.\n")
            return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
