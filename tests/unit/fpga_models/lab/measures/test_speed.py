"""Ratios of times, and the counter that must not claim more than the device can do."""

from __future__ import annotations

import time

import pytest
import torch
from rich.console import Console

from fpga_models.core.pipeline import PortraitPipeline
from fpga_models.core.presets import preset_directory
from fpga_models.lab import speed

CPU = torch.device("cpu")


def nap(seconds: float) -> speed.Work:
    return lambda: time.sleep(seconds)


def test_the_ratio_of_two_naps_is_that_of_their_lengths() -> None:
    ratio = speed.in_turns(nap(0.02), nap(0.01), rounds=6, device=CPU)
    assert 1.6 < ratio.median < 2.2
    assert ratio.p10 <= ratio.median <= ratio.p90
    assert ratio.rounds == 6


def test_a_side_against_itself_is_one() -> None:
    assert speed.in_turns(nap(0.01), nap(0.01), rounds=8, device=CPU).median == pytest.approx(1, abs=0.05)


def test_more_than_the_peak_means_that_the_counter_is_wrong() -> None:
    assert speed.share_of_floor(flops=5e9, seconds=1, peak=1e10) == pytest.approx(50)
    with pytest.raises(speed.CounterError, match="120 % of the device's peak"):
        speed.share_of_floor(flops=1.2e10, seconds=1, peak=1e10)


def test_the_report_names_what_it_measured() -> None:
    pipeline = PortraitPipeline.from_pretrained(preset_directory("mini"))
    only = ["merged_over_plain", "four_identities_over_none"]
    report = speed.measure(pipeline, rounds=2, only=only, console=Console(quiet=True))
    assert set(report["ratios"]) == set(only)
    assert report["threads"] == torch.get_num_threads()
    assert report["model_sha256"] == pipeline.model_sha256
    assert report["step"]["gflop"] > 0
    assert 0 < report["step"]["percent_of_floor"] <= 100
    assert isinstance(report["void"], bool)


def test_every_comparison_computes_something() -> None:
    pipeline = PortraitPipeline.from_pretrained(preset_directory("mini"))
    names = [pair.name for pair in speed.pairs(pipeline)]
    assert names[0] == "null"
    assert set(speed.GOALS) <= set(names)
    for pair in speed.pairs(pipeline)[1:5]:
        assert torch.isfinite(pair.above()).all()  # type: ignore[arg-type]  # a step returns its output
