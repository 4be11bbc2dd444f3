"""Distils a preset into one that draws in four steps without guidance: the last stage of training.

    python -m fpga_models.lab.mini.distil --data var/mini256 --preset var/mini256/mmf/preset --out var/mini256/distilled

Trajectory distillation [field: progressive distillation, Salimans and Ho 2022, eq. 8, here one round from many steps to
few]: for each jump of the few-step grid the student learns the v with which one DDIM step lands where the guided
teacher arrives in several. Half of the jumps begin at noised scenes, half where the student's own steps led, so that it
meets its own mistakes [field: imitation learning, DAgger]. Where the last jump ends, a picture is decoded and its faces
are compared with their embeddings, its eyes with the true ones of the scene [ours]. The sampler stays DDIM: nothing in
the product knows of it but the preset's default steps and guidance. Stopped and started again, it continues.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor

from fpga_models.core import ddim
from fpga_models.core.bases.network import People
from fpga_models.core.denoiser import Condition
from fpga_models.core.presets import FILE
from fpga_models.core.weights import read_manifest, write_manifest
from fpga_models.faces.recogniser import OnnxRecogniser
from fpga_models.mmf import checkpoint
from fpga_models.mmf.face_encoding import DecodedEyes, DecodedIdentity
from fpga_models.mmf.loop import CleanLoss, LoopConfig, Trainee, Trainer
from fpga_models.mmf.losses import clean_estimate, weighted_mse
from fpga_models.mmf.plan import KIND_SHARES, StagePlan
from fpga_models.mmf.samples.batch import Augmentation, TrainingBatch
from fpga_models.mmf.samples.data import draw_batch, open_training_data, token_ids
from fpga_models.mmf.samples.modes import ModePlan
from fpga_models.mmf.start import export_preset, open_start
from fpga_models.mmf.workbench import read_source, split

LEARNING = ("denoiser.",)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Numeric choices of the distillation [ours].

    Attributes:
        grid: steps of the student, from noise to the clean end.
        substeps: of the teacher for one of them, `guidance` its guidance.
        own: share of the jumps that begin where the student's own steps led.
        identity, eyes: weights of the losses of decoded pictures at the clean end.
    """

    grid: int = 4
    substeps: int = 4
    guidance: float = 1.5
    own: float = 0.5
    identity: float = 0.2
    eyes: float = 1.0
    batch: int = 48
    accumulate: int = 2
    stage: StagePlan = field(default_factory=lambda: StagePlan(steps=1600, rate=4e-4, warmup=40, anneal=0.7))
    save_every: int = 50
    seed: int = 0


class Distiller(Trainer):
    """A trainer whose losses are those of a student behind a teacher."""

    def __init__(
        self,
        student: Trainee,
        schedule: ddim.Schedule,
        recipe: Recipe,
        empty_text: Tensor,
        identity_loss: CleanLoss | None = None,
        eye_loss: CleanLoss | None = None,
    ) -> None:
        teacher = copy.deepcopy(student)  # first: learning parameters are chosen by the caller, hooks are the student's
        config = LoopConfig(
            seed=recipe.seed,
            batch_size=recipe.batch,
            accumulate=recipe.accumulate,
            disturbance=Augmentation(text_drop=0, id_drop=0, both_drop=0, full_mask=0, embedding_noise=0.01),
        )
        super().__init__(student, schedule, config, empty_text, identity_loss, eye_loss)
        self.recipe = recipe
        self.teacher = teacher.requires_grad_(False).eval()

    def _losses(self, batch: TrainingBatch, noise: Tensor, at: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        pairs = ddim.trajectory(self.schedule, self.recipe.grid)
        place = int(rng.integers(len(pairs)))
        start, end = pairs[place]
        with self._autocast():
            condition = self.trainee.prepare(batch)
        own = bool(rng.random() < self.recipe.own)
        latents = self._arrive(batch, noise, condition, pairs[:place], start, own=own)
        wanted = jump_target(self.schedule, latents, self._teach(batch, latents, start, end), start=start, end=end)
        output = self._ask(self.trainee, latents, start, condition)
        losses = {"loss": weighted_mse(output, wanted, batch.loss_weight(self.config.losses.face_weight))}
        if place == len(pairs) - 1:
            clean = clean_estimate(self.schedule, latents, output, torch.full((len(batch),), start))
            if self.identity_loss and self.recipe.identity:
                losses["identity"] = self.recipe.identity * self.identity_loss(clean, batch)
            if self.eye_loss and self.recipe.eyes and not own:
                losses["eyes"] = self.recipe.eyes * self.eye_loss(clean, batch)
        return losses

    @torch.no_grad()
    def _arrive(
        self,
        batch: TrainingBatch,
        noise: Tensor,
        condition: Condition,
        before: list[tuple[int, int]],
        start: int,
        *,
        own: bool,
    ) -> Tensor:
        """Latents at the beginning of a jump: the scenes' own, noised, or where the student comes to from noise."""
        if own:
            return ddim.sample(self.schedule, noise, lambda z, t: self._ask(self.trainee, z, t, condition), before)
        return ddim.add_noise(self.schedule, batch.latents, noise, torch.full((len(batch),), start))

    @torch.no_grad()
    def _teach(self, batch: TrainingBatch, latents: Tensor, start: int, end: int) -> Tensor:
        """Latents at `end` by several guided steps of the teacher."""
        with self._autocast():
            guided = self.teacher.prepare(batch)
            both = guided.join(self._unconditional(batch))

        def predict(z: Tensor, timestep: int) -> Tensor:
            with_it, without = self._ask(self.teacher, torch.cat([z, z]), timestep, both).chunk(2)
            return without + self.recipe.guidance * (with_it - without)

        grid = np.linspace(start, end, self.recipe.substeps + 1).round().astype(int).tolist()
        return ddim.sample(self.schedule, latents, predict, list(pairwise(grid)))

    def _unconditional(self, batch: TrainingBatch) -> Condition:
        """The same places without words and without anybody, as the pipeline guides away from."""
        text = self.teacher.text_encoder(self.empty_text.to(self.device).expand(len(batch), -1)).last_hidden_state
        scales = torch.ones(batch.masks.shape[:2], device=self.device)
        nobody = People(embeddings=torch.zeros_like(batch.embeddings), masks=batch.masks, scales=scales)
        return self.teacher.denoiser.prepare(text=text, people=nobody, control=batch.control, flags=batch.flags)

    def _ask(self, network: Trainee, latents: Tensor, timestep: int, condition: Condition) -> Tensor:
        at = torch.full((len(latents),), timestep, device=latents.device)
        with self._autocast():
            return network.predict(latents, at, condition).float()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.config.bfloat16)


def jump_target(schedule: ddim.Schedule, latents: Tensor, arrived: Tensor, *, start: int, end: int) -> Tensor:
    """The network output with which one DDIM step from `start` lands on `arrived` at `end`; v-prediction.

    z_s = cos(t - s) z_t - sin(t - s) v with cos = sqrt(abar), solved for v.
    """
    (cos_t, sin_t), (cos_s, sin_s) = schedule.scales(start), schedule.scales(end)
    along, across = cos_t * cos_s + sin_t * sin_s, sin_t * cos_s - cos_t * sin_s
    output: Tensor = (along * latents - arrived) / across
    return output


def distil(data: Path, preset: Path, out: Path, recipe: Recipe) -> Iterator[dict[str, Any]]:
    """Run the recipe or continue it; yields records, and leaves OUT/preset at the end."""
    pipeline = open_start(preset, "cpu")
    training = open_training_data(data, pipeline.tokenizer)
    _, by_kind = split(training, data, pipeline)
    student = Trainee(pipeline.denoiser, pipeline.text_encoder)
    student.learn(LEARNING)
    vae = pipeline.vae.requires_grad_(False)
    encoder = OnnxRecogniser(preset / "faces" / "recogniser.onnx")
    looks = DecodedIdentity(vae=vae, encoder=encoder), DecodedEyes(vae=vae)
    empty = torch.from_numpy(token_ids(pipeline.tokenizer, [""])[0])
    trainer = Distiller(student, pipeline.schedule, recipe, empty, *looks)
    if newest := checkpoint.latest(out):
        trainer.resume(newest)
    sums: dict[str, list[float]] = {}
    since = time.monotonic()
    while trainer.step < recipe.stage.steps:
        rng, step = trainer.rng(), trainer.step
        batch = draw_batch(training, by_kind, KIND_SHARES, plan=ModePlan(), count=recipe.batch, step=step, rng=rng)
        for name, value in trainer.train_step(batch, rng, recipe.stage.learning_rate_at(step)).items():
            sums.setdefault(name, []).append(value)
        if trainer.step % recipe.save_every == 0 or trainer.step == recipe.stage.steps:
            trainer.save(out, {})
            checkpoint.prune(out, keep=2)
            means = {name: round(float(np.mean(values)), 4) for name, values in sums.items()}
            yield {"step": trainer.step, "seconds": round(time.monotonic() - since), **means}
            sums, since = {}, time.monotonic()
    trainer.adopt_ema()
    manifest = read_manifest(preset)
    told = {"model_sha256": manifest["model_sha256"], "made": manifest.get("made", {})}
    facts = {"command": "python -m fpga_models.lab.mini.distil", "config": asdict(recipe), "steps": trainer.step}
    export_preset(student, preset, out / "preset", facts | {"data": read_source(data), "start": told})
    draws_in(out / "preset", recipe.grid)


def draws_in(preset: Path, steps: int) -> None:
    """Make this many steps without guidance the preset's default."""
    facts = json.loads((preset / FILE).read_text())
    facts["defaults"] |= {"steps": steps, "guidance": 1.0}
    (preset / FILE).write_text(json.dumps(facts, indent=1) + "\n")
    write_manifest(preset, read_manifest(preset).get("made", {}))


def main() -> None:
    """Command line: records as JSON lines on standard error and in OUT/metrics.jsonl."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("var/mini256"))
    parser.add_argument("--preset", type=Path, required=True, help="folder of the teacher")
    parser.add_argument("--out", type=Path, default=Path("var/mini256/distilled"))
    parser.add_argument("--steps", type=int)
    parser.add_argument("--batch", type=int, default=Recipe.batch)
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(1)
    recipe = Recipe(seed=options.seed, batch=options.batch)
    if options.steps:
        recipe = Recipe(seed=options.seed, batch=options.batch, stage=StagePlan(steps=options.steps, rate=4e-4))
    options.out.mkdir(parents=True, exist_ok=True)
    for record in distil(options.data, options.preset, options.out, recipe):
        line = json.dumps(record) + "\n"
        with (options.out / "metrics.jsonl").open("a") as log:
            log.write(line)
        sys.stderr.write(line)


if __name__ == "__main__":
    main()
