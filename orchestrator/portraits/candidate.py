"""A share of a batch is drawn by the candidate too: the same items and seeds in a batch beside it, to look at.

Nobody is handed a picture of a version that was not promoted: the first batch stays whole, the second is a comparison.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.contracts.portraits import PortraitOptions, PortraitParams
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.ledger import models
from orchestrator.ledger.engine.session import Ledger, retrying
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.tables.rows import Artifact, Batch, Item, Output
from orchestrator.storage import ByteStore


@retrying
def submit(ledger: Ledger, new: NewBatch, share: float) -> tuple[Submitted, str | None]:
    """Commit a batch, and with it the batch in which the candidate draws a share of the items; return both.

    Raises:
        UsageError: share is not in [0, 1].
        NotFoundError: the preset has no candidate.
        ConflictError: the candidate is tainted, or the idempotency key was used for another request.
    """
    if not 0 <= share <= 1:
        raise UsageError(f"the candidate's share is 0 to 1, got {share}", code="bad_candidate_share")
    with ledger.write() as session:
        version = models.resolve(session, new.preset, models.CANDIDATE) if share else None
        if version is not None:
            models.check_untainted(version)
        submitted = batches.enter(session, new)
        if version is None or submitted.repeated:
            return submitted, None
        beside = replace(
            new,
            name=f"{new.name} (candidate)",
            items=chosen(new.items, share),
            model_version_id=version.id,
            parent_id=submitted.batch_id,
            idempotency_key=None,
            rejected_rows=(),
            options=PortraitOptions.load(new.options)
            .model_copy(update={"pinned": True, "compares": submitted.batch_id})
            .dump(),
        )
        return submitted, batches.enter(session, beside).batch_id


def chosen(items: Sequence[NewItem], share: float) -> list[NewItem]:
    """Choose a share of the items, at least one, the same for the same custom_ids; in their order."""
    ranked = sorted(items, key=lambda item: hashlib.sha256(item.custom_id.encode()).digest())
    picked = {item.custom_id for item in ranked[: ceil(share * len(items))]}
    return [item for item in items if item.custom_id in picked]


@dataclass(frozen=True, kw_only=True)
class Side:
    """What one version made of an item; `picture` is PNG, None where there is none (yet)."""

    version: str
    verdict: str | None
    similarity: float | None
    picture: bytes | None


@dataclass(frozen=True, kw_only=True)
class Pair:
    """One item as champion and candidate drew it, with the same seed."""

    custom_id: str
    prompt: str
    seed: int
    champion: Side
    candidate: Side


def pairs(ledger: Ledger, store: ByteStore, owner: str, batch_id: str) -> list[Pair]:
    """Return the items that both versions drew, by the id of either batch, in their order.

    Raises:
        NotFoundError: no such batch, or no candidate had a share of it.
    """
    with ledger.read() as session:
        first, beside = _batches(session, owner, batch_id)
        drawn = [{item.custom_id: item for item in batches.items(session, one.id)} for one in (first, beside)]
        found = [
            (item, [_output(session, of_batch[custom_id]) for of_batch in drawn])
            for custom_id, item in drawn[1].items()
            if custom_id in drawn[0]
        ]
    return [
        Pair(
            custom_id=item.custom_id,
            prompt=PortraitParams.load(item.params).prompt,
            seed=item.seed,
            champion=_side(store, *outputs[0], first.model_version_id),
            candidate=_side(store, *outputs[1], beside.model_version_id),
        )
        for item, outputs in found
    ]


def _batches(session: Session, owner: str, batch_id: str) -> tuple[Batch, Batch]:
    batch = batches.get(session, owner, batch_id)
    if compared := PortraitOptions.load(batch.options).compares:
        return session.get_one(Batch, compared), batch
    for child in batches.children(session, batch.id):
        if PortraitOptions.load(child.options).compares == batch.id:
            return batch, child
    raise NotFoundError(f"no candidate had a share of batch {batch.id}", code="candidate_not_found")


def _output(session: Session, item: Item) -> tuple[Output | None, Artifact | None]:
    output: Any = session.get(Output, item.output_id) if item.output_id else None
    return output, session.get(Artifact, output.artifact_id) if output else None


def _side(store: ByteStore, output: Output | None, artifact: Artifact | None, version: str | None) -> Side:
    if output is None or artifact is None:
        return Side(version=version or "", verdict=None, similarity=None, picture=None)
    return Side(
        version=output.model_version_id,
        verdict=output.verdict,
        similarity=output.similarity,
        picture=store.get(artifact.key, sha256=artifact.sha256),
    )
