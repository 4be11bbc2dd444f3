"""Batches of probes: items that wait instead of computing, to measure or disturb the machinery around the networks.

Workers refuse them unless `FPGA_PROBES` is set; nothing that a user submits leads here.
"""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.contracts.base import digest
from orchestrator.contracts.probes import Disaster, ProbeParams
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.models import registry
from orchestrator.settings import Settings

KIND = "probe"
NO_DISASTERS: Mapping[int, Disaster] = {}


def submit(
    ledger: Ledger,
    settings: Settings,
    *,
    items: int,
    milliseconds: float,
    disasters: Mapping[int, Disaster] = NO_DISASTERS,
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
        request_sha256=digest([items, milliseconds, {str(at): what for at, what in disasters.items()}]),
        flow=False,
    )
    return batches.submit(ledger, new).batch_id


def _item(position: int, milliseconds: float, disaster: Disaster | None) -> batches.NewItem:
    params = ProbeParams(milliseconds=milliseconds, disaster=disaster).dump()
    return batches.NewItem(custom_id=f"probe-{position}", params=params, params_sha256=digest(params), seed=position)
