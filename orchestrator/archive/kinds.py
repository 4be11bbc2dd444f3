"""What a member is, by its first bytes and then by its name: a photo, something that cannot be one, or no matter."""

from __future__ import annotations

from dataclasses import dataclass

from orchestrator.errors import InputError
from orchestrator.pictures import MEDIA_TYPES, RAW_SENTENCE, photo_format, unsupported_format

HEAD = 512
"""Bytes that a judgement needs."""

PHOTO_ENDINGS = {
    "jpg": "JPEG", "jpeg": "JPEG", "jpe": "JPEG", "jfif": "JPEG", "png": "PNG", "webp": "WEBP", "tif": "TIFF",
    "tiff": "TIFF", "gif": "GIF", "bmp": "BMP", "dib": "BMP", "avif": "AVIF", "heic": "HEIF", "heif": "HEIF",
    "hif": "HEIF",
}  # fmt: skip
OTHER_PICTURE_ENDINGS = frozenset({
    "psd", "psb", "jp2", "j2k", "j2c", "jpf", "jpx", "jpm", "jls", "jxl", "jxr", "wdp", "ico", "tga", "pcx", "pbm",
    "pgm", "ppm", "pnm", "pam", "pfm", "exr", "hdr", "qoi", "dds", "sgi", "fits", "svg", "eps", "xcf", "djvu",
})  # fmt: skip
RAW_ENDINGS = frozenset({
    "3fr", "arw", "cr2", "cr3", "crw", "dcr", "dng", "erf", "fff", "iiq", "k25", "kdc", "mef", "mos", "mrw",
    "nef", "nrw", "orf", "pef", "raf", "raw", "rw2", "rwl", "sr2", "srf", "srw", "x3f"
})  # fmt: skip
ARCHIVE_ENDINGS = frozenset({
    "zip", "tar", "tgz", "tbz", "tbz2", "txz", "gz", "bz2", "xz", "zst", "7z", "rar", "cab", "iso", "lzh"
})  # fmt: skip
OFFICE_ENDINGS = frozenset({
    "docx", "xlsx", "pptx", "odt", "ods", "odp", "pages", "numbers", "key", "epub", "jar", "apk", "kmz"
})  # fmt: skip
ARCHIVE_MARKS = (
    b"PK\3\4", b"PK\5\6", b"Rar!\x1a\7", b"7z\xbc\xaf\x27\x1c", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd",
    b"MSCF",
)  # fmt: skip
LEFT_FILES = frozenset({
    ".ds_store", "thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon%0d", ".picasa.ini",
    "picasa.ini", ".directory", ".bridgesort", ".bridgelabelsandratings", "zbthumbnail.info", ".localized",
})  # fmt: skip
LEFT_FOLDERS = frozenset({
    "@eadir", ".@__thumb", ".appledouble", "__macosx", ".picasaoriginals", "#recycle", "@recycle", "$recycle.bin",
    ".trashes", ".spotlight-v100", ".fseventsd", ".temporaryitems", ".documentrevisions-v100", ".thumbnails",
    "system volume information", "@tmp",
})  # fmt: skip
"""Small versions, forks and bins of NAS, macOS, Windows and picture programs, in lower case."""


@dataclass(frozen=True, kw_only=True)
class Kind:
    """What a member is: a photo of this media type, or refused, or skipped."""

    media_type: str = ""
    notes: tuple[str, ...] = ()
    error: InputError | None = None
    reason: str = ""
    left_behind: bool = False


def judge(path: str, head: bytes, size: int) -> Kind:
    """Say what a member is.

    Args:
        path: its name, for what its ending claims.
        head: its first HEAD bytes, or all of them.
        size: in bytes.
    """
    name = path.rpartition("/")[2]
    ending = name.rpartition(".")[2].lower() if "." in name else ""
    claimed = PHOTO_ENDINGS.get(ending)
    if _is_left_behind(path, name, head):
        return Kind(reason="a file that an operating system left behind", left_behind=True)
    if size == 0:
        wanted = claimed or ending in RAW_ENDINGS | ARCHIVE_ENDINGS | OTHER_PICTURE_ENDINGS
        return _refused("the file is empty", "image_empty") if wanted else Kind(reason="an empty file")
    if ending in RAW_ENDINGS:
        return _refused(RAW_SENTENCE, "raw_unsupported")
    form = photo_format(head)
    if form is not None:
        said = f"the name ends in .{ending}, the content is {form}"
        return Kind(media_type=MEDIA_TYPES[form], notes=(said,) if claimed != form else ())
    return _no_photo(ending, claimed, head)


def _no_photo(ending: str, claimed: str | None, head: bytes) -> Kind:
    other = unsupported_format(head)
    if other == "camera raw":
        return _refused(RAW_SENTENCE, "raw_unsupported")
    if other or ending in OTHER_PICTURE_ENDINGS:
        what = other or ending.upper()
        return _refused(f"{what} files are not read; export the photo as JPEG, TIFF or PNG", "format_unsupported")
    if ending in ARCHIVE_ENDINGS or (_is_archive(head) and ending not in OFFICE_ENDINGS):
        return _refused("an archive inside an archive is not opened; unpack it first", "archive_nested")
    if claimed:
        return _refused(f"the name ends in .{ending}, but the file starts like no picture", "not_an_image")
    return Kind(reason="no picture")


def _is_archive(head: bytes) -> bool:
    return head.startswith(ARCHIVE_MARKS) or head[257:262] == b"ustar"


def _is_left_behind(path: str, name: str, head: bytes) -> bool:
    """Tell what systems and their programs put beside photos, some of it named like the photo itself."""
    return (
        name.lower() in LEFT_FILES
        or any(part.lower() in LEFT_FOLDERS for part in path.split("/")[:-1])
        or (name.startswith("._") and photo_format(head) is None)
        or name.endswith(("@SynoEAStream", "@SynoResource"))
    )


def _refused(message: str, code: str) -> Kind:
    return Kind(error=InputError(message, code=code))
