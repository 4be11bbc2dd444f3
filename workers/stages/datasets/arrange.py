"""Stage `arrange`: decides over all chunks of a data set, writes the index, and publishes the version."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from sqlalchemy.orm import Session

from fpga_models.core.weights import file_sha256
from fpga_models.errors import ModelError as NetworkError
from fpga_models.idzoom import arrange as method
from fpga_models.idzoom.arrange import INDEX_SCHEMA, Arrangement, ArrangeOptions, index_tables
from fpga_models.idzoom.shards import content_sha256
from orchestrator.contracts.datasets import Arranged, BuildOptions
from orchestrator.errors import StageError
from orchestrator.ledger import datasets, identities
from orchestrator.ledger.datasets import NewVersion, StoredChunk
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from workers.runtime.files import full_disk_is_transient, store_file
from workers.runtime.lease import Lease
from workers.runtime.stage import Ended, StageContext, one_by_one, version_of

SCHEMA = "fpga/dataset/1"


def arrange(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Arrange the data sets of these claims."""
    return one_by_one(context, held, lease, lambda c: _arrange(context, c, lease))


def _arrange(context: StageContext, c: Claim, lease: Lease) -> Outcome:
    chunks = _chunks(context, c)
    encoder = context.engine.faces(version_of(context, c)).encoder_sha256
    try:
        options = ArrangeOptions(**BuildOptions.load(c.options).arrange)  # type: ignore[arg-type]  # checked by what it raises
    except TypeError as error:
        raise StageError(f"options of the arrangement: {error}", code="bad_options") from error
    with TemporaryDirectory(prefix="fpga-arrange-") as name, full_disk_is_transient(Path(name)):
        folder = Path(name)
        steps = _Steps(lease, c, 3 * len(chunks) + 1)
        paths = [_fetch(context, chunk, folder, steps) for chunk in chunks]

        def tables() -> Iterator[pa.Table]:
            for path in paths:
                yield pq.read_table(path)
                steps.advance()

        with context.ledger.read() as session:
            library = {i for i, _ in identities.scopes(session, c.owner, now(session)).values()}
        try:
            made = method.arrange(tables, options, library=frozenset(library))
        except NetworkError as error:
            raise StageError(f"{error} {_refusals(chunks)}".strip(), code=error.code) from error
        index = folder / "index.parquet"
        with pq.ParquetWriter(index, INDEX_SCHEMA, compression="zstd") as writer:
            for table in index_tables(tables(), made):
                writer.write_table(table)
        index_id, index_sha256 = store_file(context.ledger, context.store, c.owner, index), file_sha256(index)
    content = {
        "schema": SCHEMA,
        "preset": c.preset,
        "encoder": encoder,
        "licence": BuildOptions.load(c.options).licence,
        "shards": [chunk.shard.sha256 for chunk in chunks],
        "index": index_sha256,
    }
    return _done(c, chunks, made, index_id, encoder, content_sha256(content))


class _Steps:
    """Tells the lease how far the work has come, so that a long one is not taken for a hang."""

    def __init__(self, lease: Lease, c: Claim, total: int) -> None:
        self._lease, self._claim, self._total = lease, c, total
        self._done = 0

    def advance(self) -> None:
        """One more table was read."""
        self._done += 1
        self._lease.progress(self._claim, min(0.99, self._done / self._total))


def _chunks(context: StageContext, c: Claim) -> list[StoredChunk]:
    plan = BuildOptions.load(c.options).plan
    shas = json.loads(context.store.get(plan.key, sha256=plan.sha256))["chunks"]
    with context.ledger.read() as session:
        found = datasets.chunks(session, c.owner, shas)
    missing = [sha256 for sha256 in shas if sha256 not in found]
    if missing:
        raise StageError(f"{len(missing)} of {len(shas)} chunks have no result; build again", code="chunk_missing")
    return [found[sha256] for sha256 in shas]


def _fetch(context: StageContext, chunk: StoredChunk, folder: Path, steps: _Steps) -> Path:
    path = folder / f"{chunk.facts.sha256}.parquet"
    if not path.exists():
        with context.store.open(chunk.facts.key, sha256=chunk.facts.sha256) as source, path.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    steps.advance()
    return path


def _done(
    c: Claim, chunks: Sequence[StoredChunk], made: Arrangement, index_id: str, encoder: str, content: str
) -> Outcome:
    asked = BuildOptions.load(c.options)
    facts = {
        "schema": SCHEMA,
        "pictures": sum(chunk.counts["pictures"] for chunk in chunks),
        "refused": _refused(chunks),
        **made.summary,
        "arrange": asked.arrange,
    }
    new = NewVersion(
        owner=c.owner,
        name=asked.name,
        content_sha256=content,
        preset=c.preset,
        encoder_sha256=encoder,
        source=asked.source,
        licence=asked.licence,
        attestation=asked.attestation,
        batch_id=c.batch_id,
        index_artifact_id=index_id,
        facts=facts,
        shards=[(chunk.shard.id, int(chunk.counts["records"])) for chunk in chunks],
        identities=made.identities,
    )

    def write(session: Session, moment: datetime) -> None:
        version_id = datasets.publish(session, new, moment)
        datasets.set_result(session, c.stage_id, Arranged(version=version_id))

    return Outcome(result=Arranged().dump(), write=write)


def _refused(chunks: Sequence[StoredChunk]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for chunk in chunks:
        for one in chunk.counts["refused"]:
            counts[one["code"]] = counts.get(one["code"], 0) + 1
    return dict(sorted(counts.items()))


def _refusals(chunks: Sequence[StoredChunk]) -> str:
    counts: dict[str, Any] = _refused(chunks)
    words = ", ".join(f"{count} {code}" for code, count in counts.items())
    return f"Pictures refused: {words}." if words else ""
