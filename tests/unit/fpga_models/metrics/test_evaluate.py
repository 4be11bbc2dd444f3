import json

import numpy as np
import pytest

from fpga_models.faces import FacePack
from fpga_models.metrics.calibrate import product_similarities
from fpga_models.metrics.evaluate import Evaluation, picture_sheet, render_json, render_table, report
from fpga_models.metrics.evaluator import EvaluationEncoder
from fpga_models.metrics.held_out import draw_trials
from fpga_models.metrics.trials import GROUP_KINDS, Instruments, draw_gallery, observe, observe_real, single_trials


@pytest.fixture(scope="module")
def found(pack: FacePack, judge: EvaluationEncoder) -> Evaluation:
    """Real renders in place of generated pictures; "without masks" shows each scene mirrored, people swapped."""
    instruments = Instruments(pack=pack, judge=judge)
    gallery = draw_gallery(instruments, 3, 12, lambda _: None)
    singles = observe_real(instruments, single_trials(gallery, 6, 3, 128))
    groups = {}
    for kind in GROUP_KINDS:
        trials = draw_trials(gallery.people, kind, 3, 3, 128)
        mirrored = [np.ascontiguousarray(trial.real.image[:, ::-1]) for trial in trials]
        groups[kind[-1]] = (observe_real(instruments, trials), observe(instruments, trials, mirrored))
    return Evaluation(gallery=gallery, singles=singles, singles_real=singles, groups=groups)


def test_real_pictures_reach_the_ceiling_and_swapped_people_are_wrong(found: Evaluation) -> None:
    figures = report(found, seed=3, count=6, preset="mini", model_sha256="0", seconds=1.0)

    assert figures.face_sim.share == pytest.approx(1.0)
    assert figures.face_sim.ceiling > 0.7 > 0.3 > figures.face_sim.floor
    assert figures.detection_rate == figures.position.hit_rate == 1.0
    assert figures.top1.generated == figures.top1.real > 0.8
    assert figures.assignment["2"].masked.accuracy == 1.0
    assert figures.assignment["2"].unmasked.accuracy == 0.0
    assert figures.assignment["4"].masked.accuracy > 0.9 > figures.assignment["4"].unmasked.accuracy


def test_the_report_has_the_published_keys(found: Evaluation) -> None:
    figures = report(found, seed=3, count=6, preset="mini", model_sha256="0", seconds=1.0)

    keys = json.loads(render_json(figures))

    assert set(keys) == {
        *("face_sim", "detection_rate", "top1", "assignment", "position"),
        *("seed", "count", "preset", "model_sha256", "seconds"),
    }
    assert set(keys["face_sim"]) == {"mean", "floor", "ceiling", "share", "ci95"}
    assert set(keys["top1"]) == {"generated", "real", "share"}
    assert set(keys["assignment"]) == {"2", "3", "4"}
    assert set(keys["assignment"]["2"]) == {"masked", "unmasked"}
    assert set(keys["assignment"]["2"]["masked"]) == {"accuracy", "own", "other", "ci95"}
    assert set(keys["position"]) == {"hit_rate", "landmark_error"}
    assert "2 people masked: accuracy 1.000" in render_table(figures)


def test_the_sheet_shows_singles_and_every_group_size(found: Evaluation) -> None:
    paper = picture_sheet(found)

    assert paper.shape[0] == (2 + 9) * 164 + 4
    assert paper.shape[1] == 9 * 164 + 4


def test_the_products_recogniser_tells_its_own_people_from_others(found: Evaluation) -> None:
    identities = np.stack([person.face.embedding for person in found.gallery.people])

    own, other = product_similarities([found.singles], identities)

    assert len(own) == 6
    assert len(other) == 6 * 11
    assert own.min() > np.quantile(other, 0.95)
