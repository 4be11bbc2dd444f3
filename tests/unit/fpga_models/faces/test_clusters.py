from __future__ import annotations

import numpy as np
import pytest

from fpga_models.faces.clusters import BEST, Group, find_people, group, quality


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


def people_of(rng: np.random.Generator, people: int, faces: int, width: int = 32) -> tuple[np.ndarray, list[int]]:
    centres = rng.normal(size=(people, width))
    vectors = np.repeat(centres, faces, 0) + 0.35 * rng.normal(size=(people * faces, width))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
    order = rng.permutation(len(unit))
    return unit[order], [int(index) // faces for index in order]


@pytest.mark.parametrize("at_once", [7, 40, 1000])
def test_faces_come_together_however_many_are_looked_at_at_once(at_once: int) -> None:
    vectors, owners = people_of(np.random.default_rng(3), 12, 9)
    labels, groups = group(
        vectors, [1.0] * len(vectors), [str(n) for n in range(len(vectors))], [], likeness=0.5, at_once=at_once
    )
    assert len(groups) == 12
    pairs = {(label, owner) for label, owner in zip(labels, owners, strict=True)}
    assert len(pairs) == 12
    assert sorted(one.count for one in groups) == [9] * 12


def test_later_faces_join_groups_there_are_and_never_those_that_were_refused() -> None:
    vectors, owners = people_of(np.random.default_rng(4), 3, 8)
    known = [Group(count=0, total=np.zeros(32, np.float32), photos=set()) for _ in range(3)]
    later = []
    for index, owner in enumerate(owners):
        if owners[:index].count(owner) < 5:
            known[owner].take(vectors[index], f"old {index}")
        else:
            later.append(index)
    refused = {0: frozenset({owners[later[0]]})}
    labels, groups = group(
        vectors[later], [1.0] * len(later), [f"new {n}" for n in later], known, likeness=0.5, refused=refused
    )
    assert len(groups) == 3
    assert labels[0] is None
    assert labels[1:] == [owners[index] for index in later[1:]]


def test_two_faces_of_one_photo_are_two_people() -> None:
    one = np.tile(np.eye(1, 8, dtype=np.float32), (4, 1))
    labels, groups = group(one, [4, 3, 2, 1], ["a", "a", "b", "b"], [], likeness=0.5)
    assert len(groups) == 2
    assert {labels[0], labels[1]} == {labels[2], labels[3]} == {0, 1}
