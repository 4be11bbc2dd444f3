from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from fpga_models.lab.measures.page import Part, is_done, page
from fpga_models.lab.measures.plots import Bar, bars
from fpga_models.lab.measures.sheet import write_picture
from fpga_models.lab.measures.targets import TARGETS, compare
from fpga_models.metrics.contrasts import contrast

FACTS: dict[str, Any] = {
    "seed": 7,
    "count": 2,
    "preset": "mini",
    "model_sha256": "0" * 64,
    "seconds": 3.0,
    "options": {},
}


def won_back(small: float) -> dict[str, Any]:
    part = {"count": 4, "before": 0.2, "after": 0.6, "ceiling": 0.9, "share": small, "ci95": (small - 0.1, small + 0.1)}
    return {
        "won_back": {"all": part, "small": part, "by_bin": {"16-20": part}},
        "background": {"changed_pixels": 0, "max_change": 0, "psnr": None, "ssim": 1.0},
        "outcomes": {"changed": 3, "face_lost": 1},
        **FACTS,
    }


def test_a_plot_is_well_formed_and_its_bars_grow_with_their_values() -> None:
    drawn = ElementTree.fromstring(
        bars(
            [
                Bar(label="a < b", value=0.2, interval=(0.1, 0.3)),
                Bar(label="twice", value=0.4, marks={"floor": 0.0, "real": 0.9}),
                Bar(label="below", value=-0.2),
            ],
            unit="share",
        )
    )

    widths = [float(bar.attrib["width"]) for bar in drawn.iter("rect")]
    assert widths[1] == pytest.approx(2 * widths[0], abs=0.2)
    assert widths[2] == pytest.approx(widths[0], abs=0.2)
    labels = [text.text for text in drawn.iter("text")]
    assert "a < b" in labels
    assert "0.400" in labels
    ends = [float(line.attrib[end]) for line in drawn.iter("line") for end in ("x1", "x2")]
    assert all(0 <= end <= 720 for end in ends)


def test_targets_are_met_from_above_or_below() -> None:
    found = {one.target.title: one for one in compare({"restore": won_back(0.7), "swap": {"landmark_error": 0.2}})}

    assert found["won back at 16 to 28 px, after the autoencoder"].reached
    assert found["won back at 16 to 28 px, after the autoencoder"].interval == pytest.approx((0.6, 0.8))
    assert found["pixels changed outside masks, restore"].reached
    assert not found["swap: landmark error"].reached
    assert len(found) == 3, "what was not measured is left out"
    assert len({target.title for target in TARGETS}) == len(TARGETS)


def test_the_page_holds_figures_pictures_and_everything_by_itself(tmp_path: Path) -> None:
    pictures = np.arange(8)
    ablate = {
        "masks": {"masks": {"own": contrast(np.full(8, 0.7), np.full(8, 0.4), pictures)}},
        "diir": {},
        "tokens": {},
        "against": {},
        "source": "vae",
        **FACTS,
    }
    (tmp_path / "restore.json").write_text(json.dumps(won_back(0.5)))
    (tmp_path / "ablate.json").write_text(json.dumps(ablate))
    write_picture(tmp_path / "restore.jpg", np.zeros((20, 30, 3), np.uint8))

    html = page(tmp_path)

    assert "Seed 7" in html
    assert "not reached" in html
    assert "16-20 px (4)" in html
    assert "changed 3, face lost 1" in html
    assert html.count("data:image/jpeg;base64,") == 1
    assert ">hurts<" in html
    assert "http" not in html.replace("http://www.w3.org", "")


def test_what_is_measured_already_is_not_measured_again(tmp_path: Path) -> None:
    part = Part(name="restore", what="restore", count=2, options={})
    file = tmp_path / "restore.json"
    assert not is_done(file, part, 7, "0" * 64)
    file.write_text(json.dumps(won_back(0.5)))
    assert is_done(file, part, 7, "0" * 64)
    assert not is_done(file, part, 8, "0" * 64)
    assert not is_done(file, part, 7, "1" * 64)
    assert not is_done(file, replace(part, options={"source": "generated"}), 7, "0" * 64)
