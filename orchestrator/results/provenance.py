"""Proofs about pictures: make one again from its record and compare, and say what a file tells of itself.

`reproduce` sends the very request through the system a second time, under the model version of the first; `judge`
compares. `verify` needs a file alone; with a ledger at hand it can also say that these are the bytes that were stored.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from PIL import Image, ImageChops

from orchestrator.contracts.portraits import PortraitOptions
from orchestrator.errors import ConflictError, ModelError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, outputs
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Batch, Item, Output
from orchestrator.ledger.views import listings
from orchestrator.models.registry import weights_manifest
from orchestrator.pictures import check_picture, read_record
from orchestrator.secrets import credentials
from orchestrator.secrets.credentials import Credential
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

TOLERANCE = 1
"""Largest difference in 255 grey levels between pictures of one request in batches of different size, measured."""

Outcome = Literal["bit_equal", "within_tolerance", "different"]


@dataclass(frozen=True, kw_only=True)
class Reproduction:
    """How a picture made again compares with the first.

    Attributes:
        max_difference: largest difference of a channel, of 255.
        differs_at: the first stage whose result is not the same; None where none is.
        profile: what of the arithmetic was another: name -> (then, now).
    """

    item_id: str
    batch_id: str
    outcome: Outcome
    max_difference: int
    differs_at: str | None
    profile: dict[str, tuple[Any, Any]]

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain JSON."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Verified:
    """What can be said of a picture file.

    Attributes:
        width: in pixels, as height; None for a HEIC or rare TIFF, whose header is not read here.
        credential: what its content credential says, and what the signature is worth.
        record: what the file claims of itself; None where it carries no record of ours. A claim, not a proof.
        weights_here: whether this installation holds the very weights that the record names; None without a record.
        stored_as: id of the item whose output has exactly these bytes; None where the ledger was not asked or has none.
    """

    sha256: str
    format: str
    width: int | None
    height: int | None
    credential: Credential
    record: dict[str, Any] | None
    weights_here: bool | None
    stored_as: str | None
    says: str

    def as_json(self) -> dict[str, Any]:
        """The findings as plain JSON."""
        return asdict(self)


def reproduce(ledger: Ledger, owner: str, item_id: str) -> str:
    """Ask for a portrait a second time: same parameters, seed and model version; return the id of the new batch.

    Raises:
        NotFoundError: there is no such item.
        ConflictError: it is no portrait, or no picture of it was chosen.
    """
    with ledger.read() as session:
        item = listings.item(session, owner, item_id)
        batch = session.get_one(Batch, item.batch_id)
        if batch.kind != "generate" or item.output_id is None:
            raise ConflictError(
                f"only a finished portrait can be made again; item {item_id} is a {batch.kind} and {item.state}",
                code="item_not_ready",
            )
        output = session.get_one(Output, item.output_id)
        shown = photos.shown(session, item.id)
    new = NewItem(
        custom_id=item.custom_id,
        params=item.params,
        params_sha256=item.params_sha256,
        seed=output.seed,
        cost=item.cost,
        identities=tuple(shown),
    )
    return batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind=batch.kind,
            name=f"{batch.name} (reproduced)",
            preset=batch.preset,
            items=[new],
            lane="interactive",
            model_version_id=output.model_version_id,
            parent_id=batch.id,
            options=PortraitOptions(pinned=True, reproduces=item.id).dump(),
            flow=False,
        ),
    ).batch_id


def judge(ledger: Ledger, store: ByteStore, owner: str, batch_id: str) -> Reproduction:
    """Compare a reproduction that has ended with the first picture.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: it reproduces nothing, or made no picture; the message says what its item ended with.
        StoreUnavailableError: the pictures cannot be read.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        first_id = PortraitOptions.load(batch.options).reproduces
        (again,) = batches.items(session, batch.id)
        if first_id is None or again.output_id is None:
            why = again.error_message or f"its item is {again.state}"
            raise ConflictError(f"batch {batch.id} holds no picture made again: {why}", code="not_reproduced")
        first = session.get_one(Item, first_id)
        found = listings.outputs(session, [first, again])
        (before, stored_before), (after, stored_after) = found[first.id], found[again.id]
    difference = _max_difference(*(store.get(a.key, sha256=a.sha256) for a in (stored_before, stored_after)))
    picture_same, score_same = difference == 0, (before.verdict, before.scores) == (after.verdict, after.scores)
    return Reproduction(
        item_id=first.id,
        batch_id=batch.id,
        outcome="bit_equal" if picture_same else "within_tolerance" if difference <= TOLERANCE else "different",
        max_difference=difference,
        differs_at=None if picture_same and score_same else "score" if picture_same else "generate",
        profile=_changes(before.record.get("profile", {}), after.record.get("profile", {})),
    )


def verify(data: bytes, settings: Settings, ledger: Ledger | None = None) -> Verified:
    """Say what a picture file tells of itself and, with a ledger, whether its bytes are the stored ones.

    Raises:
        InputError: it is no picture.
    """
    facts, record = check_picture(data), read_record(data)
    width, height = facts.size or (None, None)
    sha256 = hashlib.sha256(data).hexdigest()
    stored_as = _stored_as(ledger, settings.owner, sha256) if ledger else None
    here = _weights_here(settings, record) if record else None
    return Verified(
        sha256=sha256,
        format=facts.format,
        width=width,
        height=height,
        credential=credentials.read(data, facts.media_type, settings),
        record=record,
        weights_here=here,
        stored_as=stored_as,
        says=_sentence(record, here, stored_as, asked=ledger is not None),
    )


def _max_difference(first: bytes, second: bytes) -> int:
    """Largest difference of a channel; pictures of unlike size are as far apart as can be."""
    with (
        Image.open(io.BytesIO(first), formats=("PNG",)) as one,
        Image.open(io.BytesIO(second), formats=("PNG",)) as two,
    ):
        if one.size != two.size:
            return 255
        bands = ImageChops.difference(one.convert("RGB"), two.convert("RGB")).split()
        return max(int(band.getextrema()[1]) for band in bands)  # type: ignore[arg-type]  # one band has one pair


def _changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    return {
        name: (then.get(name), now.get(name))
        for name in sorted({*then, *now})
        if name != "group" and then.get(name) != now.get(name)
    }


def _stored_as(ledger: Ledger, owner: str, sha256: str) -> str | None:
    with ledger.read() as session:
        return outputs.item_with(session, owner, sha256)


def _weights_here(settings: Settings, record: Mapping[str, Any]) -> bool:
    preset = record.get("preset")
    if not isinstance(preset, str) or not preset.isidentifier():  # what a file claims is never a path
        return False
    try:
        return bool(weights_manifest(settings, preset)["model_sha256"] == record.get("model_sha256"))
    except ModelError:
        return False


def _sentence(record: Mapping[str, Any] | None, here: bool | None, stored_as: str | None, *, asked: bool) -> str:
    if record is None:
        return "It carries no record of ours: nothing can be said of how it was made."
    claim = f"It says that {record.get('software', 'an unknown program')} made it"
    if stored_as:
        return f"{claim}, and its bytes are those that item {stored_as} stored: unchanged since."
    proof = "no item here stored these bytes" if asked else "a record alone proves nothing, since anybody can write one"
    again = "the weights it names are here, so it can be made again" if here else "the weights it names are not here"
    return f"{claim}; {proof}; {again}."
