"""Result folders: loadable as they are, never overwriting, never half-written."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.errors import ConflictError, TransientError, UsageError
from orchestrator.planning.naming import NameFacts
from orchestrator.results.results_folder import FolderItem, write_new, write_results_folder


def picture(shade: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), (shade, 0, 255 - shade)).save(out, "PNG")
    return out.getvalue()


def item(custom_id: str, index: int) -> FolderItem:
    return FolderItem(
        facts=NameFacts(custom_id=custom_id, index=index, identity="ada", seed=index, layout="portrait"),
        item={"custom_id": custom_id, "verdict": "accepted", "prompt": "Größe"},
        columns={"custom_id": custom_id, "similarity": None if index == 0 else 0.5 + index / 10, "seed": index},
        sha256=hashlib.sha256(picture(40 * index)).hexdigest(),
        load=lambda: picture(40 * index),
    )


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("template", ["{custom_id}.{ext}", "{layout}/{custom_id}.{ext}"])
def test_the_folder_loads_as_an_image_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, template: str) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    folder = tmp_path / "night"
    write_results_folder(folder, [item(f"p{n}", n) for n in range(3)], [{"custom_id": "bad"}], template=template)

    loaded = datasets.load_dataset("imagefolder", data_dir=str(folder), cache_dir=str(tmp_path / "cache"))["train"]

    rows = sorted(loaded, key=lambda row: row["seed"])
    assert [row["custom_id"] for row in rows] == ["p0", "p1", "p2"]
    assert [row["similarity"] for row in rows] == [None, 0.6, 0.7]
    assert [int(np.asarray(row["image"])[0, 0, 0]) for row in rows] == [0, 40, 80]
    assert set(rows[0]) == {"image", "custom_id", "similarity", "seed"}


def test_sidecar_results_and_errors_say_the_same_as_the_objects(tmp_path: Path) -> None:
    items = [item("a", 0), item("b", 1)]

    written = write_results_folder(tmp_path, items, [{"custom_id": "c", "error": {"code": "no_face"}}])

    assert written == [tmp_path / "a.png", tmp_path / "b.png"]
    assert json.loads((tmp_path / "a.json").read_text()) == items[0].item
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [dict(i.item) for i in items]
    assert json.loads((tmp_path / "errors.jsonl").read_text())["error"] == {"code": "no_face"}
    assert (tmp_path / "b.png").read_bytes() == picture(40)


@pytest.mark.parametrize("name", ["b.png", "b.json", "metadata.jsonl", "errors.jsonl"])
def test_a_file_in_the_way_stops_everything_before_it_starts(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")

    with pytest.raises(ConflictError, match="not overwritten") as caught:
        write_results_folder(tmp_path, [item("a", 0), item("b", 1)])

    assert caught.value.details["file"] == str(tmp_path / name)
    assert files(tmp_path) == {name}
    assert (tmp_path / name).read_text() == "mine"


def test_a_cut_download_goes_on_keeps_what_is_equal_and_brings_what_came_since(tmp_path: Path) -> None:
    items = [item("a", 0), item("b", 1)]
    write_results_folder(tmp_path, items[:1], [{"custom_id": "b", "error": {"code": "x"}}])
    before = (tmp_path / "a.png").stat().st_mtime_ns
    (tmp_path / ".part-left").write_bytes(b"half")
    refused = FolderItem(
        facts=items[0].facts, item={}, columns={}, sha256=items[0].sha256, load=lambda: pytest.fail("it is there")
    )

    write_results_folder(tmp_path, [refused, items[1]])

    assert (tmp_path / "a.png").stat().st_mtime_ns == before
    assert files(tmp_path) == {"a.png", "a.json", "b.png", "b.json", "metadata.jsonl", "results.jsonl", "errors.jsonl"}
    assert (tmp_path / "errors.jsonl").read_bytes() == b""
    (tmp_path / "b.png").write_bytes(b"another")
    with pytest.raises(ConflictError):
        write_results_folder(tmp_path, items)
    write_results_folder(tmp_path, items, overwrite=True)
    assert (tmp_path / "b.png").read_bytes() == picture(40)


def test_a_file_that_appears_meanwhile_is_kept(tmp_path: Path) -> None:
    with_race = FolderItem(
        facts=item("a", 0).facts,
        item={},
        columns={},
        sha256="0" * 64,
        load=lambda: (tmp_path / "a.png").write_text("theirs") and picture(0),
    )

    with pytest.raises(ConflictError):
        write_results_folder(tmp_path, [with_race])

    assert files(tmp_path) == {"a.png"}
    assert (tmp_path / "a.png").read_text() == "theirs"


def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(TransientError) as caught:
        write_new(tmp_path / "a.png", b"data")

    assert caught.value.code == "disk_full"
    assert files(tmp_path) == set()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("a file")

    with pytest.raises(ConflictError, match="taken exists"):
        write_new(tmp_path / "taken" / "a.png", b"data")
    with pytest.raises(UsageError, match="cannot be written"):
        write_new(tmp_path / "taken" / "deeper" / "a.png", b"data")
    assert files(tmp_path) == {"taken"}


def test_a_template_without_the_ending_would_mix_up_sidecars(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="ext"):
        write_results_folder(tmp_path, [item("a.x", 0), item("a.y", 1)], template="{custom_id}")
    assert files(tmp_path) == set()


def test_what_is_written_is_its_owners_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        write_new(tmp_path / "sheet.html", b"faces")
    finally:
        os.umask(before)

    assert (tmp_path / "sheet.html").stat().st_mode & 0o777 == 0o600
