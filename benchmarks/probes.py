"""Batches of probes: items that wait instead of computing, to measure or disturb the machinery around the networks.

Workers refuse them unless `FPGA_PROBES` is set; nothing that a user submits leads here.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.models import registry
from orchestrator.settings import Settings

KIND = "probe"
NO_DISASTERS: Mapping[int, str] = {}


def submit(
    ledger: Ledger,
    settings: Settings,
    *,
    items: int,
    milliseconds: float,
    disasters: Mapping[int, str] = NO_DISASTERS,
    name: str = KIND,
    idempotency_key: str | None = None,
) -> str:
    """Submit a batch of items that each take `milliseconds`, and return its id.

    `disasters` maps positions to what the item does to its worker: kill, segfault, memory, hang, hang_in_c.
    """
    new = batches.NewBatch(
        owner=settings.owner,
        kind=KIND,
        name=name,
        preset=settings.preset,
        model_version_id=registry.champion(ledger, settings, settings.preset),
        items=[_item(position, milliseconds, disasters.get(position)) for position in range(items)],
        idempotency_key=idempotency_key,
        request_sha256=hashlib.sha256(json.dumps([items, milliseconds, dict(disasters)]).encode()).hexdigest(),
        flow=False,
    )
    return batches.submit(ledger, new).batch_id


def _item(position: int, milliseconds: float, disaster: str | None) -> batches.NewItem:
    params: dict[str, Any] = {"milliseconds": milliseconds, **({"disaster": disaster} if disaster else {})}
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    return batches.NewItem(custom_id=f"probe-{position}", params=params, params_sha256=digest, seed=position)
