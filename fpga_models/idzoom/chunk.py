"""Builds one chunk: raw pictures in, a shard and the table of its faces out. What a worker runs, and a bench."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow.parquet as pq

from fpga_models.faces.pack import FacePack
from fpga_models.faces.pose import PoseNetwork
from fpga_models.idzoom.annotate import AnnotateOptions, Captioner, RawPicture, Refused, annotate
from fpga_models.idzoom.facts import FactsTable
from fpga_models.idzoom.shards import ShardWriter

SHARD, FACTS = "shard.tar", "facts.parquet"


@dataclass(kw_only=True)
class ChunkResult:
    """Two files and what they hold; `refused` names every picture that cannot be used, and why."""

    shard: Path
    facts: Path
    pictures: int = 0
    records: int = 0
    faces: int = 0
    views: int = 0
    labels: set[str] = field(default_factory=set)
    refused: list[Refused] = field(default_factory=list)

    def as_json(self) -> dict[str, object]:
        """Counts and refusals as small JSON."""
        refused = [{"name": r.name, "code": r.code, "message": r.message} for r in self.refused]
        counts = {"pictures": self.pictures, "records": self.records, "faces": self.faces, "views": self.views}
        return {**counts, "refused": refused}


def build_chunk(
    pictures: Iterable[RawPicture | Refused],
    folder: Path,
    faces: FacePack,
    pose: PoseNetwork | None,
    options: AnnotateOptions,
    captioner: Captioner | None = None,
) -> Iterator[ChunkResult]:
    """Write the shard and the table of these pictures into a folder; yields the growing result after each picture."""
    made = ChunkResult(shard=folder / SHARD, facts=folder / FACTS)
    table = FactsTable(faces.width)
    with made.shard.open("wb") as target, ShardWriter(target) as writer:
        for raw in pictures:
            made.pictures += 1
            sample = raw if isinstance(raw, Refused) else annotate(raw, faces, pose, options, captioner)
            if isinstance(sample, Refused):
                made.refused.append(sample)
            elif isinstance(raw, RawPicture):
                writer.write(sample)
                table.add(sample.record, raw.image)
                made.records += 1
                made.faces += len(sample.record.people)
                made.labels |= {person.label for person in sample.record.people if person.label}
                made.views += len(sample.record.views)
            yield made
    pq.write_table(table.table(), made.facts, compression="zstd")
    yield made
