from pathlib import Path

import numpy as np
import pytest

from fpga_models.faces import FacePack, align
from fpga_models.lab.measures.held_out import draw_people, draw_trials, reference
from fpga_models.metrics.errors import EvaluatorError
from fpga_models.metrics.evaluator import EvaluationEncoder
from fpga_models.metrics.placed_faces import place_faces, position


def test_people_depend_on_the_seed_alone_and_were_never_trained_on() -> None:
    people = draw_people(5, 40)

    assert people == draw_people(5, 40) != draw_people(6, 40)
    assert len(set(people)) == 40
    assert min(people) >= 100_000


def test_trials_use_everybody_in_turn_and_nobody_twice_in_a_scene(pack: FacePack) -> None:
    people = [reference(pack, identity, 0) for identity in draw_people(0, 5)]

    trials = draw_trials(people, "group_3", 10, seed=0, size=128)

    shown = [[person.identity for person in trial.references] for trial in trials]
    assert all(len(set(scene)) == 3 for scene in shown)
    assert {identity for scene in shown for identity in scene} == {person.identity for person in people}
    assert all([p.identity for p in trial.real.people] == scene for trial, scene in zip(trials, shown, strict=True))


def test_real_faces_stand_at_their_places_and_look_like_their_references(
    pack: FacePack, judge: EvaluationEncoder
) -> None:
    people = [reference(pack, identity, 1) for identity in draw_people(1, 8)]
    trials = draw_trials(people, "group_2", 6, seed=1, size=128)

    found = [place_faces(trial.real.image, trial.kps5, pack, judge) for trial in trials]

    met = position(found)
    assert met.hit_rate == 1.0
    assert met.landmark_error < 0.1
    for trial, faces in zip(trials, found, strict=True):
        wanted = judge.embed_crops([align(r.picture, r.face.kps5) for r in trial.references])
        cosines = faces.judged @ wanted.T
        assert (cosines.argmax(1) == np.arange(2)).all()
        assert ((faces.product @ np.stack([r.face.embedding for r in trial.references]).T).argmax(1) == [0, 1]).all()


def test_an_empty_picture_leaves_every_place_without_a_face(pack: FacePack, judge: EvaluationEncoder) -> None:
    people = [reference(pack, identity, 1) for identity in draw_people(1, 2)]
    (trial,) = draw_trials(people, "group_2", 1, seed=1, size=128)

    found = place_faces(np.zeros((128, 128, 3), np.uint8), trial.kps5, pack, judge)

    assert not found.present.any()
    assert not found.judged.any()
    assert position([found]).hit_rate == 0.0


def test_a_missing_judge_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluatorError, match="No evaluation encoder"):
        EvaluationEncoder.load(tmp_path)
