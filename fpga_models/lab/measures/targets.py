"""What the mini preset is meant to reach, figure by figure, and whether it does. Pure, on reports as plain data."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

Reports = Mapping[str, Mapping[str, object]]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A figure of a report by its path, and the value it should not fall below (or, with `most`, exceed)."""

    title: str
    report: str
    path: str
    value: float
    most: bool = False
    interval: str | None = None


@dataclass(frozen=True, kw_only=True)
class Reached:
    """A target beside what was measured."""

    target: Target
    measured: float
    interval: tuple[float, float] | None
    reached: bool


TARGETS = (
    Target(title="face similarity, share of the way", report="identity", path="face_sim.share", value=0.93),
    Target(title="face similarity after DIIR", report="identity", path="finished.face_sim.share", value=0.93),
    Target(title="top-1, share of real", report="identity", path="top1.share", value=0.85, interval="top1.ci95"),
    Target(
        title="top-1 after DIIR", report="identity", path="finished.top1.share", value=0.85,
        interval="finished.top1.ci95",
    ),
    Target(
        title="legibility, share of real", report="identity", path="legibility.share", value=0.9,
        interval="legibility.ci95",
    ),
    Target(
        title="legibility after DIIR", report="identity", path="finished.legibility.share", value=0.9,
        interval="finished.legibility.ci95",
    ),
    Target(title="legibility of glasses", report="identity", path="legibility.glasses", value=0.85),
    Target(title="sharpness of faces", report="identity", path="sharpness.face", value=0.6, interval="sharpness.ci95"),
    Target(title="sharpness of eyes", report="identity", path="sharpness.eyes", value=0.5),
    *(
        Target(
            title=f"assignment of {people} people", report="identity", path=f"assignment.{people}.masked.accuracy",
            value=value, interval=f"assignment.{people}.masked.ci95",
        )
        for people, value in (("2", 0.99), ("3", 0.97), ("4", 0.95))
    ),
    *(
        Target(
            title=f"accuracy lost without masks, {people} people", report="identity",
            path=f"assignment.{people}.masks.difference", value=0, most=True,
            interval=f"assignment.{people}.masks.ci95",
        )
        for people in ("2", "3", "4")
    ),
    *(
        Target(
            title=f"own similarity among {people}", report="identity", path=f"assignment.{people}.masked.own",
            value=value, interval=f"assignment.{people}.masked.own_ci95",
        )
        for people, value in (("2", 0.75), ("3", 0.7))
    ),
    *(
        Target(
            title=f"leakage above the floor, {people} people", report="identity",
            path=f"leakage.{people}.above_floor", value=0.05, most=True, interval=f"leakage.{people}.ci95",
        )
        for people in ("2", "3", "4")
    ),
    Target(title="places met", report="identity", path="position.hit_rate", value=0.98),
    Target(title="landmark error", report="identity", path="position.landmark_error", value=0.1, most=True),
    *(
        Target(
            title=f"won back at 16 to 28 px, {name}", report=report, path="won_back.small.share", value=0.65,
            interval="won_back.small.ci95",
        )
        for report, name in (("restore", "after the autoencoder"), ("restore-generated", "in generated groups"))
    ),
    *(
        Target(title=f"size bins that improve, {report}", report=report, path="won_back.bins_improved", value=1)
        for report in ("restore", "restore-generated")
    ),
    *(
        Target(title=f"pixels changed outside masks, {report}", report=report, path="background.changed_pixels",
               value=0, most=True)
        for report in ("restore", "restore-generated", "swap")
    ),
    Target(title="swap: top-1, share of real", report="swap", path="top1.share", value=0.75, interval="top1.ci95"),
    Target(title="swap: landmark error", report="swap", path="landmark_error", value=0.1, most=True),
    Target(title="stylized: styles that improve", report="stylized", path="improved", value=1),
)  # fmt: skip
"""Single figures; whether leaving a part out hurts is read off the table of the ablations."""


def compare(reports: Reports) -> Iterator[Reached]:
    """Measure the reports there are against their targets; figures that are None are left out."""
    for target in TARGETS:
        measured = find(reports.get(target.report, {}), target.path)
        if measured is None:
            continue
        interval = find(reports[target.report], target.interval) if target.interval else None
        met = measured <= target.value if target.most else measured >= target.value
        yield Reached(target=target, measured=measured, interval=interval, reached=bool(met))


def find(report: Mapping[str, Any], path: str) -> Any:
    """Return the value at a dotted path, None where there is none."""
    value: Any = report
    for name in path.split("."):
        value = value.get(name) if isinstance(value, Mapping) else None
    return value
