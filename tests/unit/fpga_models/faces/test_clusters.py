from __future__ import annotations

import numpy as np

from fpga_models.faces.clusters import BEST, find_people, quality


def faces(people: int, each: int, noise: float, seed: int = 0) -> tuple[np.ndarray, list[str], list[int]]:
    """Embeddings around random people, each face in a photo of its own; who it really is comes with it."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((people, 512))
    truth = [person for person in range(people) for _ in range(each)]
    vectors = centres[truth] + noise * rng.standard_normal((len(truth), 512))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors.astype(np.float32), [f"photo-{n}" for n in range(len(truth))], truth


def test_every_person_is_found_once_with_their_own_best_faces() -> None:
    vectors, photos, truth = faces(people=7, each=9, noise=0.7)
    qualities = list(np.random.default_rng(1).random(len(truth)))

    found = find_people(vectors, qualities, photos, likeness=0.3)

    assert sorted(truth[cluster.best[0]] for cluster in found) == list(range(7))
    for cluster in found:
        assert len({truth[index] for index in cluster.best}) == 1
        own = [index for index, who in enumerate(truth) if who == truth[cluster.best[0]]]
        assert list(cluster.best) == sorted(own, key=lambda index: -qualities[index])[:BEST]
        assert np.isclose(np.linalg.norm(cluster.vector), 1)


def test_somebody_seen_once_has_no_reference() -> None:
    vectors, photos, _ = faces(people=4, each=1, noise=0.1)

    assert find_people(vectors, [1.0] * 4, photos, likeness=0.3) == []
    assert find_people(vectors[:0], [], [], likeness=0.3) == []


def test_two_faces_of_one_photo_are_never_one_person() -> None:
    vectors, _, _ = faces(people=1, each=2, noise=0.05)

    assert find_people(vectors, [1.0, 1.0], ["same", "same"], likeness=0.3) == []
    assert len(find_people(vectors, [1.0, 1.0], ["one", "other"], likeness=0.3)) == 1


def test_larger_surer_and_sharper_faces_are_better() -> None:
    plain = quality(40, 0.9, 100)
    assert quality(80, 0.9, 100) > plain
    assert quality(40, 0.95, 100) > plain
    assert quality(40, 0.9, 400) > plain
