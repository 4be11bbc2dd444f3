"""Originals are kept once, whole and hashed; a damaged one leaves nothing behind."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path

import pytest
from PIL import Image
from sqlalchemy import select

from orchestrator.archive import Photo, open_source
from orchestrator.archive.originals import keep_original
from orchestrator.errors import InputError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.storage import ByteStore

OUT = io.BytesIO()
Image.effect_noise((40, 30), 90).save(OUT, "PNG")
PNG = OUT.getvalue()


def archive(folder: Path, members: dict[str, bytes], *, spoil: bool = False) -> str:
    path = folder / "a.zip"
    with zipfile.ZipFile(path, "w") as out:
        for name, data in members.items():
            out.writestr(name, data)
    if spoil:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    return str(path)


def test_the_same_bytes_are_kept_once(ledger: Ledger, store: ByteStore, tmp_path: Path) -> None:
    large = PNG + os.urandom(10_000_000)  # more than is held in memory
    with open_source(archive(tmp_path, {"a.png": PNG, "b.jpg": PNG, "c.png": large})) as source:
        kept = [keep_original(ledger, store, "local", m) for m in source.members() if isinstance(m, Photo)]

    assert kept[0] == kept[1]
    assert kept[0].sha256 == hashlib.sha256(PNG).hexdigest()
    assert [store.get(original.key) for original in kept] == [PNG, PNG, large]
    assert kept[0].key.endswith(".png")
    with ledger.read() as session:
        rows = session.scalars(select(Artifact)).all()
    assert {(row.id, row.state, row.size, row.media_type) for row in rows} == {
        (original.artifact_id, "pending", original.size, "image/png") for original in kept
    }


def test_a_damaged_member_is_not_kept(ledger: Ledger, store: ByteStore, tmp_path: Path) -> None:
    with open_source(archive(tmp_path, {"a.png": PNG + os.urandom(9_000_000)}, spoil=True)) as source:
        for member in source.members():
            assert isinstance(member, Photo)
            with pytest.raises(InputError) as caught:
                keep_original(ledger, store, "local", member)

    assert caught.value.code == "member_damaged"
    assert list(store.list()) == []
    with ledger.read() as session:
        assert session.scalars(select(Artifact)).all() == []
