"""Pulling a preset from a hub in Hugging Face's own layout: pins, cut downloads, offline, pickles."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.models.pull import CATALOG, PinnedFile, catalog_names, read_catalog
from orchestrator.planning.presets import load_preset
from tests.services.hub import Hub, running_hub

ROOT = Path(__file__).parents[4]
REPO = "someone/base"
DRIVER = """
import json, sys
from pathlib import Path
from orchestrator.errors import FpgaError
from orchestrator.models.pull import pull
try:
    print(json.dumps(pull("tiny", Path(sys.argv[1]), lambda *_: None, folder=Path(sys.argv[2]))))
except FpgaError as error:
    print(json.dumps(error.as_json()))
    sys.exit(1)
"""


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running_hub() as mirror:
        yield mirror


@dataclass
class Machine:
    """A machine without the preset: its folders, and a way to pull."""

    folder: Path
    hub: Hub
    files: list[dict[str, Any]] = field(default_factory=list)

    @property
    def models(self) -> Path:
        return self.folder / "models"

    def pin(self, path: str, to: str, data: bytes, *, sha256: str | None = "") -> None:
        """Put a file on the hub and into the catalog; sha256 '' means the right one."""
        self.hub.files[REPO, path] = data
        right = hashlib.sha256(data).hexdigest() if sha256 == "" else sha256
        self.files.append({"path": path, "to": to, "sha256": right})

    def pull(self, *, revision: str = "", **environment: str) -> tuple[int, dict[str, Any]]:
        """Run the pull in a process of its own, since the hub's variables are read once."""
        source = {
            "component": "everything", "repo": REPO, "revision": revision or self.hub.revision, "licence": "MIT",
            "licence_url": "https://example.org", "commercial": True, "files": self.files,
        }  # fmt: skip
        facts = json.loads((CATALOG / "sd15.json").read_text()) | {"title": "Tiny", "sources": [source]}
        (self.folder / "catalog").mkdir(exist_ok=True)
        (self.folder / "catalog" / "tiny.json").write_text(json.dumps(facts))
        hub_at = {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf"), "HF_TOKEN": ""}
        ended = subprocess.run(
            [sys.executable, "-c", DRIVER, str(self.models), str(self.folder / "catalog")],
            env=os.environ | hub_at | environment, cwd=ROOT, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert ended.stdout, ended.stderr
        return ended.returncode, json.loads(ended.stdout)


@pytest.fixture
def machine(hub: Hub, tmp_path: Path) -> Machine:
    (tmp_path / "models" / "mini").mkdir(parents=True)
    shutil.copy(ROOT / "fpga_models" / "weights" / "mini" / "preset.json", tmp_path / "models" / "mini")
    return Machine(folder=tmp_path, hub=hub)


def pickled(state: Any, path: Path) -> bytes:
    torch.save(state, path)
    return path.read_bytes()


def test_a_pulled_preset_is_whole_converted_licensed_and_pinned(machine: Machine, tmp_path: Path) -> None:
    adapter = {"image_proj": {"proj.0.weight": torch.ones(2, 3)}, "ip_adapter": {"1.to_k_ip.weight": torch.zeros(2, 2)}}
    machine.pin("unet/config.json", "unet/config.json", b"{}", sha256=None)
    machine.pin("ip-adapter.bin", "id_adapter.safetensors", pickled(adapter, tmp_path / "a.bin"))
    machine.pin("det.onnx", "faces/det.onnx", b"network")

    code, made = machine.pull()

    assert code == 0, made
    folder = machine.models / "tiny"
    assert load_preset(machine.models, "tiny").title == "Tiny"
    assert load_file(folder / "id_adapter.safetensors").keys() == {
        "image_proj.proj.0.weight",
        "ip_adapter.1.to_k_ip.weight",
    }
    assert not list(folder.rglob("*.bin"))
    assert json.loads((folder / "faces" / "pack.json").read_text())["sha256"] == {
        "det.onnx": hashlib.sha256(b"network").hexdigest()
    }
    manifest = json.loads((folder / "weights.json").read_text())
    assert {"unet/config.json", "id_adapter.safetensors", "faces/det.onnx", "preset.json"} <= manifest["files"].keys()
    (source,) = manifest["made"]["sources"]
    assert (source["repo"], source["revision"], source["licence"]) == (REPO, machine.hub.revision, "MIT")
    assert [file["pinned"] for file in source["files"]] == [False, True, True]
    assert source["files"][0]["sha256"] == hashlib.sha256(b"{}").hexdigest()

    code, error = machine.pull()
    assert (code, error["code"]) == (1, "preset_installed")


def test_a_cut_download_goes_on_where_it_was(machine: Machine) -> None:
    data = os.urandom(25_000_000)  # the library writes 10 MB at a time
    machine.pin("unet/weights.safetensors", "unet/weights", data)
    machine.hub.cut["unet/weights.safetensors"] = 24_000_000
    code, made = machine.pull()
    assert code == 0, made
    assert (machine.models / "tiny" / "unet" / "weights").read_bytes() == data
    (begun,) = [asked.range for asked in machine.hub.asked if asked.method == "GET" and asked.range]
    assert 0 < int(begun.removeprefix("bytes=").rstrip("-")) <= 24_000_000


def test_what_came_whole_is_not_fetched_again(machine: Machine) -> None:
    machine.pin("first.safetensors", "first", b"1" * 1000)
    machine.pin("second.json", "second.json", b"{}", sha256="a" * 64)
    code, error = machine.pull()
    assert (code, error["code"]) == (1, "sha256_mismatch")
    machine.files[1]["sha256"] = hashlib.sha256(b"{}").hexdigest()
    code, made = machine.pull()
    assert code == 0, made
    assert [a.path for a in machine.hub.asked if a.host == "cdn" and a.method == "GET"] == ["first.safetensors"]


@pytest.mark.parametrize("pinned", [True, False])
def test_a_file_that_the_hub_compresses_comes_as_it_is(machine: Machine, pinned: bool) -> None:
    words = b"the same words again and again, " * 4000
    machine.pin("vocab.json", "tokenizer/vocab.json", words, sha256="" if pinned else None)
    code, made = machine.pull()
    assert code == 0, made
    assert (machine.models / "tiny" / "tokenizer" / "vocab.json").read_bytes() == words
    assert any(a.method == "GET" and "gzip" in a.accepts for a in machine.hub.asked), "nothing was compressed"


@pytest.mark.parametrize("path", ["config.json", "weights.onnx"])
def test_an_unpinned_file_is_held_against_the_hash_that_the_hub_tells(machine: Machine, path: str) -> None:
    machine.pin(path, path, b"a" * 500, sha256=None)
    machine.hub.damage.add(path)
    code, error = machine.pull()
    assert (code, error["code"]) == (1, "sha256_mismatch")
    machine.hub.damage.clear()
    code, made = machine.pull()
    assert code == 0, made


@pytest.mark.slow
@pytest.mark.parametrize("statuses", [[500], [429, 503]])
def test_a_hub_that_stumbles_is_asked_again(machine: Machine, statuses: list[int]) -> None:
    machine.pin("config.json", "config.json", b"{}")
    machine.hub.trouble["config.json"] = statuses
    code, made = machine.pull()
    assert code == 0, made


@pytest.mark.slow
def test_a_token_opens_a_gated_repository_and_does_not_follow_to_another_host(machine: Machine) -> None:
    machine.pin("weights.safetensors", "weights", b"a" * 500)
    machine.hub.gated[REPO] = "hf_right"
    for token in ("", "hf_wrong"):
        code, error = machine.pull(HF_TOKEN=token)
        assert (code, error["code"]) == (1, "gated")
        assert f"accept its terms at {machine.hub.url}/{REPO} " in error["message"]
    code, made = machine.pull(HF_TOKEN="hf_right")
    assert code == 0, made
    assert [a.token for a in machine.hub.asked if a.host == "cdn"] == [None] * len(
        [a for a in machine.hub.asked if a.host == "cdn"]
    )
    assert any(a.host == "cdn" for a in machine.hub.asked)


@pytest.mark.parametrize(
    ("change", "wanted", "said"),
    [
        ({"files": {}}, "hub_refused", "does not give out someone/base/config.json"),
        ({"files": {(REPO, "other.json"): b""}}, "not_on_the_hub", "has no someone/base/config.json"),
        ({"revision": "f" * 40}, "not_on_the_hub", "has no someone/base/config.json at 0123456"),
        ({"trouble": {"config.json": [403] * 9}}, "hub_refused", "(403)"),
    ],
)
def test_what_the_hub_refuses_is_said_in_one_sentence(
    machine: Machine, change: dict[str, Any], wanted: str, said: str
) -> None:
    machine.pin("config.json", "config.json", b"{}")
    revision = machine.hub.revision
    for name, value in change.items():
        setattr(machine.hub, name, value)
    code, error = machine.pull(revision=revision)
    assert (code, error["code"]) == (1, wanted)
    assert said in error["message"]


@pytest.mark.slow  # huggingface_hub asks for half a minute before it gives up
@pytest.mark.parametrize(("reason", "wanted"), [("down", "hub_unreachable"), ("busy", "hub_busy")])
def test_without_an_answer_there_is_one_sentence(machine: Machine, reason: str, wanted: str) -> None:
    machine.pin("config.json", "config.json", b"{}")
    machine.hub.trouble["config.json"] = [503] * 99
    elsewhere = {"HF_ENDPOINT": "http://127.0.0.1:1"} if reason == "down" else {}
    code, error = machine.pull(**elsewhere)
    assert (code, error["code"]) == (1, wanted)
    assert "\n" not in error["message"]


def test_another_sha256_is_refused_with_both_and_nothing_is_installed(machine: Machine) -> None:
    machine.pin("unet/weights", "unet/weights", b"not what was reviewed", sha256="a" * 64)
    code, error = machine.pull()
    assert (code, error["code"]) == (1, "sha256_mismatch")
    assert "a" * 64 in error["message"]
    assert hashlib.sha256(b"not what was reviewed").hexdigest() in error["message"]
    assert not (machine.models / "tiny").exists()


def test_offline_takes_what_the_cache_has_and_says_what_it_lacks(machine: Machine) -> None:
    machine.pin("unet/config.json", "unet/config.json", b"{}")
    code, error = machine.pull(HF_HUB_OFFLINE="1")
    assert (code, error["code"]) == (1, "offline")
    assert "someone/base/unet/config.json at 0123456" in error["message"]

    cached = (
        machine.folder
        / "hf"
        / "hub"
        / "models--someone--base"
        / "snapshots"
        / machine.hub.revision
        / "unet"
        / "config.json"
    )
    cached.parent.mkdir(parents=True)
    cached.write_bytes(b"{}")
    code, made = machine.pull(HF_HUB_OFFLINE="1")
    assert code == 0, made
    assert machine.hub.asked == []


def test_a_pickle_with_code_in_it_is_refused_and_does_not_run(machine: Machine, tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
            return os.mkdir, (str(tmp_path / "it-ran"),)

    machine.pin("ip-adapter.bin", "id_adapter.safetensors", pickle.dumps({"image_proj": Bomb()}))
    code, error = machine.pull()
    assert (code, error["code"]) == (1, "conversion_failed")
    assert "ip-adapter.bin holds more than tensors" in error["message"]
    assert not (tmp_path / "it-ran").exists()


def test_a_pickle_without_a_pinned_sha256_is_refused(machine: Machine) -> None:
    machine.pin("ip-adapter.bin", "id_adapter.safetensors", b"", sha256=None)
    code, error = machine.pull()
    assert (code, error["code"]) == (1, "unpinned")


def test_what_is_shipped_pins_every_revision_and_every_pickle() -> None:
    assert catalog_names() == ["faces", "sd15", "sdxl", "sdxl-fast"]
    for name in catalog_names():
        catalog = read_catalog(name)
        files: list[PinnedFile] = [file for source in catalog.sources for file in source.files]
        assert all(file.sha256 for file in files if file.pickled)
        wanted = {"unet/config.json", "vae/config.json", "tokenizer/vocab.json", "id_adapter.safetensors"}
        assert name == "faces" or wanted <= {file.to for file in files}, "a pack of faces alone draws nothing"
        assert len({file.to for file in files}) == len(files)
        assert all(source.licence and source.licence_url for source in catalog.sources)
        for source in catalog.sources:
            assert source.commercial == (not any(word in source.licence for word in ("non-commercial", "research")))


def test_without_the_licences_accepted_nothing_is_fetched(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", "--state-dir", str(tmp_path), "model", "pull", "sdxl"],
        env=os.environ | {"HF_HUB_OFFLINE": "1"}, stdin=subprocess.DEVNULL,
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ended.returncode == 1
    assert "CreativeML Open RAIL++-M" in ended.stderr
    assert "--yes accepts them" in ended.stderr
    assert list(tmp_path.iterdir()) == []
