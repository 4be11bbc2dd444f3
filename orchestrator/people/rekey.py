"""The change of the master key: all is wrapped by the new one, and opened by it alone before that is said.

Envelopes of before they were bound to their places are bound by it too, under the same key or another."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from orchestrator.errors import SettingsError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.privacy import sealed
from orchestrator.secrets.vault import Vault


@dataclass(frozen=True, kw_only=True)
class Rekeyed:
    """How many data keys the first master key wraps now, and how many of them it opened by itself, by kind."""

    wrapped: dict[str, int]
    opened: dict[str, int]

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {"object": "identity.rekeyed", "wrapped": self.wrapped, "opened": self.opened}


def rekey(ledger: Ledger, vault: Vault) -> Rekeyed:
    """Wrap every data key by the first master key, then open each with that key alone.

    Raises:
        SettingsError: `data_key_missing` or `seal_broken`, something opens with none of the keys, or with a former one
            only: no key may be thrown away.
    """
    wrapped = sealed.rewrap(ledger, vault.rewrap)
    alone, opened = vault.alone(), Counter[str]()
    with ledger.read() as session:
        for kind, envelope, under in sealed.every(session):
            alone.check(envelope)
            for one in under:
                alone.open(envelope, one)
            opened[kind] += 1
    missing = {kind: count - opened[kind] for kind, count in wrapped.items() if opened[kind] < count}
    if missing:
        raise SettingsError(f"not all that was wrapped could be opened: {missing}", code="data_key_missing")
    return Rekeyed(wrapped=wrapped, opened={kind: opened[kind] for kind in wrapped})
