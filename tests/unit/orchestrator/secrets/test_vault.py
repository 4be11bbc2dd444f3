"""Reference pictures and embeddings at rest: sealed, rotated, and noise without the key."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography.fernet import Fernet
from pydantic import SecretStr
from sqlalchemy import select, update

from orchestrator.errors import SettingsError
from orchestrator.ledger import identities as rows
from orchestrator.ledger.engine.base import Row
from orchestrator.ledger.engine.session import now
from orchestrator.ledger.privacy import sealed as sealed_rows
from orchestrator.ledger.tables.rows import Identity, Item, Reference, reference_place
from orchestrator.ledger.tables.rows_people import FoundFace, found_face_place
from orchestrator.ledger.tables.rows_photos import ArchivePerson, StageResult, archive_person_place, result_place
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.people.rekey import rekey
from orchestrator.runtime import webhooks
from orchestrator.secrets.vault import BOUND, Envelope, Master, Vault
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import Played, picture

HERE = "reference idn_1"
YES = ConsentGiven(scopes=("generate",), granted_by="studio")


def vault(*keys: bytes) -> Vault:
    return Vault.of(Settings(data_keys=SecretStr(",".join(key.decode() for key in keys))))


def enrol(worker: Played, data: bytes, *, more: bool = False) -> str:
    person = NewPerson(handle="ada", pictures=(Picture(name="ada.png", data=data),), consent=YES)
    batch_id = identities.add(worker.ledger, worker.store, worker.settings, [person], owner="local", more=more)
    worker.work()
    (ended,) = identities.outcomes(worker.ledger, "local", batch_id)
    assert ended.identity_id is not None
    return ended.identity_id


def reference(worker: Played) -> Reference:
    with worker.ledger.read() as session:
        return session.scalars(select(Reference)).one()


def test_what_was_sealed_opens_to_the_same_bytes_and_never_seals_to_the_same() -> None:
    one = vault(Fernet.generate_key())
    key = one.new(HERE)
    assert one.open(key, one.seal(key, b"a face")) == b"a face"
    assert one.seal(key, b"a face") != one.seal(key, b"a face")


def test_no_trace_shows_a_key() -> None:
    key = Fernet.generate_key().decode()
    assert key not in repr(Master.of(key))


def test_another_master_key_opens_nothing() -> None:
    one, other = vault(Fernet.generate_key()), vault(Fernet.generate_key())
    key = one.new(HERE)
    with pytest.raises(SettingsError, match="add the former key"):
        other.open(key, one.seal(key, b"a face"))


def test_one_changed_bit_is_noticed() -> None:
    one = vault(Fernet.generate_key())
    key = one.new(HERE)
    sealed = bytearray(one.seal(key, b"a face"))
    sealed[40] ^= 1
    with pytest.raises(SettingsError, match="altered"):
        one.open(key, bytes(sealed))


def test_after_a_rotation_the_old_master_key_may_be_thrown_away(worker: Played) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before = worker.settings.model_copy(update={"data_keys": SecretStr(old.decode())})
    enrol(replace(worker, settings=before), picture())
    assert rekey(worker.ledger, vault(new, old)).wrapped["reference"] == 1
    row = reference(worker)
    assert len(np.frombuffer(vault(new).open(row.envelope, row.embedding), np.float32)) == 512
    with pytest.raises(SettingsError):
        vault(old).open(row.envelope, row.embedding)


def test_neither_picture_nor_embedding_can_be_found_in_the_raw_files(worker: Played) -> None:
    data = picture()
    identity_id = enrol(worker, data)
    embedding = np.zeros(512, np.float32)
    embedding[0] = 1.0
    raw = b"".join(path.read_bytes() for path in worker.settings.state_dir.rglob("*") if path.is_file())
    assert data[60:120] not in raw
    assert embedding.tobytes() not in raw
    with worker.ledger.read() as session:
        found = rows.embeddings(
            session,
            "local",
            [identity_id],
            scope="generate",
            encoder="e" * 64,
            moment=now(session),
            unseal=Vault.of(worker.settings).open,
        )
    assert np.array_equal(found[identity_id], embedding)


def test_the_same_picture_counts_once_however_often_it_is_added(worker: Played) -> None:
    enrol(worker, picture())
    enrol(worker, picture(), more=True)
    assert reference(worker).picture_sha256 is not None


def test_the_first_use_makes_a_key_file_for_its_owner_alone(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    one = Vault.of(settings)
    path = tmp_path / "keys" / "data.keys"
    assert path.stat().st_mode & 0o777 == 0o600
    key = one.new(HERE)
    assert Vault.of(settings).open(key, one.seal(key, b"x")) == b"x"


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Vault.of(Settings(state_dir=tmp_path))
    (tmp_path / "keys" / "data.keys").chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        Vault.of(Settings(state_dir=tmp_path))


def test_machines_that_share_a_database_must_be_given_the_key(tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path, database_url_="postgresql+psycopg://u@h/d")
    with pytest.raises(SettingsError, match="same key on every machine"):
        Vault.of(settings)


def test_a_key_of_the_wrong_form_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="URL-safe base64"):
        Vault.of(Settings(state_dir=tmp_path, data_keys=SecretStr("secret")))


def filled(worker: Played) -> None:
    """Put one of everything that is sealed into the ledger."""
    enrol(worker, picture())
    one = Vault.of(worker.settings)
    moment = datetime.now(UTC)

    def sealed(data: bytes, place: str) -> dict[str, Any]:
        envelope = one.new(place)
        return {"data_key": envelope.key, "data": one.seal(envelope, data)}

    found = one.new(found_face_place("local", "p" * 64, "e", 0))

    webhooks.add(worker.ledger, worker.settings, one, "local", url="https://example.com/", events=["ping"])
    with worker.ledger.write() as session:
        item = session.scalars(select(Item)).first()
        assert item is not None
        session.add(
            StageResult(
                owner="local",
                key="k",
                stage="s",
                item_id=item.id,
                facts={},
                created_at=moment,
                **sealed(b"embedding", result_place("local", "k")),
            )
        )
        session.add(
            FoundFace(
                id="fac_1",
                owner="local",
                pixels_sha256="p" * 64,
                encoder="e",
                number=0,
                refused=[],
                quality=1.0,
                face={},
                data_key=found.key,
                embedding=one.seal(found, b"embedding"),
                crop=one.seal(found, b"crop"),
                created_at=moment,
            )
        )
        session.add(
            ArchivePerson(
                id="who_1",
                owner="local",
                batch_id=item.batch_id,
                number=1,
                encoder="e",
                faces=[],
                created_at=moment,
                **sealed(b"embedding", archive_person_place("who_1")),
            )
        )


def test_a_new_master_key_opens_everything_that_is_sealed_alone(worker: Played) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    before = replace(worker, settings=worker.settings.model_copy(update={"data_keys": SecretStr(old.decode())}))
    filled(before)

    done = rekey(worker.ledger, vault(new, old))

    every_kind = {mapper.class_.__tablename__ for mapper in Row.registry.mappers if "data_key" in mapper.columns}
    assert set(done.wrapped) == every_kind | {"enrolment"}
    assert set(done.wrapped.values()) == {1}, "one of each kind"
    assert done.opened == done.wrapped
    with worker.ledger.read() as session:
        for _, envelope, under in sealed_rows.every(session):
            for data in under:
                assert vault(new).open(envelope, data)


def test_every_kind_that_is_sealed_says_what_lies_under_its_key() -> None:
    assert set(sealed_rows.kinds()) == set(sealed_rows.UNDER)


def test_a_row_that_no_key_opens_is_told_before_a_key_is_thrown_away(worker: Played) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    filled(replace(worker, settings=worker.settings.model_copy(update={"data_keys": SecretStr(old.decode())})))
    with pytest.raises(SettingsError, match="add the former key"):
        rekey(worker.ledger, vault(new))
    with worker.ledger.write() as session:
        session.execute(update(StageResult).values(data=b"damaged"))

    with pytest.raises(SettingsError, match="altered"):
        rekey(worker.ledger, vault(new, old))


def test_an_envelope_opens_nowhere_but_in_its_place() -> None:
    one = vault(Fernet.generate_key())
    mine = one.new(HERE)
    sealed = one.seal(mine, b"a face")

    moved = Envelope(key=mine.key, place="reference idn_2")

    with pytest.raises(SettingsError, match="another place"):
        one.open(moved, sealed)
    assert one.open(Envelope(key=one.rewrap(mine, moved.place), place=moved.place), sealed) == b"a face"


@pytest.mark.parametrize("wrong", ["", "%%%", "AAAA", "A" * 96])
def test_a_wrapped_key_that_is_none_is_an_error_of_ours(wrong: str) -> None:
    with pytest.raises(SettingsError):
        vault(Fernet.generate_key()).open(Envelope(key=BOUND + wrong, place=HERE), b"x")


def test_a_face_cannot_be_put_in_the_place_of_another_persons(worker: Played) -> None:
    """Whoever writes the database exchanges sealed values together with their keys: nothing of it opens."""
    enrol(worker, picture())
    one = Vault.of(worker.settings)
    with worker.ledger.write() as session:
        mine = session.scalars(select(Reference)).one()
        session.add(Identity(id="idn_2", owner="local", handle="eve", name=None, created_at=mine.created_at))
        session.flush()
        mine.identity_id = "idn_2"

    row = reference(worker)

    with pytest.raises(SettingsError, match="another place"):
        one.open(row.envelope, row.embedding)


def former(master: bytes, data: bytes) -> tuple[str, bytes]:
    """Return a wrapped key and sealed bytes as they were made before envelopes were bound."""
    key = Fernet.generate_key()
    return Fernet(master).encrypt(key).decode(), Fernet(key).encrypt(data)


def test_envelopes_of_before_open_and_are_bound_when_the_key_changes(worker: Played) -> None:
    old, new = Fernet.generate_key(), Fernet.generate_key()
    enrol(
        replace(worker, settings=worker.settings.model_copy(update={"data_keys": SecretStr(old.decode())})), picture()
    )
    key, embedding = former(old, b"embedding of before")
    with worker.ledger.write() as session:
        session.execute(update(Reference).values(data_key=key, embedding=embedding, crop=None))
    row = reference(worker)
    assert vault(old).open(row.envelope, row.embedding) == b"embedding of before"

    rekey(worker.ledger, vault(new, old))

    row = reference(worker)
    assert (row.data_key or "").startswith(BOUND)
    assert len(row.data_key or "") < 255
    assert vault(new).open(row.envelope, row.embedding) == b"embedding of before"
    with pytest.raises(SettingsError, match="another place"):
        vault(new).open(Envelope(key=row.data_key, place=reference_place("idn_2")), row.embedding)


def test_every_table_with_a_sealed_key_says_where_it_belongs() -> None:
    assert [kind.__tablename__ for kind in sealed_rows.kinds() if not hasattr(kind, "envelope")] == []
