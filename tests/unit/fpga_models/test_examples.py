"""The example that README and docs point at runs as it stands, on the shipped networks."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).parents[3]


def test_the_whole_method_in_a_few_lines_mends_both_faces(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "two_people.py"))["main"](tmp_path / "two.png")

    assert Image.open(tmp_path / "two.png").size == (128, 128)
    told = re.findall(r"person (\d): (-?[\d.]+) -> ([\d.]+), ", capsys.readouterr().out)
    assert sorted(person for person, _, _ in told) == ["0", "1"]
    assert all(float(after) > float(before) for _, before, after in told)
