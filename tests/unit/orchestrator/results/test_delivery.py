"""A tree is delivered file by file: what cannot be written is an error of that file alone, and every file is named."""

from __future__ import annotations

import errno
import io
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from sqlalchemy import select, update

from orchestrator.archive.passed import Passed, keep_passed
from orchestrator.archive.reach import Reach
from orchestrator.contracts.photos import RestoreOptions
from orchestrator.errors import UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables.rows import Batch, Item, Output
from orchestrator.photos import restore
from orchestrator.portraits import submit
from orchestrator.results import bundle
from orchestrator.results.delivery import SIDE, Delivery, same_as
from orchestrator.results.export import download
from orchestrator.results.results_folder import write_new
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines

OWNER = "local"
PATHS = ("1998/a.png", "1998/b.gif", "1998/b.gif.png")


@pytest.fixture
def batch(ledger: Ledger, settings: Settings, person: AddPerson, worker: Played) -> str:
    """Three finished pictures as if they had come from an archive; the second one changed its format."""
    person("ada", "generate")
    rows = [{"custom_id": name, "people": [{"identity": "ada"}]} for name in "abc"]
    made = submit.submit_portraits(ledger, settings, manifest=lines(*rows), format="jsonl", owner=OWNER, name="three")
    worker.work()
    with ledger.write() as session:
        session.execute(update(Batch).where(Batch.id == made.batch_id).values(kind="restore", open=False))
        for item in session.scalars(select(Item).where(Item.batch_id == made.batch_id)):
            item.params = {"path": PATHS[item.position], "source_path": PATHS[item.position]}
            output = session.get_one(Output, item.output_id)
            output.scores = {"suffix": ".png" if item.position == 1 else "", "changed": item.position != 2}
            output.record = {"schema": "fpga/restored/1", "source_sha256": PATHS[item.position], "seed": 1}
    return made.batch_id


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out"


def listed(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def deliver(ledger: Ledger, store: ByteStore, batch: str, out: Path) -> Delivery:
    delivery = Delivery(ledger, store, OWNER, batch, str(out))
    delivery.finish()
    return delivery


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_a_name_that_changes_with_the_format_keeps_off_the_others(
    ledger: Ledger, store: ByteStore, batch: str, out: Path
) -> None:
    delivery = deliver(ledger, store, batch, out)

    wanted = {"1998/a.png", "1998/b.gif.png", "1998/b.gif.2.png"}
    assert files(out) == wanted | {"results.jsonl", "errors.jsonl", "files.jsonl"}
    assert delivery.failures == {}
    assert {entry.name for entry in bundle.entries(ledger, OWNER, batch)} == wanted
    outcomes = {line["path"]: (line["outcome"], line["output"]) for line in listed(out, "files.jsonl")}
    assert outcomes == {
        "1998/a.png": ("restored", "1998/a.png"),
        "1998/b.gif": ("restored", "1998/b.gif.2.png"),
        "1998/b.gif.png": ("unchanged", "1998/b.gif.png"),
    }


def test_a_taken_name_is_the_error_of_that_file_alone(ledger: Ledger, store: ByteStore, batch: str, out: Path) -> None:
    (out / "1998").mkdir(parents=True)
    (out / "1998" / "a.png").write_bytes(b"somebody else's")

    done = download(ledger, store, OWNER, batch, out)

    assert {path: error.code for path, error in done.failures.items()} == {"1998/a.png": "file_exists"}
    assert (out / "1998" / "a.png").read_bytes() == b"somebody else's"
    assert "1998/b.gif.png" in files(out)
    assert [line["error"]["code"] for line in listed(out, "errors.jsonl")] == ["file_exists"]


def test_what_is_there_of_the_same_source_and_settings_is_passed_over(
    ledger: Ledger, store: ByteStore, batch: str, out: Path
) -> None:
    with ledger.read() as session:
        record = session.scalars(select(Output.record).where(Output.batch_id == batch)).first()
    assert record is not None
    made = io.BytesIO()
    Image.new("RGB", (8, 8)).save(made, "PNG")
    (out / "1998").mkdir(parents=True)
    (out / "1998" / "a.png").write_bytes(made.getvalue())
    side = out / "1998" / f"a.png{SIDE}"
    side.write_text(json.dumps({**record, "source_sha256": PATHS[0], "batch": "another one"}))
    (out / "results.jsonl").write_text("of the first run")

    delivery = deliver(ledger, store, batch, out)

    assert delivery.failures == {}
    assert (out / "1998" / "a.png").read_bytes() == made.getvalue()
    assert len(listed(out, "results.jsonl")) == 3
    side.write_text(json.dumps({**record, "source_sha256": PATHS[0], "seed": 2}))
    assert list(deliver(ledger, store, batch, out).failures) == ["1998/a.png"]


def test_other_people_or_settings_are_not_the_same() -> None:
    record = {"source_sha256": "a", "params": {"fidelity": 0.5}, "faces": [{"person": {"identity": "idn_1"}}]}

    assert same_as(record) == same_as({**record, "batch": "bat_2", "verdict": "accepted"})
    assert same_as(record) != same_as({**record, "params": {"fidelity": 0.8}})
    assert same_as(record) != same_as({**record, "faces": [{"person": {"identity": "idn_2"}}]})


def test_a_disk_without_hard_links_is_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)

    write_new(tmp_path / "deep" / "a.jpg", b"picture")

    assert files(tmp_path) == {"deep/a.jpg"}
    assert (tmp_path / "deep" / "a.jpg").read_bytes() == b"picture"
    with pytest.raises(Exception, match="exists and is not overwritten"):
        write_new(tmp_path / "deep" / "a.jpg", b"another")
    assert (tmp_path / "deep" / "a.jpg").read_bytes() == b"picture"


def test_positions_are_not_stripped_from_photos_and_copied_beside_them(
    ledger: Ledger, settings: Settings, person: AddPerson, tmp_path: Path
) -> None:
    person("ada", "restore")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff")
    options = RestoreOptions(everyone="ada", mirror=True, gps="strip")

    with pytest.raises(UsageError, match="mirrored as they are, with the positions in them"):
        restore.submit(ledger, settings, source=str(tmp_path), options=options, owner=OWNER)


def test_a_file_of_the_source_that_is_named_like_a_list_of_ours_is_told_and_not_lost_in_silence(
    ledger: Ledger, store: ByteStore, settings: Settings, batch: str, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    (source / "results.jsonl").write_text("of an earlier run")
    with ledger.write() as session:
        row = session.get_one(Batch, batch)
        row.options = {**row.options, "source": str(source), "mirror": True}
    delivery = Delivery(ledger, store, OWNER, batch, str(out), Reach(settings=settings, owner=OWNER, operator=True))

    delivery.finish()

    assert {path: error.code for path, error in delivery.failures.items()} == {"results.jsonl": "file_exists"}
    assert [line["path"] for line in listed(out, "errors.jsonl")] == ["results.jsonl"]
    assert len(listed(out, "results.jsonl")) == 3


def run(*words: str) -> str:
    """Run a program of the system, or skip where it is not there or not allowed."""
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    ended = subprocess.run(words, check=False, capture_output=True, text=True)
    if ended.returncode:
        pytest.skip(f"{words[0]} is not possible here: {ended.stderr.strip()[:200]}")
    return ended.stdout.strip()


@pytest.fixture
def stick(tmp_path: Path) -> Iterator[Path]:
    """A USB stick as it is sold: exFAT, which knows no second name of a file and not every sign in names."""
    image, place = tmp_path / "image", tmp_path / "stick"
    place.mkdir()
    with image.open("wb") as file:
        file.truncate(16 << 20)
    run("mkfs.exfat", str(image))
    device = run("losetup", "--find", "--show", str(image))
    try:
        run("mount.exfat-fuse", device, str(place))
        try:
            yield place
        finally:
            subprocess.run(["umount", str(place)], check=True)
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk of 16 kB."""
    place = tmp_path / "small"
    place.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=16k", "none", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def test_an_exfat_stick_gets_every_file_whose_name_it_knows(
    ledger: Ledger, store: ByteStore, batch: str, stick: Path
) -> None:
    with ledger.write() as session:
        item = session.scalars(select(Item).where(Item.batch_id == batch, Item.position == 0)).one()
        item.params = {"path": "1998/who?.png", "source_path": "1998/who?.png"}

    for _ in range(2):
        delivery = deliver(ledger, store, batch, stick)

        assert {path: error.code for path, error in delivery.failures.items()} == {"1998/who?.png": "path_unsafe"}
        assert files(stick) == {"1998/b.gif.png", "1998/b.gif.2.png", "results.jsonl", "errors.jsonl", "files.jsonl"}
        assert [line["path"] for line in listed(stick, "errors.jsonl")] == ["1998/who?.png"]


def test_a_full_disk_is_the_error_of_each_file_that_finds_no_room(
    ledger: Ledger, store: ByteStore, batch: str, small: Path
) -> None:
    with suppress(OSError):
        (small / "filler").write_bytes(bytes(1 << 20))
    delivery = Delivery(ledger, store, OWNER, batch, str(small / "out"))

    delivery.step()

    assert {path: error.code for path, error in delivery.failures.items()} == {
        "1998/a.png": "disk_full",
        "1998/b.gif.png": "disk_full",
        "1998/b.gif.2.png": "disk_full",
    }
    (small / "filler").unlink()
    run("mount", "-o", "remount,size=1m", str(small))
    delivery.finish()
    assert delivery.failures == {}
    assert {"1998/a.png", "1998/b.gif.png", "1998/b.gif.2.png"} < files(small / "out")


def test_a_mirror_is_the_whole_tree_and_its_list_names_what_is_not_in_it(
    ledger: Ledger, store: ByteStore, settings: Settings, batch: str, tmp_path: Path
) -> None:
    source, out = tmp_path / "in", tmp_path / "out"
    for path, data in {
        "1998/a.MOV": b"film",
        "1998/a.xmp": b"<x/>",
        "bad.jpg": b"\xff\xd8\xffno",
        "@eaDir/t.jpg": b"",
    }.items():
        (source / path).parent.mkdir(parents=True, exist_ok=True)
        (source / path).write_bytes(data)
        os.utime(source / path, (900_000_000, 900_000_000))
    passed = [
        Passed(path="1998/a.MOV", reason="no picture", left_behind=False),
        Passed(path="1998/a.xmp", reason="no picture", left_behind=False),
        Passed(path="@eaDir/t.jpg", reason="a file that an operating system left behind", left_behind=True),
    ]
    kept = keep_passed(ledger, store, OWNER, passed)
    with ledger.write() as session:
        row = session.get_one(Batch, batch)
        row.options = {**row.options, "source": str(source), "mirror": True, "read": {"passed": kept}}
        item = session.scalars(select(Item).where(Item.batch_id == batch, Item.position == 2)).one()
        item.state, item.params = "failed", {"path": "bad.jpg"}
        item.error_code, item.error_message = "image_corrupt", "the picture is damaged inside"

    reach = Reach(settings=settings, owner=OWNER, operator=True)
    for _ in range(2):  # the second finds everything there
        delivery = Delivery(ledger, store, OWNER, batch, str(out), reach)
        delivery.finish()

    assert delivery.failures == {}
    assert {"1998/a.MOV", "1998/a.xmp", "bad.jpg"} <= files(out)
    assert "@eaDir/t.jpg" not in files(out)
    assert (out / "1998" / "a.MOV").stat().st_mtime == 900_000_000
    outcomes = {line["path"]: line["outcome"] for line in listed(out, "files.jsonl")}
    assert outcomes == {
        "1998/a.png": "restored",
        "1998/b.gif": "restored",
        "bad.jpg": "copied",
        "1998/a.MOV": "copied",
        "1998/a.xmp": "copied",
        "@eaDir/t.jpg": "skipped",
    }
