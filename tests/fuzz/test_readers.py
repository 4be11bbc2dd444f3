"""Every reader of foreign bytes gives an answer or a typed error, never a traceback, a hang or a file elsewhere.

The quick suite tries a few hundred inputs for each reader, the slow one thousands; a failure prints its input's seed.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file

from fpga_models.core import weights
from fpga_models.core.adapters.hint import HintAdapter
from fpga_models.core.adapters.id_adapter import IdAdapter
from fpga_models.core.presets import preset_directory, read_preset
from fpga_models.core.rep_controlnet import RepControlNet
from fpga_models.errors import ModelError
from fpga_models.faces.pack import FacePack
from orchestrator.errors import FpgaError
from orchestrator.planning.manifest import Format, read_manifest
from orchestrator.planning.presets import load_preset
from orchestrator.storage.keys import check_key
from orchestrator.storage.local import LocalStore
from tests.fuzz.mutate import try_all

MINI = preset_directory("mini")
EXAMPLES = Path(__file__).parents[2] / "examples"
CSV = (
    b"custom_id,prompt,layout,people,seed,width\n"
    b'one,"photo, evening",portrait,ada@left;bruno,7,128\n'
    b'two,,group_2,"[{""identity"":""ada"",""slot"":""left""}]",,\n'
)
EFFORT = [pytest.param(200, id="quick"), pytest.param(5000, id="long", marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def unet() -> UNet2DConditionModel:
    return UNet2DConditionModel.from_pretrained(MINI / "unet", low_cpu_mem_usage=False)


@pytest.mark.parametrize("count", EFFORT)
@pytest.mark.parametrize("form", ["jsonl", "csv"])
def test_a_damaged_manifest_gives_rows_or_numbered_errors(form: Format, count: int) -> None:
    originals = [(EXAMPLES / "portraits.jsonl").read_bytes()] if form == "jsonl" else [CSV]

    def read(data: bytes) -> None:
        read = read_manifest(data, form)
        assert read.rows or read.errors
        assert all(error.row >= 1 and error.code and error.message for error in read.errors)

    try_all(originals, count, read, FpgaError)


@pytest.mark.parametrize("count", EFFORT)
def test_a_hostile_key_is_refused_or_stays_below_the_store(count: int, tmp_path: Path) -> None:
    inside = tmp_path / "store"
    store = LocalStore(inside)
    originals = [b"objects/studio/ab/cd.png", b"a/../../b", b"/etc/passwd", b"a//b", b"~/x", b"a\x00b", "ä/ö".encode()]

    def read(data: bytes) -> None:
        key = data.decode("utf-8", "surrogateescape")
        check_key(key)
        store.put(key, b"x", media_type="image/png")

    try_all(originals, count, read, FpgaError)
    assert {path.name for path in tmp_path.iterdir()} == {"store"}


@pytest.mark.parametrize("count", EFFORT)
def test_a_damaged_preset_file_is_refused_by_both_sides(count: int, tmp_path: Path) -> None:
    folder = tmp_path / "mini"
    folder.mkdir()

    def read(data: bytes) -> None:
        (folder / "preset.json").write_bytes(data)
        refused = 0
        for side in (lambda: read_preset(folder), lambda: load_preset(tmp_path, "mini")):
            try:
                side()
            except (ModelError, FpgaError):
                refused += 1

    try_all([(MINI / "preset.json").read_bytes()], count, read)


@pytest.mark.parametrize("count", [pytest.param(60, id="quick"), pytest.param(600, id="long", marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", ["id_adapter.safetensors", "hint.safetensors"])
def test_a_damaged_adapter_is_refused(name: str, count: int, tmp_path: Path, unet: UNet2DConditionModel) -> None:
    path = tmp_path / name
    head = (MINI / name).read_bytes()[:12_000]

    def read(data: bytes) -> None:
        path.write_bytes(data)
        if name.startswith("id"):
            IdAdapter.load(path, unet)
        else:
            HintAdapter.load(path)

    try_all([head], count, read, ModelError)


@pytest.mark.parametrize("count", [pytest.param(60, id="quick"), pytest.param(600, id="long", marks=pytest.mark.slow)])
def test_damaged_modal_weights_are_refused(count: int, tmp_path: Path, unet: UNet2DConditionModel) -> None:
    path = tmp_path / "modal.safetensors"
    header = {"format": "pt", "ratio": '{"alpha": 0.9, "beta": 0.1, "kappa": 1.0}'}
    save_file({"x": torch.zeros(4)}, path, header)

    def read(data: bytes) -> None:
        path.write_bytes(data)
        RepControlNet.load(path, unet)

    try_all([path.read_bytes()], count, read, ModelError)


@pytest.mark.parametrize("wound", ["flip", "cut", "missing", "pickle"])
def test_an_altered_weight_file_is_refused_before_it_is_parsed(wound: str, tmp_path: Path) -> None:
    shutil.copytree(MINI / "faces", tmp_path / "faces")
    shutil.copy(MINI / "weights.json", tmp_path / "weights.json")
    victim = tmp_path / "faces" / "recogniser.onnx"
    data = victim.read_bytes()
    victim.unlink()
    if wound == "flip":
        victim.write_bytes(data[:5000] + bytes([data[5000] ^ 1]) + data[5001:])
    elif wound == "cut":
        victim.write_bytes(data[: len(data) // 2])
    elif wound == "pickle":
        victim.write_bytes(b"\x80\x04cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(ModelError, match=r"recogniser\.onnx"):
        weights.verify(tmp_path, below=("faces/",))


@pytest.mark.parametrize("count", [pytest.param(20, id="quick"), pytest.param(200, id="long", marks=pytest.mark.slow)])
def test_a_damaged_face_network_is_refused(count: int, tmp_path: Path) -> None:
    shutil.copytree(MINI / "faces", tmp_path / "faces")
    original = (MINI / "faces" / "detector.onnx").read_bytes()

    def read(data: bytes) -> None:
        (tmp_path / "faces" / "detector.onnx").write_bytes(data)
        FacePack.load(tmp_path / "faces")

    try_all([original[:4000] + original[-4000:], original[:200_000]], count, read, ModelError)
