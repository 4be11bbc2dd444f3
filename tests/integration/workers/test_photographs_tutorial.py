"""The tutorial with real photographs, run from its own lines in their order against a real worker."""

from __future__ import annotations

import csv
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.integration.workers.rig import QUEUES, ROOT, Rig
from tests.services import photographs

PAGE = ROOT / "docs" / "tutorials" / "photographs.md"


def lines() -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", PAGE.read_text(), re.S | re.M)
    return [line for block in blocks for line in block.splitlines() if line.strip()]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_every_line_does_what_the_page_says(tmp_path: Path) -> None:
    (tmp_path / "album").mkdir()
    counted: dict[int, int] = {}
    for person, picture in photographs.orl(pictures=4, people=3):
        counted[person] = counted.get(person, 0) + 1
        if (person, counted[person]) != (3, 4):
            Image.fromarray(picture).save(tmp_path / "album" / f"p{person}_{counted[person]}.png", compress_level=1)
    for name, path in photographs.credited().items():
        (tmp_path / "album" / f"{name}.jpg").write_bytes(path.read_bytes())
    before = {path.name: path.read_bytes() for path in (tmp_path / "album").iterdir()}
    photographs.models()  # skips where pip cannot fetch the networks
    models = tmp_path / "models"
    models.mkdir()
    (models / "mini").symlink_to(ROOT / "fpga_models" / "weights" / "mini")
    said: dict[str, str] = {}
    with Rig(tmp_path / "state", lease_seconds=60, models_dir=models) as rig:
        rig.start_worker(queues=QUEUES)
        for line in lines():
            words = shlex.split(line)
            assert words[0] == "fpga", line
            ended = subprocess.run(
                [sys.executable, "-m", "orchestrator.cli.app", *words[1:]],
                cwd=tmp_path,
                env={**os.environ, **rig.environment, "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=300,
                check=False,
            )
            assert ended.returncode == 0, f"{line}\n{ended.stdout}\n{ended.stderr}"
            said[line] = ended.stdout + ended.stderr
    scans = [text for line, text in said.items() if line == "fpga people scan album/"]
    assert len(lines()) > len(said), "the scan stands twice, the second time nothing is new"
    assert re.search(r"looked at\s+0", scans[-1])
    assert re.search(r"known\s+17", scans[-1])
    assert "restore" in said['fpga people consent 1 --scope restore --granted-by "a letter of May"']
    rows = list(csv.DictReader((tmp_path / "sidecars" / "people.csv").open(encoding="utf-8")))
    assert len({row["path"] for row in rows}) == 17
    named = {row["path"]: row["name"] for row in rows if row["name"]}
    assert {name.split("_")[0] for name in named} == {"p1", "p2"}
    assert {path.relative_to(tmp_path / "sidecars").name for path in (tmp_path / "sidecars").rglob("*.xmp")} == {
        f"{path}.xmp" for path in named
    }
    assert {path.name: path.read_bytes() for path in (tmp_path / "album").iterdir()} == before
