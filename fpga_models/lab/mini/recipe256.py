"""The recipe of mini256: 256 pixels, a wider generator, drawn in four steps; figures are in docs/experiments.md."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from fpga_models.lab.mini.steps import Stage, Step, one_by_one

NAME, SIDE = "mini256", 256
PLAN = Path(__file__).with_name("plan-256.json")
PACKAGE = "fpga_models.lab.mini"


@dataclass(frozen=True, kw_only=True)
class Amount:
    """How much of everything: the whole run, or a short one that only shows that every step fits the next.

    Attributes:
        minutes: of one core for recogniser, traits taught to it, judge, trait reader, poses, detector.
        batch: of the generator in each process, and of the distillation.
        plan: of MMF and clone tuning.
        people, count: measured at the end.
    """

    scenes: int = 28_000
    test_scenes: int = 600
    trained_people: int = 8_000
    test_people: int = 500
    crops: int = 6
    minutes: tuple[float, float, float, float, float, float] = (10, 9, 13, 6, 9, 38)
    autoencoder: int = 8_000
    decoded: int = 8_000
    generator: int = 9_000
    batch: int = 64
    plan: Path = PLAN
    distilled: int = 1_600
    decoder: int = 3_600
    people: int = 200


def recipe256(data: Path, out: Path, amount: Amount, *, workers: int, seed: int) -> list[Stage]:
    """Scenes; autoencoder beside crops and face networks; generator; detector; MMF; four steps; decoder; figures."""
    return [
        *one_by_one([_world(data, amount, workers, seed, "scenes")]),
        [
            _autoencoder(data, amount, seed),
            [_world(data, amount, 1, seed, "crops"), *_face_networks(data, amount, seed)],
        ],
        *one_by_one(
            [
                *_generator(data, amount, workers, seed),
                *_detector(data, amount, seed),
                *_preset(data, amount, seed),
                *_measured(data / "finished" / "preset", data, out, amount),
            ]
        ),
    ]


def _step(module: str, product: Path | None, *arguments: object, output: Path | None = None) -> Step:
    return Step(module=module, arguments=tuple(map(str, arguments)), product=product, output=output)


def _world(data: Path, amount: Amount, workers: int, seed: int, part: str) -> Step:
    many = ("--count", amount.scenes, "--test-count", amount.test_scenes, "--crops-per-identity", amount.crops)
    who = ("--side", SIDE, "--people", amount.trained_people, "--test-people", amount.test_people)
    where = ("--out", data, "--seed", seed, "--workers", workers)
    folder = data if part == "scenes" else data / part
    return _step("fpga_models.lab.synthetic.dataset", folder / "source.json", "--part", part, *where, *many, *who)


def _autoencoder(data: Path, amount: Amount, seed: int) -> list[Step]:
    vae = data / "vae"
    common = ("--preset", NAME, "--data", data, "--seed", seed, "--out", vae)
    latents = ("--data", data, "--vae", vae, "--out", data / "latents")
    return [
        _step(f"{PACKAGE}.autoencoder.vae", vae / "report.json", *common, "--steps", amount.autoencoder),
        _step(f"{PACKAGE}.autoencoder.cache_latents", data / "latents" / "scenes.npy", *latents),
    ]


def _face_networks(data: Path, amount: Amount, seed: int) -> list[Step]:
    """Recogniser and the embeddings of all crops first, for the generator; then judge and readers."""
    faces, (recogniser, taught, judge, traits, pose, _) = data / "faces", amount.minutes
    where = ("--data", data, "--seed", seed, "--out", faces)
    return [
        _face_network(data, seed, "encoder_a", recogniser, faces / "untaught" / "recogniser.onnx"),
        _face_network(data, seed, "teach", taught, faces / "pack" / "recogniser.onnx"),
        _face_network(data, seed, "embeddings", 0, data / "embeddings.npy"),
        _face_network(data, seed, "encoder_b", judge, faces / "eval" / "evaluator.onnx"),
        _face_network(data, seed, "traits", traits, faces / "eval" / "traits.onnx"),
        _step(f"{PACKAGE}.faces.pose", faces / "pose" / "pose.onnx", *where, "--minutes", pose),
    ]


def _face_network(data: Path, seed: int, part: str, minutes: float, product: Path) -> Step:
    where = ("--data", data, "--seed", seed, "--out", data / "faces")
    return _step(f"{PACKAGE}.faces", product, part, *where, "--minutes", minutes)


def _generator(data: Path, amount: Amount, workers: int, seed: int) -> list[Step]:
    run = data / "generator"
    length = ("--steps", amount.generator, "--batch-size", amount.batch, "--workers", workers)
    arguments = ("--preset", NAME, "--data", data, "--out", run, "--seed", seed, *length)
    return [_step(f"{PACKAGE}.generator", run / "finished.json", *arguments)]


def _detector(data: Path, amount: Amount, seed: int) -> list[Step]:
    decoded, vae = data / "decoded.npy", data / "vae"
    arguments = ("--data", data, "--vae", vae, "--seed", seed, "--out", decoded, "--count", amount.decoded)
    return [
        _step(f"{PACKAGE}.autoencoder.decoded", decoded, *arguments),
        _face_network(data, seed, "detector", amount.minutes[-1], data / "faces" / "pack" / "detector.onnx"),
    ]


def _preset(data: Path, amount: Amount, seed: int) -> list[Step]:
    """The base as a preset folder, MMF and clone tuning on it, four steps, and the decoder beside all that."""
    base, mmf, few, finished = (data / name for name in ("base", "mmf", "distilled", "finished"))
    sources = ("--run", data / "generator", "--vae", data / "vae", "--faces", data / "faces", "--data", data)
    plan = ("--plan", amount.plan, "--start", base, "--data", data, "--out", mmf)
    student = ("--data", data, "--preset", mmf / "preset", "--out", few, "--batch", min(48, amount.batch))
    sharper = ("--data", data, "--preset", few / "preset", "--out", finished, "--steps", amount.decoder)
    return [
        _step(f"{PACKAGE}.export", base / "weights.json", *sources, "--out", base),
        _step("fpga_models.mmf.train", mmf / "preset" / "weights.json", *plan),
        _step(
            f"{PACKAGE}.distil", few / "preset" / "weights.json", *student, "--seed", seed, "--steps", amount.distilled
        ),
        _step(f"{PACKAGE}.autoencoder.decoder", finished / "preset" / "weights.json", *sharper, "--seed", seed),
    ]


def _measured(preset: Path, data: Path, out: Path, amount: Amount) -> list[Step]:
    verdict, figures = data / "verdict.json", data / "figures.json"
    counted = ("identity", "--preset-dir", preset, "--count", amount.people, "--json")
    shipped = ("--preset", preset, "--verdict", verdict, "--figures", figures, "--out", out)
    return [
        _step("fpga_models.lab.measures.calibrate", verdict, "--preset-dir", preset, output=verdict),
        _step("fpga_models.lab.measures.evaluate", figures, *counted, output=figures),
        _step(f"{PACKAGE}.ship", None, *shipped),
    ]
