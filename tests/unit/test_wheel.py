"""What a wheel holds: the commands that an installed copy offers find their files without a checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
from orchestrator.cli.app import run
from orchestrator.people import examples
assert len(examples.people(set())) == 8
assert examples.MANIFEST.read_bytes().count(b"custom_id") > 4
assert run(["migrate"]) == 0 == run(["batch", "list", "--json"])
"""


@pytest.mark.slow
def test_an_installed_wheel_has_examples_migrations_and_presets(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "installed"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in tracked.splitlines():
        if not name.startswith(("tests/", "docs/")) and (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    made = [*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(tmp_path), str(source)]
    subprocess.run(made, check=True, timeout=200)
    (wheel,) = tmp_path.glob("*.whl")
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, timeout=200)

    kept = {name: value for name, value in os.environ.items() if not name.startswith("FPGA_")}
    ran = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=kept | {"PYTHONPATH": str(target), "FPGA_STATE_DIR": str(tmp_path / "state")},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    assert (tmp_path / "state" / "ledger.sqlite3").exists()
