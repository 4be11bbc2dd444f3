from __future__ import annotations

import json
from dataclasses import asdict

import numpy as np
import pytest

from fpga_models.diir import RESTORE, DiirResult
from fpga_models.faces import FacePack, align
from fpga_models.metrics.evaluate_restore import (
    Restored,
    changed_settings,
    picture_sheet,
    references_of,
    render_table,
    report,
    small_face_trials,
)
from fpga_models.metrics.evaluator import EvaluationEncoder
from fpga_models.metrics.held_out import reference
from fpga_models.metrics.trials import Gallery, Instruments, observe, observe_real
from fpga_models.synthetic.dataset import TEST_IDENTITIES

BLUR = 5


@pytest.fixture(scope="module")
def restored(pack: FacePack, judge: EvaluationEncoder) -> Restored:
    """Four scenes, damaged by averaging over blocks, 'restored' to the real render inside the faces' masks."""
    instruments = Instruments(pack=pack, judge=judge)
    people = [reference(pack, TEST_IDENTITIES[index], 0) for index in range(6)]
    gallery = Gallery(people=people, judged=judge.embed_crops([align(p.picture, p.face.kps5) for p in people]))
    trials = small_face_trials(gallery, 4, 5, 128)
    real = [trial.real.image for trial in trials]
    damaged, results = [], []
    for trial, picture in zip(trials, real, strict=True):
        blurred = np.stack([np.roll(picture, s, axis=1) for s in range(-BLUR, BLUR + 1)]).mean(0).astype(np.uint8)
        mask = np.max([person.mask for person in trial.real.people], axis=0).astype(np.float32) / 255
        damaged.append(np.where(mask[..., None] > 0, blurred, picture))
        results.append(DiirResult(image=picture, faces=(), mask=mask))
    return Restored(
        gallery=gallery,
        real=observe_real(instruments, trials),
        damaged=observe(instruments, trials, damaged),
        repaired=observe(instruments, trials, real),
        results=results,
    )


def test_bringing_the_real_faces_back_wins_everything_back_and_changes_no_background(restored: Restored) -> None:
    found = report(
        restored, source="vae", settings=RESTORE, seed=5, count=4, preset="mini", model_sha256="0", seconds=1.0
    )

    assert found.before < found.after == found.ceiling
    assert found.won_back.all.share == pytest.approx(1)
    assert found.won_back.all.count == 1 + 2 + 3 + 4
    assert sum(part.count for part in found.won_back.by_bin.values()) == 10
    assert found.background.changed_pixels == 0
    assert found.landmark_error < 0.15
    written = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert {"won_back", "before", "after", "ceiling", "background", "seed", "count", "preset"} <= written.keys()
    assert written["won_back"].keys() == {"all", "small", "by_bin"}
    assert "won back 1.00" in render_table(found)


def test_the_sheet_shows_every_scene(restored: Restored) -> None:
    assert picture_sheet(restored).shape[0] > 4 * 160


def test_references_stand_where_the_trial_asks(restored: Restored) -> None:
    trial = restored.real.trials[-1]
    assert [r.kps5.tolist() for r in references_of(trial) if r.kps5 is not None] == trial.kps5.tolist()


def test_knobs_are_changed_by_name() -> None:
    changed = changed_settings(["lock=false", "t_star=0.4"])
    assert (changed.lock, changed.t_star, changed.steps) == (False, 0.4, RESTORE.steps)
    with pytest.raises(ValueError, match="nonsense is no knob"):
        changed_settings(["nonsense=1"])
