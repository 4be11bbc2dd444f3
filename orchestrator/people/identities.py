"""The library of people: add reference pictures, wait for their faces, consent, and erase with a receipt.

Pictures are only looked at by their header here; decoding them and finding the face is a worker's stage.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.contracts import people as contracts
from orchestrator.contracts.base import digest
from orchestrator.contracts.people import EnrolParams, GivenConsent, GivenReference, picture_place
from orchestrator.errors import ConflictError, InputError, StoreUnavailableError, UsageError
from orchestrator.ledger import artifacts, audit, datasets, identities, photos
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.engine.states import ENDED, State
from orchestrator.ledger.privacy import erasure, register
from orchestrator.ledger.privacy.register import Words
from orchestrator.ledger.queue import batches, sweeper
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.tables.rows import Artifact, Consent, Identity, Reference
from orchestrator.models import registry
from orchestrator.people import manifests
from orchestrator.people.receipts import Signer
from orchestrator.pictures import check_picture
from orchestrator.planning.rows import NAME
from orchestrator.results import thumbnails
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key
from orchestrator.storage.copies import drop_withdrawn

HANDLE = re.compile(NAME)
REFERENCE = re.compile(r"reference picture (\d+)")
SEALED = "application/octet-stream"
MAX_PICTURES = 32
POLL_SECONDS = 0.2


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One reference picture as it was handed in; `name` only serves messages."""

    name: str
    data: bytes


@dataclass(frozen=True, kw_only=True)
class ConsentGiven:
    """What a person allows: scopes, who wrote it down, the text they saw, until when."""

    scopes: tuple[str, ...]
    granted_by: str
    text: bytes | None = None
    expires_at: datetime | None = None

    def kept(self) -> GivenConsent:
        """Return the form that an enrol item carries: the text only as its sha256."""
        return GivenConsent(
            scopes=self.scopes,
            granted_by=self.granted_by,
            text_sha256=hashlib.sha256(self.text).hexdigest() if self.text is not None else None,
            expires_at=self.expires_at,
        )


@dataclass(frozen=True, kw_only=True)
class NewPerson:
    """A person to add to the library."""

    handle: str
    pictures: tuple[Picture, ...]
    consent: ConsentGiven
    name: str | None = None
    same_person: bool = False
    """Whether the caller answers for all pictures showing one person, so that they are not compared."""


@dataclass(frozen=True, kw_only=True)
class Enrolled:
    """How adding one person ended: the identity's id, or an error with code and sentence, or neither so far.

    `notes` says which references are poor, and why. Pictures are named as they were handed in.
    """

    handle: str
    identity_id: str | None
    error: dict[str, Any] | None
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """Return the object that the command line prints."""
        return {
            "object": "identity.enrolled",
            "handle": self.handle,
            "id": self.identity_id,
            "error": self.error,
            "notes": list(self.notes),
        }


def add(
    ledger: Ledger,
    store: ByteStore,
    settings: Settings,
    people: Sequence[NewPerson],
    *,
    owner: str,
    more: bool = False,
    preset: str | None = None,
) -> str:
    """Store reference pictures and queue the search for their faces; return the id of the enrol batch.

    Every picture's header is checked before the first byte is stored. An identity exists once its item is completed.

    Args:
        more: allow handles that exist already, and add to them.
        preset: whose face pack looks at the pictures, by default the deployment's.

    Raises:
        InputError: a file is not a picture we read, or is too large.
        ConflictError: a handle is taken, or given twice.
        UsageError: a handle, scope or number of pictures is wrong.
    """
    _check_people(ledger, people, owner, more)
    chosen = preset or settings.preset
    version = registry.champion(ledger, settings, chosen)
    vault = Vault.of(settings)
    for person in people:
        for picture in person.pictures:
            _check_header(picture, settings)
    items = []
    for number, person in enumerate(people, start=1):
        # the same picture twice would count twice in the mean
        pictures = {hashlib.sha256(picture.data).hexdigest(): picture for picture in person.pictures}
        references = [_put(ledger, store, vault, owner, sha256, picture) for sha256, picture in pictures.items()]
        params = EnrolParams(
            handle=person.handle,
            name=person.name,
            references=tuple(references),
            consent=person.consent.kept(),
            same_person=person.same_person,
        ).dump()
        # the custom_id stays when a person is erased, so it is a number and not the handle
        items.append(NewItem(custom_id=f"person-{number}", params=params, params_sha256=digest(params), seed=0))
    submitted = batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind="enrol",
            name=f"add {len(people)} to the library",
            preset=chosen,
            items=items,
            lane="interactive",
            model_version_id=version,
            flow=False,
        ),
    )
    return submitted.batch_id


def reembed(ledger: Ledger, settings: Settings, *, owner: str, who: Sequence[str] = ()) -> str | None:
    """Queue the embedding of sealed references by the recogniser of the present model; return the id of the batch.

    No picture is asked for twice. People who allow nothing any more are left out, and references that this recogniser
    has embedded already are not embedded again. Older embeddings stay, for batches of older models.

    Args:
        who: handles or ids; empty means everybody.

    Returns:
        None if there is nobody.

    Raises:
        NotFoundError: there is no such person.
    """
    version = registry.champion(ledger, settings, settings.preset)
    with ledger.read() as session:
        allowed = identities.scopes(session, owner, now(session))
        asked = {identities.get(session, owner, one).id for one in who}
    people = [(handle, i) for handle, (i, scopes) in allowed.items() if scopes and (not asked or i in asked)]
    if not people:
        return None
    items = []
    for number, (handle, identity_id) in enumerate(people, start=1):
        params = EnrolParams(handle=handle, identity=identity_id).dump()
        items.append(NewItem(custom_id=f"person-{number}", params=params, params_sha256=digest(params), seed=0))
    submitted = batches.submit(
        ledger,
        NewBatch(
            owner=owner,
            kind="enrol",
            name=f"embed {len(items)} of the library again",
            preset=settings.preset,
            items=items,
            lane="bulk",
            model_version_id=version,
            flow=False,
        ),
    )
    return submitted.batch_id


def outcomes(ledger: Ledger, owner: str, batch_id: str) -> list[Enrolled]:
    """Return how the people of an enrol batch stand now, in the order they were given."""
    with ledger.read() as session:
        found = []
        for item in batches.items(session, batches.get(session, owner, batch_id).id):
            handle = EnrolParams.load(item.params).handle
            error: dict[str, Any] | None = None
            identity_id = None
            if item.state == State.COMPLETED:
                identity_id = identities.get(session, owner, handle).id
            elif item.state in ENDED:
                code, message = item.error_code or item.state, item.error_message or f"the item was {item.state}"
                error = {"code": code, "message": message}
            if error is not None:
                error["message"] = _with_names(error["message"], item.params)
            taken = photos.said(session, item.id, contracts.Enrolled)
            found.append(
                Enrolled(
                    handle=handle,
                    identity_id=identity_id,
                    error=error,
                    notes=tuple(_with_names(note, item.params) for note in (taken.notes if taken else ())),
                )
            )
        return found


def _with_names(sentence: str, params: Mapping[str, Any]) -> str:
    """Name pictures as they were handed in: workers know and say their numbers only."""
    names = [reference.get("file_name") for reference in params.get("references", ())]

    def named(found: re.Match[str]) -> str:
        number = int(found[1]) - 1
        return str(names[number]) if 0 <= number < len(names) and names[number] else found[0]

    return REFERENCE.sub(named, sentence)


def wait_enrolled(
    ledger: Ledger,
    owner: str,
    batch_id: str,
    *,
    timeout_seconds: float,
    tick: Callable[[list[Enrolled]], None] | None = None,
) -> list[Enrolled]:
    """Wait until every person of an enrol batch has ended or the time is over, and return how they stand."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        found = outcomes(ledger, owner, batch_id)
        if tick:
            tick(found)
        if all(one.identity_id or one.error for one in found) or time.monotonic() > deadline:
            return found
        time.sleep(POLL_SECONDS)


def list_people(ledger: Ledger, owner: str) -> list[dict[str, Any]]:
    """Return the light objects of everybody in the library, by handle."""
    with ledger.read() as session:
        allowed = identities.scopes(session, owner, now(session))
        return [
            {**_light(row), "references": count, "scopes": sorted(allowed.get(row.handle or "", ("", frozenset()))[1])}
            for row, count in identities.listing(session, owner)
        ]


def show(ledger: Ledger, owner: str, who: str) -> dict[str, Any]:
    """Return one person with references and every consent ever given.

    Raises:
        NotFoundError: there is none of this handle or id.
    """
    with ledger.read() as session:
        row = identities.get(session, owner, who)
        return {
            **_light(row),
            "references": [_reference(*found) for found in identities.references(session, row.id)],
            "consents": [_consent(found, now(session)) for found in identities.consents(session, row.id)],
        }


def grant(ledger: Ledger, owner: str, who: str, consent: ConsentGiven) -> dict[str, Any]:
    """Write down what a person allows and return the person.

    Raises:
        NotFoundError: there is no such person.
        UsageError: a scope is not known.
    """
    _check_scopes(consent.scopes)
    given = consent.kept()
    with ledger.write() as session:
        row = identities.get(session, owner, who)
        for scope in consent.scopes:
            identities.grant(
                session,
                owner,
                row.id,
                scope=scope,
                granted_by=consent.granted_by,
                text_sha256=given.text_sha256,
                expires_at=consent.expires_at,
                moment=now(session),
            )
    return show(ledger, owner, who)


def revoke(ledger: Ledger, owner: str, who: str, scopes: Sequence[str]) -> dict[str, Any]:
    """End a person's consent for these scopes and return the person.

    Raises:
        NotFoundError: there is no such person.
        UsageError: a scope is not known.
        ConflictError: none of the scopes was allowed.
    """
    _check_scopes(scopes)
    with ledger.read() as session:
        identity_id = identities.get(session, owner, who).id
    if not sum(identities.revoke(ledger, owner, identity_id, scope) for scope in scopes):
        raise ConflictError(f"identity {who!r} allows none of {', '.join(scopes)}", code="consent_not_given")
    return show(ledger, owner, who)


def erase(ledger: Ledger, store: ByteStore, settings: Settings, owner: str, who: str) -> dict[str, Any]:
    """Take a person away: rows, references, pictures that show them, bytes, local copies; return the signed receipt.

    The receipt holds no name: id, counts, sha256 over the sorted keys of the deleted objects, the audit row and its
    hash, and when it was verified that no row tells of the person and none of the objects can be read any more.
    `scheduled_rows` counts the rows that went from manifests of schedules, `expires` what else this owner handed in and
    nobody has looked into, which may show anybody, and says when the last of it goes.

    Raises:
        NotFoundError: there is no such person.
        SettingsError: there is no key to sign the receipt with; nothing was erased.
        StoreUnavailableError: a manifest cannot be read, and nothing is erased; or the rows are gone, but bytes are
            left, and the sweeper will delete them.
    """
    signer = Signer.of(settings)
    scheduled = manifests.forget(ledger, store, owner, _words(ledger, owner, who))
    erased = erasure.erase(ledger, owner, who)
    left = _delete(store, erased.keys)
    if left:
        raise StoreUnavailableError(
            f"{erased.identity_id} is erased from the database, but {left} of {len(erased.keys)} objects could not be "
            "deleted yet; the sweeper goes on trying, and no receipt is given until then"
        )
    sweeper.artifacts_deleted(ledger, erased.artifact_ids)
    drop_withdrawn(settings.state_dir / "datasets", partial(datasets.withdrawn, ledger))
    ledger.settle()
    with ledger.read() as session:
        entry = audit.last(session, erased.identity_id, "identity.erase")
        rows = erasure.remaining(session, erased.identity_id)
        named = register.remaining(session, owner, erased.words)
        expiring = erasure.expiring(session, owner)
    assert entry is not None, "an erase writes its audit row in the same transaction"
    assert not any(rows.values()), f"an erase leaves no row behind, found {rows}"
    assert not named, f"an erase leaves no name behind, found some in {sorted(named)}"
    receipt = {
        "object": "identity.erase_receipt",
        "schema": "fpga/erase_receipt/3",
        "identity_id": erased.identity_id,
        "references": erased.references,
        "outputs": erased.outputs,
        "items": erased.items,
        "objects": len(erased.keys),
        "scheduled_rows": scheduled,
        "tainted": {"data_sets": erased.data_sets, "models": erased.models},
        "keys_sha256": hashlib.sha256("\n".join(sorted(erased.keys)).encode()).hexdigest(),
        "audit": {"id": entry.id, "hash": entry.hash, "at": entry.at.isoformat()},
        "verified": {"objects_left": left, "rows_left": rows, "rows_that_name": sum(named.values())},
        "expires": expiring,
        "verified_at": datetime.now(UTC).isoformat(),
    }
    return signer.sign(receipt)


def _words(ledger: Ledger, owner: str, who: str) -> Words:
    with ledger.read() as session:
        identity = identities.get(session, owner, who)
        return Words(identity_id=identity.id, handle=identity.handle, name=identity.name)


def check_receipt_path(path: Path) -> None:
    """Check before an erase that its receipt can be written there.

    Raises:
        ConflictError: the file exists.
        UsageError: its folder cannot be made or written.
    """
    if path.exists():
        raise ConflictError(f"{path} exists; a receipt is never overwritten", code="file_exists")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise UsageError(f"{path.parent} cannot be made: {error.strerror}", code="file_unwritable") from error
    if not os.access(path.parent, os.W_OK):
        raise UsageError(f"{path.parent} cannot be written", code="file_unwritable")


def write_receipt(receipt: dict[str, Any], path: Path) -> None:
    """Write a receipt, readable by its owner alone.

    Raises:
        ConflictError: the file exists.
    """
    try:
        path.touch(mode=0o600, exist_ok=False)
    except FileExistsError as error:
        raise ConflictError(f"{path} exists; a receipt is never overwritten", code="file_exists") from error
    path.write_text(json.dumps(receipt, indent=2) + "\n")


def _delete(store: ByteStore, keys: Sequence[str]) -> int:
    """Delete these objects and return how many of them can still be found."""
    left = 0
    for key in keys:
        try:
            thumbnails.delete(store, key)
            left += store.head(key) is not None
        except StoreUnavailableError:
            left += 1
    return left


def _check_header(picture: Picture, settings: Settings) -> None:
    try:
        check_picture(picture.data, max_pixels=settings.max_pixels)
    except InputError as error:
        raise InputError(f"{picture.name}: {error.message}", code=error.code, **error.details) from error


def _put(
    ledger: Ledger, store: ByteStore, vault: Vault, owner: str, picture_sha256: str, picture: Picture
) -> GivenReference:
    """Seal a picture under a data key of its own and store it; its name in the store is the hash of what is stored."""
    envelope = vault.new(picture_place(picture_sha256))
    sealed = vault.seal(envelope, picture.data)
    sha256 = hashlib.sha256(sealed).hexdigest()
    key = content_key(owner, sha256, ".sealed")
    artifact_id = artifacts.reserve(ledger, owner=owner, sha256=sha256, key=key, size=len(sealed), media_type=SEALED)
    store.put(key, sealed, media_type=SEALED, sha256=sha256)
    return GivenReference(
        artifact_id=artifact_id,
        key=key,
        sha256=sha256,
        data_key=envelope.key,
        picture_sha256=picture_sha256,
        file_name=picture.name,
    )


def _check_people(ledger: Ledger, people: Sequence[NewPerson], owner: str, more: bool) -> None:
    seen: set[str] = set()
    for person in people:
        if not HANDLE.fullmatch(person.handle) or len(person.handle) > 64 or person.handle.startswith("idn_"):
            raise UsageError(
                "a handle is 1 to 64 letters, digits, '.', '_' and '-', the first a letter or digit, not starting "
                f"with idn_; got {person.handle[:80]!r}",
                code="bad_handle",
            )
        if person.handle in seen:
            raise ConflictError(f"handle {person.handle!r} is given twice", code="handle_taken")
        seen.add(person.handle)
        if not 1 <= len(person.pictures) <= MAX_PICTURES:
            raise UsageError(f"a person is added with 1 to {MAX_PICTURES} pictures, got {len(person.pictures)}")
        _check_scopes(person.consent.scopes)
    if not more:
        with ledger.read() as session:
            for person in people:
                identities.check_handle_free(session, owner, person.handle)


def _check_scopes(scopes: Sequence[str]) -> None:
    for scope in scopes:
        if scope not in identities.SCOPES:
            raise UsageError(f"a scope is {', '.join(identities.SCOPES)}; got {scope!r}", code="bad_scope")


def _light(row: Identity) -> dict[str, Any]:
    return {
        "id": row.id,
        "object": "identity",
        "handle": row.handle,
        "name": row.name,
        "created_at": row.created_at.isoformat(),
    }


def _reference(reference: Reference, artifact: Artifact) -> dict[str, Any]:
    return {
        "id": reference.id,
        "sha256": artifact.sha256,
        "key": artifact.key,
        "media_type": artifact.media_type,
        "encoder": reference.encoder,
        "face": reference.face,
        "created_at": reference.created_at.isoformat(),
    }


def _consent(consent: Consent, moment: datetime) -> dict[str, Any]:
    expired = consent.expires_at is not None and consent.expires_at <= moment
    state = "revoked" if consent.revoked_at else "expired" if expired else "valid"
    return {
        "scope": consent.scope,
        "state": state,
        "granted_by": consent.granted_by,
        "text_sha256": consent.text_sha256,
        "granted_at": consent.granted_at.isoformat(),
        "expires_at": consent.expires_at.isoformat() if consent.expires_at else None,
        "revoked_at": consent.revoked_at.isoformat() if consent.revoked_at else None,
    }
