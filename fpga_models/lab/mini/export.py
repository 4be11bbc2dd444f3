"""Writes a trained generator as a preset folder: diffusers layout, fp16 safetensors, two JSON files.

    python -m fpga_models.lab.mini.export --run var/mini/generator --vae var/mini/vae --out var/mini/base

The moving average of the newest checkpoint, with the face pack in faces/, the judge in eval/, the pose reader in pose/
and thresholds that are not measured yet: it is what MMF begins from (mmf/train.py), and ship.py ends.
"""

from __future__ import annotations

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch

from fpga_models.core import weights
from fpga_models.core.presets import FILE
from fpga_models.core.vae import MiniVAE
from fpga_models.lab.mini import averages
from fpga_models.lab.mini.generator import build_trainer, local_tokens_of
from fpga_models.lab.mini.networks import MINI, SIZES, Sizes, build_scheduler
from fpga_models.lab.mini.preset import LICENCE, preset_facts
from fpga_models.mmf import checkpoint
from fpga_models.mmf.loop import LoopConfig, Trainee

NETWORKS = {
    "generator": "unet/diffusion_pytorch_model.safetensors",
    "identity adapter": "id_adapter.safetensors",
    "hint adapter": "hint.safetensors",
    "text encoder": "text_encoder/model.safetensors",
    "autoencoder": "vae/diffusion_pytorch_model.safetensors",
    "face detector": "faces/detector.onnx",
    "face recogniser": "faces/recogniser.onnx",
    "pose network": "pose/pose.onnx",
}
UNMEASURED = {"accept": 0.5, "review": 0.3}
"""Thresholds until the finished preset is measured."""


def load_ema(run: Path, sizes: Sizes = MINI) -> tuple[Trainee, dict[str, Any]]:
    """The moving average of a run's newest checkpoint and what is known about the run.

    Raises:
        FileNotFoundError: the run holds no checkpoint.
    """
    folder = checkpoint.latest(run)
    if folder is None:
        raise FileNotFoundError(f"{run} holds no checkpoint; run python -m fpga_models.lab.mini.generator first")
    parts, facts = checkpoint.load(folder)
    trainer, _ = build_trainer(LoopConfig(seed=0), local_tokens_of(parts["weights"]), sizes)
    trainer.trainee.load_state_dict(parts["weights"] | parts["average"])
    return trainer.trainee.eval(), facts


def export(trainee: Trainee, vae: MiniVAE, out: Path, *, made: dict[str, Any], sizes: Sizes = MINI) -> None:
    """Write the preset folder; `made` goes into weights.json."""
    _, tokenizer = build_trainer(LoopConfig(seed=0))
    out.mkdir(parents=True, exist_ok=True)
    metadata = {
        "modelspec.license": LICENCE,
        "modelspec.title": f"FPGA {sizes.name}",
        "modelspec.architecture": "fpga-mini",
    }
    denoiser = trainee.denoiser
    denoiser.id_adapter.save(out / "id_adapter.safetensors", dtype=torch.float16, metadata=metadata)
    assert denoiser.hint is not None, "the mini preset has a hint adapter"
    denoiser.hint.save(out / "hint.safetensors", dtype=torch.float16, metadata=metadata)
    denoiser.release().half().save_pretrained(out / "unet", safe_serialization=True)
    trainee.text_encoder.half().save_pretrained(out / "text_encoder", safe_serialization=True)
    vae.half().save_pretrained(out / "vae", safe_serialization=True)
    tokenizer.save_pretrained(out / "tokenizer")
    build_scheduler().save_pretrained(out / "scheduler")
    components = [
        {"name": name, "file": file, "licence": LICENCE, "sha256": weights.file_sha256(out / file)}
        for name, file in NETWORKS.items()
        if (out / file).is_file()  # the pose network is optional
    ]
    (out / FILE).write_text(json.dumps(preset_facts(UNMEASURED, components, sizes), indent=1) + "\n")
    weights.write_manifest(out, made)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=Path("var/mini/generator"))
    parser.add_argument("--vae", type=Path, default=Path("var/mini/vae"), help="folder with the trained autoencoder")
    parser.add_argument("--out", type=Path, default=Path("var/mini/base"))
    parser.add_argument("--faces", type=Path, default=Path("var/mini/faces"), help="folder with pack/ and eval/")
    parser.add_argument(
        "--data", type=Path, help="choose the span of the average by the scenes held out of this folder"
    )
    options = parser.parse_args()
    config = json.loads((options.run / "config.json").read_text())
    sizes = SIZES[config.get("preset", MINI.name)]
    trainee, facts = load_ema(options.run, sizes)
    spans = averages.adopt_best(trainee, options.run, options.data) if options.data else None
    metrics = options.run / "metrics.jsonl"
    made = {
        "command": "python -m fpga_models.lab.mini",
        "config": config,
        "steps": facts["step"],
        "minutes": round(float(facts["minutes"]), 1),
        "validation": [json.loads(line) for line in metrics.read_text().splitlines() if "own_id" in line][-1:],
        "averages": spans,
    }
    for source, name in (("pack", "faces"), ("eval", "eval"), ("pose", "pose")):
        if source != "pose" or (options.faces / source).is_dir():
            shutil.copytree(options.faces / source, options.out / name, dirs_exist_ok=True)
    export(trainee, MiniVAE.from_pretrained(options.vae), options.out, made=made, sizes=sizes)


if __name__ == "__main__":
    main()
