"""Scans of archives: an open batch that is read like any archive, and the grouping that follows it.

Nothing is written into the archive, and no copy of it stays. A scan that was stopped goes on where it was; one of an
archive that was scanned before looks only at what is new or has changed.
"""

from __future__ import annotations

from pathlib import Path

from orchestrator.archive.reach import Reach, opened
from orchestrator.contracts.base import digest
from orchestrator.contracts.batches import Lane
from orchestrator.contracts.photos import Grouped, PhotoOptions
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.faces import scanned
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.tables.rows import Batch
from orchestrator.models import registry
from orchestrator.photos.restore import absolute, limits_of
from orchestrator.planning.presets import load_preset, preset_names
from orchestrator.settings import Settings

PRESET = "faces"
"""What looks at photographs where nobody asked for another preset."""
GROUP = "scan.group"


def submit(
    ledger: Ledger,
    settings: Settings,
    *,
    source: str,
    owner: str,
    preset: str | None = None,
    lane: Lane = "bulk",
    priority: int = 0,
    names: str = "cp437",
    force: bool = False,
    idempotency_key: str | None = None,
    fed: bool = True,
    operator: bool = False,
) -> Submitted:
    """Open a scan of a source, or return the one of it that has not ended; whoever feeds it fills it.

    Args:
        source: folder, glob, zip, tar, single photo, `s3://bucket/prefix` or an upload.
        preset: whose face pack looks, by default `faces`; any preset with faces of the right kind does.
        force: look at every photo again.
        fed, operator: as of a restoration.

    Raises:
        NotFoundError, InputError, ForbiddenError: the source is not there, cannot be read, or is not the owner's.
        UsageError, ModelError: an option or the preset is wrong.
    """
    SubmitOptions.asked(lane=lane, priority=priority)
    place, chosen = absolute(source), preset or PRESET
    reach = Reach(settings=settings, owner=owner, operator=operator)
    with opened(ledger, None, reach, place, limits_of(settings, names)):
        pass
    if chosen == PRESET and PRESET not in preset_names(settings.models_dir):
        raise NotFoundError(
            "photographs are looked at with preset 'faces', which is not here yet; `fpga model pull faces --yes` "
            "brings it (for drawn people there is --preset mini)",
            code="unknown_preset",
        )
    load_preset(settings.models_dir, chosen)
    with ledger.read() as session:
        before = scanned.unfinished(session, owner, place, chosen)
    if before is not None:
        return Submitted(batch_id=before.id, repeated=True)
    options = PhotoOptions(scan=True, source=place, operator=operator, names=names, force=force)
    return batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=photos.SCAN,
            name=Path(source.rstrip("/")).name or source,
            preset=chosen,
            items=(),
            lane=lane,
            priority=priority,
            model_version_id=registry.champion(ledger, settings, chosen),
            idempotency_key=idempotency_key,
            request_sha256=digest([options.dump(), chosen, lane, priority]),
            options=options.dump(),
            flow=fed,
            effects=(photos.SERVE,) if fed else (),
            open=True,
        ),
    )


def follow(ledger: Ledger, batch_id: str) -> str | None:
    """Queue the grouping that follows a scan which has ended; return the id of that batch, the same each time.

    What a cancelled scan looked at is grouped too. None for a scan that still runs.
    """
    with ledger.read() as session:
        batch = batches.one(session, batch_id)
    if batch.kind != photos.SCAN or batch.state not in BATCH_ENDED:
        return None
    return _group(ledger, batch, key=f"group:{batch.id}")


def regroup(ledger: Ledger, settings: Settings, owner: str, preset: str | None = None) -> str:
    """Queue a grouping of the faces that are nobody's, such as those that a person refused; return its batch."""
    chosen = preset or PRESET
    version = registry.champion(ledger, settings, chosen)
    return _group(
        ledger, Batch(owner=owner, name="group faces", preset=chosen, lane="interactive", model_version_id=version)
    )


def _group(ledger: Ledger, batch: Batch, key: str | None = None) -> str:
    item = NewItem(custom_id="faces", params={}, params_sha256="", seed=0)
    return batches.submit(
        ledger,
        NewBatch(
            owner=batch.owner,
            kind=GROUP,
            name=batch.name,
            preset=batch.preset,
            items=[item],
            lane=batch.lane,
            model_version_id=batch.model_version_id,
            parent_id=batch.id,
            idempotency_key=key,
            request_sha256=key,
            flow=False,
            follows=True,
        ),
    ).batch_id


def grouped(ledger: Ledger, owner: str, batch_id: str) -> Grouped | None:
    """Return what a grouping came to, None while it has not ended.

    Raises:
        UsageError: it ended without a result.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        if batch.state not in BATCH_ENDED:
            return None
        (item,) = batches.items(session, batch.id)
        found = photos.said(session, item.id, Grouped)
    if found is None:
        raise UsageError(f"the faces were not grouped: {item.error_message or item.state}", code="not_grouped")
    return found
