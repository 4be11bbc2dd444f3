"""Receipts of erases: signed, checked without the library, and refused after any change."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwk, jws
from pydantic import SecretStr

from orchestrator.cli.app import run
from orchestrator.errors import InputError, SettingsError
from orchestrator.ledger.tables.rows import Identity
from orchestrator.people import identities, receipts
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.people.receipts import Signer
from orchestrator.settings import Settings
from tests.unit.orchestrator.played import Played, picture

SAID = {"object": "identity.erase_receipt", "identity_id": "idn_1", "objects": 3}


@pytest.fixture
def receipt(worker: Played) -> dict[str, Any]:
    """The receipt of a person who was in the library."""
    consent = ConsentGiven(scopes=("generate",), granted_by="Zoe Moreau herself")
    person = NewPerson(
        handle="zoe-moreau", name="Zoe Moreau", pictures=(Picture(name="1.png", data=picture()),), consent=consent
    )
    identities.add(worker.ledger, worker.store, worker.settings, [person], owner="local")
    worker.work()
    return identities.erase(worker.ledger, worker.store, worker.settings, "local", "zoe-moreau")


def test_a_receipt_verifies_with_the_public_key_alone(receipt: dict[str, Any], settings: Settings) -> None:
    public = Signer.of(settings).public_keys

    assert receipts.verify(json.loads(json.dumps(receipt)), public) == public[0]
    assert receipt["verified"]["objects_left"] == 0
    assert set(receipt["verified"]["rows_left"].values()) == {0}
    assert "moreau" not in json.dumps(receipt).lower()


def test_another_tool_verifies_a_receipt_and_reads_what_was_signed(receipt: dict[str, Any], settings: Settings) -> None:
    keys = jwk.KeySet.import_key_set(Signer.of(settings).jwks())  # type: ignore[arg-type]  # a typed dict of theirs

    told = jws.deserialize_compact(receipt["signature"]["jws"], keys.keys[0], algorithms=["EdDSA"])

    assert json.loads(told.payload) == {name: value for name, value in receipt.items() if name != "signature"}


def test_a_receipt_from_before_still_verifies() -> None:
    key = "g5ylcSoKskxWpTlCrJpCuW7Y6ixTw_bNOy3TAJ4NyBE="
    before = {
        **SAID,
        "signature": {
            "algorithm": "Ed25519",
            "public_key": "7CNpJN/uw2esn5gSEBY8ZrfQvdJTpzDvy/mr5sRKBtU=",
            "value": "D/oeKKrQQlUQP3Nx+yoyE8c7GZCJUsCu/VGMcSr/5ustABhfTZaVXgje42ZZeesnmwnGkTf4g2F9KwRXx/suAw==",
        },
    }

    trusted = Signer.of(Settings(signing_keys=SecretStr(key))).public_keys

    assert receipts.verify(before, trusted) == trusted[0]
    with pytest.raises(InputError, match="altered"):
        receipts.verify({**before, "objects": 4}, trusted)


@pytest.mark.parametrize("field", ["identity_id", "objects", "keys_sha256", "audit", "verified_at"])
def test_any_changed_word_of_a_receipt_is_noticed(receipt: dict[str, Any], settings: Settings, field: str) -> None:
    with pytest.raises(InputError, match="altered"):
        receipts.verify({**receipt, field: "something else"}, Signer.of(settings).public_keys)


def test_a_receipt_of_another_key_is_foreign_and_one_without_is_unsigned() -> None:
    one, other = (Signer.of(Settings(signing_keys=SecretStr(receipts.new_key()))) for _ in range(2))

    with pytest.raises(InputError) as foreign:
        receipts.verify(one.sign(SAID), other.public_keys)
    with pytest.raises(InputError) as unsigned:
        receipts.verify(SAID, other.public_keys)
    # the right name of a key over somebody else's signature
    forged = other.sign(SAID)
    forged["signature"]["public_key"] = one.public_keys[0]
    with pytest.raises(InputError) as altered:
        receipts.verify(forged, one.public_keys)

    codes = [refused.value.code for refused in (foreign, unsigned, altered)]
    assert codes == ["receipt_foreign", "receipt_unsigned", "receipt_altered"]


def test_receipts_of_a_former_key_still_verify_after_a_new_one_was_put_in_front() -> None:
    old, new = receipts.new_key(), receipts.new_key()
    before = Signer.of(Settings(signing_keys=SecretStr(old))).sign(SAID)
    now = Signer.of(Settings(signing_keys=SecretStr(f"{new},{old}")))

    assert receipts.verify(before, now.public_keys) == now.public_keys[1]
    assert receipts.verify(now.sign(SAID), now.public_keys) == now.public_keys[0]


def test_where_several_machines_share_a_database_nothing_is_erased_without_a_key(worker: Played, person: Any) -> None:
    identity_id = person("ada", "generate")
    shared = Settings(state_dir=worker.settings.state_dir, database_url_="postgresql+psycopg://nobody@127.0.0.1:1/none")

    with pytest.raises(SettingsError, match="FPGA_SIGNING_KEYS"):
        identities.erase(worker.ledger, worker.store, shared, "local", "zoe-moreau")

    with worker.ledger.read() as session:
        assert session.get_one(Identity, identity_id).erased_at is None


def test_a_key_of_the_wrong_form_is_refused_without_being_shown() -> None:
    with pytest.raises(SettingsError, match="32 bytes") as refused:
        Signer.of(Settings(signing_keys=SecretStr("hunter2")))

    assert "hunter2" not in str(refused.value)


def test_the_command_line_checks_signature_audit_row_and_rows(
    receipt: dict[str, Any],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("FPGA_STATE_DIR", str(settings.state_dir))
    from orchestrator.settings import get_settings

    get_settings.cache_clear()
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    good.write_text(json.dumps(receipt))
    bad.write_text(json.dumps({**receipt, "objects": 99}))

    assert run(["identity", "receipt", "verify", str(good), "--json"]) == 0
    assert run(["audit", "verify", "--receipt", str(good)]) == 0
    assert run(["identity", "receipt", "verify", str(bad)]) == 1
    assert "altered" in capsys.readouterr().err
    get_settings.cache_clear()
