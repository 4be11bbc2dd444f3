"""Photos of all kinds that we claim to keep, made from nothing: depth, channels, packing, orientation, metadata.

    python -m tests.integration.archive.corpus FOLDER

The picture is drawn, and different in every corner, so that whoever turns, mirrors or shifts it is found out.
"""

from __future__ import annotations

import io
import itertools
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pyvips
import tifffile
from numpy.typing import NDArray
from PIL import Image

from tests.unit.workers.photo.pictures import PHONE, exif, swapped_profile
from workers.photo.formats import jpeg as jpegs
from workers.photo.formats import png as pngs

Made = Iterator[tuple[str, bytes]]
WIDTH, HEIGHT = 104, 76
"""No multiples of JPEG's blocks."""
WORDS = "Großmutter \u5199\u771f"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF '
    'xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#"><rdf:Description rdf:about="" '
    f'xmlns:dc="http://purl.org/dc/elements/1.1/" dc:format="{WORDS}" xmlns:xmp="http://ns.adobe.com/xap/1.0/" '
    'xmp:Rating="4"/></rdf:RDF></x:xmpmeta><?xpacket end="w"?>'
).encode()
IPTC = b"\x1c\x02\x78" + struct.pack(">H", len(WORDS.encode())) + WORDS.encode()
RESOURCES = b"8BIM\x04\x04\0\0" + struct.pack(">L", len(IPTC)) + IPTC + bytes(len(IPTC) % 2)
FILM = (
    struct.pack(">L4s4sL", 20, b"ftyp", b"isom", 0)
    + b"isom"
    + struct.pack(">L4s", 4008, b"mdat")
    + bytes(range(250)) * 16
)


def drawn(channels: int = 3, bits: int = 8) -> NDArray[Any]:
    """(HEIGHT, WIDTH, channels) of uint8 or uint16: smooth colours with a little grain, low bytes in use."""
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(float)
    waves = [40 * np.sin(x / (7 + 2 * c) + c) + 30 * np.cos(y / (9 - c)) + 60 + x * (0.9 - 0.2 * c) for c in range(3)]
    waves.append(255 - 1.2 * y)
    grain = np.random.default_rng(channels * bits).normal(0, 2, (HEIGHT, WIDTH, channels))
    picture = np.clip(np.dstack([waves[c % 4] for c in range(channels)]) + grain, 1, 254)
    return (picture * 257).astype(np.uint16) if bits == 16 else picture.astype(np.uint8)


def image(mode: str = "RGB") -> Image.Image:
    """The picture in one of Pillow's modes."""
    if mode in ("LA", "RGBA"):
        made = image("L" if mode == "LA" else "RGB")
        made.putalpha(Image.fromarray(drawn(4)[..., 3]))
        return made
    colour = Image.fromarray(drawn())
    return colour.quantize(200) if mode == "P" else colour.convert(mode)


def saved(mode: str, form: str, **options: object) -> bytes:
    """The picture as Pillow writes it."""
    out = io.BytesIO()
    image(mode).save(out, form, **options)
    return out.getvalue()


def vips(form: str, pixels: NDArray[Any], **options: object) -> bytes:
    """The picture as libvips writes it."""
    return bytes(pyvips.Image.new_from_array(pixels).write_to_buffer(form, keep="none", **options))


def tiff(pixels: NDArray[Any], pages: int = 1, **options: Any) -> bytes:
    """One or more equal pages, as tifffile writes them."""
    out = io.BytesIO()
    with tifffile.TiffWriter(out, bigtiff=options.pop("big", False), byteorder=options.pop("order", "<")) as file:
        for _ in range(pages):
            file.write(pixels, metadata=None, contiguous=False, **options)
    return out.getvalue()


def tiffs() -> Made:
    kinds: dict[str, tuple[int, dict[str, Any]]] = {
        "grey": (1, {"photometric": "minisblack"}),
        "white is zero": (1, {"photometric": "miniswhite"}),
        "rgb": (3, {"photometric": "rgb"}),
        "rgb alpha": (4, {"photometric": "rgb", "extrasamples": ["unassalpha"]}),
        "rgb infrared": (4, {"photometric": "rgb", "extrasamples": ["unspecified"]}),
        "cmyk": (4, {"photometric": "separated"}),
        "cmyk spot": (5, {"photometric": "separated", "extrasamples": ["unspecified"]}),
        "grey alpha": (2, {"photometric": "minisblack", "extrasamples": ["unassalpha"]}),
        "premultiplied": (4, {"photometric": "rgb", "extrasamples": ["assocalpha"]}),
    }
    stored: list[dict[str, Any]] = [
        {},
        {"order": ">", "rowsperstrip": 7},
        {"compression": "lzw", "predictor": True, "rowsperstrip": 16},
        {"compression": "zlib", "tile": (32, 48), "big": True},
        {"compression": "packbits", "order": ">"},
        {"planarconfig": "separate", "compression": "zlib", "predictor": True, "rowsperstrip": 20},
    ]
    for (kind, (channels, options)), bits, (number, packing) in itertools.product(
        kinds.items(), (8, 16), enumerate(stored)
    ):
        if channels == 1 and "planarconfig" in packing:
            continue
        pixels = drawn(channels, bits)
        if "planarconfig" in packing:
            pixels = np.moveaxis(pixels, -1, 0)
        yield f"{kind} {bits} {number}.tif", tiff(pixels[..., 0] if channels == 1 else pixels, **options, **packing)
    for bits, turn in itertools.product((8, 16), range(1, 9)):
        yield f"turned {bits} {turn}.tif", tiff(drawn(3, bits), photometric="rgb", extratags=[(274, 3, 1, turn, True)])
    texts: list[tuple[int, int, int, Any, bool]] = [
        (270, 2, 0, WORDS.encode() + b"\0", True),
        (315, 2, 0, "J\u00f6rg".encode("latin-1") + b"\0", True),
    ]
    private: list[tuple[int, int, int, Any, bool]] = [
        (65000, 7, 5, b"\0\1\2\3\4", True),
        (65001, 12, 1, 1.5, True),
        (65002, 5, 1, (0, 0), True),
    ]
    packets: list[tuple[int, int, int, Any, bool]] = [
        (700, 1, len(XMP), XMP, True),
        (33723, 7, len(IPTC), IPTC, True),
        (34377, 1, len(RESOURCES), RESOURCES, True),
    ]
    for name, tags in {
        "texts": texts,
        "private": private,
        "packets": packets,
        "all": texts + private + packets,
    }.items():
        for bits, big in itertools.product((8, 16), (False, True)):
            data = tiff(
                drawn(3, bits), photometric="rgb", extratags=sorted(tags), big=big, iccprofile=swapped_profile()
            )
            yield f"{name} {bits} {'big' if big else 'small'}.tif", data
    for pages, bits in itertools.product((2, 5), (8, 16)):
        yield f"{pages} pages {bits}.tif", tiff(drawn(3, bits), pages, photometric="rgb", compression="lzw")
    for mode in ("1", "L", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "F", "I"):
        grey = Image.fromarray(drawn(1, 16)[..., 0]) if mode == "I;16" else None
        out = io.BytesIO()
        (grey or image(mode)).save(out, "TIFF", exif=exif(orientation=6))
        yield f"pillow {mode.replace(';', ' ')}.tif", out.getvalue()
    for packing in ("group4", "group3", "tiff_ccitt"):
        yield f"fax {packing}.tif", saved("1", "TIFF", compression=packing)
    yield "jpeg inside.tif", saved("RGB", "TIFF", compression="jpeg", quality=90)
    yield "jpeg inside, grey.tif", saved("L", "TIFF", compression="jpeg")
    for form in ("lzma", "zstd", "webp", "jpeg2000"):
        yield f"packed {form}.tif", tiff(drawn(), photometric="rgb", compression=form)
    for kind in ("<f4", "<f2", "<i2", "<u4", "<f8"):
        yield f"of type {kind[1:]}.tif", tiff(drawn(1).astype(kind)[..., 0], photometric="minisblack")
    yield "thumbnail first.tif", tiff(drawn(), 2, photometric="rgb", subfiletype=1)
    yield "layers.tif", tiff(drawn(), photometric="rgb", extratags=[(37724, 7, 8, b"Adobe Ph", True)])
    yield "pyramid.tif", vips(".tif", drawn(), pyramid=True, tile=True, tile_width=32, tile_height=32)
    yield "sub pictures.tif", vips(".tif", drawn(), pyramid=True, tile=True, tile_width=32, tile_height=32, subifd=True)


def with_chunks(data: bytes, *added: tuple[bytes, bytes]) -> bytes:
    """A PNG with more chunks behind its header."""
    head, *others = list(pngs.chunks(data))
    return pngs.join([head, *added, *others])


def png_chunks() -> dict[str, list[tuple[bytes, bytes]]]:
    packed = zlib.compress(b"a caption" * 50)
    return {
        "gamma": [(b"gAMA", struct.pack(">L", 45_455))],
        "linear": [(b"gAMA", struct.pack(">L", 100_000))],
        "primaries": [(b"cHRM", struct.pack(">8L", 31270, 32900, 64000, 33000, 30000, 60000, 15000, 6000))],
        "srgb": [(b"sRGB", b"\0")],
        "p3 by cicp": [(b"cICP", bytes([12, 13, 0, 1]))],
        "hdr by cicp": [(b"cICP", bytes([9, 16, 0, 1]))],
        "profile": [(b"iCCP", b"swapped\0\0" + zlib.compress(swapped_profile()))],
        "texts": [
            (b"tEXt", b"Title\0J\xf6rg"),
            (b"zTXt", b"Comment\0\0" + packed),
            (b"iTXt", b"Author\0\0\0\0\0" + WORDS.encode()),
        ],
        "packed text": [(b"iTXt", b"Description\0\1\0\0\0" + packed)],
        "xmp": [pngs.international_text("XML:com.adobe.xmp", XMP)],
        "exif": [(b"eXIf", exif(gps=True).removeprefix(b"Exif\0\0"))],
        "resolution, time": [
            (b"pHYs", struct.pack(">LLB", 11811, 11811, 1)),
            (b"tIME", struct.pack(">HBBBBB", 1999, 7, 4, 1, 2, 3)),
        ],
        "private": [(b"vpAg", bytes(9)), (b"prVt", b"private")],
        "offsets": [(b"oFFs", struct.pack(">llB", -3, 4, 0)), (b"sTER", b"\1")],
    }


def png_files() -> Made:
    pixels = {"grey": drawn(1), "rgb": drawn(3), "rgba": drawn(4), "grey alpha": drawn(2)}
    deep = {f"{name} 16": drawn(plain.shape[2], 16) for name, plain in pixels.items()}
    for (name, array), interlace in itertools.product({**pixels, **deep}.items(), (False, True)):
        yield f"{name}{' interlaced' if interlace else ''}.png", vips(".png", array, interlace=interlace)
    for mode in ("1", "P"):
        yield f"mode {mode}.png", saved(mode, "PNG")
    yield "palette, transparent.png", saved("P", "PNG", transparency=bytes(range(56, 256)))
    for bits in (1, 2, 4):
        yield f"palette of {bits} bits.png", _few(bits)
    for name, array in (("rgb", drawn()), ("rgb 16", drawn(3, 16)), ("grey", drawn(1)), ("grey 16", drawn(1, 16))):
        colour = array[3, 4].astype(int).tolist()
        yield (
            f"transparent colour, {name}.png",
            with_chunks(vips(".png", array), (b"tRNS", struct.pack(f">{len(colour)}H", *colour))),
        )
    for (name, chunks), bits in itertools.product(png_chunks().items(), (8, 16)):
        yield f"{name} {bits}.png", with_chunks(vips(".png", drawn(3, bits)), *chunks)
    for turn, bits in itertools.product(range(1, 9), (8, 16)):
        block = exif(orientation=turn).removeprefix(b"Exif\0\0")
        yield f"turned {turn} {bits}.png", with_chunks(vips(".png", drawn(3, bits)), (b"eXIf", block))
    yield "a film behind.png", saved("RGB", "PNG") + FILM
    yield "animated.png", saved("RGB", "PNG", save_all=True, append_images=[image("RGB").rotate(180)])
    yield (
        "text of 3 MB.png",
        with_chunks(saved("RGB", "PNG"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"a" * 3_000_000))),
    )
    yield (
        "background.png",
        with_chunks(saved("RGB", "PNG"), (b"bKGD", struct.pack(">3H", 1, 2, 3)), (b"sBIT", b"\x08\x08\x08")),
    )


def _few(bits: int) -> bytes:
    out = io.BytesIO()
    Image.fromarray(drawn()).quantize(2**bits).save(out, "PNG", bits=bits)
    return out.getvalue()


def with_segments(data: bytes, *added: tuple[bytes, bytes]) -> bytes:
    """A JPEG with more segments behind its first one."""
    parts, rest = jpegs.segments(data)
    return jpegs.join([*parts[:1], *added, *parts[1:]], rest)


def jpeg_parts() -> dict[str, list[tuple[bytes, bytes]]]:
    block = exif()
    guid = b"0123456789ABCDEF0123456789ABCDEF"
    more = b"<x:xmpmeta xmlns:x='adobe:ns:meta/'>" + b"e" * 70_000 + b"</x:xmpmeta>"
    pieces = [more[:40_000], more[40_000:]]
    named = XMP.replace(
        b'xmp:Rating="4"', b'xmlns:xmpNote="http://ns.adobe.com/xmp/note/" xmpNote:HasExtendedXMP="' + guid + b'"'
    )
    profile = swapped_profile()
    half = len(profile) // 2
    return {
        "exif": [(jpegs.APP1, block)],
        "exif twice": [(jpegs.APP1, block), (jpegs.APP1, exif(gps=False))],
        "exif with a preview": [(jpegs.APP1, exif(preview=saved("RGB", "JPEG")))],
        "xmp": [(jpegs.APP1, jpegs.XMP_SEGMENT + XMP)],
        "xmp of 65 kB": [
            (jpegs.APP1, jpegs.XMP_SEGMENT + XMP.replace(b"<?xpacket end", b" " * 64_600 + b"<?xpacket end"))
        ],
        "xmp extended": [
            (jpegs.APP1, jpegs.XMP_SEGMENT + named),
            *(
                (jpegs.APP1, jpegs.XMP_MORE + guid + struct.pack(">LL", len(more), 40_000 * i) + piece)
                for i, piece in enumerate(pieces)
            ),
        ],
        "iptc": [(b"\xff\xed", b"Photoshop 3.0\0" + RESOURCES)],
        "comments": [(b"\xff\xfe", b"J\xf6rg, 1978"), (b"\xff\xfe", WORDS.encode())],
        "profile": [(jpegs.APP2, b"ICC_PROFILE\0\1\1" + profile)],
        "profile in two": [
            (jpegs.APP2, b"ICC_PROFILE\0\1\2" + profile[:half]),
            (jpegs.APP2, b"ICC_PROFILE\0\2\2" + profile[half:]),
        ],
        "unknown": [
            (b"\xff\xe7", b"some maker's own"),
            (b"\xff\xec", b"Ducky\0\1\0\4\0\0\0\x50"),
            (b"\xff\xe8", bytes(60_000)),
        ],
    }


def jpeg_files() -> Made:
    for mode, sampling, progressive in itertools.product(("L", "RGB", "CMYK"), (0, 1, 2), (False, True)):
        if mode != "L" or sampling == 0:
            data = saved(mode, "JPEG", quality=88, subsampling=sampling, progressive=progressive)
            yield f"{mode} {sampling}{' progressive' if progressive else ''}.jpg", data
    yield "rgb coded.jpg", saved("RGB", "JPEG", quality=90, keep_rgb=True)
    yield "restarts.jpg", saved("RGB", "JPEG", restart_marker_blocks=3)
    for quality in (10, 50, 100):
        yield f"quality {quality}.jpg", saved("RGB", "JPEG", quality=quality)
    for turn, mode in itertools.product(range(1, 9), ("L", "RGB")):
        yield f"turned {turn} {mode}.jpg", with_segments(saved(mode, "JPEG"), (jpegs.APP1, exif(orientation=turn)))
    for (name, parts), progressive in itertools.product(jpeg_parts().items(), (False, True)):
        data = with_segments(saved("RGB", "JPEG", progressive=progressive), *parts)
        yield f"{name}{' progressive' if progressive else ''}.jpg", data
    plain = saved("RGB", "JPEG")
    second = with_segments(saved("L", "JPEG"), (jpegs.APP1, jpegs.XMP_SEGMENT + XMP))
    for name, tail in {"a film": FILM, "zeros": bytes(512), "a second picture": second, "a line": b"\n"}.items():
        yield f"{name} behind.jpg", plain + tail
    out = io.BytesIO()
    image().save(out, "MPO", save_all=True, append_images=[image("L")])
    yield "two pictures.mpo", out.getvalue()
    yield "no end.jpg", plain[:-2]
    yield "fill bytes.jpg", plain.replace(b"\xff\xdb", b"\xff\xff\xff\xdb", 1)
    yield "twelve bits.jpg", bytes(imagecodecs.jpeg_encode(drawn(3, 16) >> 4, bitspersample=12))
    yield "lossless.jpg", bytes(imagecodecs.ljpeg_encode(drawn(1)[..., 0]))


def other_files() -> Made:
    for mode, lossless in itertools.product(("RGB", "RGBA"), (True, False)):
        for name, options in {
            "plain": {},
            "metadata": {"exif": exif(orientation=6), "xmp": XMP, "icc_profile": swapped_profile()},
        }.items():
            yield (
                f"{mode} {'exact' if lossless else 'lossy'} {name}.webp",
                saved(mode, "WEBP", lossless=lossless, exact=True, **options),
            )
    for turn in range(1, 9):
        yield f"turned {turn}.webp", saved("RGB", "WEBP", lossless=True, exif=exif(orientation=turn))
        yield f"turned {turn}.avif", saved("RGB", "AVIF", quality=80, exif=exif(orientation=turn))
    yield "animated.webp", saved("RGB", "WEBP", lossless=True, save_all=True, append_images=[image().rotate(180)])
    yield "a film behind.webp", saved("RGB", "WEBP", lossless=True) + FILM
    for mode in ("RGB", "RGBA"):
        for name, options in {
            "plain": {},
            "metadata": {"exif": exif(), "xmp": XMP, "icc_profile": swapped_profile()},
        }.items():
            yield f"{mode} {name}.avif", saved(mode, "AVIF", quality=80, **options)
    for sampling in ("4:4:4", "4:2:2", "4:2:0"):
        yield f"sampled {sampling.replace(':', '')}.avif", saved("RGB", "AVIF", subsampling=sampling)
    yield "ten bits.avif", bytes(imagecodecs.avif_encode(drawn(3, 16) >> 6, bitspersample=10, level=90))
    yield "animated.avif", saved("RGB", "AVIF", save_all=True, append_images=[image().rotate(180)])
    for mode in ("1", "L", "P", "RGB", "RGBA"):
        yield f"mode {mode}.bmp", saved(mode, "BMP", dpi=(300, 300))
    for bits, header, down in itertools.product((24, 32), (40, 108, 124), (False, True)):
        yield f"{bits} bits, header {header}{' from the top' if down else ''}.bmp", bmp(bits, header, from_the_top=down)
    for mode in ("L", "P", "RGB"):
        yield f"mode {mode}.gif", saved(mode, "GIF", comment=b"from the attic")
    yield "transparent.gif", saved("P", "GIF", transparency=3)
    yield "animated.gif", saved("P", "GIF", save_all=True, append_images=[image("P").rotate(180)])
    yield "phone.heic", PHONE


def bmp(bits: int, header: int, *, from_the_top: bool) -> bytes:
    """A BMP of plain pixels with one of the three headers that programs write today."""
    pixels = drawn()[..., ::-1]
    if bits == 32:
        pixels = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
    rows = np.ascontiguousarray(pixels if from_the_top else pixels[::-1]).reshape(HEIGHT, -1)
    lines = np.pad(rows, ((0, 0), (0, -rows.shape[1] % 4))).tobytes()
    high = -HEIGHT if from_the_top else HEIGHT
    head = struct.pack("<LllHHLLllLL", header, WIDTH, high, 1, bits, 0, len(lines), 2835, 2835, 0, 0)
    if header > 40:
        head += struct.pack("<4L4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs") + bytes(header - 60)
    start = 14 + len(head)
    return struct.pack("<2sLHHL", b"BM", start + len(lines), 0, 0, start) + head + lines


MAKERS: dict[str, Callable[[], Made]] = {"TIFF": tiffs, "PNG": png_files, "JPEG": jpeg_files, "others": other_files}


def corpus() -> dict[str, bytes]:
    """Every file by name, in an order that stays."""
    found: dict[str, bytes] = {}
    for make in MAKERS.values():
        for name, data in make():
            assert name not in found, name
            found[name] = data
    return found


def main() -> None:
    """Write the corpus into a folder."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = corpus()
    for name, data in made.items():
        (folder / name).write_bytes(data)
    sys.stdout.write(f"{len(made)} files\n")


if __name__ == "__main__":
    main()
