"""Pictures with what is said beside them, and chunks that stay the same when pictures are added."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets.chunks import Chunk, read_recipe, rendered_chunks, stored_chunks
from orchestrator.datasets.source import SourcePicture, read_pictures
from orchestrator.errors import ManifestError, NotFoundError, UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.storage import ByteStore


def png(seed: int) -> bytes:
    target = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 255, (8, 8, 3)).astype(np.uint8)).save(target, "PNG")
    return target.getvalue()


def chunks(ledger: Ledger, store: ByteStore, pictures: list[SourcePicture], mean: int = 8) -> list[Chunk]:
    return list(
        stored_chunks(pictures, lambda name: f"per_{name}", ledger, store, owner="local", max_pixels=10_000, mean=mean)
    )


def members(store: ByteStore, chunk: Chunk) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(fileobj=io.BytesIO(store.get(chunk.input.tar.key))) as tar:
        for info in tar:
            member = tar.extractfile(info)
            assert member is not None
            yield info.name, member.read()


def test_side_files_give_captions_and_people(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for name in ("a/one.png", "a/two.png", "three.png"):
        (tmp_path / name).write_bytes(png(1))
    (tmp_path / "a" / "one.txt").write_text("a caption\n")
    (tmp_path / "a" / "two.json").write_text(json.dumps({"caption": "two of them", "people": ["x", "y"]}))

    found = {p.name: (p.caption, p.people) for p in read_pictures(str(tmp_path), people="metadata")}
    by_folder = {p.name: p.people for p in read_pictures(str(tmp_path), people="folder")}

    assert found == {
        "a/one.png": ("a caption", ()),
        "a/two.png": ("two of them", ("x", "y")),
        "three.png": (None, ()),
    }
    assert by_folder == {"a/one.png": ("a",), "a/two.png": ("a",), "three.png": ()}


def test_an_imagefolder_table_says_the_same_for_files_and_archives(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    (pictures / "one.png").write_bytes(png(1))
    rows = [{"file_name": "one.png", "text": "from the table", "person": "ada"}]
    (pictures / "metadata.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    (tmp_path / "rows.csv").write_text("file_name,caption,people\none.png,from the csv,ada;bob\n")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as target:
        target.writestr("one.png", png(1))

    (folder,) = read_pictures(str(pictures), people="metadata")
    (zipped,) = read_pictures(str(tmp_path / "p.zip"), people="metadata", metadata=tmp_path / "rows.csv")

    assert (folder.caption, folder.people) == ("from the table", ("ada",))
    assert (zipped.caption, zipped.people) == ("from the csv", ("ada", "bob"))


def test_wrong_tables_and_sources_are_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_text('{"caption": "no name"}')

    with pytest.raises(ManifestError, match="line 1"):
        list(read_pictures(str(tmp_path), people="metadata", metadata=tmp_path / "bad.jsonl"))
    with pytest.raises(NotFoundError):
        list(read_pictures(str(tmp_path / "nowhere"), people="metadata"))


def test_an_added_picture_changes_only_the_chunk_it_falls_into(ledger: Ledger, store: ByteStore) -> None:
    pictures = [SourcePicture(name=f"{n:04d}.png", data=png(n)) for n in range(200)]

    before = chunks(ledger, store, pictures)
    after = chunks(ledger, store, [*pictures[:90], SourcePicture(name="0089b.png", data=png(999)), *pictures[90:]])

    old, new = ({c.input.tar.sha256 for c in found} for found in (before, after))
    assert len(before) > 10
    assert len(new - old) <= 2
    assert sum(c.pictures for c in after) == 201


def test_a_file_that_is_no_picture_is_carried_as_a_sentence_and_no_name_of_a_person_is(
    ledger: Ledger, store: ByteStore
) -> None:
    pictures = [
        SourcePicture(name="x/1.png", data=png(1), people=("Ada Lovelace",)),
        SourcePicture(name="x/2.png", data=b"not a picture"),
    ]

    (chunk,) = stored_chunks(
        pictures, lambda _: "per_0", ledger, store, owner="local", max_pixels=10_000, mean=1_000_000
    )

    held = dict(members(store, chunk))
    assert set(held) == {"000000.json", "000000.bin", "000001.json"}
    assert json.loads(held["000000.json"])["people"] == ["per_0"]
    assert json.loads(held["000001.json"])["error"]["code"] == "not_an_image"
    assert not any(b"Ada" in data for data in held.values())


def test_a_longer_recipe_begins_with_the_same_chunks() -> None:
    short, long = read_recipe("render:3:1000"), read_recipe("render:3:2000")
    assert short is not None
    assert long is not None

    first, second = list(rendered_chunks(short)), list(rendered_chunks(long))

    assert first[:3] == second[:3]
    assert sum(chunk.pictures for chunk in first) == 1000
    assert read_recipe("/some/folder") is None
    with pytest.raises(UsageError, match="render:SEED:COUNT"):
        read_recipe("render:3")
