"""A real preset as its user has it, from a mirror of the hub at reduced width: the lines of README's "A real preset".

Pull, start, enrol, a batch of two and three people, restore by likeness, swap, reproduce. Networks are random and
narrow, in SDXL's layout with InstantID's, so pictures show nothing; what is held is that every step finds its way.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler

from fpga_models.core.presets import preset_directory
from fpga_models.lab.random_networks import BASES, narrow, random_pipeline
from orchestrator.models.pull import CATALOG
from tests.services.hub import Hub, running_hub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
FPGA = Path(sys.executable).with_name("fpga")
ROOT = Path(__file__).parents[3]
SIDE = 128
PEOPLE = ("ada", "bruno", "clara")


def publish(hub: Hub, folder: Path) -> dict[str, Any]:
    """Put narrow networks onto the hub under the names of the catalog; returns the catalog with their hashes."""
    made = random_pipeline(narrow(BASES["sdxl"]), dtype=torch.float32)
    second = made.second_encoder
    assert second is not None
    made.text_encoder.save_pretrained(folder / "text_encoder")
    second.encoder.save_pretrained(folder / "text_encoder_2")
    for name in ("tokenizer", "tokenizer_2"):
        made.tokenizer.save_pretrained(folder / name, legacy_format=True)
    made.vae.save_pretrained(folder / "vae")
    made.denoiser.controlnet.save_pretrained(folder / "controlnet")
    groups: dict[str, dict[str, torch.Tensor]] = {}
    for key, value in made.denoiser.id_adapter.state_dict().items():
        group, rest = key.split(".", 1)
        groups.setdefault(group, {})[rest] = value
    torch.save(groups, folder / "ip-adapter.bin")
    made.denoiser.release().save_pretrained(folder / "unet")
    DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", steps_offset=1, set_alpha_to_one=False
    ).save_pretrained(folder / "scheduler")
    mini = preset_directory("mini")
    shutil.copytree(mini / "faces", folder / "faces")

    catalog: dict[str, Any] = json.loads((CATALOG / "sdxl.json").read_text())
    settings = json.loads((mini / "faces" / "pack.json").read_text())
    drawn = {"domain": "drawn"}  # as the people of this test are
    catalog["pack"] = {name: settings[name] for name in ("det_size", "det_thresh")} | drawn
    catalog["preset"] |= drawn
    catalog["preset"] |= {"sizes": [[SIDE, SIDE]], "crop_sides": [SIDE]}
    catalog["preset"]["defaults"] |= {"steps": 2}
    catalog["preset"]["diir"]["restore"] |= {"steps": 2}
    catalog["preset"]["diir"]["swap"] |= {"steps": 2}
    elsewhere = {"id_adapter.safetensors": "ip-adapter.bin", "faces/scrfd_10g_bnkps.onnx": "faces/detector.onnx",
                 "faces/glintr100.onnx": "faces/recogniser.onnx"}  # fmt: skip
    for source in catalog["sources"]:
        source["revision"] = hub.revision
        kept = []
        for file in source["files"]:
            path = folder / elsewhere.get(file["to"], file["to"])
            if not path.exists():  # another version of transformers writes other files beside the vocabulary
                continue
            hub.files[source["repo"], file["path"]] = path
            kept.append(file | {"sha256": hashlib.sha256(path.read_bytes()).hexdigest()})
        source["files"] = kept
    return catalog


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A clean machine's environment: no preset but mini, no cache, the mirror as its hub."""
    with running_hub() as hub:
        (tmp_path / "published").mkdir()
        catalog = publish(hub, tmp_path / "published")
        (tmp_path / "catalog").mkdir()
        (tmp_path / "catalog" / "sdxl.json").write_text(json.dumps(catalog))
        shutil.copytree(preset_directory("mini"), tmp_path / "models" / "mini")
        yield os.environ | {
            "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "",
            "FPGA_CATALOG_DIR": str(tmp_path / "catalog"), "FPGA_MODELS_DIR": str(tmp_path / "models"),
            "FPGA_STATE_DIR": str(tmp_path / "state"), "FPGA_TORCH_THREADS": "1", "FPGA_DEVICE": "cpu",
        }  # fmt: skip


def test_pull_up_enrol_draw_restore_swap_and_reproduce(machine: dict[str, str], tmp_path: Path) -> None:
    def fpga(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        ended = subprocess.run(
            [FPGA, *arguments], env=machine | environment, cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert ended.returncode == 0, f"fpga {' '.join(arguments)}\n{ended.stdout}\n{ended.stderr}"
        return ended

    said = fpga("model", "pull", "sdxl", "--yes").stderr
    assert "research purposes only by the authors' README" in said
    machine["FPGA_PRESET"] = "sdxl"
    with (tmp_path / "up.log").open("wb") as log:
        up = subprocess.Popen([FPGA, "up"], env=machine, cwd=ROOT, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while subprocess.run([FPGA, "doctor"], env=machine, capture_output=True, check=False).returncode:
            assert up.poll() is None, (tmp_path / "up.log").read_text()
            assert time.monotonic() < deadline, "the stack was not well within five minutes"
            time.sleep(1)
        for person in PEOPLE:
            consents = [part for scope in ("generate", "restore", "swap") for part in ("--consent", scope)]
            fpga("identity", "add", person, f"examples/people/{person}/", *consents, "--timeout", "300")
        manifest = tmp_path / "tonight.jsonl"
        rows = [{"custom_id": "two", "people": list(PEOPLE[:2])}, {"custom_id": "three", "people": list(PEOPLE)}]
        manifest.write_text("".join(json.dumps(row) + "\n" for row in rows))
        batch = json.loads(fpga("batch", "submit", str(manifest), "--wait", "--json").stdout)
        results = [json.loads(line) for line in fpga("batch", "results", batch["id"]).stdout.splitlines()]
        assert [line["custom_id"] for line in results] == ["two", "three"]
        assert {line["verdict"] for line in results} <= {"needs_review", "rejected"}, "nothing passes unmeasured"
        assert all(line["params"]["control_scale"] == 0.8 for line in results)

        photos = tmp_path / "scans"
        photos.mkdir()
        shutil.copy(ROOT / "examples" / "people" / "ada" / "3.png", photos / "ada.png")
        fpga("restore", str(photos), "--out", str(tmp_path / "restored"))
        (line,) = (json.loads(one) for one in (tmp_path / "restored" / "results.jsonl").read_text().splitlines())
        assert "no_reference" not in json.dumps(line), "she was known by likeness"
        fpga("swap", str(photos), "--from", "ada", "--to", "bruno", "--out", str(tmp_path / "swapped"))
        (line,) = (json.loads(one) for one in (tmp_path / "swapped" / "results.jsonl").read_text().splitlines())
        assert "swap_person_missing" not in json.dumps(line)

        for result in results:
            again = json.loads(fpga("reproduce", result["id"], "--json").stdout)
            assert again["outcome"] in ("bit_equal", "within_tolerance"), again
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(up.pid, signal.SIGKILL)
