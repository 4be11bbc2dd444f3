"""What every byte store promises, asked of each of them."""

from __future__ import annotations

import hashlib
import io
import os
import threading
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from orchestrator.errors import ConflictError, InputError, NotFoundError, TransientError, UsageError
from orchestrator.storage import ByteStore, Data, Stored, content_key
from tests.integration.storage.conftest import Place

PNG = "image/png"


def hashed(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def key_of(data: bytes, suffix: str = ".png") -> str:
    return content_key("local", hashed(data), suffix)


@pytest.mark.parametrize("size", [0, 1, 70_000, 3_000_000])
def test_what_is_put_is_what_is_got(store: ByteStore, size: int) -> None:
    data = os.urandom(size)
    stored = store.put(key_of(data), data, media_type=PNG, sha256=hashed(data))
    assert stored == Stored(key=key_of(data), sha256=hashed(data), size=size)
    assert store.get(key_of(data)) == data
    assert store.head(key_of(data)) == stored
    with store.open(key_of(data)) as stream:
        assert b"".join(iter(lambda: stream.read(1000), b"")) == data


def test_a_file_and_a_stream_are_stored_like_bytes(store: ByteStore, tmp_path: Path) -> None:
    data = os.urandom(100_000)
    (tmp_path / "photo").write_bytes(data)
    stream = io.BytesIO(b"skipped" + data)
    stream.seek(7)
    forms: list[Data] = [data, tmp_path / "photo", stream]
    for number, form in enumerate(forms):
        assert store.put(f"forms/{number}", form, media_type=PNG).sha256 == hashed(data)
        assert store.get(f"forms/{number}") == data


def test_a_file_that_cannot_be_read_is_named_and_nothing_is_stored(store: ByteStore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no-such-file") as caught:
        store.put("a/b", tmp_path / "no-such-file", media_type=PNG)
    assert caught.value.code == "data_unreadable"
    assert list(store.list()) == []


def test_the_same_bytes_again_change_nothing(store: ByteStore) -> None:
    first = store.put("a/b", b"same", media_type=PNG)
    assert store.put("a/b", b"same", media_type=PNG) == first
    assert [listed.key for listed in store.list()] == ["a/b"]


def test_other_bytes_under_a_taken_key_are_refused(store: ByteStore) -> None:
    store.put("a/b", b"first", media_type=PNG)
    with pytest.raises(ConflictError) as caught:
        store.put("a/b", b"second", media_type=PNG)
    assert caught.value.code == "key_taken"
    assert store.get("a/b") == b"first"


def test_a_wrong_checksum_is_refused_and_nothing_is_stored(store: ByteStore) -> None:
    with pytest.raises(InputError) as caught:
        store.put("a/b", b"data", media_type=PNG, sha256=hashed(b"other"))
    assert caught.value.code == "checksum_mismatch"
    assert store.head("a/b") is None
    assert list(store.list()) == []


def test_damaged_bytes_are_noticed_by_every_way_to_read(place: Place, store: ByteStore) -> None:
    data = os.urandom(5000)
    store.put(key_of(data), data, media_type=PNG)
    place.overwrite(key_of(data), data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(TransientError) as got:
        store.get(key_of(data))
    with pytest.raises(TransientError) as read, store.open(key_of(data)) as stream:
        list(iter(lambda: stream.read(999), b""))
    assert got.value.code == read.value.code == "object_damaged"


def test_damaged_bytes_are_noticed_by_a_hash_that_the_reader_brings(store: ByteStore) -> None:
    store.put("a/b", b"data", media_type=PNG)
    assert store.get("a/b", sha256=hashed(b"data")) == b"data"
    with pytest.raises(TransientError) as caught:
        store.get("a/b", sha256=hashed(b"wanted"))
    assert caught.value.code == "object_damaged"


def test_a_damaged_object_is_repaired_by_putting_its_content_again(place: Place, store: ByteStore) -> None:
    data = os.urandom(5000)
    store.put(key_of(data), data, media_type=PNG)
    place.overwrite(key_of(data), data[:2000])
    store.put(key_of(data), data, media_type=PNG)
    assert store.get(key_of(data)) == data


def test_what_is_not_there_is_reported_by_name(store: ByteStore) -> None:
    assert store.head("a/missing") is None
    with pytest.raises(NotFoundError, match="a/missing") as got:
        store.get("a/missing")
    with pytest.raises(NotFoundError, match="a/missing") as opened:
        store.open("a/missing")
    assert got.value.code == opened.value.code == "object_missing"


def test_a_deleted_object_is_gone_and_deleting_again_is_fine(store: ByteStore) -> None:
    store.put("a/b", b"data", media_type=PNG)
    store.delete("a/b")
    store.delete("a/b")
    store.delete("never/was")
    assert store.head("a/b") is None
    assert store.put("a/b", b"other", media_type=PNG).size == 5


def test_a_listing_names_what_starts_with_the_prefix(store: ByteStore) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    for key in ("o/ann/aa/1.png", "o/ann/ab/2.png", "o/anna/aa/3.png", "p/4"):
        store.put(key, key.encode(), media_type=PNG)

    def listed(prefix: str) -> list[str]:
        return sorted(item.key for item in store.list(prefix))

    assert listed("") == ["o/ann/aa/1.png", "o/ann/ab/2.png", "o/anna/aa/3.png", "p/4"]
    assert listed("o/ann/") == ["o/ann/aa/1.png", "o/ann/ab/2.png"]
    assert listed("o/ann") == ["o/ann/aa/1.png", "o/ann/ab/2.png", "o/anna/aa/3.png"]
    assert listed("o/ann/a") == ["o/ann/aa/1.png", "o/ann/ab/2.png"]
    assert listed("q/") == []
    item = next(iter(store.list("p/")))
    assert (item.key, item.size) == ("p/4", 3)
    assert before <= item.modified <= datetime.now(UTC) + timedelta(seconds=2)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", ".", "a/.b", "a\\b", "a\0b", "a\nb", "ä", "x" * 600]
)
def test_a_bad_key_is_refused_by_every_method(store: ByteStore, key: str) -> None:
    for call in (
        lambda: store.put(key, b"data", media_type=PNG),
        lambda: store.get(key),
        lambda: store.open(key),
        lambda: store.head(key),
        lambda: store.delete(key),
        lambda: store.url(key, expires_seconds=60),
    ):
        with pytest.raises(UsageError) as caught:
            call()
        assert caught.value.code == "key_invalid"
    assert list(store.list()) == []


def test_a_link_downloads_the_object(store: ByteStore) -> None:
    store.put("a/b.png", b"picture", media_type=PNG)
    link = store.url("a/b.png", expires_seconds=60, filename='Nächte "1".png', media_type=PNG)
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == b"picture"
        if link.startswith("http"):
            assert answer.headers["Content-Type"] == PNG
            assert answer.headers["Content-Disposition"].startswith("attachment; filename=")


@pytest.mark.parametrize("seconds", [0, -1, 901])
def test_a_link_lives_no_longer_than_a_quarter_of_an_hour(store: ByteStore, seconds: int) -> None:
    with pytest.raises(UsageError, match=str(seconds)) as caught:
        store.url("a/b", expires_seconds=seconds)
    assert caught.value.code == "expiry_invalid"


def test_writers_of_the_same_object_do_not_disturb_each_other(store: ByteStore) -> None:
    data = os.urandom(200_000)
    barrier = threading.Barrier(8)

    def put(_: int) -> Stored:
        barrier.wait()
        return store.put(key_of(data), data, media_type=PNG)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(put, range(8))) == {Stored(key=key_of(data), sha256=hashed(data), size=len(data))}
    assert store.get(key_of(data)) == data
    assert len(list(store.list())) == 1


def test_a_reader_beside_writers_sees_whole_objects_only(store: ByteStore) -> None:
    versions = [bytes([number]) * 300_000 for number in range(6)]
    done = threading.Event()

    def write(data: bytes) -> None:
        try:
            store.put("contested", data, media_type=PNG)
        except ConflictError:
            return

    def watch() -> set[bytes]:
        seen = set()
        while not done.is_set():
            try:
                seen.add(store.get("contested"))
            except NotFoundError:
                continue
        return seen

    with ThreadPoolExecutor(8) as pool:
        watching = pool.submit(watch)
        list(pool.map(write, versions))
        final = store.get("contested")
        done.set()
        assert watching.result() <= set(versions)
    assert final in versions


def test_a_working_store_passes_its_check_and_keeps_nothing_of_it(store: ByteStore) -> None:
    store.check()
    assert list(store.list()) == []


def test_sweeping_leaves_whole_objects_alone(store: ByteStore) -> None:
    store.put("a/b", b"data", media_type=PNG)
    assert store.sweep_stale(0) == 0
    assert store.get("a/b") == b"data"
