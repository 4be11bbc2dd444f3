"""Who is in which photo, as other programs read it: XMP side files with MWG regions, and one CSV.

Side files name faces as the Metadata Working Group has it (regions of the stored picture, before it is turned upright),
people as `Iptc4xmpExt:PersonInImage`, and tags as digiKam (`digiKam:TagsList`) and Lightroom (`lr:hierarchicalSubject`)
write them. Nothing is written into a photo, and no file that is there is touched.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal
from xml.etree import ElementTree as Xml

from orchestrator.contracts.photos import SeenFace
from orchestrator.errors import UsageError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.faces import reports
from orchestrator.ledger.faces.reports import FaceSeen, PhotoSeen
from orchestrator.photos.restore import absolute

Naming = Literal["full", "base"]
"""`full`: photo.jpg.xmp, as digiKam, darktable and PhotoPrism look for it; `base`: photo.xmp, as Lightroom does."""
PEOPLE_CSV = "people.csv"
COLUMNS = (
    "archive", "path", "face", "person", "name", "handle", "left", "top", "width", "height", "score",
    "small", "blurred", "dark", "turned", "decided",
)  # fmt: skip
SPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "mwg-rs": "http://www.metadataworkinggroup.com/schemas/regions/",
    "stDim": "http://ns.adobe.com/xap/1.0/sType/Dimensions#",
    "stArea": "http://ns.adobe.com/xmp/sType/Area#",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "digiKam": "http://www.digikam.org/ns/1.0/",
    "lr": "http://ns.adobe.com/lightroom/1.0/",
    "dc": "http://purl.org/dc/elements/1.1/",
    "tiff": "http://ns.adobe.com/tiff/1.0/",
}
for _prefix, _space in SPACES.items():
    Xml.register_namespace(_prefix, _space)


@dataclass(kw_only=True)
class Exported:
    """What an export wrote, and what it left as it was because a file was there."""

    photos: int = 0
    side_files: int = 0
    faces: int = 0
    named: int = 0
    there: list[str] = field(default_factory=list)


def export(
    ledger: Ledger,
    owner: str,
    folder: Path,
    *,
    archive: str | None = None,
    naming: Naming = "full",
    numbers: bool = False,
) -> Exported:
    """Write `people.csv` and a side file for each photo that shows somebody with a name.

    Args:
        numbers: also write people without a name, as "Person 3".

    Raises:
        UsageError: the folder cannot be written, or holds an export already.
    """
    done = Exported()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        table = (folder / PEOPLE_CSV).open("x", newline="", encoding="utf-8")
    except FileExistsError as error:
        raise UsageError(f"{folder / PEOPLE_CSV} is there already; name another folder", code="file_exists") from error
    except OSError as error:
        raise UsageError(f"{folder} cannot be written: {error.strerror}", code="file_unwritable") from error
    root = folder.resolve()
    with table, ledger.read() as session:
        writer = csv.writer(table)
        writer.writerow(COLUMNS)
        for photo in reports.photos(session, owner, absolute(archive) if archive else None):
            done.photos += 1
            writer.writerows(_rows(photo))
            done.faces += len(photo.faces)
            text = side_file(photo, numbers=numbers)
            if text is None:
                continue
            done.named += 1
            path = root / side_name(photo.path, naming)
            if not path.resolve().is_relative_to(root):
                raise UsageError(f"{path} leads out of {folder}", code="file_unwritable")
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                with path.open("xb") as out:
                    out.write(text)
                done.side_files += 1
            except FileExistsError:
                done.there.append(str(path.relative_to(root)))
    return done


def side_name(path: str, naming: Naming) -> str:
    """Return the path of a photo's side file."""
    return f"{path}.xmp" if naming == "full" else str(PurePosixPath(path).with_suffix(".xmp"))


def called(face: FaceSeen, *, numbers: bool) -> str | None:
    """Return the name that a face is exported with, None for nobody's."""
    return face.name or face.handle or (f"Person {face.number}" if numbers and face.number else None)


def side_file(photo: PhotoSeen, *, numbers: bool = False) -> bytes | None:
    """Return the XMP of a photo, None where nobody with a name is in it."""
    named = [(face, who) for face in photo.faces if (who := called(face, numbers=numbers))]
    if not named:
        return None
    turned = photo.orientation >= 5
    width, height = (photo.height, photo.width) if turned else (photo.width, photo.height)
    meta = Xml.Element(_q("x:xmpmeta"))
    about = Xml.SubElement(Xml.SubElement(meta, _q("rdf:RDF")), _q("rdf:Description"), {_q("rdf:about"): ""})
    about.set(_q("tiff:Orientation"), str(photo.orientation))
    regions = Xml.SubElement(about, _q("mwg-rs:Regions"), {_q("rdf:parseType"): "Resource"})
    size = {_q("stDim:w"): str(width), _q("stDim:h"): str(height), _q("stDim:unit"): "pixel"}
    Xml.SubElement(regions, _q("mwg-rs:AppliedToDimensions"), size)
    bag = Xml.SubElement(Xml.SubElement(regions, _q("mwg-rs:RegionList")), _q("rdf:Bag"))
    for face, who in named:
        region = Xml.SubElement(
            Xml.SubElement(bag, _q("rdf:li")),
            _q("rdf:Description"),
            {_q("mwg-rs:Name"): who, _q("mwg-rs:Type"): "Face"},
        )
        x, y, w, h = area(face.seen, photo.width, photo.height, photo.orientation)
        place = {"x": x, "y": y, "w": w, "h": h}
        attributes = {_q(f"stArea:{name}"): f"{value:.6f}" for name, value in place.items()}
        Xml.SubElement(region, _q("mwg-rs:Area"), {**attributes, _q("stArea:unit"): "normalized"})
    people = list(dict.fromkeys(who for _, who in named))
    _list(about, "Iptc4xmpExt:PersonInImage", "rdf:Bag", people)
    _list(about, "digiKam:TagsList", "rdf:Seq", [f"People/{who.replace('/', '-')}" for who in people])
    _list(about, "lr:hierarchicalSubject", "rdf:Bag", [f"People|{who.replace('|', '-')}" for who in people])
    _list(about, "dc:subject", "rdf:Bag", people)
    body = Xml.tostring(meta, encoding="unicode")
    start = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    return f'{start}\n{body}\n<?xpacket end="w"?>\n'.encode()


def area(seen: SeenFace, width: int, height: int, orientation: int) -> tuple[float, float, float, float]:
    """Return a face as MWG has it: middle, width and height as shares of the stored picture.

    Args:
        width, height: of the upright picture, px.
        orientation: 1 to 8, as EXIF counts.
    """
    left, right = (min(max(value, 0.0), width) / width for value in (seen.box[0], seen.box[2]))
    top, bottom = (min(max(value, 0.0), height) / height for value in (seen.box[1], seen.box[3]))
    u, v, w, h = (left + right) / 2, (top + bottom) / 2, right - left, bottom - top
    x, y = {
        2: (1 - u, v), 3: (1 - u, 1 - v), 4: (u, 1 - v), 5: (v, u), 6: (v, 1 - u), 7: (1 - v, 1 - u), 8: (1 - v, u),
    }.get(orientation, (u, v))  # fmt: skip
    return (x, y, h, w) if orientation >= 5 else (x, y, w, h)


def _list(about: Xml.Element, name: str, kind: str, values: list[str]) -> None:
    container = Xml.SubElement(Xml.SubElement(about, _q(name)), _q(kind))
    for value in values:
        Xml.SubElement(container, _q("rdf:li")).text = value


def _q(name: str) -> str:
    prefix, _, local = name.partition(":")
    return f"{{{SPACES[prefix]}}}{local}"


def _rows(photo: PhotoSeen) -> Iterator[list[object]]:
    for number, face in enumerate(photo.faces):
        seen = face.seen
        left, top, right, bottom = seen.box
        yield [
            photo.archive,
            photo.path,
            number,
            face.number,
            face.name,
            face.handle,
            round(left, 1),
            round(top, 1),
            round(right - left, 1),
            round(bottom - top, 1),
            seen.score,
            *(int(flag) for flag in (seen.small, seen.blurred, seen.dark, seen.turned, face.decided)),
        ]
