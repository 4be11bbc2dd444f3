"""A rendered archive with two fifths damaged, read to its end: every file is what its truth says."""

from __future__ import annotations

from pathlib import Path

import pytest

from fpga_models.lab.synthetic.archive import write_archive
from fpga_models.lab.synthetic.archive.files import DAMAGES
from orchestrator.archive import Photo, Refused, open_source
from orchestrator.errors import InputError
from tests.unit.workers.photo.pictures import decoded


@pytest.mark.parametrize(("name", "count"), [("album", 24), ("album.zip", 40), ("album.tar.gz", 30)])
def test_every_file_of_a_damaged_archive_ends_as_its_truth_says(name: str, count: int, tmp_path: Path) -> None:
    truths = {truth.path: truth for truth in write_archive(tmp_path / name, count=count, seed=5, damaged=0.4)}
    found, sizes = {}, {}

    with open_source(str(tmp_path / name)) as source:
        for member in source.members():
            if isinstance(member, Photo):
                try:
                    pixels, _ = decoded(member.stream.read())
                    found[member.path], sizes[member.path] = "photo", pixels.shape[1::-1]
                except InputError as error:
                    found[member.path] = error.code
            else:
                found[member.path] = member.error.code if isinstance(member, Refused) else "skipped"

    assert found == {path: truth.expected for path, truth in truths.items()}
    assert sizes == {path: truth.size for path, truth in truths.items() if truth.expected == "photo"}
    if name == "album.zip":
        assert {truth.kind for truth in truths.values()} >= {damage.name for damage in DAMAGES}


def test_the_same_seed_gives_the_same_archive(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_archive(tmp_path / f"{name}.zip", count=6, seed=2)

    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_crowd_has_sixty_faces_and_one_photo_has_nobody(tmp_path: Path) -> None:
    truths = write_archive(tmp_path / "album", count=12, seed=3, damaged=0)

    assert [truth.kind for truth in truths].count("crowd") == 1
    assert truths[10].size == (1280, 768)
    assert (truths[6].kind, truths[6].people) == ("nobody", ())
    assert all(len(truth.people) == len(truth.boxes) for truth in truths)
