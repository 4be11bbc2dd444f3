"""Portraits drawn again as they were asked for, with other seeds: variations of what somebody liked, or did not."""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from orchestrator.contracts.portraits import PortraitOptions
from orchestrator.errors import ConflictError, UsageError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem, Submitted
from orchestrator.ledger.tables.rows import Batch, Item
from orchestrator.ledger.views import listings

KIND = "generate"
MOST_VARIATIONS = 16


def draw_again(ledger: Ledger, owner: str, batch_id: str, item_ids: Sequence[str], *, count: int = 1) -> Submitted:
    """Queue items of a batch again, each `count` times with a seed of its own, as a batch of their own.

    Consent is asked again when a worker begins. The new rows are named after the old ones: `hero` gives `hero-v1`.

    Raises:
        NotFoundError: the batch has no such item.
        ConflictError: it holds no portraits.
        UsageError: nothing was chosen, or `count` is not 1 to 16.
    """
    if not item_ids or not 1 <= count <= MOST_VARIATIONS:
        raise UsageError(
            f"wanted at least one item and 1 to {MOST_VARIATIONS} variations, got {len(item_ids)} and {count}",
            code="bad_variations",
        )
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        if batch.kind != KIND:
            raise ConflictError(
                f"only portraits are drawn again so; this batch is a {batch.kind}", code="not_portraits"
            )
        found = [listings.item(session, owner, item_id) for item_id in dict.fromkeys(item_ids)]
        if any(item.batch_id != batch.id for item in found):
            raise ConflictError(f"an item is not of batch {batch.id}", code="not_of_this_batch")
        new = [_new(item, number, photos.shown(session, item.id)) for item in found for number in range(1, count + 1)]
        made = _batch(owner, batch, new)
    return batches.submit(ledger, made)


def _new(item: Item, number: int, shown: Sequence[str]) -> NewItem:
    return NewItem(
        custom_id=f"{item.custom_id[:110]}-v{number}",
        params=item.params,
        params_sha256=item.params_sha256,
        seed=secrets.randbits(32),
        cost=item.cost,
        identities=tuple(shown),
    )


def _batch(owner: str, batch: Batch, new: list[NewItem]) -> NewBatch:
    options = PortraitOptions.load(batch.options)
    return NewBatch(
        owner=owner,
        kind=batch.kind,
        name=f"{batch.name} (drawn again)",
        preset=batch.preset,
        items=new,
        lane="interactive",
        model_version_id=batch.model_version_id,
        parent_id=batch.id,
        options=PortraitOptions(redraws=options.redraws, defaults=options.defaults).dump(),
    )
