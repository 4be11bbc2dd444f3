from pathlib import Path

import numpy as np
import pytest

from fpga_models.faces import align
from fpga_models.lab.measures.legibility import legibility
from fpga_models.lab.measures.traits import ANSWERS, TRAITS, TraitReader, decide, labels
from fpga_models.lab.synthetic import Identity, random_scene, render
from fpga_models.lab.synthetic.dataset import TEST_IDENTITIES
from fpga_models.metrics.errors import EvaluatorError


def test_labels_are_the_identitys_own_traits() -> None:
    seeds = [3, 100_017]

    for row, seed in zip(labels(seeds), seeds, strict=True):
        named = {name: answers[row[place]] for place, (name, answers) in enumerate(TRAITS.items())}
        assert named.items() <= Identity.from_seed(seed).attributes().items()


def test_the_highest_score_of_each_trait_decides() -> None:
    scores = np.zeros((1, ANSWERS), np.float32)
    scores[0, [2, len(TRAITS["glasses"]) + 1, ANSWERS - 1]] = 5

    assert decide(scores)[0].tolist() == [2, 1, 0, 0, 0, len(TRAITS["hair_colour"]) - 1]


def test_traits_of_people_never_seen_are_read_off_large_real_faces(reader: TraitReader) -> None:
    seeds = TEST_IDENTITIES[700:760]
    portraits = [render(random_scene(np.random.default_rng(seed), [seed], "portrait", 128)) for seed in seeds]

    read = reader.read([align(portrait.image, portrait.people[0].kps5) for portrait in portraits])

    right = dict(zip(TRAITS, (read == labels(seeds)).mean(0), strict=True))
    assert right["glasses"] > 0.95
    assert right["beard"] > 0.9
    assert right["hair_colour"] > 0.9
    assert right["eye_colour"] > 0.8


def test_legibility_is_a_share_of_what_real_faces_reach() -> None:
    truth = labels(range(200))
    real = truth.copy()
    real[:100, 0] = (real[:100, 0] + 1) % 4
    lost = truth.copy()
    lost[:150, 0] = -1

    found = legibility(lost, real, truth)

    assert found.traits["glasses"].real == 0.5
    assert found.traits["glasses"].generated == 0.25
    assert found.glasses == 0.5
    assert found.share == pytest.approx((5 + 0.25) / (5 + 0.5))
    assert found.ci95[0] < found.share < found.ci95[1]


def test_a_missing_classifier_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluatorError, match="No trait classifier"):
        TraitReader.load(tmp_path)
