"""The studio's evening through the command line, on a real worker: submit with broken rows, results, erase."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from datasets import load_dataset

from tests.integration.workers.rig import ROOT, Rig

BROKEN = (3, 11, 22, 33, 49)


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig(tmp_path_factory.mktemp("studio"), group_size=8) as made:
        made.start_worker()
        yield made


def manifest(folder: Path) -> Path:
    """Fifty rows of which five are broken, each in another way."""
    rows: list[dict[str, object]] = [
        {"custom_id": f"p{n}", "people": "ada", "layout": "portrait", "seed": n, "steps": 2} for n in range(50)
    ]
    rows[3]["people"] = "nobody"
    rows[11]["colour"] = "red"
    rows[22]["people"] = [{"identity": "ada", "box": [90, 90, 20, 20]}]
    rows[33]["people"] = "ada@left"
    rows[49]["custom_id"] = "p0"
    path = folder / "tonight.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def test_a_studio_evening(rig: Rig, tmp_path: Path) -> None:
    references = [str(path) for path in sorted((ROOT / "examples" / "people" / "ada").glob("*.png"))]
    added = rig.fpga("identity", "add", "ada", *references, "--consent", "generate", "--granted-by", "form 7", "--json")
    assert added.returncode == 0, added.stderr
    path = manifest(tmp_path)

    checked = rig.fpga("batch", "validate", str(path), "--json")
    assert checked.returncode == 1
    refused = rig.fpga("batch", "submit", str(path))
    assert refused.returncode == 1
    assert json.loads(rig.fpga("batch", "list", "--json").stdout or "[]") == [], "nothing was queued"

    made = rig.fpga("batch", "submit", str(path), "--skip-invalid", "--wait", "--json")
    assert made.returncode == 2, made.stderr
    batch = json.loads(made.stdout)
    assert batch["state"] == "completed_with_errors"
    assert batch["request_counts"] == {"total": 50, "completed": 45, "failed": 5}

    errors = [json.loads(line) for line in rig.fpga("batch", "results", batch["id"], "--errors").stdout.splitlines()]
    assert sorted(error["row"] - 1 for error in errors) == list(BROKEN)
    assert all(error["error"]["code"] and error["error"]["message"] for error in errors)
    results = rig.fpga("batch", "results", batch["id"]).stdout.splitlines()
    assert len(results) == 45

    folder = tmp_path / "out"
    assert rig.fpga("batch", "results", batch["id"], "--download", str(folder)).returncode == 0
    again = rig.fpga("batch", "results", batch["id"], "--download", str(folder))
    assert again.returncode == 0, "what is there and equal is kept"
    data = load_dataset("imagefolder", data_dir=str(folder), split="train", cache_dir=str(tmp_path / "cache"))
    assert len(data) == 45
    assert data[0]["image"].size == (128, 128)

    receipt = tmp_path / "receipt.json"
    erased = rig.fpga("identity", "erase", "ada", "--yes", "--receipt", str(receipt))
    assert erased.returncode == 0, erased.stderr
    rig.wait(lambda: list(rig.store.list()) == [], "nothing of the person is left in the store", 60)
    assert json.loads(receipt.read_text())["references"] == 3
    assert rig.fpga("batch", "submit", str(path), "--skip-invalid").returncode == 1
