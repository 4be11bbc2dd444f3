"""Photos come out of folders, zips and tars one by one; each bad member is its own typed refusal, the rest goes on."""

from __future__ import annotations

import gzip
import io
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.archive import Limits, Photo, Refused, Skipped, open_source
from orchestrator.archive.bucket import Place
from orchestrator.errors import InputError, NotFoundError, UsageError


def picture(form: str = "JPEG", colour: str = "red", **options: object) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (24, 16), colour).save(out, form, **options)
    return out.getvalue()


JPEG, PNG = picture(), picture("PNG")
Outcome = dict[str, str]


def outcomes(source: Path | str, limits: Limits | None = None) -> Outcome:
    """Read every member to its end: path to media type, code of refusal, or `skipped`."""
    found: Outcome = {}
    with open_source(str(source), limits) as opened:
        for member in opened.members():
            assert member.path not in found
            if isinstance(member, Photo):
                try:
                    assert len(member.stream.read()) == member.size
                    found[member.path] = member.media_type
                except InputError as error:
                    found[member.path] = error.code
            else:
                found[member.path] = member.error.code if isinstance(member, Refused) else "skipped"
    return found


def zip_of(path: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def tar_of(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]  # a mode of the parameters
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_000_000_000
            archive.addfile(info, io.BytesIO(data))
    return path


def folder_of(path: Path, members: dict[str, bytes]) -> Path:
    for name, data in members.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(data)
    return path


MAKERS: dict[str, Callable[[Path, dict[str, bytes]], Path]] = {
    "folder": lambda path, members: folder_of(path / "f", members),
    "zip": lambda path, members: zip_of(path / "a.zip", members),
    "stored zip": lambda path, members: zip_of(path / "a.zip", members, zipfile.ZIP_STORED),
    "tar": lambda path, members: tar_of(path / "a.tar", members),
    "tar.gz": lambda path, members: tar_of(path / "a.tgz", members, "w:gz"),
    "tar.bz2": lambda path, members: tar_of(path / "a.tar.bz2", members, "w:bz2"),
    "tar.xz": lambda path, members: tar_of(path / "a", members, "w:xz"),
}
MIXED = {
    "2019/a.jpg": JPEG,
    "2019/deep/er/b.png": PNG,
    "2020/c.webp": picture("WEBP"),
    "2020/scan.tif": picture("TIFF"),
    "2020/wrong.png": JPEG,
    "no ending": JPEG,
    "empty.jpg": b"",
    "text.jpg": b"this is no picture at all",
    "raw.NEF": b"MM\0*" + bytes(60),
    "photoshop.psd": b"8BPS" + bytes(60),
    "inner.zip": b"PK\3\4" + bytes(60),
    "notes.txt": b"hello",
    "a.xmp": b"<x:xmpmeta/>",
    ".DS_Store": b"\0\0\0\1Bud1",
    "2019/._a.jpg": b"\0\5\x16\7" + bytes(60),
    "2019/Thumbs.db": b"\xd0\xcf\x11\xe0",
    ".gitkeep": b"",
}
EXPECTED: Outcome = {
    "2019/a.jpg": "image/jpeg",
    "2019/deep/er/b.png": "image/png",
    "2020/c.webp": "image/webp",
    "2020/scan.tif": "image/tiff",
    "2020/wrong.png": "image/jpeg",
    "no ending": "image/jpeg",
    "empty.jpg": "image_empty",
    "text.jpg": "not_an_image",
    "raw.NEF": "raw_unsupported",
    "photoshop.psd": "format_unsupported",
    "inner.zip": "archive_nested",
    **dict.fromkeys(("notes.txt", "a.xmp", ".DS_Store", "2019/._a.jpg", "2019/Thumbs.db", ".gitkeep"), "skipped"),
}


@pytest.mark.parametrize("kind", MAKERS)
def test_every_member_comes_out_once_as_photo_refusal_or_skipped(kind: str, tmp_path: Path) -> None:
    source = MAKERS[kind](tmp_path, MIXED)

    assert outcomes(source) == EXPECTED
    assert list(outcomes(source)) == list(outcomes(source))


@pytest.mark.parametrize("kind", MAKERS)
def test_a_photo_that_is_not_read_costs_the_next_one_nothing(kind: str, tmp_path: Path) -> None:
    big = {f"{i:02}.png": PNG + os.urandom(3000 + i * 517) for i in range(20)}
    source = MAKERS[kind](tmp_path, big)

    with open_source(str(source)) as opened:
        read = {}
        for number, member in enumerate(opened.members()):
            assert isinstance(member, Photo)
            if number % 3 == 0:
                member.stream.read(100)
            if number % 3 == 1:
                read[member.path] = member.stream.read()

    assert read == {name: data for i, (name, data) in enumerate(big.items()) if i % 3 == 1}


def test_a_single_photo_is_a_source(tmp_path: Path) -> None:
    (tmp_path / "one.jpg").write_bytes(JPEG)

    assert outcomes(tmp_path / "one.jpg") == {"one.jpg": "image/jpeg"}


def test_a_name_that_lies_about_the_content_is_noted(tmp_path: Path) -> None:
    (tmp_path / "one.png").write_bytes(JPEG)

    with open_source(str(tmp_path)) as source:
        (photo,) = source.members()

    assert isinstance(photo, Photo)
    assert photo.notes == ("the name ends in .png, the content is JPEG",)


@pytest.mark.parametrize(
    ("pattern", "paths"),
    [
        ("*.jpg", {"a.jpg"}),
        ("**/*.jpg", {"a.jpg", "x/b.jpg", "x/y/c.jpg"}),
        ("x/**", {"b.jpg", "y/c.jpg", "y/d.png"}),
        ("x/[!a]/?.png", {"y/d.png"}),
        ("[a-c].jpg", {"a.jpg"}),
    ],
)
def test_a_pattern_chooses_files_below_its_fixed_part(pattern: str, paths: set[str], tmp_path: Path) -> None:
    folder_of(tmp_path, {"a.jpg": JPEG, "x/b.jpg": JPEG, "x/y/c.jpg": JPEG, "x/y/d.png": PNG})

    assert set(outcomes(f"{tmp_path}/{pattern}")) == paths


@pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
def test_file_times_are_kept_in_utc(kind: str, tmp_path: Path) -> None:
    moment = datetime(2003, 5, 17, 10, 20, 30, tzinfo=UTC)
    if kind == "folder":
        source = folder_of(tmp_path, {"a.jpg": JPEG})
        os.utime(tmp_path / "a.jpg", (moment.timestamp(),) * 2)
    elif kind == "tar":
        source = tmp_path / "a.tar"
        with tarfile.open(source, "w") as tar:
            member = tarfile.TarInfo("a.jpg")
            member.size, member.mtime = len(JPEG), int(moment.timestamp())
            tar.addfile(member, io.BytesIO(JPEG))
    else:
        source = tmp_path / "a.zip"
        info = zipfile.ZipInfo("a.jpg", (1999, 1, 1, 0, 0, 0))
        info.extra = struct.pack("<HHBi", 0x5455, 5, 1, int(moment.timestamp()))
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr(info, JPEG)

    with open_source(str(source)) as opened:
        (photo,) = opened.members()

    assert isinstance(photo, Photo)
    assert photo.modified == moment


HOSTILE = ["../up.jpg", "a/../../up.jpg", "/etc/a.jpg", "C:/a.jpg", "C:\\a.jpg", "\\\\host\\a.jpg", "..\\up.jpg", ".."]


@pytest.mark.parametrize("make", [zip_of, tar_of])
def test_names_that_lead_out_of_the_archive_are_refused(make: Callable[..., Path], tmp_path: Path) -> None:
    found = outcomes(make(tmp_path / "archive", {**dict.fromkeys(HOSTILE, JPEG), "good.jpg": JPEG}))

    assert found.pop("good.jpg") == "image/jpeg"
    assert set(found.values()) == {"path_unsafe"}
    assert len(found) == len(HOSTILE)


def test_plain_dots_in_a_path_mean_nothing(tmp_path: Path) -> None:
    assert set(outcomes(tar_of(tmp_path / "a.tar", {"./a.jpg": JPEG, "./x/./b.jpg": JPEG}))) == {"a.jpg", "x/b.jpg"}


def test_overlong_paths_are_refused(tmp_path: Path) -> None:
    names = ["x" * 256 + ".jpg", "/".join(["y" * 200] * 6) + "/a.jpg", "ok.jpg"]

    assert list(outcomes(zip_of(tmp_path / "a.zip", dict.fromkeys(names, JPEG))).values()) == [
        "path_too_long",
        "path_too_long",
        "image/jpeg",
    ]


def test_two_members_of_one_name_are_a_photo_and_a_refusal(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.jpg": JPEG, "b.jpg": JPEG, "./a.jpg": JPEG, "c.jpg": JPEG})
    path.write_bytes(path.read_bytes().replace(b"b.jpg", b"a.jpg").replace(b"c.jpg", b"a.jpg"))

    assert outcomes(tmp_path / "a.zip") == {
        "a.jpg": "image/jpeg",
        "a.jpg#2": "member_duplicate",
        "a.jpg#3": "member_duplicate",
        "a.jpg#4": "member_duplicate",
    }


def test_links_and_pipes_are_never_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.jpg").write_bytes(JPEG)
    folder = folder_of(tmp_path / "f", {"good.jpg": JPEG})
    (folder / "link.jpg").symlink_to(tmp_path / "secret" / "a.jpg")
    (folder / "folder").symlink_to(tmp_path / "secret")
    os.mkfifo(folder / "pipe.jpg")

    assert outcomes(folder) == {
        "folder": "member_is_link",
        "good.jpg": "image/jpeg",
        "link.jpg": "member_is_link",
        "pipe.jpg": "member_is_no_file",
    }


def test_links_in_archives_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        link = zipfile.ZipInfo("link.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, kind in (("soft.jpg", tarfile.SYMTYPE), ("hard.jpg", tarfile.LNKTYPE), ("dev.jpg", tarfile.CHRTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)

    assert outcomes(tmp_path / "a.zip") == {"link.jpg": "member_is_link"}
    assert outcomes(tmp_path / "a.tar") == {
        "soft.jpg": "member_is_link",
        "hard.jpg": "member_is_link",
        "dev.jpg": "member_is_no_file",
    }


def test_encrypted_and_oddly_packed_members_are_refused_alone(tmp_path: Path) -> None:
    data = bytearray(zip_of(tmp_path / "a.zip", {"a.jpg": JPEG, "b.jpg": JPEG, "c.jpg": JPEG}).read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"]
    data[entries[0] + 8] |= 1  # encrypted
    data[entries[1] + 10] = 98  # PPMd
    (tmp_path / "a.zip").write_bytes(data)

    assert outcomes(tmp_path / "a.zip") == {
        "a.jpg": "member_encrypted",
        "b.jpg": "member_packing",
        "c.jpg": "image/jpeg",
    }


def test_a_member_with_a_wrong_checksum_is_damaged(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": PNG + bytes(300_000), "b.png": PNG}, zipfile.ZIP_STORED)
    data = bytearray(path.read_bytes())
    data[200_000] ^= 255
    path.write_bytes(data)

    assert outcomes(path) == {"a.png": "member_damaged", "b.png": "image/png"}


def test_a_zip_member_that_unpacks_too_far_is_a_bomb(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"bomb.png": PNG + bytes(20_000_000), "good.png": PNG})

    assert outcomes(path) == {"bomb.png": "member_bomb", "good.png": "image/png"}


def test_a_member_larger_than_allowed_is_refused_before_and_while_it_is_read(tmp_path: Path) -> None:
    limits = Limits(member_bytes=5000)
    path = zip_of(tmp_path / "a.zip", {"a.png": PNG + os.urandom(6000), "b.png": PNG}, zipfile.ZIP_STORED)

    assert outcomes(path, limits) == {"a.png": "image_too_large", "b.png": "image/png"}


def test_a_zip_member_that_claims_to_be_smaller_than_it_is_does_not_grow(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": PNG + bytes(50_000)})
    data = bytearray(path.read_bytes())
    entry = data.index(b"PK\1\2")
    struct.pack_into("<L", data, entry + 24, 1000)
    path.write_bytes(data)

    assert outcomes(path) == {"a.png": "member_damaged"}


def test_members_that_share_bytes_are_refused(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": PNG + os.urandom(500), "b.png": PNG, "c.png": PNG})
    data = bytearray(path.read_bytes())
    entries = [i for i in range(len(data)) if data[i : i + 4] == b"PK\1\2"]
    struct.pack_into("<L", data, entries[1] + 42, struct.unpack_from("<L", data, entries[0] + 42)[0])
    path.write_bytes(data)

    assert outcomes(path) == {"a.png": "member_overlaps", "b.png": "member_overlaps", "c.png": "image/png"}


def test_a_directory_that_points_nowhere_fails_its_member_only(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {"a.png": PNG, "b.png": PNG})
    data = bytearray(path.read_bytes())
    directory = data.index(b"PK\1\2")
    struct.pack_into("<L", data, directory + 42, directory)
    path.write_bytes(data)

    assert outcomes(path) == {"a.png": "member_damaged", "b.png": "image/png"}


def test_names_in_odd_encodings_keep_their_bytes_and_become_text(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "f", {})
    folder.mkdir()
    for name in (b"gr\xfc\xdfe.jpg", "größe.jpg".encode(), b"tab\there.jpg", "\u202egpj.exe.jpg".encode()):
        Path(os.fsdecode(bytes(folder) + b"/" + name)).write_bytes(JPEG)

    with open_source(str(folder)) as source:
        names = {member.path: member.raw_path for member in source.members()}

    assert names == {
        "gr%FC%DFe.jpg": b"gr\xfc\xdfe.jpg",
        "größe.jpg": "größe.jpg".encode(),
        "tab%09here.jpg": b"tab\there.jpg",
        "%E2%80%AEgpj.exe.jpg": "\u202egpj.exe.jpg".encode(),
    }


@pytest.mark.parametrize(
    ("raw", "flags", "made_on", "path"),
    [
        ("straße.jpg".encode(), 0x800, 3, "straße.jpg"),
        ("straße.jpg".encode(), 0, 3, "straße.jpg"),
        (b"stra\xe1e.jpg", 0, 0, "straße.jpg"),
        (b"bad\xff\xfe.jpg", 0x800, 3, "bad%FF%FE.jpg"),
        (b"alben\\1999\\a.jpg", 0, 0, "alben/1999/a.jpg"),
        (b"one\\name.jpg", 0, 3, "one\\name.jpg"),
    ],
)
def test_zip_names_are_read_as_their_marks_say(raw: bytes, flags: int, made_on: int, path: str, tmp_path: Path) -> None:
    placeholder = "n" * len(raw)
    data = bytearray(zip_of(tmp_path / "a.zip", {placeholder: JPEG}).read_bytes().replace(placeholder.encode(), raw))
    entry = data.index(b"PK\1\2")
    data[entry + 5] = made_on
    struct.pack_into("<H", data, entry + 8, flags)
    (tmp_path / "a.zip").write_bytes(data)

    assert outcomes(tmp_path / "a.zip") == {path: "image/jpeg"}


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.99])
def test_a_zip_that_is_cut_off_is_refused_as_a_whole(share: float, tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(40)})
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])

    with pytest.raises(InputError) as caught:
        open_source(str(path))

    assert caught.value.code == "archive_unreadable"


def test_archives_of_other_kinds_and_broken_ones_are_refused_as_a_whole(tmp_path: Path) -> None:
    for name, data, code in (
        ("a.rar", b"Rar!\x1a\7" + bytes(600), "archive_unsupported"),
        ("a.7z", b"7z\xbc\xaf\x27\x1c" + bytes(600), "archive_unsupported"),
        ("a.tar", b"nothing of the kind" * 60, "archive_unreadable"),
        ("a.tar.gz", gzip.compress(b"nothing of the kind" * 60), "archive_unreadable"),
        ("b.tar.gz", gzip.compress(os.urandom(5000))[:900], "archive_unreadable"),
        ("a.zip", b"PK\3\4" + bytes(600), "archive_unreadable"),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(InputError) as caught:
            open_source(str(tmp_path / name))
        assert (name, caught.value.code) == (name, code)


def test_a_zip_with_too_many_entries_is_refused_before_it_is_read(tmp_path: Path) -> None:
    path = zip_of(tmp_path / "a.zip", {f"{i}.png": PNG for i in range(11)})

    with pytest.raises(InputError) as caught:
        open_source(str(path), Limits(members=10))

    assert caught.value.code == "archive_too_large"


def test_what_is_not_there_is_said(tmp_path: Path) -> None:
    for source, kind, code in (
        (tmp_path / "nothing", NotFoundError, "source_missing"),
        (tmp_path / "nothing" / "*.jpg", NotFoundError, "source_missing"),
        (tmp_path / "[z-a].jpg", UsageError, "bad_pattern"),
    ):
        with pytest.raises(kind) as caught:
            open_source(str(source))
        assert caught.value.code == code


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_a_tar_that_is_cut_off_gives_what_it_has_and_says_so(mode: str, tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {f"{i}.png": PNG + os.urandom(9000) for i in range(10)}, mode)
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])

    found = outcomes(path)

    assert list(found.values())[:3] == ["image/png"] * 3
    assert set(found.values()) <= {"image/png", "member_damaged", "archive_damaged"}
    assert found["(the rest of the archive)"] == "archive_damaged"


def test_after_a_damaged_header_reading_goes_on(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tar", {f"{i}.png": PNG + bytes(700) for i in range(5)})
    data = bytearray(path.read_bytes())
    data[data.index(b"2.png")] ^= 255
    path.write_bytes(data)

    assert outcomes(path) == {
        "0.png": "image/png",
        "1.png": "image/png",
        "(damaged part 1)": "archive_damaged",
        "3.png": "image/png",
        "4.png": "image/png",
    }


def test_a_tar_header_cannot_claim_memory_or_go_backwards(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    for kind, size in ((tarfile.XHDTYPE, 1 << 40), (tarfile.GNUTYPE_LONGNAME, 1 << 40), (tarfile.REGTYPE, -512)):
        good, bad = tarfile.TarInfo("a.png"), tarfile.TarInfo("b.png")
        good.size = len(PNG)
        bad.type, bad.size = kind, size
        block = bad.tobuf(tarfile.GNU_FORMAT)
        path.write_bytes(good.tobuf() + PNG.ljust(512, b"\0") + block + bytes(2048))

        found = outcomes(path)

        assert found.pop("a.png") == "image/png"
        assert set(found.values()) <= {"archive_damaged"}


def test_a_packed_tar_that_unpacks_too_far_is_left(tmp_path: Path) -> None:
    path = tar_of(tmp_path / "a.tgz", {"a.png": PNG, "bomb.png": PNG + bytes(30_000_000), "c.png": PNG}, "w:gz")

    found = outcomes(path, Limits(ratio=50, ratio_floor=1 << 20))

    assert found["a.png"] == "image/png"
    assert found["bomb.png"] == "archive_bomb"
    assert found["(the rest of the archive)"] == "archive_damaged"


def test_an_empty_source_has_no_members(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    zip_of(tmp_path / "a.zip", {})
    tar_of(tmp_path / "a.tar", {})

    assert [outcomes(tmp_path / name) for name in ("f", "a.zip", "a.tar")] == [{}, {}, {}]


def test_skipped_members_say_why(tmp_path: Path) -> None:
    with open_source(str(folder_of(tmp_path, {"a.xmp": b"<x/>"}))) as source:
        (member,) = source.members()

        assert isinstance(member, Skipped)
        assert (member.path, member.raw_path, member.reason, member.left_behind) == (
            "a.xmp",
            b"a.xmp",
            "no picture",
            False,
        )


@pytest.mark.parametrize("url", ["s3://", "s3:///key", "s3://a]b/key", "s3://a?b/key", "s3://\u0119]\u0108"])
def test_what_names_no_bucket_is_refused_before_anybody_is_asked(url: str) -> None:
    with pytest.raises(UsageError, match="s3://bucket/prefix"):
        open_source(url)


def test_a_bucket_without_credentials_for_it_is_a_refusal(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")

    with pytest.raises(UsageError, match="credentials") as refused:
        open_source(Place.of("s3://photos/trip/"))
    assert refused.value.code == "store_credentials_missing"
