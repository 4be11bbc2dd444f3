"""Archives of the tools that people have: the same names, bytes and times come out as by each tool's own extraction."""

from __future__ import annotations

import io
import os
import shutil
import struct
import subprocess
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.archive import Limits, Photo, Refused, open_source

Tree = dict[str, tuple[bytes, int]]
NAMES = ("1998/a.jpg", "1998/Bäckerei é.jpg", "写真/結婚式.jpg", "deep/er/still/b.jpg", "A:B.jpg", "with space/c d.jpg")
TIMES = (900_451_800, 1_000_000_001, 1_700_000_002, 0x5000_0000, 1_234_567_890, 946_684_799)


def picture(number: int) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 16), (number * 40 % 256, 90, 120)).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for number, (name, time) in enumerate(zip(NAMES, TIMES, strict=True)):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
        os.utime(path, (time, time))
    return root


def on_disk(root: Path) -> Tree:
    return {
        path.relative_to(root).as_posix(): (path.read_bytes(), int(path.stat().st_mtime))
        for path in root.rglob("*")
        if path.is_file()
    }


def ours(archive: Path, limits: Limits | None = None) -> Tree:
    found: Tree = {}
    with open_source(str(archive), limits) as source:
        for member in source.members():
            assert not isinstance(member, Refused), member
            if isinstance(member, Photo):
                time = int(member.modified.timestamp()) if member.modified else 0
                found[member.path] = (member.stream.read(), time)
    return found


def run(*command: str | Path, cwd: Path | None = None) -> None:
    if shutil.which(str(command[0])) is None:
        pytest.skip(f"{command[0]} is not installed")
    environment = os.environ | {"LC_ALL": "C.UTF-8"}
    subprocess.run([*map(str, command)], cwd=cwd, check=True, capture_output=True, env=environment)


def by_python(tree: Path, archive: Path) -> None:
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as out:
        for path in sorted(tree.rglob("*")):
            out.write(path, path.relative_to(tree))


TOOLS: dict[str, tuple[Callable[[Path, Path], None], Callable[[Path, Path], None]]] = {
    "Info-ZIP": (
        lambda tree, to: run("zip", "-r", to, ".", cwd=tree),
        lambda archive, to: run("unzip", "-q", archive, "-d", to),
    ),
    "Info-ZIP without fields": (
        lambda tree, to: run("zip", "-X", "-r", to, ".", cwd=tree),
        lambda archive, to: run("unzip", "-q", archive, "-d", to),
    ),
    "7-Zip": (
        lambda tree, to: run("7zz", "a", "-tzip", to, ".", cwd=tree),
        lambda archive, to: run("7zz", "x", f"-o{to}", archive),
    ),
    "7-Zip, LZMA": (
        lambda tree, to: run("7zz", "a", "-tzip", "-mm=LZMA", to, ".", cwd=tree),
        lambda archive, to: run("7zz", "x", f"-o{to}", archive),
    ),
    "bsdtar zip": (
        lambda tree, to: run("bsdtar", "-a", "-cf", to, ".", cwd=tree),
        lambda archive, to: run("bsdtar", "-xf", archive, "-C", to),
    ),
    "python": (by_python, lambda archive, to: run("unzip", "-q", archive, "-d", to)),
}
TARS: dict[str, tuple[str, ...]] = {
    "GNU tar": ("tar", "-cf"),
    "GNU tar, pax": ("tar", "--format=pax", "-cf"),
    "GNU tar, v7 headers and gzip": ("tar", "--format=ustar", "-czf"),
    "GNU tar, xz": ("tar", "-cJf"),
    "bsdtar": ("bsdtar", "-cf"),
    "bsdtar, ustar": ("bsdtar", "--format", "ustar", "-cjf"),
}


@pytest.mark.slow  # the programs come with the services of the slow tests
@pytest.mark.parametrize("tool", TOOLS)
def test_a_zip_is_read_as_its_own_tool_unpacks_it(tool: str, tree: Path, tmp_path: Path) -> None:
    pack, unpack = TOOLS[tool]
    archive, out = tmp_path / "a.zip", tmp_path / "out"
    out.mkdir()
    pack(tree, archive)
    unpack(archive, out)

    assert ours(archive) == on_disk(out)
    assert len(on_disk(out)) == len(NAMES)


@pytest.mark.slow
@pytest.mark.parametrize("tool", TARS)
def test_a_tar_is_read_as_its_own_tool_unpacks_it(tool: str, tree: Path, tmp_path: Path) -> None:
    program, *options = TARS[tool]
    archive, out = tmp_path / "a.tar", tmp_path / "out"
    out.mkdir()
    run(program, *options, archive, ".", cwd=tree)
    run(program, "-xf", archive, cwd=out)

    assert ours(archive) == on_disk(out)
    assert len(on_disk(out)) == len(NAMES)


@pytest.mark.parametrize("packing", ["-cf", "-czf"])
def test_hard_links_and_sparse_files_of_a_tar_are_files(packing: str, tree: Path, tmp_path: Path) -> None:
    (tree / "best").mkdir()
    (tree / "best" / "a.jpg").hardlink_to(tree / "1998" / "a.jpg")
    (tree / "zz.jpg").hardlink_to(tree / "best" / "a.jpg")
    with (tree / "sparse.jpg").open("wb") as file:
        file.write(picture(9))
        file.truncate(1 << 20)
    archive, out = tmp_path / "a.tar", tmp_path / "out"
    out.mkdir()
    run("tar", "--sparse", packing, archive, ".", cwd=tree)
    run("tar", "-xf", archive, cwd=out)

    found = ours(archive)

    assert found == on_disk(out)
    assert found["best/a.jpg"] == found["zz.jpg"] == found["1998/a.jpg"]
    assert len(found["sparse.jpg"][0]) == 1 << 20


def test_a_link_to_nothing_is_refused_by_name(tmp_path: Path) -> None:
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w") as out:
        info = tarfile.TarInfo("b.jpg")
        info.type, info.linkname = tarfile.LNKTYPE, "a.jpg"
        out.addfile(info)

    with open_source(str(archive)) as source:
        (member,) = source.members()

    assert isinstance(member, Refused)
    assert (member.path, member.error.code) == ("b.jpg", "member_is_link")


def raw_zip(entries: list[tuple[bytes, bytes, bytes, tuple[int, int]]], *, start: int = 0, made: int = 0x0314) -> bytes:
    """A zip written by hand: name, bytes, extra field and DOS clock and day of each member; offsets of 32 bits."""
    body, directory = bytearray(), bytearray()
    for name, data, extra, (clock, day) in entries:
        crc, offset = zlib.crc32(data), (start + len(body)) % 2**32
        facts = struct.pack("<HHHLLLHH", 0, clock, day, crc, len(data), len(data), len(name), len(extra))
        body += struct.pack("<4sHH", b"PK\3\4", 20, 0) + facts + name + extra + data
        directory += struct.pack("<4sHHH", b"PK\1\2", made, 20, 0) + facts
        directory += struct.pack("<HHHLL", 0, 0, 0, 0o100644 << 16, offset) + name + extra
    count, place = len(entries) % 65_536, (start + len(body)) % 2**32
    end = struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, count, count, len(directory), place, 0)
    return bytes(body + directory + end)


@pytest.mark.slow  # 65 539 entries
def test_a_count_of_entries_that_began_again_hides_nothing(tmp_path: Path) -> None:
    empty = [(f"t/{n}.txt".encode(), b"", b"", (0, 0x21)) for n in range(65_536)]
    photos = [(f"p{n}.jpg".encode(), picture(n), b"", (0, 0x21)) for n in range(3)]
    archive = tmp_path / "mac.zip"
    archive.write_bytes(raw_zip(photos[:1] + empty + photos[1:]))

    assert sorted(ours(archive)) == ["p0.jpg", "p1.jpg", "p2.jpg"]


def test_an_archive_of_macos_beyond_four_gibibytes_is_read_without_zip64(tmp_path: Path) -> None:
    archive, first = tmp_path / "ditto.zip", raw_zip([(b"a.jpg", picture(1), b"", (0, 0x21))])
    second = raw_zip([(b"b.jpg", picture(2), b"", (0, 0x21))], start=2**32 + 4096)
    members = [first[: first.index(b"PK\1\2")], second[: second.index(b"PK\1\2")]]
    directory = first[first.index(b"PK\1\2") : first.index(b"PK\5\6")]
    directory += second[second.index(b"PK\1\2") : second.index(b"PK\5\6")]
    with archive.open("wb") as out:
        out.write(members[0])
        out.seek(2**32 + 4096)
        out.write(members[1])
        place = out.tell()
        out.write(directory + struct.pack("<4sHHHHLLH", b"PK\5\6", 0, 0, 2, 2, len(directory), place % 2**32, 0))

    assert {name: data for name, (data, _) in ours(archive).items()} == {"a.jpg": picture(1), "b.jpg": picture(2)}


def test_the_name_of_the_unicode_field_counts_and_a_code_page_can_be_named(tmp_path: Path) -> None:
    stale, local = b"x.jpg", "бабушка.jpg".encode("cp866")
    field = struct.pack("<BL", 1, zlib.crc32(local)) + "Свадьба/бабушка.jpg".encode()
    old = struct.pack("<BL", 1, zlib.crc32(b"another")) + b"wrong.jpg"
    archive = tmp_path / "winrar.zip"
    archive.write_bytes(
        raw_zip(
            [
                (local, picture(1), struct.pack("<HH", 0x7075, len(field)) + field, (0, 0x21)),
                (stale, picture(2), struct.pack("<HH", 0x7075, len(old)) + old, (0, 0x21)),
                ("дом.jpg".encode("cp866"), picture(3), b"", (0, 0x21)),
            ],
            made=20,
        )
    )

    assert sorted(ours(archive, Limits(names="cp866"))) == ["x.jpg", "Свадьба/бабушка.jpg", "дом.jpg"]
    assert "дом.jpg" not in ours(archive)


def test_times_come_from_the_fields_for_them_and_none_is_made_up(tmp_path: Path) -> None:
    summer = datetime(1999, 7, 14, 21, 30, 2, tzinfo=UTC)
    ticks = int((summer - datetime(1601, 1, 1, tzinfo=UTC)).total_seconds()) * 10_000_000
    fields = {
        b"info.jpg": struct.pack("<HHBl", 0x5455, 5, 1, int(summer.timestamp())),
        b"old.jpg": struct.pack("<HHBl", 0x5455, 5, 1, -86_400),
        b"ntfs.jpg": struct.pack("<HHLHHQQQ", 0x000A, 32, 0, 1, 24, ticks, ticks, ticks),
        b"unix.jpg": struct.pack("<HHll", 0x5855, 8, 0, int(summer.timestamp())),
        b"none.jpg": b"",
    }
    archive = tmp_path / "a.zip"
    archive.write_bytes(raw_zip([(name, picture(1), extra, (0, 0)) for name, extra in fields.items()]))

    with open_source(str(archive)) as source:
        found = {member.path: member.modified for member in source.members() if isinstance(member, Photo)}

    assert found == {
        "info.jpg": summer,
        "old.jpg": datetime(1969, 12, 31, tzinfo=UTC),
        "ntfs.jpg": summer,
        "unix.jpg": summer,
        "none.jpg": None,
    }


def test_what_systems_leave_behind_is_skipped_by_name(tmp_path: Path) -> None:
    for name in ("@eaDir/a.jpg/SYNOPHOTO_THUMB_XL.jpg", ".AppleDouble/a.jpg", ".@__thumb/s100a.jpg", "#recycle/b.jpg",
                 ".picasaoriginals/a.jpg", "x/__MACOSX/a.jpg", "Thumbs.db", "a.jpg"):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(1) if name != ".AppleDouble/a.jpg" else b"\0\5\x16\7")

    assert list(ours(tmp_path)) == ["a.jpg"]
