"""Trains the mini preset's generator on cached latents and embeddings.

    python -m fpga_models.lab.mini.generator --data var/mini --out var/mini/generator --minutes 70 --workers 2

The learning rate is flat and then falls linearly to zero over the last `--anneal` share of the minutes, or of `--steps`
where minutes say little because the machine is shared. A stopped run continues from its newest checkpoint; both count
over all runs. The checkpoint before the fall is kept, so that a longer run can start from it (delete the later ones and
raise the number). The moving average is kept at every save, for averages over longer spans after the fact
(averages.py). `--start PRESET` begins from the weights of a finished preset folder instead of random ones, with a fresh
optimizer; `--local-tokens` lets the local branch learn together with the rest.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor
from torch.multiprocessing.spawn import spawn
from transformers import CLIPTokenizer

from fpga_models.core import ddim
from fpga_models.core.adapters.local_tokens import LocalConfig, LocalTokens
from fpga_models.core.weights import read_manifest
from fpga_models.lab.mini import averages
from fpga_models.lab.mini.networks import MINI, SIZES, Sizes, build_denoiser, build_scheduler, build_text_encoder
from fpga_models.lab.mini.tokenizer import build_tokenizer
from fpga_models.lab.synthetic import KINDS, VOCABULARY
from fpga_models.mmf import checkpoint, parallel
from fpga_models.mmf.loop import LoopConfig, Trainee, Trainer
from fpga_models.mmf.samples.batch import Augmentation
from fpga_models.mmf.samples.data import TrainingData, draw_batch, open_training_data, token_ids
from fpga_models.mmf.samples.modes import ModePlan
from fpga_models.mmf.validation import face_errors, held_out_scenes, validation_batch

Indices = NDArray[np.int64]

KIND_SHARES = (0.34, 0.12, 0.08, 0.2, 0.16, 0.1)  # portrait, half body, full body, groups of 2, 3, 4


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run of a generator; its length is in minutes, or in steps if they are given."""

    minutes: float = 70.0
    steps: int | None = None
    anneal: float = 0.35
    rate: float = 3e-3
    warmup_steps: int = 100
    kind_shares: tuple[float, ...] = KIND_SHARES
    modes: ModePlan = field(default_factory=ModePlan)
    round_steps: int = 25
    rounds_between_saves: int = 20
    threads: int = 1
    start: str | None = None
    local_tokens: int = 0


@dataclass(frozen=True, kw_only=True)
class Clock:
    """Minutes trained before this process, and when it started; the clock stands still between runs."""

    before: float
    started: float

    def minutes(self) -> float:
        """Minutes of training over all runs."""
        return self.before + (time.monotonic() - self.started) / 60


def done(config: RunConfig, step: int, minutes: float) -> float:
    """Share of the run that is behind, by steps or by minutes."""
    return step / config.steps if config.steps else minutes / config.minutes


def learning_rate(config: RunConfig, step: int, minutes: float) -> float:
    """Warm up by steps, stay flat, fall linearly to zero over the last share of the run."""
    left = (1 - done(config, step, minutes)) / config.anneal
    return config.rate * min(1.0, (step + 1) / config.warmup_steps, max(left, 0.0))


def build_trainer(loop: LoopConfig, local_tokens: int = 0, sizes: Sizes = MINI) -> tuple[Trainer, CLIPTokenizer]:
    """A fresh trainer and its tokenizer; initial weights follow from the seed."""
    torch.manual_seed(loop.seed)
    tokenizer, denoiser = build_tokenizer(VOCABULARY), build_denoiser(sizes)
    if local_tokens:
        denoiser.add_local(LocalConfig(tokens=local_tokens))
    trainee = Trainee(denoiser, build_text_encoder(len(tokenizer), tokenizer.eos_token_id))
    empty = torch.from_numpy(token_ids(tokenizer, [""])[0])
    return Trainer(trainee, ddim.Schedule.of(build_scheduler()), loop, empty), tokenizer


def local_tokens_of(weights: Mapping[str, Tensor]) -> int:
    """Local tokens per person of these weights under the trainee's names; 0 where there is no local branch."""
    latents = weights.get("denoiser.id_adapter.local.resampler.latents")
    return 0 if latents is None else latents.shape[1]


def preset_weights(trainer: Trainer, preset: Path) -> dict[str, Tensor]:
    """Weights of a finished preset folder under the trainee's names, in float32.

    Saving folds the projector's input scale into its first layer; here it is taken out again.
    """
    parts = {
        "denoiser.unet.": preset / "unet" / "diffusion_pytorch_model.safetensors",
        "denoiser.id_adapter.": preset / "id_adapter.safetensors",
        "denoiser.hint.": preset / "hint.safetensors",
        "text_encoder.": preset / "text_encoder" / "model.safetensors",
    }
    state = {prefix + key: value.float() for prefix, path in parts.items() for key, value in load_file(path).items()}
    if local := trainer.trainee.denoiser.id_adapter.local:
        state = fresh_local(local) | state
    state["denoiser.id_adapter.image_proj.proj.0.weight"] /= trainer.trainee.denoiser.id_adapter.config.input_scale
    return state


def fresh_local(local: LocalTokens) -> dict[str, Tensor]:
    """A local branch as it is now, for a start that has none."""
    return {f"denoiser.id_adapter.local.{key}": value for key, value in local.state_dict().items()}


def train(trainer: Trainer, data: TrainingData, config: RunConfig, out: Path) -> Iterator[dict[str, Any]]:
    """Train until the run is through, round by round; yields one record per round and saves as it goes."""
    newest = checkpoint.latest(out)
    facts = trainer.resume(newest) if newest else {}
    clock = Clock(before=float(facts.get("minutes", 0)), started=time.monotonic())
    flat: str | None = facts.get("flat")
    left_out = held_out_scenes(len(data.latents))
    held_out = validation_batch(data, left_out)
    by_kind = [indices[indices < len(data.latents) - left_out] for indices in data.indices_by_kind()]
    minutes = parallel.agree(clock.minutes())
    while done(config, trainer.step, minutes) < 1:
        rate = learning_rate(config, trainer.step, minutes)
        if flat is None and trainer.step >= config.warmup_steps and rate < config.rate:
            flat = str(out / f"checkpoint-{trainer.step}")
            _save(trainer, out, minutes, flat)
        started = time.monotonic()
        loss = train_round(trainer, data, by_kind, config, minutes)
        seconds = time.monotonic() - started
        minutes = parallel.agree(clock.minutes())
        yield {
            "step": trainer.step,
            "minutes": round(minutes, 2),
            "loss": round(loss, 4),
            "rate": round(rate, 6),
            "samples_per_s": round(config.round_steps * trainer.config.batch_size * parallel.world_size() / seconds, 1),
        }
        if trainer.step % (config.rounds_between_saves * config.round_steps) == 0 and parallel.rank() == 0:
            _save(trainer, out, minutes, flat)
            yield {"step": trainer.step} | face_errors(
                trainer.trainee, trainer.schedule, held_out, trainer.config.bfloat16
            )
    _save(trainer, out, minutes, flat)
    if parallel.rank() == 0:
        yield {"step": trainer.step} | face_errors(trainer.trainee, trainer.schedule, held_out, trainer.config.bfloat16)


def train_round(
    trainer: Trainer, data: TrainingData, by_kind: Sequence[Indices], config: RunConfig, minutes: float
) -> float:
    """`round_steps` steps, then the exchange with the other processes; returns this process's mean loss."""
    total = 0.0
    for _ in range(config.round_steps):
        rng = trainer.rng()
        size, step = trainer.config.batch_size, trainer.step
        batch = draw_batch(data, by_kind, config.kind_shares, plan=config.modes, count=size, step=step, rng=rng)
        total += trainer.train_step(batch, rng, learning_rate(config, step, minutes))["loss"]
    trainer.exchange()
    return total / config.round_steps


def _save(trainer: Trainer, out: Path, minutes: float, flat: str | None) -> None:
    if parallel.rank() == 0:
        trainer.save(out, {"minutes": minutes, "flat": flat})
        averages.keep(out, trainer.step, trainer.ema)
        checkpoint.prune(out, keep=2, protected=Path(flat) if flat else None)


def run(
    rank: int,
    workers: int,
    store: Path,
    data: Path,
    out: Path,
    loop: LoopConfig,
    config: RunConfig,
    sizes: Sizes = MINI,
) -> None:
    """One training process; process 0 writes the records and the checkpoints."""
    parallel.join(rank, workers, store)
    cv2.setNumThreads(1)
    torch.set_num_threads(1 if workers > 1 else config.threads)
    trainer, tokenizer = build_trainer(loop, config.local_tokens, sizes)
    if config.start:
        trainer.begin_from(preset_weights(trainer, Path(config.start)))
    records = train(trainer, open_training_data(data, tokenizer), config, out)
    with (out / "metrics.jsonl").open("a") as log:
        for record in records:
            if rank == 0:
                log.write(json.dumps(record) + "\n")
                log.flush()
                length = f"{config.steps} steps" if config.steps else f"{config.minutes:.0f} min"
                sys.stderr.write(f"{json.dumps(record)} of {length}\n")
    parallel.leave()


def configuration(loop: LoopConfig, config: RunConfig) -> dict[str, Any]:
    """What a run is set to, for its manifest: the preset it begins from by its hash, wherever it lies."""
    facts = {"loop": asdict(loop), "run": asdict(config)}
    if config.start:
        facts["run"]["start"] = read_manifest(Path(config.start))["model_sha256"]
    return facts


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini"))
    parser.add_argument("--out", type=Path, default=Path("var/mini/generator"))
    parser.add_argument("--preset", choices=SIZES, default=MINI.name)
    parser.add_argument("--minutes", type=float, default=RunConfig.minutes, help="training minutes over all runs")
    parser.add_argument("--steps", type=int, help="instead of minutes")
    parser.add_argument(
        "--anneal", type=float, default=RunConfig.anneal, help="share of the minutes in which the rate falls"
    )
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--threads", type=int, default=1, help="threads, if there is one worker")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--start", type=Path, help="preset folder whose weights to begin from")
    parser.add_argument("--local-tokens", type=int, default=0, help="per person, learning together with the rest")
    parser.add_argument("--rate", type=float, default=RunConfig.rate)
    parser.add_argument("--embedding-noise", type=float, default=Augmentation.embedding_noise)
    parser.add_argument("--batch-size", type=int, default=LoopConfig.batch_size)
    parser.add_argument("--shares", type=float, nargs=len(KINDS), default=KIND_SHARES, help=f"of {' '.join(KINDS)}")
    parser.add_argument("--mode-order", choices=("random", "strict"), default="random")
    parser.add_argument("--fp32", action="store_true", help="no bfloat16 autocast")
    options = parser.parse_args()

    os.nice(5)
    loop = LoopConfig(
        seed=options.seed,
        batch_size=options.batch_size,
        disturbance=Augmentation(embedding_noise=options.embedding_noise),
        bfloat16=not options.fp32,
    )
    config = RunConfig(
        minutes=options.minutes,
        steps=options.steps,
        rate=options.rate,
        start=str(options.start) if options.start else None,
        anneal=options.anneal,
        kind_shares=tuple(options.shares),
        modes=ModePlan(order=options.mode_order),
        threads=options.threads,
        local_tokens=options.local_tokens,
    )
    options.out.mkdir(parents=True, exist_ok=True)
    facts = {"preset": options.preset} | configuration(loop, config)
    (options.out / "config.json").write_text(json.dumps(facts, indent=1))
    store = options.out / f".meeting-{os.getpid()}"
    arguments = (options.workers, store, options.data, options.out, loop, config, SIZES[options.preset])
    if options.workers == 1:
        run(0, *arguments)
    else:
        spawn(run, arguments, nprocs=options.workers)  # type: ignore[no-untyped-call]  # torch says nothing
    store.unlink(missing_ok=True)
    newest = checkpoint.latest(options.out)
    (options.out / "finished.json").write_text(json.dumps({"checkpoint": newest.name if newest else None}))


if __name__ == "__main__":
    main()
