"""ORL becomes a data set through the ordinary build: people found by their faces agree with who they are."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.datasets.index import index_rows
from orchestrator.ledger.datasets import resolve
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, QUEUES, Rig
from tests.services import photographs
from workers.runtime.process import Process

PEOPLE, PICTURES = 12, 3


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_people_by_their_faces_are_the_people_of_the_folders(tmp_path: Path) -> None:
    counted: dict[int, int] = {}
    for person, picture in photographs.orl(pictures=PICTURES, people=PEOPLE):
        counted[person] = counted.get(person, 0) + 1
        folder = tmp_path / "orl" / f"s{person:02d}"
        folder.mkdir(parents=True, exist_ok=True)
        large = Image.fromarray(picture).resize((picture.shape[1] * 2, picture.shape[0] * 2), Image.Resampling.BICUBIC)
        large.save(folder / f"{counted[person]}.png", compress_level=1)
    who: dict[str, dict[str, str]] = {}
    with Rig(tmp_path / "state", lease_seconds=120, models_dir=photographs.models(), worker_queues=QUEUES) as rig:
        process = Process(rig.settings)
        for people in ("folder", "faces"):
            wanted = BuildRequest(
                source=str(tmp_path / "orl"),
                name=f"orl-{people}",
                preset="faces",
                licence="unspecified",
                people=people,
                attestation="published for research",
                arrange={"same_person": 0.45, "near_duplicates": False, "split": 0.7},
            )
            begun = datasets.build(rig.ledger, rig.store, rig.settings, wanted, owner=OWNER)
            work(process, lambda: datasets.progress(rig.ledger, OWNER, begun.batch_id).ended)  # noqa: B023 within this turn
            built = datasets.progress(rig.ledger, OWNER, begun.batch_id)
            assert built.error is None, built.error
            with rig.ledger.read() as session:
                index = datasets.read_index(session, rig.store, resolve(session, OWNER, f"orl-{people}@1"))
            rows = list(index_rows(index, ("key", "person", "split", "left_out")))
            assert {row[2] for row in rows} >= {"train", "val"}
            who[people] = {str(key): str(person) for key, person, _, left_out in rows if left_out is None}
    labels, found = (list(who[people].items()) for people in ("folder", "faces"))
    assert len(labels) == PEOPLE * PICTURES, "every picture is in the set, with its landmarks, quality and split"
    keys = [key for key, _ in found]
    same = np.equal.outer([who["folder"][key] for key in keys], [who["folder"][key] for key in keys])
    together = np.equal.outer([one for _, one in found], [one for _, one in found])
    upper = np.triu_indices(len(keys), 1)
    figures = {
        "pictures": len(labels),
        "in the set by faces": len(found),
        "pairs that agree": round(float((same == together)[upper].mean()), 5),
        "of pairs put together, of one person": round(float(same[upper][together[upper]].mean()), 4),
        "of one person's pairs, put together": round(float(together[upper][same[upper]].mean()), 4),
    }
    sys.stdout.write(json.dumps(figures) + "\n")
    assert figures["pairs that agree"] >= 0.99
    assert figures["of pairs put together, of one person"] >= 0.98
    assert len(found) >= 0.9 * len(labels)
