"""Pulling a preset from a hub in Hugging Face's own layout: pins, cut downloads, offline, pickles."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from orchestrator.models.pull import CATALOG, PinnedFile, catalog_names, read_catalog
from orchestrator.planning.presets import load_preset

ROOT = Path(__file__).parents[4]
REPO, REVISION = "someone/base", "0123456789abcdef0123456789abcdef01234567"
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


@dataclass
class Hub:
    """A mirror that serves files of one repository, and may cut an answer after so many bytes."""

    files: dict[str, bytes] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    url: str = ""


@pytest.fixture
def hub() -> Iterator[Hub]:
    mirror = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            name = self.path.removeprefix(f"/{REPO}/resolve/{REVISION}/")
            mirror.asked.append((self.command, name, self.headers.get("Range")))
            if name not in mirror.files:
                self.send_error(404)
                return
            data = mirror.files[name]
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("X-Repo-Commit", REVISION)
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("Content-Length", str(len(data) - start))
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.end_headers()
            if body:
                end = mirror.cut.pop(name, len(data))
                self.wfile.write(data[start:end])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    mirror.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield mirror
    server.shutdown()


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
        self.hub.files[path] = data
        right = hashlib.sha256(data).hexdigest() if sha256 == "" else sha256
        self.files.append({"path": path, "to": to, "sha256": right})

    def pull(self, **environment: str) -> tuple[int, dict[str, Any]]:
        """Run the pull in a process of its own, since the hub's variables are read once."""
        source = {
            "component": "everything", "repo": REPO, "revision": REVISION, "licence": "MIT",
            "licence_url": "https://example.org", "commercial": True, "files": self.files,
        }  # fmt: skip
        facts = json.loads((CATALOG / "sd15.json").read_text()) | {"title": "Tiny", "sources": [source]}
        (self.folder / "catalog").mkdir(exist_ok=True)
        (self.folder / "catalog" / "tiny.json").write_text(json.dumps(facts))
        ended = subprocess.run(
            [sys.executable, "-c", DRIVER, str(self.models), str(self.folder / "catalog")],
            env=os.environ | {"HF_ENDPOINT": self.hub.url, "HF_HOME": str(self.folder / "hf"), **environment},
            cwd=ROOT, capture_output=True, text=True, check=False,
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
    assert (source["repo"], source["revision"], source["licence"]) == (REPO, REVISION, "MIT")
    assert [file["pinned"] for file in source["files"]] == [False, True, True]
    assert source["files"][0]["sha256"] == hashlib.sha256(b"{}").hexdigest()

    code, error = machine.pull()
    assert (code, error["code"]) == (1, "preset_installed")


def test_a_cut_download_goes_on_where_it_was(machine: Machine) -> None:
    data = os.urandom(3_000_000)
    machine.pin("unet/weights", "unet/weights", data)
    machine.hub.cut["unet/weights"] = 2_000_000

    code, error = machine.pull()
    assert (code, error["code"]) == (1, "hub_unreachable")
    assert not (machine.models / "tiny").exists()

    code, made = machine.pull()
    assert code == 0, made
    assert (machine.models / "tiny" / "unet" / "weights").read_bytes() == data
    (begun,) = [where for method, _, where in machine.hub.asked if method == "GET" and where]
    assert 0 < int(begun.removeprefix("bytes=").rstrip("-")) <= 2_000_000


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

    cached = machine.folder / "hf" / "hub" / "models--someone--base" / "snapshots" / REVISION / "unet" / "config.json"
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
    assert catalog_names() == ["sd15", "sdxl"]
    for name in catalog_names():
        catalog = read_catalog(name)
        files: list[PinnedFile] = [file for source in catalog.sources for file in source.files]
        assert all(file.sha256 for file in files if file.pickled)
        wanted = {"unet/config.json", "vae/config.json", "tokenizer/vocab.json", "id_adapter.safetensors"}
        assert wanted <= {file.to for file in files}
        assert len({file.to for file in files}) == len(files)
        assert all(source.licence and source.licence_url for source in catalog.sources)
        assert all(source.commercial != source.licence.startswith("non-commercial") for source in catalog.sources)


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
