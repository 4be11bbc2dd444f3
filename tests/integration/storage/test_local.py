"""What only a directory must promise: order on the disk, modes, and no way out."""

from __future__ import annotations

import os
import stat
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestrator.errors import ConflictError, StoreUnavailableError, UsageError
from orchestrator.storage.local import LocalStore

PNG = "image/png"


def test_bytes_are_on_the_disk_before_their_name_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "store")
    store.put("a/earlier", b"data", media_type=PNG)  # the directory is made
    steps: list[str] = []
    sync, replace = os.fsync, os.replace

    def fsync(file: int) -> None:
        steps.append("directory" if stat.S_ISDIR(os.fstat(file).st_mode) else f"file of {os.fstat(file).st_size}")
        sync(file)

    def rename(source: str, target: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        steps.append("rename")
        replace(source, target, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    store.put("a/b", b"12345", media_type=PNG)
    assert steps == ["file of 5", "rename", "directory"]


def test_a_new_directory_is_on_the_disk_before_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = LocalStore(tmp_path / "store")
    synced: list[str] = []
    sync = os.fsync

    def fsync(file: int) -> None:
        synced.append(Path(f"/proc/self/fd/{file}").readlink().name)
        sync(file)

    monkeypatch.setattr(os, "fsync", fsync)
    store.put("o/ann/1", b"data", media_type=PNG)
    assert [synced[0], synced[1], synced[-1]] == ["store", "o", "ann"]


def test_only_the_owner_may_look(tmp_path: Path) -> None:
    LocalStore(tmp_path / "new" / "store").put("a/b/c", b"data", media_type=PNG)
    for path in [tmp_path / "new", *(tmp_path / "new").rglob("*")]:
        assert stat.S_IMODE(path.stat().st_mode) == (0o700 if path.is_dir() else 0o600), path


def test_planted_links_lead_nowhere(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_bytes(b"secret")
    store = LocalStore(tmp_path / "store")
    store.put("a/b", b"data", media_type=PNG)
    (tmp_path / "store" / "folder").symlink_to(outside)
    (tmp_path / "store" / "a" / "file").symlink_to(outside / "secret")

    with pytest.raises(ConflictError):
        store.put("folder/new", b"data", media_type=PNG)
    assert store.head("folder/secret") is None
    assert store.head("a/file") is None
    assert [listed.key for listed in store.list()] == ["a/b"]
    assert list(store.list("folder/")) == []
    store.put("a/file", b"mine", media_type=PNG)
    assert store.get("a/file") == b"mine"
    assert (outside / "secret").read_bytes() == b"secret"
    assert [path.name for path in outside.iterdir()] == ["secret"]


def test_a_key_below_or_above_another_object_is_refused(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b", b"data", media_type=PNG)
    for key in ("a/b/c", "a"):
        with pytest.raises(ConflictError) as caught:
            store.put(key, b"other", media_type=PNG)
        assert caught.value.code == "key_taken"
        assert store.head(key) is None
    assert store.sweep_stale(0) == 0


def test_a_directory_removed_by_hand_is_made_again(tmp_path: Path) -> None:
    store = LocalStore(tmp_path)
    store.put("a/b/c", b"data", media_type=PNG)
    (tmp_path / "a/b/c").unlink()
    (tmp_path / "a/b").rmdir()
    (tmp_path / "a").rmdir()
    store.put("a/b/c", b"data", media_type=PNG)
    assert store.get("a/b/c") == b"data"


def test_a_root_that_is_no_directory_or_has_gone_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailableError, match="Not a directory"):
        LocalStore(tmp_path / "file")
    store = LocalStore(tmp_path / "root")
    (tmp_path / "root").rmdir()
    with pytest.raises(StoreUnavailableError, match="could not be written"):
        store.check()


@settings(max_examples=120, deadline=None)
@given(
    key=st.one_of(
        st.text(max_size=40),
        st.lists(st.sampled_from(["..", ".", "", "a", "~", "/", "\\", "\0", "x.png", "%2e%2e", "con"]), max_size=8).map(
            "/".join
        ),
    )
)
def test_no_key_writes_outside_of_the_root(key: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        outer = Path(folder)
        store = LocalStore(outer / "deep" / "root")
        try:
            store.put(key, b"data", media_type=PNG)
        except UsageError:
            stored = 0
        else:
            assert store.get(key) == b"data"
            assert [listed.key for listed in store.list()] == [key]
            stored = 1
        files = [path for path in outer.rglob("*") if not path.is_dir()]
        assert len(files) == stored
        assert all(path.is_relative_to(outer / "deep" / "root") for path in files)


@given(prefix=st.text(max_size=20))
@settings(max_examples=100, deadline=None)
def test_no_prefix_lists_outside_of_the_root(prefix: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "outside").write_text("")
        store = LocalStore(Path(folder) / "root")
        for tried in (prefix, f"../{prefix}", f"../outside{prefix}"):
            try:
                listed = list(store.list(tried))
            except UsageError:
                listed = []
            assert listed == []
