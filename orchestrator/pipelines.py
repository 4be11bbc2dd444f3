"""The workflow, written once: every kind of batch with the stages of its items in order. All else derives from here.

A stage says what it came to and never what is next: `done` goes on to the next stage, behind the last one the item is
complete; `again` begins another round with the first stage; `wait` leaves the item until the stage that gathers its
batch has run; `end` completes the item here. To add a stage, add its line here and a module of its name, with a
function of its name, in its room below `workers/stages/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import KW_ONLY, dataclass
from typing import Literal, get_args

Queue = Literal["gpu.generate", "gpu.restore", "gpu.train", "cpu.io"]
Then = Literal["done", "again", "wait", "end"]

QUEUES: tuple[Queue, ...] = get_args(Queue)
"""By the kind of machine that a stage needs."""

CROWDED_SECONDS = 60.0
"""So long work that gives way goes on while a bulk batch waits; what somebody waits for enters at once [ours]."""


@dataclass(frozen=True)
class Stage:
    """One durable step of an item: where it runs, and in which room of `workers/stages/` its code lies."""

    name: str
    queue: Queue
    room: str
    _: KW_ONLY
    groups: bool = True
    """Whether a claim takes several of them; one that is long by itself comes alone, so that others get theirs."""
    gives_way: bool = False
    """Whether it is so long that it makes room in its middle for what waits."""
    draws: bool = False
    """Whether its end is a picture to look at, before anything was said of it."""
    gathers: bool = False
    """One item does it for all of its batch that wait, once no other of them is before it; the others pass it by."""


@dataclass(frozen=True)
class Place:
    """A stage of an item in one of its rounds; `ordinal` rises towards the item's end."""

    stage: Stage
    round: int
    ordinal: int


@dataclass(frozen=True)
class Pipeline:
    """A kind of batch: its stages, and what the house does with it."""

    kind: str
    stages: tuple[Stage, ...]
    _: KW_ONLY
    flow: str | None = None
    """The Prefect flow that watches such batches."""
    reopens: bool = False
    """Whether an ended batch goes on when held items are released; of the others something was concluded."""
    pictured: bool = False
    """Whether its items end as pictures to look at."""

    @property
    def names(self) -> tuple[str, ...]:
        """The stages that every item goes through, in order."""
        return tuple(stage.name for stage in self.stages if not stage.gathers)

    @property
    def gathering(self) -> Stage | None:
        """The stage that brings the items of a batch together, if it has one."""
        return next((stage for stage in self.stages if stage.gathers), None)

    def place(self, name: str, round: int = 0) -> Place:
        """Return where a stage stands in a round."""
        index = next(i for i, stage in enumerate(self.stages) if stage.name == name)
        return Place(self.stages[index], round, round * len(self.stages) + index)

    def after(self, name: str, round: int, then: Then) -> Place | None:
        """Return what follows a stage that ended so; None where the item ends or waits."""
        if then == "again":
            return self.place(self.stages[0].name, round + 1)
        later = self.stages[self.place(name).ordinal + 1 :]
        following = next((stage for stage in later if not stage.gathers), None)
        return self.place(following.name, round) if then == "done" and following else None


_EVALUATE = Stage("evaluate", "gpu.generate", "training", groups=False, gives_way=True)

PIPELINES: Mapping[str, Pipeline] = {
    pipeline.kind: pipeline
    for pipeline in (
        Pipeline("enrol", (Stage("ingest", "cpu.io", "portraits"),), reopens=True),
        Pipeline(
            "generate",
            (Stage("generate", "gpu.generate", "portraits", draws=True), Stage("score", "cpu.io", "portraits")),
            flow="generate_batch",
            reopens=True,
            pictured=True,
        ),
        Pipeline(
            "restore",
            (
                Stage("ingest_photo", "cpu.io", "photos"),
                Stage("cluster", "cpu.io", "photos", groups=False, gathers=True),
                Stage("restore", "gpu.restore", "photos", draws=True),
                Stage("score_photo", "cpu.io", "photos"),
                Stage("publish_photo", "cpu.io", "photos"),
            ),
            flow="restore_archive",
            reopens=True,
            pictured=True,
        ),
        Pipeline("scan", (Stage("scan_photo", "cpu.io", "photos"),), flow="restore_archive", reopens=True),
        Pipeline("scan.group", (Stage("group_faces", "cpu.io", "photos", groups=False),)),
        Pipeline(
            "dataset",
            (Stage("annotate", "gpu.generate", "datasets", groups=False, gives_way=True),),
            flow="build_dataset",
        ),
        Pipeline("dataset.arrange", (Stage("arrange", "cpu.io", "datasets", groups=False),)),
        Pipeline(
            "train", (Stage("train", "gpu.train", "training", groups=False, gives_way=True), _EVALUATE), flow="retrain"
        ),
        Pipeline("evaluate", (_EVALUATE,), flow="evaluate"),
        Pipeline("probe", (Stage("probe", "cpu.io", "probes"),), reopens=True),
    )
}


def stages() -> dict[str, Stage]:
    """Return every stage by its name.

    One that is not here was queued by a later version, whose workers share our queues while they are being replaced;
    it is left to them. So a stage whose parameters change their meaning takes a new name.
    """
    return {stage.name: stage for pipeline in PIPELINES.values() for stage in pipeline.stages}


DRAWING = tuple(stage.name for stage in stages().values() if stage.draws)


def of(kind: str) -> Pipeline:
    """Return the pipeline of a kind of batch; one that only a later version knows has no stages here."""
    return PIPELINES.get(kind) or Pipeline(kind, ())
