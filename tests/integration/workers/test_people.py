"""Scans of archives through the real stages: who is who, remembered, reported, exported and erased."""

from __future__ import annotations

import csv
import hashlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as credited_to_nasa

from orchestrator.errors import ConflictError, NotFoundError
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.privacy import sealed
from orchestrator.ledger.tables.rows import Artifact
from orchestrator.ledger.tables.rows_people import FoundFace, FoundPerson
from orchestrator.people import found, identities, scan, sidecars
from orchestrator.people.identities import ConsentGiven
from orchestrator.photos import feeding
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, QUEUES, Rig
from tests.services import photographs
from workers.runtime.process import Process


class Room:
    """One deployment with mini and faces, and one worker inside the test's process."""

    def __init__(self, rig: Rig) -> None:
        self.rig, self.process = rig, Process(rig.settings)

    def scan(self, source: Path, *, force: bool = False) -> tuple[str, int, int]:
        """Scan to the end; return the batch, and how many people are new and how many faces joined older ones."""
        rig = self.rig
        batch_id = scan.submit(
            rig.ledger, rig.settings, source=str(source), owner=OWNER, fed=False, force=force
        ).batch_id
        feeding.feed(rig.ledger, rig.store, rig.settings, OWNER, batch_id, lambda _: None)
        work(self.process, lambda: rig.state(batch_id) in BATCH_ENDED)
        return (batch_id, *self.group(scan.follow(rig.ledger, batch_id)))

    def group(self, group_id: str | None) -> tuple[int, int]:
        assert group_id is not None
        work(self.process, lambda: self.rig.state(group_id) in BATCH_ENDED)
        done = scan.grouped(self.rig.ledger, OWNER, group_id)
        assert done is not None
        return done.people, done.joined

    def who(self) -> dict[str, str | None]:
        """Who is in each photo that shows one face."""
        people = found.people(self.rig.ledger, OWNER)
        shown: dict[str, str | None] = {}
        for one in people:
            for face in found.show(self.rig.ledger, OWNER, one["id"], limit=1000)["shown"]:
                shown |= dict.fromkeys(face["photos"], one["name"] or str(one["number"]))
        return shown

    def faces(self, path: str) -> list[str]:
        """Ids of the faces of one photo."""
        everybody = [found.show(self.rig.ledger, OWNER, one["id"], limit=1000)["shown"] for one in self.people()]
        nobody = found.unsorted(self.rig.ledger, OWNER, limit=1000)
        return [face["id"] for faces in (*everybody, nobody) for face in faces if path in face["photos"]]

    def people(self) -> list[dict[str, Any]]:
        return found.people(self.rig.ledger, OWNER)


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    models = photographs.models()
    with Rig(tmp_path / "state", lease_seconds=60, models_dir=models, worker_queues=QUEUES) as rig:
        yield Room(rig)


@pytest.fixture
def album(tmp_path: Path) -> Path:
    """Three people of ORL in four photos each, a photo twice, a NASA portrait, a broken file and a text."""
    folder = tmp_path / "album"
    (folder / "older").mkdir(parents=True)
    counted: dict[int, int] = {}
    for person, picture in photographs.orl(pictures=4, people=3):
        counted[person] = counted.get(person, 0) + 1
        Image.fromarray(picture).save(folder / f"p{person}_{counted[person]}.png")
    shutil.copy(folder / "p1_1.png", folder / "older" / "copy.png")
    Image.fromarray(credited_to_nasa.astronaut()).save(folder / "collins.jpg", quality=92)
    (folder / "broken.jpg").write_bytes((folder / "collins.jpg").read_bytes()[:600])
    (folder / "notes.txt").write_text("who is who")
    return folder


def bytes_of(folder: Path) -> dict[str, str]:
    return {str(p): hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_an_archive_is_understood_remembered_and_never_changed(room: Room, album: Path, tmp_path: Path) -> None:
    rig, before = room.rig, bytes_of(album)
    batch_id, people, joined = room.scan(album)
    assert (people, joined) == (3, 0)
    assert rig.state(batch_id) == "completed_with_errors"
    [bad] = [item for item in rig.items(batch_id) if item.state == "failed"]
    assert bad.custom_id == "broken.jpg"
    who = room.who()
    groups = {path.split("_")[0]: name for path, name in who.items() if path != "older/copy.png"}
    assert len(groups) == len(set(groups.values())) == 3
    assert who["older/copy.png"] == who["p1_1.png"]
    assert all(who[f"{person}_{n}.png"] == name for person, name in groups.items() for n in range(1, 5))
    said = found.report(rig.ledger, rig.settings, OWNER, str(album))
    assert (said["photos"], said["pictures"], said["faces"], said["unsorted"]) == (14, 13, 13, 1)
    assert {(twin["photo"], twin["how"]) for twin in said["twins"]} >= {("p1_1.png", "bytes")}
    assert len(said["without_consent"]) == 3

    # nothing was copied for good: the sweeper takes what the scan had read
    with rig.ledger.read() as session:
        copies = session.query(Artifact).filter(Artifact.media_type.like("image/%")).all()
    kept = [row for row in copies if row.state == "live" and row.expires_at is None]
    assert [row.sha256 for row in kept] == [bad.params_sha256]

    # what a person says holds, and a second scan looks only at what is new
    first = str(who["p1_1.png"])
    found.name(rig.ledger, OWNER, first, "Anna Müller")
    [stray] = room.faces("p2_1.png")
    assert found.refuse(rig.ledger, OWNER, [stray]) == 1
    for person, picture in photographs.orl(pictures=5, people=3):
        if person != 2:
            Image.fromarray(picture).save(album / f"p{person}_5.png")  # the last of each remains
    again, people, joined = room.scan(album)
    assert {item.custom_id for item in rig.items(again)} == {"broken.jpg", "p1_5.png", "p3_5.png"}
    assert (people, joined) == (0, 2)
    who = room.who()
    assert who["p1_5.png"] == "Anna Müller"
    assert who["p3_5.png"] == who["p3_1.png"]
    assert "p2_1.png" not in who, "the face that was refused goes to nobody, since it resembles that person alone"
    assert bytes_of(album) == {**before, **{k: v for k, v in bytes_of(album).items() if "_5" in k}}

    # merged and given, and taken apart again
    others = [str(name) for name in {who["p2_2.png"], who["p3_1.png"]}]
    one = found.merge(rig.ledger, OWNER, others[0], [others[1]])
    assert one["photos"] == 8
    found.give(rig.ledger, OWNER, others[0], [stray])
    assert room.who()["p2_1.png"] == others[0]
    apart = found.split(rig.ledger, OWNER, room.faces("p3_1.png") + room.faces("p3_2.png"))
    assert apart["photos"] == 2
    with pytest.raises(NotFoundError):
        found.show(rig.ledger, OWNER, "nobody")
    with pytest.raises(NotFoundError):
        found.show(rig.ledger, "somebody-else", first)

    # side files are read by a program that is not ours
    done = sidecars.export(rig.ledger, OWNER, tmp_path / "out", archive=str(album))
    assert (done.photos, done.side_files) == (16, 6)
    rows = list(csv.DictReader((tmp_path / "out" / "people.csv").open(encoding="utf-8")))
    assert {row["path"] for row in rows if row["name"] == "Anna Müller"} == {
        *(f"p1_{n}.png" for n in range(1, 6)),
        "older/copy.png",
    }
    assert bytes_of(album) == {**before, **{k: v for k, v in bytes_of(album).items() if "_5" in k}}
    read = exif(tmp_path / "out" / "p1_1.png.xmp")
    width, height = Image.open(album / "p1_1.png").size
    assert (read["RegionAppliedToDimensionsW"], read["RegionAppliedToDimensionsH"]) == (width, height)
    assert (read["RegionName"], read["RegionType"], read["PersonInImage"]) == ("Anna Müller", "Face", "Anna Müller")
    assert read["TagsList"] == "People/Anna Müller"
    assert 0.3 < read["RegionAreaX"] < 0.7
    with pytest.raises(Exception, match="is there already"):
        sidecars.export(rig.ledger, OWNER, tmp_path / "out")


def exif(path: Path) -> dict[str, Any]:
    if shutil.which("exiftool") is None:
        pytest.skip("exiftool is not installed")
    ended = subprocess.run(["exiftool", "-j", "-n", str(path)], check=True, capture_output=True, text=True)
    [read] = json.loads(ended.stdout)
    found_: dict[str, Any] = read
    return {k: v[0] if isinstance(v, list) and len(v) == 1 else v for k, v in found_.items()}


def test_consent_takes_a_person_into_the_library_and_an_erase_out_of_everything(room: Room, album: Path) -> None:
    rig = room.rig
    room.scan(album)
    first = str(room.who()["p1_1.png"])
    found.name(rig.ledger, OWNER, first, "Anna Müller")
    given = ConsentGiven(scopes=("restore",), granted_by="a letter")
    batch_id = found.consent(rig.ledger, rig.store, rig.settings, OWNER, first, given)
    assert batch_id is not None
    work(room.process, lambda: rig.state(batch_id) in BATCH_ENDED)
    [one] = identities.outcomes(rig.ledger, OWNER, batch_id)
    assert (one.handle, one.error) == ("anna-muller", None)
    shown = found.show(rig.ledger, OWNER, "anna-muller")
    assert (shown["scopes"], shown["identity_id"]) == (["restore"], one.identity_id)
    with pytest.raises(ConflictError, match="in the library"):
        found.forget(rig.ledger, OWNER, first)
    assert (
        found.consent(rig.ledger, rig.store, rig.settings, OWNER, first, ConsentGiven(scopes=("swap",), granted_by="x"))
        is None
    )
    assert found.show(rig.ledger, OWNER, first)["scopes"] == ["restore", "swap"]
    could = found.report(rig.ledger, rig.settings, OWNER)["restorable"]
    assert (could["faces"], could["photos"]) == (4, 5)
    assert [(one["name"], one["here"]) for one in could["presets"]] == [("sd15", False), ("sdxl", False)]

    receipt = identities.erase(rig.ledger, rig.store, rig.settings, OWNER, "anna-muller")
    assert receipt["verified"]["rows_that_name"] == 0
    with rig.ledger.read() as session:
        faces = session.query(FoundFace).all()
        assert {row.name for row in session.query(FoundPerson)} == {None}
        assert "found_face" in {kind for kind, _, _ in sealed.every(session)}
    assert len(faces) == 9, "eight of the two others, and one that is nobody's"
    room.scan(album)
    assert "p1_1.png" not in room.who(), "an erased person's photos are not looked at again"

    second = str(room.who()["p2_1.png"])
    assert found.forget(rig.ledger, OWNER, second) == 4
    assert found.forget_archive(rig.ledger, OWNER, str(album)) == 14
    with rig.ledger.read() as session:
        assert session.query(FoundFace).count() == session.query(FoundPerson).count() == 0


def test_a_scan_that_was_not_ended_goes_on(room: Room, album: Path) -> None:
    rig = room.rig
    first = scan.submit(rig.ledger, rig.settings, source=str(album), owner=OWNER, fed=False)
    second = scan.submit(rig.ledger, rig.settings, source=str(album), owner=OWNER, fed=False)
    assert (second.batch_id, second.repeated) == (first.batch_id, True)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_regions_are_those_of_the_stored_picture(orientation: int) -> None:
    from orchestrator.contracts.photos import SeenFace
    from workers.photo.native import upright

    stored = np.zeros((60, 100, 1), np.uint8)
    stored[10:20, 70:90] = 255
    shown = upright(stored, orientation)[..., 0]
    rows, columns = np.nonzero(shown)
    left, top, right, bottom = (float(v) for v in (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
    seen = SeenFace(box=(left, top, right, bottom), kps5=(), score=1)
    x, y, w, h = sidecars.area(seen, shown.shape[1], shown.shape[0], orientation)
    assert np.allclose([x, y, w, h], [0.8, 0.25, 0.2, 10 / 60])
