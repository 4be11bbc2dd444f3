"""Builds of data sets: a source becomes chunks, chunks a batch, and the finished batch one last item that publishes.

The ledger carries a build: each chunk is an item (stage `annotate`), the whole an item of a second batch (stage
`arrange`), which is submitted when the first one has ended. What a chunk came to is kept by what it depends on, so
that a second build of nearly the same pictures does only what changed.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.archive import reach as reaching
from orchestrator.archive.reach import Reach
from orchestrator.contracts.base import JsonObject, StoredRef, digest
from orchestrator.contracts.datasets import BuildOptions, ChunkFacts, ChunkParams, DependsOn
from orchestrator.datasets.chunks import (
    MEAN_PICTURES,
    Chunk,
    Recipe,
    chunk_sha256,
    read_recipe,
    rendered_chunks,
    stored_chunks,
)
from orchestrator.datasets.source import PeopleFrom, read_pictures
from orchestrator.errors import ConsentError, InputError, NotFoundError, StageError, UsageError
from orchestrator.ledger import artifacts, datasets, identities
from orchestrator.ledger.datasets import NewVersion
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import BATCH_ENDED, BatchState, State
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Artifact, Batch
from orchestrator.ledger.tables.rows_datasets import DataSetVersion
from orchestrator.models import registry
from orchestrator.planning.presets import Preset, load_preset
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key

KIND, ARRANGE = "dataset", "dataset.arrange"
ANNOTATE_VERSION = 1
"""Raised when the same picture would give another record."""
MINI_NAME, MINI_SOURCE = "mini-world", "render:0:40000"
NETWORKS = ("faces/", "pose/")
NOBODY_REAL = "Rendered people: they do not exist."
POLL_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What to build.

    Attributes:
        source: folder, zip, tar, `s3://` prefix, or `render:SEED:COUNT`.
        people: where people come from; see `orchestrator.datasets.source.PeopleFrom`.
        attestation: what somebody answers for about the people who are not in the library.
        arrange: fields of `fpga_models.idzoom.arrange.ArrangeOptions`.
        captioner: `module:function` that writes missing captions; workers run only the one of their own settings.
    """

    source: str
    name: str
    preset: str
    licence: str
    people: PeopleFrom = "metadata"
    metadata: Path | None = None
    attestation: str | None = None
    arrange: JsonObject = field(default_factory=dict)
    captioner: str = ""
    chunk_pictures: int = MEAN_PICTURES
    lane: str = "bulk"


@dataclass(frozen=True, kw_only=True)
class Build:
    """The answer to a build: its batch, whether that had been made before, and how many chunks were known already."""

    batch_id: str
    repeated: bool
    pictures: int
    chunks: int
    reused: int


def build(
    ledger: Ledger,
    store: ByteStore,
    settings: Settings,
    request: BuildRequest,
    *,
    owner: str,
    tick: Callable[[int], None] = lambda pictures: None,
    operator: bool = False,
) -> Build:
    """Read a source, store its chunks and submit what is not known of them; the same build again goes on or answers.

    Args:
        tick: called with the number of pictures read so far.
        operator: whether a bucket is opened with the AWS_* variables, or only one that the owner was granted.

    Raises:
        ForbiddenError: the source is a bucket that the owner was not granted.
        ConsentError: a person of the library who is named in the source does not allow `train`.
        UsageError: people are not in the library and nobody attests for them, or an option is wrong.
        InputError, NotFoundError: the source cannot be read, or holds no picture.
        StoreUnavailableError: the store is full or cannot be reached; nothing was submitted.
    """
    preset = load_preset(settings.models_dir, request.preset)
    recipe = read_recipe(request.source)
    names = _Names(ledger, owner, request)
    depends_on = _depends_on(settings, preset, request, rendered=recipe is not None)
    shas, unknown, pictures = [], [], 0
    reach = Reach(settings=settings, owner=owner, operator=operator)
    for chunk in _chunks(ledger, store, request, recipe, names, reach):
        sha256 = chunk_sha256(chunk, depends_on)
        pictures += chunk.pictures
        shas.append(sha256)
        unknown.append((sha256, chunk))
        tick(pictures)
    if not shas:
        raise InputError(f"{request.source} holds no picture", code="source_empty")
    if recipe is None and names.strangers and not request.attestation:
        raise UsageError(
            f"{request.source} shows people who are not in the library; --attest says who answers for their consent",
            code="attestation_missing",
        )
    with ledger.read() as session:
        known = datasets.chunks(session, owner, shas)
    fresh = {sha256: chunk for sha256, chunk in unknown if sha256 not in known}
    submitted = _submit(ledger, store, settings, request, owner, shas, fresh, depends_on)
    return Build(
        batch_id=submitted.batch_id,
        repeated=submitted.repeated,
        pictures=pictures,
        chunks=len(shas),
        reused=len(shas) - len(fresh),
    )


class _Names:
    """From what a source calls people to ids: those of the library by theirs, others by a hash."""

    def __init__(self, ledger: Ledger, owner: str, request: BuildRequest) -> None:
        self.strangers = request.people == "faces"
        self._salt = f"{owner}\n{request.name}\n"
        with ledger.read() as session:
            self._library = identities.scopes(session, owner, now(session))

    def __call__(self, name: str) -> str:
        """Return the id of a person.

        Raises:
            ConsentError: the person is in the library and does not allow training.
        """
        found = self._library.get(name)
        if found is None:
            self.strangers = True
            return f"per_{hashlib.sha256((self._salt + name).encode()).hexdigest()[:16]}"
        identity_id, allowed = found
        if datasets.SCOPE not in allowed:
            raise ConsentError(
                f"identity {identity_id} of the source does not allow 'train'; nothing was submitted",
                identities=[identity_id],
            )
        return identity_id


def _depends_on(settings: Settings, preset: Preset, request: BuildRequest, *, rendered: bool) -> DependsOn:
    files = registry.weights_manifest(settings, request.preset)["files"]
    networks = {name: entry["sha256"] for name, entry in files.items() if name.startswith(NETWORKS)}
    return DependsOn(
        annotate=ANNOTATE_VERSION,
        networks=networks,
        side=min(preset.size),
        max_people=preset.max_people,
        captioner=request.captioner,
        facts=ChunkFacts(
            source="render" if rendered else "pictures",
            licence=request.licence,
            consent="none needed" if rendered else "library or attested",
        ),
    )


def _chunks(
    ledger: Ledger, store: ByteStore, request: BuildRequest, recipe: Recipe | None, names: _Names, reach: Reach
) -> Iterator[Chunk]:
    if recipe is not None:
        yield from rendered_chunks(recipe, request.chunk_pictures)
        return
    opened = partial(reaching.opened, ledger, store, reach)
    pictures = read_pictures(request.source, people=request.people, metadata=request.metadata, opened=opened)

    def watched() -> Iterator[Any]:
        for picture in pictures:
            names.strangers = names.strangers or not picture.people
            yield picture

    yield from stored_chunks(
        watched(),
        names,
        ledger,
        store,
        owner=reach.owner,
        max_pixels=reach.settings.max_pixels,
        mean=request.chunk_pictures,
    )


def _submit(
    ledger: Ledger,
    store: ByteStore,
    settings: Settings,
    request: BuildRequest,
    owner: str,
    shas: list[str],
    fresh: dict[str, Chunk],
    depends_on: DependsOn,
) -> batches.Submitted:
    plan = json.dumps({"schema": "fpga/dataset-plan/1", "chunks": shas}).encode()
    stored = _put_plan(ledger, store, owner, plan)
    options = BuildOptions(
        source=request.source,
        name=request.name,
        licence=request.licence,
        attestation=request.attestation or (NOBODY_REAL if read_recipe(request.source) else None),
        arrange=request.arrange,
        plan=stored,
    ).dump()
    items = [
        NewItem(
            custom_id=f"chunk-{number:06d}",
            params=ChunkParams(
                chunk=sha256,
                input=chunk.input,
                input_artifact=chunk.artifact_id,
                pictures=chunk.pictures,
                **dict(depends_on),
            ).dump(),
            params_sha256=sha256,
            seed=0,
            cost=float(chunk.pictures),
            identities=tuple(one for one in chunk.people if one.startswith("idn_")),
        )
        for number, (sha256, chunk) in enumerate(fresh.items())
    ]
    submitted = batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=KIND,
            name=f"data set {request.name}",
            preset=request.preset,
            items=items,
            lane=request.lane,
            model_version_id=registry.ensure_registered(ledger, settings, request.preset),
            idempotency_key=_free_key(ledger, owner, digest(options)),
            request_sha256=digest(options),
            options=options,
        ),
    )
    with ledger.write() as session:
        artifacts.confirm(session, stored.artifact_id)
    return submitted


def _put_plan(ledger: Ledger, store: ByteStore, owner: str, plan: bytes) -> StoredRef:
    sha256 = hashlib.sha256(plan).hexdigest()
    key = content_key(owner, sha256, ".json")
    artifact_id = artifacts.reserve(
        ledger, owner=owner, sha256=sha256, key=key, size=len(plan), media_type="application/json"
    )
    store.put(key, plan, media_type="application/json", sha256=sha256)
    return StoredRef(artifact_id=artifact_id, key=key, sha256=sha256)


def _free_key(ledger: Ledger, owner: str, sha256: str) -> str:
    """The idempotency key of a build; one that failed may be tried again under the next."""
    number = 0
    with ledger.read() as session:
        while (known := batches.by_idempotency_key(session, owner, f"dataset:{sha256}:{number}")) is not None:
            last = batches.by_idempotency_key(session, owner, f"arrange:{known.id}")
            bad = [
                b for b in (known, last) if b is not None and b.state in BATCH_ENDED and b.state != BatchState.COMPLETED
            ]
            if not bad:
                break
            number += 1
    return f"dataset:{sha256}:{number}"


def follow(ledger: Ledger, batch_id: str) -> str | None:
    """Submit the arranging of a build whose chunks are all done; return the id of that batch, the same each time.

    Called when a batch has ended, as often as it likes; None for a build that failed or still runs.
    """
    with ledger.read() as session:
        batch = session.get_one(Batch, batch_id)
    if batch.kind != KIND or batch.state != BatchState.COMPLETED:
        return None
    plan = BuildOptions.load(batch.options).plan
    submitted = batches.submit(
        ledger,
        NewBatch(
            owner=batch.owner,
            kind=ARRANGE,
            name=batch.name,
            preset=batch.preset,
            items=[NewItem(custom_id="data-set", params={}, params_sha256=plan.sha256, seed=0)],
            lane=batch.lane,
            model_version_id=batch.model_version_id,
            parent_id=batch.id,
            idempotency_key=f"arrange:{batch.id}",
            request_sha256=batch.request_sha256,
            options=batch.options,
            flow=False,
            follows=True,
        ),
    )
    return submitted.batch_id


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How a build stands: items by state, why it is paused, and once it has ended the version, or what went wrong."""

    phase: str
    done: int
    total: int
    paused: str | None = None
    version_id: str | None = None
    error: dict[str, Any] | None = None

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.version_id is not None or self.error is not None


def progress(ledger: Ledger, owner: str, batch_id: str) -> Progress:
    """Return how a build stands, submitting what follows if that is due.

    Raises:
        NotFoundError: there is no such build.
    """
    with ledger.read() as session:
        first = batches.get(session, owner, batch_id)
        counts = batches.counts(session, first.id)
    if first.state != BatchState.COMPLETED:
        failed = first.state in BATCH_ENDED
        return Progress(
            phase="annotate",
            done=counts["completed"],
            total=first.total,
            paused=_pause(first),
            error=_failure(ledger, first) if failed else None,
        )
    second_id = follow(ledger, first.id)
    assert second_id is not None, "a completed build is arranged"
    with ledger.read() as session:
        second = batches.get(session, owner, second_id)
        item = next(iter(batches.items(session, second_id)))
        result = datasets.result_of(session, item.id)
    if second.state == BatchState.COMPLETED and result is not None:
        return Progress(phase="arrange", done=1, total=1, version_id=result.version)
    failed = second.state in BATCH_ENDED
    error = _failure(ledger, second) if failed else None
    return Progress(phase="arrange", done=0, total=1, paused=_pause(second), error=error)


def _pause(batch: Batch) -> str | None:
    if batch.state != BatchState.PAUSED:
        return None
    return f"batch {batch.id} is paused: {batch.reason or 'by hand'}; `fpga batch resume {batch.id}` goes on"


def _failure(ledger: Ledger, batch: Batch) -> dict[str, Any]:
    """The first failed item's story, or the batch's state."""
    with ledger.read() as session:
        for item in batches.items(session, batch.id):
            if item.error_code is not None and item.state != State.COMPLETED:
                return {"code": item.error_code, "message": item.error_message, "item": item.custom_id}
    return {"code": f"batch_{batch.state}", "message": f"batch {batch.id} is {batch.state}"}


def wait(ledger: Ledger, owner: str, batch_id: str, *, tick: Callable[[Progress], None] = lambda progress: None) -> str:
    """Wait until a build has ended and return its version's id.

    Raises:
        StageError: it failed; the code is that of what went wrong, and nothing was published.
    """
    while True:
        found = progress(ledger, owner, batch_id)
        tick(found)
        if found.version_id is not None:
            return found.version_id
        if found.error is not None:
            raise StageError(
                f"{found.error['message']}; nothing was published", code=found.error["code"], batch=batch_id
            )
        time.sleep(POLL_SECONDS)


def ensure_mini(ledger: Ledger, settings: Settings, owner: str) -> str:
    """Register the data set that the shipped mini preset was trained on and return its version's id.

    Its content is a recipe: the renderer draws the same pictures from the seed, so nothing is stored. The hash is that
    of the recipe and of the networks that embed the people.
    """
    preset = load_preset(settings.models_dir, "mini")
    request = BuildRequest(source=MINI_SOURCE, name=MINI_NAME, preset="mini", licence=preset.licence)
    depends_on = _depends_on(settings, preset, request, rendered=True)
    recipe = read_recipe(MINI_SOURCE)
    assert recipe is not None, "the source of the mini world is a recipe"
    facts = {
        "recipe": {"command": "python -m fpga_models.lab.synthetic.dataset", **asdict(recipe)},
        **depends_on.dump(),
    }
    with ledger.write() as session:
        with suppress(NotFoundError):
            known = datasets.resolve(session, owner, MINI_NAME)
            if known.facts == facts:  # hashed in an earlier way, perhaps
                return known.id
        return datasets.publish(
            session,
            NewVersion(
                owner=owner,
                name=MINI_NAME,
                content_sha256=digest(facts),
                preset="mini",
                encoder_sha256=depends_on.networks["faces/recogniser.onnx"],
                source=MINI_SOURCE,
                licence=preset.licence,
                attestation=NOBODY_REAL,
                batch_id=None,
                index_artifact_id=None,
                facts=facts,
            ),
            now(session),
        )


def is_recipe(version: DataSetVersion) -> bool:
    """Whether the pictures of a version are drawn anew from a recipe instead of being stored."""
    return "recipe" in version.facts


def read_index(session: Session, store: ByteStore, version: DataSetVersion) -> bytes:
    """Return the parquet index of a version, verified.

    Raises:
        UsageError: the version is a recipe and has none.
        TransientError: `object_damaged`.
    """
    if version.index_artifact_id is None:
        raise UsageError(f"data set version {version.id} is a recipe, it has no index", code="data_set_is_recipe")
    artifact = session.get_one(Artifact, version.index_artifact_id)
    return store.get(artifact.key, sha256=artifact.sha256)
