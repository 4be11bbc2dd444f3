"""ORL through the product: a scan finds, tells apart and groups forty people; an independent recogniser judges."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from benchmarks import bench_people
from orchestrator.contracts.photos import SeenFace
from orchestrator.ledger.faces import groups
from orchestrator.ledger.tables.rows_people import FoundFace, ScannedPhoto
from orchestrator.secrets.vault import Vault
from tests.integration.workers.rig import OWNER, QUEUES, Rig
from tests.integration.workers.test_people import Room
from tests.services import photographs

PICTURES = 4
SAME = 0.6
"""Faces nearer than this are one person's to dlib's recogniser, by its authors."""


def true_accepts(likeness: NDArray[np.floating], same: NDArray[np.bool_], false_rate: float) -> float:
    """Share of one person's pairs that are likelier than all but this share of strangers' pairs."""
    upper = np.triu_indices(len(likeness), 1)
    line = np.quantile(likeness[upper][~same[upper]], 1 - false_rate, method="higher")
    return float((likeness[upper][same[upper]] > line).mean())


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_forty_people_are_found_told_apart_and_grouped(tmp_path: Path) -> None:
    judge = photographs.judge()
    album, counted = tmp_path / "album", dict[int, int]()
    album.mkdir()
    pictures = {}
    for person, picture in photographs.orl(pictures=PICTURES):
        counted[person] = counted.get(person, 0) + 1
        name = f"{person:02d}-{counted[person]}.png"
        Image.fromarray(picture).save(album / name, compress_level=1)
        pictures[name] = picture
    with Rig(tmp_path / "state", lease_seconds=120, models_dir=photographs.models(), worker_queues=QUEUES) as rig:
        room = Room(rig)
        room.scan(album)
        vault, vectors, labels, owners, judged = Vault.of(rig.settings), [], [], [], []
        with rig.ledger.read() as session:
            below = groups.roots(session, OWNER)
            for photo in session.query(ScannedPhoto).order_by(ScannedPhoto.path):
                faces = session.query(FoundFace).filter_by(pixels_sha256=photo.pixels_sha256).all()
                assert faces, f"{photo.path}: no face was found"
                face = max(faces, key=lambda one: one.quality)
                vectors.append(np.frombuffer(vault.open(face.envelope, face.embedding), np.float32))
                labels.append(below.get(str(face.person_id), str(face.person_id or face.id)))
                owners.append(int(photo.path[:2]))
                judged.append(judge(pictures[photo.path], SeenFace.load(face.face).box))
    people, same = np.array(owners), np.equal.outer(owners, owners)
    likeness = np.stack(vectors) @ np.stack(vectors).T
    nearest = np.where(np.eye(len(people), dtype=bool), -2, likeness).argmax(1)
    distances = np.linalg.norm(np.stack(judged)[:, None] - np.stack(judged)[None], axis=2)
    together = np.equal.outer(labels, labels)
    upper = np.triu_indices(len(people), 1)
    whole = sum(len({labels[i] for i in np.flatnonzero(people == p)}) == 1 for p in set(owners))
    pure = [len({owners[i] for i, one in enumerate(labels) if one == label}) == 1 for label in set(labels)]
    figures = {
        "pictures": len(people),
        "rank_1": float((people[nearest] == people).mean()),
        "true_accepts_at_1e-3": round(true_accepts(likeness, same, 1e-3), 4),
        "true_accepts_at_1e-3_dlib": round(true_accepts(-distances, same, 1e-3), 4),
        "groups": len(pure),
        "pure": sum(pure),
        "whole_of_40": whole,
        "pairs_together_that_dlib_takes_for_one": round(float((distances[upper][together[upper]] < SAME).mean()), 4),
        "pairs_apart_that_dlib_takes_for_two": round(float((distances[upper][~together[upper]] >= SAME).mean()), 4),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    assert figures["pictures"] == 40 * PICTURES
    assert figures["rank_1"] == 1.0
    assert figures["true_accepts_at_1e-3"] >= 0.99
    assert all(pure), "nobody is taken for somebody else"
    assert whole >= 38
    assert figures["pairs_together_that_dlib_takes_for_one"] >= 0.97


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_killed_scan_loses_and_doubles_nothing(tmp_path: Path) -> None:
    figures = bench_people.run(tmp_path, count=24, kills=2)
    assert (figures.lost, figures.doubled, figures.killed) == (0, 0, 2)
    assert figures.failed == figures.damaged
    assert figures.pure >= 0.99
