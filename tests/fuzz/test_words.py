"""Short words from outside: settings, handles of people, headers of pictures, records in them, hints of the broker."""

from __future__ import annotations

import io
import json
import os
import string
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from orchestrator.errors import FpgaError, SettingsError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.people.identities import ConsentGiven, NewPerson, add
from orchestrator.pictures import RECORD_KEY, check_picture, read_record
from orchestrator.settings import Settings, load_settings
from orchestrator.storage import open_store
from tests.fuzz.mutate import try_all

EFFORT = [pytest.param(200, id="quick"), pytest.param(5000, id="long", marks=pytest.mark.slow)]
GOOD = set(string.ascii_letters + string.digits + "._-")
FACE = (Path(__file__).parents[2] / "examples" / "people" / "ada" / "1.png").read_bytes()


@pytest.mark.parametrize("count", EFFORT)
def test_a_damaged_setting_is_refused_without_being_shown(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    names = sorted(f"FPGA_{name.upper()}" for name in Settings.model_fields if not name.endswith("_"))

    def read(data: bytes) -> None:
        name, _, value = data.decode("utf-8", "replace").replace("\0", "").partition("=")
        if not name or "=" in name:
            return
        with monkeypatch.context() as patch:
            patch.setitem(os.environ, name, value)
            load_settings()

    sound = [f"{name}={value}".encode() for name in names for value in ("1", "true", "x", "/tmp/x")]
    try_all(sound, count, read, SettingsError)


@pytest.mark.parametrize("count", EFFORT)
def test_a_strange_handle_is_refused_before_anything_is_stored(count: int, tmp_path: Path) -> None:
    settings = Settings(state_dir=tmp_path)
    ledger, store = Ledger(settings.database_url), open_store(settings)
    consent = ConsentGiven(scopes=("generate",), granted_by="test")

    def read(data: bytes) -> None:
        handle = data.decode("utf-8", "surrogateescape")
        with pytest.raises(FpgaError) as refused:
            add(ledger, store, settings, [NewPerson(handle=handle, pictures=(), consent=consent)], owner="local")
        assert refused.value.code == "bad_handle" or set(handle) <= GOOD, handle

    try_all([b"ada", b"ada\n", b"a.b", b"../a", b"idn_1", "zoë".encode()], count, read)
    assert list(store.list()) == []
    ledger.dispose()


def pictures() -> list[bytes]:
    made = []
    record = PngInfo()
    record.add_itxt(RECORD_KEY, json.dumps({"schema": "fpga/output/1", "seed": 1}), zip=True)
    for form, extras in (("PNG", {"pnginfo": record}), ("JPEG", {"xmp": b"<x fpga:record='{}'/>"}), ("WEBP", {})):
        out = io.BytesIO()
        Image.open(io.BytesIO(FACE)).convert("RGB").resize((24, 24)).save(out, form, **extras)
        made.append(out.getvalue())
    return made


@pytest.mark.parametrize("count", EFFORT)
def test_a_damaged_picture_is_looked_at_without_harm(count: int) -> None:
    def read(data: bytes) -> None:
        record = read_record(data)
        assert record is None or isinstance(record, dict)
        check_picture(data)

    try_all(pictures(), count, read, FpgaError)
