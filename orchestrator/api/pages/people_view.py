"""What a person's page shows, in one object: references, consents, where the person is used. Reads only."""

from __future__ import annotations

from typing import Any

from orchestrator.errors import InputError, NotFoundError
from orchestrator.ledger import identities as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.views import listings, usage
from orchestrator.people import identities
from orchestrator.pictures import MEDIA_TYPES, SHOWN, check_picture, photo_format
from orchestrator.secrets.vault import Vault
from orchestrator.storage import ByteStore


def person(ledger: Ledger, owner: str, who: str) -> dict[str, Any]:
    """Return a person with references, consents, and the batches, data sets and model versions that they are in.

    Raises:
        NotFoundError: there is none of this handle or id.
    """
    found = identities.show(ledger, owner, who)
    with ledger.read() as session:
        batches = listings.used_in(session, found["id"])
        sets = usage.data_sets(session, found["id"])
        models = usage.versions(session, [version.id for version, _, _ in sets])
    return {
        **found,
        "scopes": sorted({one["scope"] for one in found["consents"] if one["state"] == "valid"}),
        "batches": [
            {"id": b.id, "name": b.name, "kind": b.kind, "items": n, "created_at": b.created_at.isoformat()}
            for b, n in batches
        ],
        "data_sets": [
            {"id": v.id, "name": f"{name} {v.number}", "pictures": pictures, "tainted": v.tainted_at is not None}
            for v, name, pictures in sets
        ],
        "models": [{"id": m.id, "name": f"{m.preset} {m.number}", "tainted": m.tainted_at is not None} for m in models],
    }


def face(ledger: Ledger, store: ByteStore, vault: Vault, owner: str, who: str) -> tuple[bytes, str]:
    """Return a picture of a person's face and its media type, opened from its seal.

    The aligned crop that was kept at enrolment; where there is none, the first reference picture as it was handed in.

    Raises:
        NotFoundError: no such person, or no picture of them.
    """
    with ledger.read() as session:
        row = rows.get(session, owner, who)
        crop = rows.crops(session, [row.id], unseal=vault.open).get(row.id)
        pairs = rows.references(session, row.id)
    if crop is not None:
        return crop, "image/png"
    for reference, stored in pairs:
        data = vault.open(reference.envelope, store.get(stored.key, sha256=stored.sha256))
        try:
            return data, check_picture(data).media_type
        except InputError:
            continue
    raise NotFoundError(f"there is no picture of {who!r}", code="picture_not_found")


def reference(
    ledger: Ledger, store: ByteStore, vault: Vault, owner: str, who: str, reference_id: str
) -> tuple[bytes, str]:
    """Return a reference picture and its media type: as it was handed in, or its face where browsers cannot show that.

    Raises:
        NotFoundError: no such person, or no such reference of them.
    """
    with ledger.read() as session:
        pairs = rows.references(session, rows.get(session, owner, who).id)
    for row, stored in pairs:
        if row.id == reference_id:
            data = vault.open(row.envelope, store.get(stored.key, sha256=stored.sha256))
            form = photo_format(data[:64])
            if form not in SHOWN and row.crop is not None:
                return vault.open(row.envelope, row.crop), "image/png"
            return data, MEDIA_TYPES[form] if form else "application/octet-stream"
    raise NotFoundError(f"there is no reference {reference_id!r}", code="reference_not_found")
