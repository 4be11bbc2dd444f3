"""Where a rendered archive goes, and the ways in which a file of it can be bad, each with the code that it must get."""

from __future__ import annotations

import gzip
import io
import stat
import struct
import tarfile
import warnings
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

MOMENT = 1_000_000_000
"""Time of every file, so that the same seed gives the same bytes."""
BOMB_BYTES = 16 << 20


class Sink:
    """A folder that is being filled.

    Attributes:
        can: names of the damages that it can hold.
    """

    can = frozenset({
        "truncated", "empty", "text", "pixel bomb", "corrupt", "raw", "photoshop", "nested archive", "link",
    })  # fmt: skip

    def __init__(self, out: Path) -> None:
        self.out = out

    def __enter__(self) -> Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        pass

    def add(self, path: str, data: bytes) -> None:
        """Add a file."""
        place = self.out / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)

    def link(self, path: str) -> None:
        """Add a link that leads out."""
        place = self.out / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to("/etc/hostname")


class ZipSink(Sink):
    """A zip file that is being filled."""

    can = Sink.can | {"unsafe path", "absolute path", "duplicate", "encrypted", "ratio bomb", "bad checksum"}

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        self._zip = zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._zip.close()

    def add(self, path: str, data: bytes) -> None:
        """Add a file."""
        self.entry(path, data)

    def link(self, path: str) -> None:
        """Add a link that leads out."""
        info = self.entry(path, b"/etc/hostname")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16

    def entry(self, path: str, data: bytes) -> zipfile.ZipInfo:
        """Add a file and return its entry; what is changed in it now goes into the directory."""
        info = zipfile.ZipInfo(path, (2001, 9, 9, 1, 46, 40))
        info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of duplicates, which are meant
            self._zip.writestr(info, data)
        return info


class TarSink(Sink):
    """A tar file that is being filled, packed if its name says so."""

    can = Sink.can | {"unsafe path", "absolute path", "duplicate"}

    def __init__(self, out: Path) -> None:
        super().__init__(out)
        out.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[bytes] = out.open("wb")
        self._packed = gzip.GzipFile("", "wb", 1, self._file, MOMENT) if out.suffix in (".gz", ".tgz") else None
        self._tar = tarfile.open(fileobj=self._packed or self._file, mode="w", format=tarfile.PAX_FORMAT)  # noqa: SIM115 closed with the sink

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._tar.close()
        if self._packed is not None:
            self._packed.close()
        self._file.close()

    def add(self, path: str, data: bytes) -> None:
        """Add a file."""
        info = tarfile.TarInfo(path)
        info.size, info.mtime = len(data), MOMENT
        self._tar.addfile(info, io.BytesIO(data))

    def link(self, path: str) -> None:
        """Add a link that leads out."""
        info = tarfile.TarInfo(path)
        info.type, info.linkname, info.mtime = tarfile.SYMTYPE, "/etc/hostname", MOMENT
        self._tar.addfile(info)


def open_sink(out: Path) -> Sink:
    """Open a folder, a .zip, a .tar or a .tar.gz for writing.

    Raises:
        FileExistsError: it is there already.
    """
    if out.exists():
        raise FileExistsError(f"{out} exists")
    if out.suffix == ".zip":
        return ZipSink(out)
    return TarSink(out) if out.suffix in (".tar", ".tgz", ".gz") else Sink(out)


@dataclass(frozen=True, kw_only=True)
class Damage:
    """One way to be bad: `write` puts it at about that path, given a sound JPEG and PNG, and returns its real path."""

    name: str
    code: str
    write: Callable[[Sink, str, bytes, bytes], str]


def _add(sink: Sink, path: str, data: bytes) -> str:
    sink.add(path, data)
    return path


def _ending(path: str, ending: str) -> str:
    return f"{path.rpartition('.')[0]}.{ending}"


def _link(sink: Sink, path: str, _: bytes, __: bytes) -> str:
    sink.link(path)
    return path


def _duplicate(sink: Sink, path: str, jpeg: bytes, _: bytes) -> str:
    """Add the photo twice; the second one comes too late."""
    sink.add(path, jpeg)
    sink.add(path, jpeg)
    return f"{path}#2"


def _encrypted(sink: Sink, path: str, jpeg: bytes, _: bytes) -> str:
    assert isinstance(sink, ZipSink), "only a zip holds encrypted members"
    sink.entry(path, jpeg).flag_bits |= 1
    return path


def _bad_checksum(sink: Sink, path: str, jpeg: bytes, _: bytes) -> str:
    assert isinstance(sink, ZipSink), "only a zip holds checksums"
    sink.entry(path, jpeg).CRC ^= 1
    return path


def _huge_png(width: int, height: int) -> bytes:
    """Return a small PNG whose header claims this size."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(64))), (b"IEND", b""))
    )


def _corrupt(png: bytes) -> bytes:
    """Return a PNG with damage in the middle of its pixels."""
    middle = len(png) // 2
    return png[:middle] + bytes(64) + png[middle + 64 :]


def _zipped(data: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as inner:
        inner.writestr(zipfile.ZipInfo("inner.jpg"), data)
    return out.getvalue()


DAMAGES: tuple[Damage, ...] = (
    Damage(name="truncated", code="image_truncated", write=lambda s, p, j, _: _add(s, p, j[: len(j) // 2])),
    Damage(name="empty", code="image_empty", write=lambda s, p, _, __: _add(s, p, b"")),
    Damage(name="text", code="not_an_image", write=lambda s, p, _, __: _add(s, p, b"I am no picture\n" * 40)),
    Damage(name="pixel bomb", code="image_too_large",
           write=lambda s, p, _, __: _add(s, _ending(p, "png"), _huge_png(60_000, 60_000))),
    Damage(name="corrupt", code="image_corrupt", write=lambda s, p, _, png: _add(s, _ending(p, "png"), _corrupt(png))),
    Damage(name="raw", code="raw_unsupported",
           write=lambda s, p, _, __: _add(s, _ending(p, "NEF"), b"MM\0*\0\0\0\x08" + bytes(200))),
    Damage(name="photoshop", code="format_unsupported",
           write=lambda s, p, _, __: _add(s, _ending(p, "psd"), b"8BPS\0\1" + bytes(200))),
    Damage(name="nested archive", code="archive_nested",
           write=lambda s, p, j, _: _add(s, _ending(p, "zip"), _zipped(j))),
    Damage(name="link", code="member_is_link", write=_link),
    Damage(name="unsafe path", code="path_unsafe", write=lambda s, p, j, _: _add(s, f"../../{p}", j)),
    Damage(name="absolute path", code="path_unsafe", write=lambda s, p, j, _: _add(s, f"/tmp/{p}", j)),
    Damage(name="duplicate", code="member_duplicate", write=_duplicate),
    Damage(name="encrypted", code="member_encrypted", write=_encrypted),
    Damage(name="ratio bomb", code="member_bomb", write=lambda s, p, j, _: _add(s, p, j + bytes(BOMB_BYTES))),
    Damage(name="bad checksum", code="member_damaged", write=_bad_checksum),
)  # fmt: skip
