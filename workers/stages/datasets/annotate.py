"""Stage `annotate`: one chunk of a data set, from pictures to a shard and the table of its faces."""

from __future__ import annotations

import importlib
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory

from sqlalchemy.orm import Session

from fpga_models.errors import ModelError as NetworkError
from fpga_models.idzoom.annotate import AnnotateOptions, Captioner, Label, RawPicture, Refused, stored
from fpga_models.idzoom.chunk import ChunkResult, build_chunk
from fpga_models.idzoom.shards import read_files
from fpga_models.lab.rendered import rendered
from orchestrator.contracts.datasets import ChunkCounts, ChunkInput, ChunkParams
from orchestrator.errors import InputError, StageError
from orchestrator.ledger import artifacts, datasets
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import ModelVersion
from workers.photo import Decoded, PhotoLimits, photo_reader
from workers.runtime.domains import Made
from workers.runtime.files import full_disk_is_transient, store_file
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, StoppedError, one_by_one, version_of

IDENTITY = "idn_"
"""How ids of the library begin: who is in a chunk by that name must be found when they are erased."""


def annotate(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Build the chunks of these claims, one after the other."""
    version = version_of(context, held[0])
    try:
        yield from one_by_one(context, held, lease, lambda c: _annotate(context, c, version, lease))
    except StoppedError:
        return


def _annotate(context: StageContext, c: Claim, version: ModelVersion, lease: Lease) -> Outcome:
    given = ChunkParams.load(c.params)
    preset, guard = Made.of(version), context.engine.guard()
    options = AnnotateOptions(
        side=given.side,
        max_people=given.max_people,
        facts=given.facts.model_dump(),
        refusal=lambda crops: preset.refusal(guard.together(guard.scores(crops))),
    )
    faces, pose = context.engine.faces(version), context.engine.pose(version)
    captioner = load_captioner(given.captioner, context.settings.captioner)
    since = time.monotonic()
    with TemporaryDirectory(prefix="fpga-chunk-") as name, full_disk_is_transient(Path(name)):
        folder = Path(name)
        made: ChunkResult | None = None
        try:
            with _pictures(context, given.input, folder) as pictures:
                for made in build_chunk(pictures, folder, faces, pose, options, captioner):
                    lease.progress(c, made.pictures / (given.pictures + 1))
                    since = context.make_room(c, since)
                    if c.stage_id in lease.stopped:
                        raise StoppedError
                    if context.draining():
                        raise DrainedError
        except NetworkError as error:
            raise StageError(str(error), code=error.code) from error
        assert made is not None, "an empty chunk has a result too"
        shard_id = store_file(context.ledger, context.store, c.owner, made.shard)
        facts_id = store_file(context.ledger, context.store, c.owner, made.facts)
    counts = {**made.as_json(), "people": sorted(label for label in made.labels if label.startswith(IDENTITY))}

    def write(session: Session, moment: datetime) -> None:
        datasets.keep_chunk(
            session,
            c.owner,
            given.chunk,
            shard_artifact_id=shard_id,
            facts_artifact_id=facts_id,
            counts=counts,
            moment=moment,
        )
        if given.input_artifact:
            artifacts.discard(session, [given.input_artifact])

    return Outcome(result=ChunkCounts.model_validate(counts).dump(), write=write)


@contextmanager
def _pictures(context: StageContext, given: ChunkInput, folder: Path) -> Iterator[Iterator[RawPicture | Refused]]:
    """The pictures of a chunk: drawn from a seed, or decoded from its tar, which is fetched and verified first."""
    if given.render is not None:
        yield rendered(given.render.seed, range(given.render.start, given.render.stop))
        return
    assert given.tar is not None, "a chunk is rendered or read from a tar"
    path = folder / "input.tar"
    with context.store.open(given.tar.key, sha256=given.tar.sha256) as source, path.open("wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
    with photo_reader(PhotoLimits.of_pictures(context.settings.max_pixels)) as decode, path.open("rb") as tar:
        yield (_raw(files, decode) for _, files in read_files(tar))


def _raw(files: dict[str, bytes], decode: Callable[[bytes], Decoded]) -> RawPicture | Refused:
    said = json.loads(files["json"])
    if "error" in said:
        return Refused(name=said["name"], code=said["error"]["code"], message=said["error"]["message"])
    try:
        image, data, suffix = stored(decode(files["bin"]).rgb)
    except InputError as error:
        return Refused(name=said["name"], code=error.code, message=error.message)
    return RawPicture(
        name=said["name"],
        sha256=said["sha256"],
        data=data,
        suffix=suffix,
        image=image,
        labels=tuple(Label(person=person) for person in said["people"]),
        caption=said["caption"],
    )


def load_captioner(wanted: str, allowed: str) -> Captioner | None:
    """The function that writes missing captions, named `module:function`; only the one of this worker's settings runs.

    Raises:
        StageError: another one is wanted, or it cannot be imported.
    """
    if not wanted:
        return None
    if wanted != allowed:
        raise StageError(
            f"captioner {wanted!r} is wanted, FPGA_CAPTIONER of this worker is {allowed!r}", code="captioner_refused"
        )
    module, _, name = wanted.partition(":")
    try:
        found: Captioner = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StageError(f"captioner {wanted!r} cannot be imported: {error}", code="captioner_missing") from error
    return found
