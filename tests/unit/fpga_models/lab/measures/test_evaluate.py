import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fpga_models.diir import RESTORE
from fpga_models.errors import RequestError
from fpga_models.faces import FacePack
from fpga_models.lab.evaluations.identity import Found, Group, picture_sheet, render_table, report
from fpga_models.lab.measures.calibrate import product_similarities
from fpga_models.lab.measures.evaluate import changed_settings, named_folders, parse
from fpga_models.lab.measures.held_out import draw_trials
from fpga_models.lab.measures.traits import TraitReader
from fpga_models.lab.measures.trials import GROUP_KINDS, Instruments, draw_gallery, observe, observe_real, single_trials
from fpga_models.metrics.evaluator import EvaluationEncoder


@pytest.fixture(scope="module")
def found(pack: FacePack, judge: EvaluationEncoder) -> Found:
    """Real renders in place of generated pictures; "without masks" shows each scene mirrored, people swapped."""
    instruments = Instruments(pack=pack, judge=judge)
    gallery = draw_gallery(instruments, 3, 12, lambda _: None)
    singles = observe_real(instruments, single_trials(gallery, 6, 3, 128))
    groups = {}
    for kind in GROUP_KINDS:
        trials = draw_trials(gallery.people, kind, 3, 3, 128)
        mirrored = [np.ascontiguousarray(trial.real.image[:, ::-1]) for trial in trials]
        real = observe_real(instruments, trials)
        swapped = observe(instruments, trials, mirrored)
        groups[kind[-1]] = Group(masked=real, unmasked=swapped, finished=swapped, real=real)
    decoded = [np.full_like(picture, 128) for picture in singles.pictures]
    grey = observe(instruments, singles.trials, decoded)
    return Found(gallery=gallery, singles=singles, finished=grey, real=singles, decoded=decoded, groups=groups)


def test_real_pictures_reach_the_ceiling_and_swapped_people_are_wrong(found: Found, reader: TraitReader) -> None:
    figures = report(found, reader)

    assert figures.face_sim.share == pytest.approx(1.0)
    assert figures.face_sim.ceiling > 0.7 > 0.3 > figures.face_sim.floor
    assert figures.detection_rate == figures.position.hit_rate == 1.0
    assert figures.top1.generated == figures.top1.real > 0.8
    assert figures.assignment["2"].masked.accuracy == 1.0
    assert figures.assignment["2"].unmasked.accuracy == 0.0
    assert figures.assignment["4"].masked.accuracy > 0.9 > figures.assignment["4"].unmasked.accuracy
    assert figures.assignment["3"].real == figures.assignment["3"].masked
    assert figures.assignment["2"].masks["difference"] == -1.0
    assert abs(figures.leakage["2"].above_floor) < 0.3
    assert (figures.sharpness.face, figures.sharpness.eyes) == (1.0, 1.0)
    assert figures.sharpness.autoencoder.face == 0.0, "an even grey has no gradients"
    assert figures.legibility is not None
    assert figures.legibility.share == figures.legibility.glasses == 1.0
    assert figures.legibility.traits["glasses"].real > 0.9
    assert figures.finished.face_sim.mean == figures.finished.top1.generated == 0.0, "no face was left in the grey"
    assert figures.finished.assignment["2"] == figures.assignment["2"].unmasked
    assert 0 < figures.finished.position.hit_rate < 1


def test_the_report_has_the_published_keys(found: Found, reader: TraitReader) -> None:
    figures = report(found, reader)

    keys = json.loads(json.dumps(asdict(figures), allow_nan=False))

    assert keys.keys() >= {"face_sim", "top1", "legibility", "sharpness", "assignment", "position"}
    assert keys["face_sim"].keys() == {"mean", "floor", "ceiling", "share", "ci95"}
    assert keys["top1"].keys() >= {"generated", "real", "share"}
    assert keys["legibility"].keys() >= {"share", "glasses"}
    assert keys["sharpness"].keys() >= {"face", "eyes"}
    assert keys["assignment"].keys() == {"2", "3", "4"}
    assert keys["assignment"]["2"].keys() >= {"masked", "unmasked"}
    assert keys["assignment"]["2"]["masked"].keys() >= {"accuracy", "own", "other", "ci95"}
    assert keys["position"].keys() >= {"hit_rate", "landmark_error"}
    assert sum(1 for _ in keys["by_size"]) >= 3
    assert "2 people masked: accuracy 1.000" in render_table(figures)


def test_a_preset_without_a_trait_classifier_is_measured_without_legibility(found: Found) -> None:
    assert report(found, None).legibility is None


def test_the_sheet_shows_singles_and_every_group_size(found: Found) -> None:
    paper = picture_sheet(found)

    assert paper.shape[0] == (2 + 9) * 164 + 4
    assert paper.shape[1] == 9 * 164 + 4, "three portraits of three pictures each are the widest row"


def test_the_products_recogniser_tells_its_own_people_from_others(found: Found) -> None:
    identities = np.stack([person.face.embedding for person in found.gallery.people])

    own, other = product_similarities([found.singles], identities)

    assert len(own) == 6
    assert len(other) == 6 * 11
    assert own.min() > np.quantile(other, 0.95)


def test_knobs_are_changed_by_name() -> None:
    changed = changed_settings(RESTORE, ["lock=false", "t_star=0.4"])
    assert (changed.lock, changed.t_star, changed.steps) == (False, 0.4, RESTORE.steps)


@pytest.mark.parametrize("change", ["nonsense=1", "lock=perhaps", "t_star=7"])
def test_a_knob_that_is_none_or_out_of_range_is_refused(change: str) -> None:
    with pytest.raises(RequestError, match=r"is no knob|as in JSON|wanted"):
        changed_settings(RESTORE, [change])


@pytest.mark.parametrize(
    "arguments", [["swap", "--source", "vae"], ["identity", "--set", "lock=false"], ["restore", "--modal", "file"]]
)
def test_an_option_of_another_evaluation_is_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse([arguments[0], "--preset-dir", "anywhere", *arguments[1:]])
    assert f"evaluate {arguments[0]} does not take" in capsys.readouterr().err


def test_presets_to_compare_with_have_names_of_their_own() -> None:
    assert named_folders(["a/first", "C1=runs/c1/preset"]) == {"first": Path("a/first"), "C1": Path("runs/c1/preset")}
    with pytest.raises(RequestError, match="called preset"):
        named_folders(["runs/c1/preset", "runs/c2/preset"])


def test_a_count_below_1_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parse(["swap", "--preset-dir", "anywhere", "--count", "0"])
    assert "--count" in capsys.readouterr().err
