from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from fpga_models.diir import RESTORE, STYLIZED, SWAP, DiirResult, FaceReport
from fpga_models.faces import FacePack, align
from fpga_models.lab.evaluations import control, restore, stylized, swap
from fpga_models.lab.measures.held_out import reference
from fpga_models.lab.measures.restorations import SMALL_KINDS, mixed_trials, references_of, ungated
from fpga_models.lab.measures.styles import poster
from fpga_models.lab.measures.trials import Gallery, Image, Instruments, Outcome, observe, observe_real
from fpga_models.lab.synthetic.dataset import TEST_IDENTITIES
from fpga_models.metrics.evaluator import EvaluationEncoder

BLUR = 5


def blurred(picture: Image) -> Image:
    return np.stack([np.roll(picture, shift, axis=1) for shift in range(-BLUR, BLUR + 1)]).mean(0).astype(np.uint8)


@pytest.fixture(scope="module")
def restored(pack: FacePack, judge: EvaluationEncoder) -> restore.Found:
    """Four scenes, damaged by averaging over blocks, 'restored' to the real render inside the faces' masks."""
    instruments = Instruments(pack=pack, judge=judge)
    people = [reference(pack, TEST_IDENTITIES[index], 0) for index in range(6)]
    gallery = Gallery(people=people, judged=judge.embed_crops([align(p.picture, p.face.kps5) for p in people]))
    trials = mixed_trials(gallery, SMALL_KINDS, 4, 5, 128)
    real = [trial.real.image for trial in trials]
    damaged, results = [], []
    for trial, picture in zip(trials, real, strict=True):
        mask = np.max([person.mask for person in trial.real.people], axis=0).astype(np.float32) / 255
        damaged.append(np.where(mask[..., None] > 0, blurred(picture), picture))
        faces = tuple(FaceReport(box=p.box, reference=i, outcome="changed") for i, p in enumerate(trial.real.people))
        results.append(DiirResult(image=picture, faces=faces, mask=mask))
    return restore.Found(
        gallery=gallery,
        real=observe_real(instruments, trials),
        damaged=observe(instruments, trials, damaged),
        repaired=observe(instruments, trials, real),
        results=results,
    )


def test_bringing_the_real_faces_back_wins_everything_back_and_changes_no_background(restored: restore.Found) -> None:
    found = restore.report(restored, source="vae", settings=RESTORE)

    assert found.floor < found.before < found.after == found.ceiling
    assert found.won_back.all.share == pytest.approx(1)
    assert found.won_back.all.count == 1 + 2 + 3 + 4
    assert sum(part.count for part in found.won_back.by_bin.values()) == 10
    assert found.background.changed_pixels == 0
    assert found.landmark_error < 0.15
    assert found.outcomes == {"changed": 10}
    assert found.won_back.bins_improved == 1.0
    written = json.loads(json.dumps(asdict(found), allow_nan=False))
    assert {"won_back", "before", "after", "ceiling", "background"} <= written.keys()
    assert written["won_back"].keys() >= {"all", "small", "by_bin"}
    assert "won back 1.00" in restore.render_table(found)


def test_the_sheet_shows_every_scene(restored: restore.Found) -> None:
    assert restore.picture_sheet(restored).shape[0] > 4 * 160


def test_people_who_take_each_others_places_are_swapped(restored: restore.Found) -> None:
    group = 1  # two people
    trial, gallery = restored.real.trials[group], restored.gallery
    faces = restored.real.faces[group]
    exchanged = replace(
        faces, judged=faces.judged[::-1], product=faces.product[::-1], kps5=faces.kps5[::-1], errors=faces.errors[::-1]
    )
    pictures = [restored.real.pictures[group]]
    old = np.array(gallery.rows(trial))

    def found(after: Outcome, new: np.ndarray) -> swap.SwapReport:
        real = Outcome(trials=[trial], pictures=pictures, faces=[faces])
        results = [restored.results[group]]
        return swap.report(swap.Found(gallery=gallery, real=real, swapped=after, results=results, new=new), SWAP)

    done = found(Outcome(trials=[trial], pictures=pictures, faces=[exchanged]), old[::-1])
    undone = found(Outcome(trials=[trial], pictures=pictures, faces=[faces]), old[::-1])

    assert (done.top1.swapped, done.top1.real, done.top1.share) == (1.0, 1.0, 1.0)
    assert done.likeness.after == pytest.approx(done.likeness.ceiling)
    assert undone.top1.swapped == 0.0
    assert undone.likeness.old_after == pytest.approx(done.likeness.ceiling)
    assert "new person first 1.000" in swap.render_table(done)
    assert json.loads(json.dumps(asdict(done), allow_nan=False))["top1"].keys() >= {"swapped", "real", "share"}


def test_nobody_is_swapped_for_somebody_of_the_same_picture(restored: restore.Found) -> None:
    for trial in restored.real.trials[:2]:
        assert not set(swap.new_people(restored.gallery, trial)) & set(restored.gallery.rows(trial))


def test_the_plain_face_in_a_drawn_picture_improves_and_loses_the_style(
    restored: restore.Found, pack: FacePack, judge: EvaluationEncoder
) -> None:
    trials = restored.real.trials
    drawn = [poster(trial.real.image) for trial in trials]
    instruments = Instruments(pack=pack, judge=judge)
    part = stylized.Found(
        gallery=restored.gallery,
        drawn=observe(instruments, trials, drawn),
        damaged=observe(instruments, trials, [blurred(picture) for picture in drawn]),
        repaired=restored.real,
        results=restored.results,
    )

    found = stylized.report({"poster": part}, STYLIZED).styles["poster"]

    assert found.after > found.ceiling > found.before
    assert found.improves
    assert found.style_kept == 0.0
    assert found.style_before > 0.5
    assert found.colour_drift > 5
    assert "poster" in stylized.render_table(stylized.report({"poster": part}, STYLIZED))


def test_real_renders_obey_and_equal_pictures_are_equal(restored: restore.Found) -> None:
    real, damaged = restored.real, restored.damaged
    forms = {"branch": damaged, "0": damaged, "1": damaged}

    found = control.report(
        control.Found(gallery=restored.gallery, real=real, modes={"landmark": real, "none": damaged}, forms=forms)
    )

    assert found.modes["landmark"] == found.real
    assert found.real.hit_rate == 1.0
    assert found.modes["none"].own < found.real.own
    assert found.branch == found.merged
    assert found.equality == control.Equality(max_difference=0, mean_difference=0.0)
    assert "branch against merged: at most 0 of 255" in control.render_table(found)


def test_without_modal_weights_there_are_no_forms(restored: restore.Found) -> None:
    found = control.report(
        control.Found(gallery=restored.gallery, real=restored.real, modes={"landmark": restored.real}, forms={})
    )
    assert (found.branch, found.merged, found.strength, found.equality) == (None, None, None, None)


def test_without_the_gate_every_edit_is_kept_once() -> None:
    assert ungated(RESTORE).attempts() == [RESTORE.t_star]
    assert ungated(RESTORE).gamma == RESTORE.gamma


def test_references_stand_where_the_trial_asks(restored: restore.Found) -> None:
    trial = restored.real.trials[-1]
    assert [r.kps5.tolist() for r in references_of(trial) if r.kps5 is not None] == trial.kps5.tolist()
