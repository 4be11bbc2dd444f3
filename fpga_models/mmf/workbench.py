"""Everything a run works with, laid out once: networks, data, what is held out, and the sampler of each stage."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fpga_models.core import autoencoder
from fpga_models.core.adapters.local_tokens import LocalConfig
from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import DataError, PlanError
from fpga_models.faces.recogniser import OnnxRecogniser
from fpga_models.mmf import checkpoint
from fpga_models.mmf.face_encoding import DecodedEyes, DecodedIdentity, FaceEncoder
from fpga_models.mmf.loop import LoopConfig, Trainee, Trainer
from fpga_models.mmf.plan import StagePlan, TrainPlan
from fpga_models.mmf.samples.batch import TrainingBatch
from fpga_models.mmf.samples.clone import RECIPES, CloneSource, appearances
from fpga_models.mmf.samples.clone_making import CloneMaker, load_clones, save_clones
from fpga_models.mmf.samples.data import TrainingData, draw_batch, open_training_data, token_ids
from fpga_models.mmf.samples.modes import draw_modes
from fpga_models.mmf.samples.text_cache import cache_text_states
from fpga_models.mmf.start import open_start
from fpga_models.mmf.validation import VALIDATION_SCENES, held_out_scenes, validation_batch

ADAPTERS = ("denoiser.id_adapter.", "denoiser.hint.")
LEARNING = {"mmf": ("modal.", *ADAPTERS), "clone": ADAPTERS}
"""What learns in each stage [paper: the modal part and the adapter; ours: the clone stage]."""

Sampler = Callable[[int, np.random.Generator], TrainingBatch]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stage of the run: steps `first` to `last` of the whole."""

    name: str
    plan: StagePlan
    first: int

    @property
    def last(self) -> int:
        """The step it ends with."""
        return self.first + self.plan.steps


@dataclass(frozen=True, kw_only=True, eq=False)
class Workbench:
    """The parts of a run.

    Attributes:
        training: numbers of the scenes that are trained on, by kind.
        empty_text: (M,) token ids or (M, D) states of the empty prompt.
        source: what the data folder says of itself.
    """

    plan: TrainPlan
    out: Path
    pipeline: PortraitPipeline
    trainee: Trainee
    data: TrainingData
    held_out: TrainingBatch
    training: list[NDArray[np.int64]]
    empty_text: Tensor
    source: Mapping[str, object]

    @classmethod
    def open(cls, plan: TrainPlan, folder: Path, out: Path) -> Workbench:
        """Load networks and data.

        Raises:
            DataError, WeightsError, PresetError: as their loaders say, or the two do not fit each other.
        """
        torch.manual_seed(plan.seed)
        pipeline = open_start(Path(plan.start), plan.device)
        data = open_training_data(folder, pipeline.tokenizer)
        check_fit(data, pipeline)
        held_out, training = split(data, folder, pipeline)
        empty_text = torch.from_numpy(token_ids(pipeline.tokenizer, [""])[0])
        adapter = pipeline.denoiser.id_adapter
        if plan.local_tokens and adapter.local is None:
            if data.crops is None:
                raise DataError(f"Local tokens are to be trained: {folder / 'crops' / 'crops.npy'} was wanted.")
            pipeline.denoiser.add_local(LocalConfig(tokens=plan.local_tokens))
        if adapter.local is None:
            data = replace(data, crops=None)
        if plan.cache_text:
            data, empty_text = cache_text_states(data, empty_text, pipeline.text_encoder, out / "text_states.npy")
        rep = RepControlNet(pipeline.denoiser.unet, plan.ratio)
        trainee = Trainee(pipeline.denoiser, pipeline.text_encoder, rep)
        return cls(
            plan=plan,
            out=out,
            pipeline=pipeline,
            trainee=trainee,
            data=data,
            held_out=held_out,
            training=training,
            empty_text=empty_text,
            source=read_source(folder) | {"pictures": len(data.latents), "people": len(data.embeddings)},
        )

    def stages(self) -> list[Stage]:
        """The stages that have steps."""
        mmf = Stage(name="mmf", plan=self.plan.mmf, first=0)
        clone = Stage(name="clone", plan=self.plan.clone, first=mmf.last)
        return [stage for stage in (mmf, clone) if stage.plan.steps]

    def preset_of(self, stage: Stage) -> Path:
        """Where the preset at the end of a stage lies."""
        return self.out / "stages" / stage.name

    def trainer(self, stage: Stage) -> Trainer | None:
        """The trainer of a stage where it stands, or None when a later stage has begun."""
        newest = checkpoint.latest(self.out)
        state = checkpoint.read_state(newest) if newest else {}
        if state.get("stage") != stage.name and int(state.get("step", 0)) > stage.last:
            return None
        self.trainee.learn(LEARNING[stage.name])
        trainer = Trainer(
            self.trainee,
            self.pipeline.schedule,
            self._config(),
            self.empty_text,
            self._identity_loss(),
            self._eye_loss(),
        )
        trainer.step = stage.first
        if newest and state["stage"] == stage.name:
            trainer.resume(newest)
        return trainer

    def sampler(self, trainer: Trainer, stage: Stage, tick: Callable[[int], None]) -> Sampler:
        """What draws the batch of a step of this stage; `tick` counts the pictures made for C2."""
        if stage.name == "mmf":
            return lambda step, rng: self._ordinary(self.plan.batch_size, step, rng)
        source = self._clone_source(trainer, tick)
        ordinary = round(self.plan.batch_size * self.plan.ordinary_share)
        clones = self.plan.batch_size - ordinary

        def draw(step: int, rng: np.random.Generator) -> TrainingBatch:
            modes = draw_modes(self.plan.modes, clones, step, rng)
            batch = RECIPES[self.plan.recipe](source, modes, rng) if clones else None
            usual = self._ordinary(ordinary, step, rng) if ordinary else None
            return usual.join(batch) if usual and batch else usual or batch  # type: ignore[return-value]  # one is there

        return draw

    def save_modal(self, path: Path) -> None:
        """Write the modal network by itself, for merging at other strengths."""
        assert self.trainee.rep is not None, "a run trains a modal network"
        self.trainee.rep.save(path, dtype=torch.float16, metadata={})

    def _ordinary(self, count: int, step: int, rng: np.random.Generator) -> TrainingBatch:
        plan = self.plan
        return draw_batch(self.data, self.training, plan.kind_shares, plan=plan.modes, count=count, step=step, rng=rng)

    def _config(self) -> LoopConfig:
        plan = self.plan
        return LoopConfig(
            seed=plan.seed,
            batch_size=plan.batch_size,
            accumulate=plan.accumulate,
            losses=plan.losses,
            average_decay=plan.average_decay,
            disturbance=plan.disturbance,
            rate_factors={"modal.": 1 / plan.ratio.beta, "denoiser.id_adapter.local.": plan.local_rate},
            bfloat16=plan.precision == "bfloat16" or (plan.precision == "auto" and has_bfloat16(plan.device)),
        )

    def _identity_loss(self) -> DecodedIdentity | None:
        if not (self.plan.losses.identity or self.plan.losses.drafted):
            return None
        return DecodedIdentity(vae=self.pipeline.vae.requires_grad_(False), encoder=self._face_encoder())

    def _eye_loss(self) -> DecodedEyes | None:
        return DecodedEyes(vae=self.pipeline.vae.requires_grad_(False)) if self.plan.losses.eyes else None

    def _face_encoder(self) -> FaceEncoder:
        path = Path(self.plan.start) / "faces" / "recogniser.onnx"
        if not path.exists():
            raise PlanError(f"The identity loss and recipe C2 need the preset's recogniser; {path} does not exist.")
        return OnnxRecogniser(path).to(self.plan.device)

    def _clone_source(self, trainer: Trainer, tick: Callable[[int], None]) -> CloneSource:
        scenes = np.sort(np.concatenate(self.training))
        groups = scenes[self.data.scenes.count[scenes] > 1]
        shown = appearances(self.data, scenes) if self.plan.recipe in ("C1", "C2") else {}
        if not len(groups) and self.plan.recipe != "C1":
            raise DataError(f"Recipe {self.plan.recipe} needs scenes with two people or more; there are none.")
        if not shown and self.plan.recipe in ("C1", "C2"):
            raise DataError(f"Recipe {self.plan.recipe} needs people who are in two scenes or more; there are none.")
        source = CloneSource(
            data=self.data, groups=groups, appearances=shown, empty_text=self.empty_text, encode=self._encode
        )
        return self._with_clones(source, trainer, tick) if self.plan.recipe == "C2" else source

    def _with_clones(self, source: CloneSource, trainer: Trainer, tick: Callable[[int], None]) -> CloneSource:
        folder = self.out / "clones"
        if not folder.exists():
            maker = CloneMaker(
                trainee=self.trainee,
                schedule=trainer.schedule,
                vae=self.pipeline.vae,
                encoder=self._face_encoder(),
            )
            save_clones(maker.make(source, self.plan.clones, self.plan.seed, tick), folder)
        return replace(source, clones=load_clones(folder))

    @torch.no_grad()
    def _encode(self, images: NDArray[np.uint8]) -> Tensor:
        pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 127.5 - 1
        return autoencoder.encode(self.pipeline.vae, pixels.to(self.pipeline.device)).cpu()


def read_source(folder: Path) -> dict[str, Any]:
    """What a data folder says of itself, in the file of the renderer or of a data set version; nothing is fine too."""
    known = (folder / name for name in ("source.json", "materialised.json"))
    return next((dict(json.loads(path.read_text())) for path in known if path.is_file()), {})


def has_bfloat16(device: str) -> bool:
    """Whether the device computes in bfloat16 without emulating it."""
    if torch.device(device).type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return torch.device(device).type == "cpu" and bool(torch.cpu._is_avx512_bf16_supported())


def check_fit(data: TrainingData, pipeline: PortraitPipeline) -> None:
    """Refuse data made for another preset.

    Raises:
        DataError: latents or embeddings of another shape than the networks take.
    """
    unet, adapter = pipeline.denoiser.unet.config, pipeline.denoiser.id_adapter.config
    side = data.scenes.images.shape[1] // pipeline.preset.latent_factor
    wanted = (unet.in_channels, side, side), adapter.embedding_dim
    got = tuple(data.latents.shape[1:]), data.embeddings.shape[-1]
    if got != wanted:
        raise DataError(
            f"Latents {got[0]} and embeddings of {got[1]} numbers: preset {pipeline.preset.name} wants "
            f"{wanted[0]} and {wanted[1]}."
        )


def split(
    data: TrainingData, folder: Path, pipeline: PortraitPipeline
) -> tuple[TrainingBatch, list[NDArray[np.int64]]]:
    """Held-out scenes as one batch, and the numbers of the others by kind.

    The part scenes_test is held out when its people are in embeddings.npy (a data set split by identity), otherwise the
    last scenes of the training part.
    """
    by_kind = data.indices_by_kind()
    if (folder / "latents" / "scenes_test.npy").exists():
        people = np.load(folder / "scenes_test" / "identity.npy", mmap_mode="r")
        if len(people) > 0 and people.max() < len(data.embeddings):
            other = open_training_data(folder, pipeline.tokenizer, part="scenes_test")
            return validation_batch(other, min(VALIDATION_SCENES, len(other.latents))), by_kind
    count = held_out_scenes(len(data.latents))
    return validation_batch(data, count), [indices[indices < len(data.latents) - count] for indices in by_kind]
