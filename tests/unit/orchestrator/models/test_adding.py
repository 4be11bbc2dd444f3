"""A base of one's own becomes a preset: folders, checkpoints of one file, hubs, LoRAs; and what is refused by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import DiffusionPipeline
from safetensors.torch import load_file, save_file

from fpga_models.core.bases import layout
from fpga_models.core.pipeline import PersonSlot, PortraitPipeline, PortraitRequest
from fpga_models.core.weights import write_manifest
from fpga_models.errors import WeightsError
from fpga_models.lab.random_networks import BASES, narrow, random_pipeline
from orchestrator.errors import FpgaError
from orchestrator.models import adding
from orchestrator.models.adding import Asked, Lora, add, look
from orchestrator.planning.presets import load_preset
from tests.services.hub import running_hub
from tests.unit.fpga_models.published import SIDE, save, save_base, single_file

ROOT = Path(__file__).parents[4]
UNET, VAE, TEXT = (
    f"{part}.safetensors"
    for part in ("unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model", "text_encoder/model")
)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models folder with narrow sd15 and sdxl, and in `own` a base of the SDXL class with other weights."""
    folder = tmp_path_factory.mktemp("models")
    for name in ("sd15", "sdxl"):
        save(random_pipeline(narrow(BASES[name]), dtype=torch.float32), name, folder / "models" / name)
        (folder / "models" / name / "faces").mkdir()
        (folder / "models" / name / "faces" / "pack.json").write_text("{}")
    own = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    with torch.no_grad():
        own.denoiser.unet.conv_out.weight.mul_(0.5)
    save_base(own, folder / "own")
    return folder


@pytest.fixture
def machine(installed: Path, tmp_path: Path) -> Path:
    """A copy of it that a test may alter."""
    shutil.copytree(installed, tmp_path / "m", copy_function=os.link)
    return tmp_path / "m"


def quiet(*_: object) -> None:
    """Nobody watches."""


def drawn(pipeline: PortraitPipeline) -> np.ndarray[Any, Any]:
    pipeline.preset = replace(pipeline.preset, sizes=((SIDE, SIDE),))
    slot = pipeline.preset.layouts["portrait"]["slots"][0]
    person = PersonSlot(embedding=np.ones(512), kps5=np.array(slot["kps5"]) * SIDE)
    request = PortraitRequest(
        prompt="a person", people=(person,), width=SIDE, height=SIDE, seed=3, steps=2, control="none"
    )
    (picture,) = pipeline.generate([request])
    assert picture is not None
    return picture.astype(int)


def rename(folder: Path, name: str, to: str) -> None:
    """Give a file another name; the original that it is linked to stays."""
    (folder / name).rename(folder / to)


def rewrite(path: Path, **values: object) -> None:
    """Change a JSON file of a linked copy."""
    facts = json.loads(path.read_text()) | values
    path.unlink()
    path.write_text(json.dumps(facts))


@pytest.mark.slow
def test_a_folder_with_variants_and_shards_draws_as_its_networks_do(machine: Path) -> None:
    own = machine / "own"
    for name in ("id_adapter.safetensors", "preset.json"):
        shutil.copy(machine / "models" / "sdxl" / name, own)
    (own / "controlnet").symlink_to(machine / "models" / "sdxl" / "controlnet")
    write_manifest(own, {})
    before = drawn(PortraitPipeline.from_pretrained(own))
    state, half = load_file(own / UNET), len(load_file(own / UNET)) // 2
    parts = dict(list(state.items())[:half]), dict(list(state.items())[half:])
    named = [f"diffusion_pytorch_model-0000{n}-of-00002.fp16.safetensors" for n in (1, 2)]
    for name, part in zip(named, parts, strict=True):
        save_file(part, own / "unet" / name)
    index = {"metadata": {}, "weight_map": {key: name for name, part in zip(named, parts, strict=True) for key in part}}
    (own / "unet" / "diffusion_pytorch_model.safetensors.index.fp16.json").write_text(json.dumps(index))
    (own / UNET).unlink()
    rename(own, VAE, "vae/diffusion_pytorch_model.fp16.safetensors")
    rename(own, TEXT, "text_encoder/model.fp16.safetensors")

    made = add(look(Asked(name="mine", source=str(own), licence="own"), machine / "models"), machine / "models", quiet)

    loaded, other = (PortraitPipeline.from_pretrained(machine / "models" / name) for name in ("mine", "sdxl"))
    assert np.abs(drawn(loaded) - before).max() <= 1
    assert np.abs(drawn(other) - before).max() > 1, "the base is another"
    (source,) = made["sources"]
    assert source["licence"] == "own"
    assert {"unet/" + name for name in named} <= {file["path"] for file in source["files"]}
    stock = DiffusionPipeline.from_pretrained(machine / "models" / "mine", local_files_only=True)
    assert type(stock).__name__ == "StableDiffusionXLPipeline"
    facts = load_preset(machine / "models", "mine")
    assert "own" in facts.licence.split("; ")
    assert facts.title.endswith("otherwise as sdxl")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", pytest.param("sdxl", marks=pytest.mark.slow)])
def test_a_checkpoint_of_one_file_draws_as_the_folder_that_it_was_made_from(machine: Path, name: str) -> None:
    base = random_pipeline(narrow(BASES[name]), dtype=torch.float16)
    save_file(single_file(base), machine / "mine.safetensors")
    asked = Asked(name="mine", source=str(machine / "mine.safetensors"), licence="MIT", commercial=True, steps=7)
    plan = look(asked, machine / "models")
    assert plan.like.name == name, "the class was read off the file"

    add(plan, machine / "models", quiet)

    before, after = (drawn(PortraitPipeline.from_pretrained(machine / "models" / n)) for n in (name, "mine"))
    assert np.abs(before - after).max() <= 2  # 16 bit
    facts = json.loads((machine / "models" / "mine" / "preset.json").read_text())
    assert facts["defaults"]["steps"] == 7
    assert {part["file"] for part in facts["components"]} >= {UNET, VAE, TEXT}
    upcast = json.loads((machine / "models" / "mine" / "vae" / "config.json").read_text())["force_upcast"]
    assert upcast is True, "autoencoders of SDXL's kind overflow in 16 bit"


def lora(folder: Path, layout: str) -> Path:
    """A LoRA of the own base's first attention layers, in the layout of diffusers or PEFT."""
    state, rng = load_file(folder / "own" / UNET), torch.Generator().manual_seed(0)
    ends = {"diffusers": ("lora.down.weight", "lora.up.weight"), "peft": ("lora_A.weight", "lora_B.weight")}[layout]
    found: dict[str, torch.Tensor] = {}
    for key, value in state.items():
        if key.endswith("attn2.to_q.weight"):
            name = "unet." + key.removesuffix(".weight")
            found[f"{name}.{ends[0]}"] = torch.randn(2, value.shape[1], generator=rng)
            found[f"{name}.{ends[1]}"] = torch.randn(value.shape[0], 2, generator=rng)
    path = folder / f"{layout}.safetensors"
    save_file(found, path)
    return path


@pytest.mark.slow
def test_loras_of_both_layouts_are_folded_alike_licensed_and_kept(machine: Path) -> None:
    pictures = []
    for keys in ("diffusers", "peft"):
        asked = Asked(
            name=keys, source=str(machine / "own"), licence="MIT", sampler="euler",
            loras=(Lora(source=str(lora(machine, keys)), weight=0.5),),
        )  # fmt: skip
        add(look(asked, machine / "models"), machine / "models", quiet)
        loaded = PortraitPipeline.from_pretrained(machine / "models" / keys)
        assert loaded.preset.sampler == {"name": "euler"}
        assert loaded.preset.loras == ({"file": f"lora/1-{keys}.safetensors", "weight": 0.5},)
        pictures.append(drawn(loaded))
    asked = Asked(name="without", source=str(machine / "own"), licence="MIT", sampler="euler")
    add(look(asked, machine / "models"), machine / "models", quiet)
    assert np.abs(pictures[0] - pictures[1]).max() <= 1
    without = drawn(PortraitPipeline.from_pretrained(machine / "models" / "without"))
    assert np.abs(pictures[0] - without).max() > 1


def cut(path: Path) -> None:
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-100])


def pickles(folder: Path) -> None:
    rename(folder, UNET, "unet/diffusion_pytorch_model.bin")


def transformer(folder: Path) -> None:
    (folder / "transformer").mkdir()
    (folder / "transformer" / "config.json").write_text("{}")


def narrower(folder: Path) -> None:
    state = {key: value.clone() for key, value in load_file(folder / UNET).items()}
    state.pop(sorted(state)[0])
    (folder / UNET).unlink()
    save_file(state, folder / UNET)


def scheduler(**values: object) -> Callable[[Path], None]:
    return lambda own: rewrite(own / "scheduler" / "scheduler_config.json", **values)


def config(part: str, **values: object) -> Callable[[Path], None]:
    return lambda own: rewrite(own / part / "config.json", **values)


BY_NAMES: dict[str, tuple[Callable[[Path], object], str]] = {
    "transformer": (transformer, r"own is a transformer base \(transformer/\)"),
    "pickles": (pickles, r"unet/diffusion_pytorch_model\.bin only: pickles are never opened"),
    "no tokenizer": (lambda own: shutil.rmtree(own / "tokenizer"), "own has no tokenizer/"),
    "no unet": (lambda own: shutil.rmtree(own / "unet"), r"no unet/config\.json"),
}
BY_CONFIGURATION: dict[str, tuple[Callable[[Path], object], str]] = {
    "flow": (scheduler(_class_name="FlowMatchEulerDiscreteScheduler"), "DiscreteScheduler: flow matching"),
    "edm": (scheduler(_class_name="EDMEulerScheduler"), "EDMEulerScheduler: another parametrisation"),
    "sample": (scheduler(prediction_type="sample"), "prediction_type sample"),
    "class": (config("unet", _class_name="SD3Transformer2DModel"), "says SD3Transformer2DModel; UNet2DConditionModel"),
    "inpainting": (config("unet", in_channels=9), "in_channels says 9; 4 was"),
    "kandinsky": (config("unet", encoder_hid_dim_type="image_proj"), "wants image_proj as condition"),
    "kolors": (config("text_encoder", architectures=["ChatGLMModel"]), "says ChatGLMModel; CLIPTextModel was wanted"),
    "tiny": (config("vae", _class_name="AutoencoderTiny"), "says AutoencoderTiny; AutoencoderKL was wanted"),
    "playground": (config("vae", latents_mean=[0.1]), "has latents_mean"),
}
BY_WEIGHTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut": (lambda own: cut(own / UNET), "not a whole safetensors file"),
    "cut vae": (lambda own: cut(own / VAE), "vae cannot be loaded"),
    "keys": (narrower, r"unet does not hold what its config\.json says: .* is None"),
}


@pytest.mark.parametrize("kind", BY_NAMES)
def test_what_is_no_base_of_ours_is_refused_by_its_names(machine: Path, kind: str) -> None:
    spoil, said = BY_NAMES[kind]
    spoil(machine / "own")
    with pytest.raises(FpgaError, match=said):
        look(Asked(name="mine", source=str(machine / "own"), licence="MIT"), machine / "models")


@pytest.mark.parametrize("kind", BY_CONFIGURATION)
def test_what_is_no_base_of_ours_is_refused_by_its_configuration(machine: Path, kind: str) -> None:
    spoil, said = BY_CONFIGURATION[kind]
    layout.check_configs(machine / "own")
    spoil(machine / "own")
    with pytest.raises(WeightsError, match=said):
        layout.check_configs(machine / "own")


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(transformer, "own is a transformer base"), (pickles, r"model\.bin; diffusion_pytorch_model\.safetensors was")],
)
def test_a_folder_put_here_by_hand_is_refused_alike(machine: Path, spoil: Callable[[Path], None], said: str) -> None:
    layout.check_kind(machine / "own")
    spoil(machine / "own")
    with pytest.raises(WeightsError, match=said):
        layout.check_kind(machine / "own")


@pytest.mark.parametrize("kind", BY_WEIGHTS)
def test_weights_that_are_not_whole_are_refused(machine: Path, kind: str) -> None:
    shutil.copy(machine / "models" / "sdxl" / "id_adapter.safetensors", machine / "own")
    spoil, said = BY_WEIGHTS[kind]
    spoil(machine / "own")
    with pytest.raises(WeightsError, match=said):
        layout.check_networks(machine / "own", {})


def test_a_refusal_leaves_nothing_behind(machine: Path) -> None:
    transformer_scheduler, said = BY_CONFIGURATION["flow"]
    transformer_scheduler(machine / "own")
    with pytest.raises(FpgaError, match=said):
        add(look(Asked(name="mine", source=str(machine / "own"), licence="MIT"), machine / "models"),
            machine / "models", quiet)  # fmt: skip
    assert not (machine / "models" / "mine").exists()


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"source": "model.ckpt"}, "is a pickle"),
        ({"source": "nowhere/at/all/"}, "is not here, and is no owner/name"),
        ({"source": "./nothing"}, "is not here"),
        ({"licence": None}, "under which licence own is must be said"),
        ({"like": "sd15"}, "has two text encoders and sd15 has not"),
        ({"like": "mini"}, "preset 'mini', which is not here: `fpga model pull mini`"),
        ({"name": "sdxl"}, "there is a preset 'sdxl' already"),
        ({"name": "../x"}, "is no name of a preset"),
        ({"sampler": "heun"}, "sampler 'heun'"),
        ({"loras": (Lora(source="style.pt", weight=1.0),)}, "is a pickle"),
    ],
)
def test_what_was_asked_wrongly_is_refused_before_anything_is_read(
    installed: Path, asked: dict[str, Any], said: str
) -> None:
    right = {"name": "mine", "source": str(installed / "own"), "licence": "MIT"}
    with pytest.raises(FpgaError, match=said):
        look(Asked(**right | asked), installed / "models")


@pytest.mark.slow
def test_a_lora_of_another_base_and_a_cut_checkpoint_are_refused(machine: Path) -> None:
    save_file({"unet.nothing.lora_A.weight": torch.ones(2, 4), "unet.nothing.lora_B.weight": torch.ones(4, 2)},
              machine / "foreign.safetensors")  # fmt: skip
    foreign = Lora(source=str(machine / "foreign.safetensors"), weight=1.0)
    asked = Asked(name="mine", source=str(machine / "own"), licence="MIT", loras=(foreign,))
    with pytest.raises(FpgaError, match="was made for another base"):
        add(look(asked, machine / "models"), machine / "models", quiet)
    data = (machine / "foreign.safetensors").read_bytes()
    (machine / "foreign.safetensors").write_bytes(data[:-1])
    with pytest.raises(FpgaError, match=r"foreign\.safetensors is cut"):
        look(asked, machine / "models")
    vae = Asked(name="mine", source=str(machine / "own" / VAE), licence="MIT")
    with pytest.raises(FpgaError, match="is no checkpoint of the class of sd15"):
        add(look(vae, machine / "models"), machine / "models", quiet)
    with pytest.raises(FpgaError, match="a number was wanted"):
        adding.read_lora("style.safetensors=much")


@pytest.mark.slow
def test_a_hub_gives_a_base_with_the_licence_of_its_card(machine: Path) -> None:
    with running_hub() as hub:
        for path in (machine / "own").rglob("*"):
            if path.is_file():
                hub.files["someone/own-xl", path.relative_to(machine / "own").as_posix()] = path
        hub.files["someone/pickled", "unet/config.json"] = b"{}"
        hub.files["someone/pickled", "unet/diffusion_pytorch_model.bin"] = b"pickle"
        hub.cards["someone/own-xl"] = {"license": "other", "license_name": "own-licence"}

        def run(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "orchestrator.cli.app", "model", "add", *arguments],
                cwd=ROOT, capture_output=True, text=True, check=False,
                env=os.environ | {"HF_ENDPOINT": hub.url, "HF_HOME": str(machine / "hf"), "HF_TOKEN": "",
                                  "FPGA_MODELS_DIR": str(machine / "models"), "FPGA_STATE_DIR": str(machine / "s")},
            )  # fmt: skip

        asked = run("mine", "someone/own-xl")
        assert asked.returncode != 0, "the licence was not accepted"
        assert "someone/own-xl: other own-licence" in asked.stderr
        came = run("mine", "someone/own-xl", "--yes", "--json")
        assert came.returncode == 0, came.stderr
        (source,) = json.loads(came.stdout)["made"]["sources"]
        assert (source["repo"], source["revision"]) == ("someone/own-xl", hub.revision)
        assert drawn(PortraitPipeline.from_pretrained(machine / "models" / "mine")).shape == (SIDE, SIDE, 3)
        refused = run("other", "someone/pickled", "--yes")
        assert "someone/pickled has no scheduler/scheduler_config.json" in refused.stderr
        assert not any(one.path.endswith(".bin") for one in hub.asked)
