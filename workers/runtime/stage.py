"""What every stage is given and what it gives back.

A stage is a generator: it takes live claims of one batch and yields each with its end, as soon as that is known.
Claims that it is told to stop for, it leaves out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module

from orchestrator import pipelines
from orchestrator.errors import FpgaError
from orchestrator.ledger import evaluations, models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.evaluations import Thresholds
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome, Upload
from orchestrator.ledger.tables.rows import ModelVersion
from orchestrator.secrets.credentials import Signer
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key
from workers.runtime import weights
from workers.runtime.engine import Engine
from workers.runtime.lease import Lease


class DrainedError(Exception):
    """The worker must stop now; the claims go back to the queue."""


class StoppedError(Exception):
    """The claim was cancelled, paused or lost in the middle."""


@dataclass(frozen=True, kw_only=True)
class StageContext:
    """What a stage is handed: settings, ledger, store, engine, vault, signer."""

    settings: Settings
    ledger: Ledger
    store: ByteStore
    engine: Engine
    vault: Vault
    draining: Callable[[], bool]
    """Whether the grace time of a drain is over."""
    signer: Signer = field(default_factory=Signer)
    """Signs what is published; whoever is told nothing of it signs nothing."""
    crowded: Callable[[float], bool] = lambda _: False
    """Whether long work that began at this second of the monotonic clock should make room for what waits."""
    make_room: Callable[[Claim, float], float] = lambda _, since: since
    """Lets others be served in the middle of work that cannot be left and taken up again; to be called often.

    It takes the claim and since when the work goes on undisturbed, and returns the second that this counts from now.
    What is done meanwhile is done in another thread: modes of torch that are set here are not set there."""


def upload(c: Claim, data: bytes, suffix: str, media_type: str) -> Upload:
    """Return bytes that a claim made, under the key of their content."""
    sha256 = hashlib.sha256(data).hexdigest()
    return Upload(key=content_key(c.owner, sha256, suffix), data=data, sha256=sha256, media_type=media_type)


Ended = tuple[Claim, Outcome | FpgaError]
Stage = Callable[[StageContext, Sequence[Claim], Lease], Iterator[Ended]]


def version_of(context: StageContext, c: Claim) -> ModelVersion:
    """Return the model version that the batch was given, or the preset's champion, with its files on this machine.

    Raises:
        NotFoundError: it is not registered, or its files are missing.
        TransientError: its files cannot be fetched.
    """
    with context.ledger.read() as session:
        version = models.get(session, c.model_version_id) if c.model_version_id else models.resolve(session, c.preset)
    return weights.here(context.ledger, context.store, context.settings, version)


def facts_of(version: ModelVersion) -> dict[str, str]:
    """Return what a content credential says of the weights."""
    return {
        "preset": version.preset,
        "version": version.id,
        "sha256": version.tensor_sha256,
        "licence": version.licence,
    }


def thresholds_of(context: StageContext, version: ModelVersion) -> Thresholds:
    """Return at which cosines this version takes a face for its person's, as they are set now."""
    with context.ledger.read() as session:
        return evaluations.thresholds(session, version)


def one_by_one(
    context: StageContext, held: Sequence[Claim], lease: Lease, work: Callable[[Claim], Outcome]
) -> Iterator[Ended]:
    """Run `work` on each claim that has not been told to stop; a typed error is the end of that claim alone.

    Raises:
        DrainedError: the grace time of a drain is over.
    """
    for c in held:
        if context.draining():
            raise DrainedError
        if c.stage_id in lease.stopped:
            continue
        try:
            yield c, work(c)
        except FpgaError as error:
            yield c, error


def load(name: str) -> Stage:
    """Return the function that does a stage: the one of its name, in the module of its name, in its room.

    The module, and torch with it, is imported when it is first needed.
    """
    room = pipelines.stages()[name].room
    found: Stage = getattr(import_module(f"workers.stages.{room}.{name}"), name)
    return found
