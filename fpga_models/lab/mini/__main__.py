"""Makes the weights of a preset of the mini world from nothing: every step of its recipe (`make weights`).

    python -m fpga_models.lab.mini --preset mini [--data var/mini] [--out fpga_models/weights/mini]

About ten hours on two cores for mini, by the sum of its steps; it was never yet run in one go. A step whose product
exists is skipped, and the long ones continue from their own checkpoints, so a stopped run is simply started again.
Delete a product to make it anew.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from fpga_models.lab.mini.recipe256 import Amount, recipe256
from fpga_models.lab.mini.steps import Stage, Step, one_by_one, run_stages

PLAN_FILES = ("plan-2.json", "plan-3.json", "plan-4.json", "plan-5.json", "plan.json")
PLANS = tuple(Path(__file__).with_name(name) for name in PLAN_FILES)
"""Of the MMF runs, each from where the one before it came to."""


def recipe(data: Path, out: Path, *, workers: int, seed: int) -> list[Step]:
    """The steps in order: world, face networks, autoencoder, detector, base and MMF in turn, thresholds, figures."""
    final = data / "decoder" / "preset"
    return [
        Step(
            module="fpga_models.lab.synthetic.dataset",
            arguments=("--out", str(data), "--seed", str(seed), "--workers", str(workers)),
            product=data / "crops" / "source.json",
        ),
        *face_networks(data, seed),
        *autoencoder(data, seed),
        *detector(data, seed),
        *generator(data, seed, workers),
        *measured(final, data, out),
    ]


def face_networks(data: Path, seed: int) -> list[Step]:
    """Recogniser, embeddings of all crops, judge, readers of traits and poses."""
    faces = data / "faces"
    return [
        face_network(data, seed, "encoder_a", 10, faces / "untaught" / "recogniser.onnx"),
        face_network(data, seed, "teach", 9, faces / "pack" / "recogniser.onnx"),
        face_network(data, seed, "embeddings", 0, data / "embeddings.npy"),
        face_network(data, seed, "encoder_b", 13, faces / "eval" / "evaluator.onnx"),
        face_network(data, seed, "traits", 6, faces / "eval" / "traits.onnx"),
        Step(
            module="fpga_models.lab.mini.faces.pose",
            arguments=("--data", str(data), "--seed", str(seed), "--out", str(faces), "--minutes", "9"),
            product=faces / "pose" / "pose.onnx",
        ),
    ]


def face_network(data: Path, seed: int, part: str, minutes: float, product: Path) -> Step:
    """One part of `fpga_models.lab.mini.faces`."""
    where = ("--data", str(data), "--seed", str(seed), "--out", str(data / "faces"))
    return Step(
        module="fpga_models.lab.mini.faces", arguments=(part, *where, "--minutes", str(minutes)), product=product
    )


def autoencoder(data: Path, seed: int) -> list[Step]:
    """The autoencoder and the latents of all scenes."""
    vae = data / "vae"
    return [
        Step(
            module="fpga_models.lab.mini.autoencoder.vae",
            arguments=("--data", str(data), "--seed", str(seed), "--out", str(vae)),
            product=vae / "report.json",
        ),
        Step(
            module="fpga_models.lab.mini.autoencoder.cache_latents",
            arguments=("--data", str(data), "--vae", str(vae), "--out", str(data / "latents")),
            product=data / "latents" / "scenes.npy",
        ),
    ]


def detector(data: Path, seed: int) -> list[Step]:
    """The face detector, on rendered scenes and on what the autoencoder makes of them."""
    decoded, pack = data / "decoded.npy", data / "faces" / "pack"
    return [
        Step(
            module="fpga_models.lab.mini.autoencoder.decoded",
            arguments=("--data", str(data), "--vae", str(data / "vae"), "--seed", str(seed), "--out", str(decoded)),
            product=decoded,
        ),
        face_network(data, seed, "detector", 38, pack / "detector.onnx"),
    ]


def generator(data: Path, seed: int, workers: int) -> list[Step]:
    """The generator in the runs that made the shipped one, each beginning from the one before.

    Everything learns together twice, then MMF with clone tuning; then both once more, now with local tokens throughout;
    then MMF on the faces that the network drafts, and once more on their eyes too; last the decoder.
    """

    def base(name: str, run_seed: int, minutes: str, *arguments: str) -> list[Step]:
        run, folder = data / f"generator{name}", data / f"base{name}"
        common = ("--data", str(data), "--out", str(run), "--seed", str(run_seed), "--minutes", minutes)
        sources = ("--run", str(run), "--vae", str(data / "vae"), "--faces", str(data / "faces"), "--out", str(folder))
        return [
            Step(module="fpga_models.lab.mini.generator", arguments=common + arguments, product=run / "finished.json"),
            Step(module="fpga_models.lab.mini.export", arguments=sources, product=folder / "weights.json"),
        ]

    def mmf(name: str, plan: Path, start: Path) -> Step:
        out = data / f"mmf{name}"
        begun = ("--plan", str(plan), "--start", str(start))
        return Step(
            module="fpga_models.mmf.train",
            arguments=(*begun, "--data", str(data), "--out", str(out)),
            product=out / "preset" / "weights.json",
        )

    again = ("--batch-size", "48", "--embedding-noise", "0.01")
    second = ("--start", str(data / "base-1"), "--rate", "2.5e-3", "--anneal", "0.5", *again)
    third = ("--start", str(data / "mmf-2" / "preset"), "--rate", "2.2e-3", "--anneal", "0.7", *again)
    local = ("--workers", "1", "--local-tokens", "8", "--shares", "0.3", "0.08", "0.06", "0.19", "0.2", "0.17")
    return [
        *base("-1", seed, "68", "--workers", str(workers)),
        *base("-2", seed + 1, "66", *second),
        mmf("-2", PLANS[0], data / "base-2"),
        *base("-3", seed + 3, "56", *third, *local),
        mmf("-3", PLANS[1], data / "base-3"),
        mmf("-4", PLANS[2], data / "mmf-3" / "preset"),
        mmf("-5", PLANS[3], data / "mmf-4" / "preset"),
        mmf("", PLANS[4], data / "mmf-5" / "preset"),
        decoder(data, seed),
    ]


def decoder(data: Path, seed: int) -> Step:
    """The decoder once more, beside a generator whose latents it gets to know."""
    out, preset = data / "decoder", data / "mmf" / "preset"
    arguments = ("--data", str(data), "--preset", str(preset), "--out", str(out), "--seed", str(seed))
    return Step(
        module="fpga_models.lab.mini.autoencoder.decoder", arguments=arguments, product=out / "preset" / "weights.json"
    )


def measured(preset: Path, data: Path, out: Path) -> list[Step]:
    """Thresholds and figures of the finished preset, and the shipped folder with both."""
    verdict, figures = data / "verdict.json", data / "figures.json"
    measurements = ("--verdict", str(verdict), "--figures", str(figures))
    return [
        Step(
            module="fpga_models.lab.measures.calibrate",
            arguments=("--preset-dir", str(preset)),
            product=verdict,
            output=verdict,
        ),
        Step(
            module="fpga_models.lab.measures.evaluate",
            arguments=("identity", "--preset-dir", str(preset), "--count", "200", "--json"),
            product=figures,
            output=figures,
        ),
        Step(
            module="fpga_models.lab.mini.ship",
            arguments=("--preset", str(preset), "--out", str(out), *measurements),
            product=None,
        ),
    ]


STAGES: dict[str, Callable[[Path, Path, int, int], list[Stage]]] = {
    "mini": lambda data, out, workers, seed: one_by_one(recipe(data, out, workers=workers, seed=seed)),
    "mini256": lambda data, out, workers, seed: recipe256(data, out, Amount(), workers=workers, seed=seed),
}


def main() -> int:
    """Command line; exit code 1 when a step fails."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=STAGES, default="mini")
    parser.add_argument("--data", type=Path, help="where everything in between is kept, else var/PRESET")
    parser.add_argument("--out", type=Path, help="else fpga_models/weights/PRESET")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    data = options.data or Path("var") / options.preset
    out = options.out or Path("fpga_models/weights") / options.preset
    try:
        run_stages(STAGES[options.preset](data, out, options.workers, options.seed))
    except subprocess.CalledProcessError as error:
        sys.stderr.write(f"{error.cmd[2]} ended with exit code {error.returncode}; start again to continue.\n")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
