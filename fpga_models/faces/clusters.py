"""Brings faces of the same person together, and says which of them are good enough to serve as references. Pure [ours].

Average linkage over cosines (scipy), cut where two faces resemble each other no more than two people do. Only faces
fit to be references take part; the others are paired with the people found, like any face with any reference.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform

MOST = 6000
"""So many of the best faces are brought together: their distances take 144 MB."""
NEVER = -2.0
"""No cosine: that of two groups that must not become one."""
BEST = 5
"""So many of a person's best faces make their reference."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Cluster:
    """One person: indices of their best faces, best first, and their mean embedding (E,) of unit length."""

    best: tuple[int, ...]
    vector: NDArray[np.float32]


def quality(side: float, score: float, sharpness: float) -> float:
    """How fit a face is to be a reference: larger, surer and sharper is better.

    Args:
        side: shorter side of its box, px.
        score: of the detector, in [0, 1].
        sharpness: variance of the Laplacian of the aligned face.
    """
    return float(np.log2(max(side, 1.0)) * score * np.log1p(max(sharpness, 0.0)))


def find_people(
    vectors: NDArray[np.float32],
    qualities: Sequence[float],
    photos: Sequence[str],
    *,
    likeness: float,
    least_photos: int = 2,
) -> list[Cluster]:
    """Bring faces together; people are sorted by their number of photos, largest first.

    Args:
        vectors: (N, E) unit-length embeddings.
        qualities: (N) see `quality`.
        photos: (N) which photo each face is from; two faces of one photo are never one person's.
        likeness: least mean cosine within one person.
        least_photos: somebody seen in fewer photos has no reference but the face itself, and is left out.
    """
    if len(vectors) < 2:
        return []
    kept = np.argsort(-np.asarray(qualities), kind="stable")[:MOST]
    labels = _cut(vectors[kept], [photos[index] for index in kept], likeness)
    found: list[tuple[int, Cluster]] = []
    for label in np.unique(labels):
        members = [int(index) for index in kept[labels == label]]  # best first, as `kept` is
        count = len({photos[index] for index in members})
        if count >= least_photos:
            best = tuple(members[:BEST])
            mean = vectors[list(best)].mean(axis=0)
            vector = (mean / np.linalg.norm(mean)).astype(np.float32)
            found.append((count, Cluster(best=best, vector=vector)))
    return [cluster for _, cluster in sorted(found, key=lambda one: (-one[0], one[1].best))]


@dataclass(kw_only=True, eq=False)
class Group:
    """Faces that are taken for one person: how many, the sum (E,) of their embeddings, and the photos that show them.

    Its mean is not of unit length: the product of a face with it is the mean cosine to all faces of the group.
    """

    count: int
    total: NDArray[np.float32]
    photos: set[str]

    @property
    def mean(self) -> NDArray[np.float32]:
        """Mean embedding (E,)."""
        mean: NDArray[np.float32] = (self.total / self.count).astype(np.float32)
        return mean

    def take(self, vector: NDArray[np.float32], photo: str) -> None:
        """Take a face in."""
        self.count, self.total = self.count + 1, self.total + vector
        self.photos.add(photo)


def group(
    vectors: NDArray[np.float32],
    qualities: Sequence[float],
    photos: Sequence[str],
    known: Sequence[Group],
    *,
    likeness: float,
    refused: Mapping[int, frozenset[int]] | None = None,
    at_once: int = 2000,
) -> tuple[list[int | None], list[Group]]:
    """Bring faces to the groups there are, and what is left into new ones; memory does not grow with their square.

    The best faces come first, `at_once` of them at a time: each joins the group that it resembles most, and those that
    resemble none are linked among themselves, with what was left before. New groups that resemble one another, or one
    there was, become one; groups there were never do.

    Args:
        vectors: (N, E) unit-length embeddings.
        qualities: (N) see `quality`.
        photos: (N) which photo each face is from; two faces of one photo are never one person's.
        known: groups there are; they grow.
        likeness: least mean cosine within one person.
        refused: groups of `known`, by index, that a face must not go to.

    Returns:
        The index of each face's group, or None, and all groups: those of `known`, then new ones of two photos or more,
        those of most photos first.
    """
    refused, groups = refused or {}, list(known)
    labels: list[int | None] = [None] * len(vectors)
    left: list[int] = []
    for start in range(0, len(order := np.argsort(-np.asarray(qualities), kind="stable")), at_once):
        some = [int(index) for index in order[start : start + at_once]]
        _join(some, vectors, photos, groups, labels, likeness, refused)
        left = [*left, *(index for index in some if labels[index] is None)][-2 * at_once :]
        for members in _linked(vectors[left], [photos[index] for index in left], likeness):
            groups.append(Group(count=0, total=np.zeros(vectors.shape[1], np.float32), photos=set()))
            for member in members:
                groups[-1].take(vectors[left[member]], photos[left[member]])
                labels[left[member]] = len(groups) - 1
        left = [index for index in left if labels[index] is None]
    _join(left, vectors, photos, groups, labels, likeness, refused)
    return _united(labels, groups, len(known), likeness, refused)


def _join(
    some: Sequence[int],
    vectors: NDArray[np.float32],
    photos: Sequence[str],
    groups: list[Group],
    labels: list[int | None],
    likeness: float,
    refused: Mapping[int, frozenset[int]],
) -> None:
    """Give faces to the groups that they resemble most, the surest first; a group takes one face of a photo."""
    if not groups or not some:
        return
    cosines = vectors[list(some)] @ np.stack([one.mean for one in groups]).T
    rows, columns = np.nonzero(cosines >= likeness)
    for at in np.argsort(-cosines[rows, columns], kind="stable"):
        index, place = some[int(rows[at])], int(columns[at])
        if labels[index] is None and photos[index] not in groups[place].photos and place not in refused.get(index, ()):
            groups[place].take(vectors[index], photos[index])
            labels[index] = place


def _linked(vectors: NDArray[np.float32], photos: Sequence[str], likeness: float) -> list[list[int]]:
    """Return the indices of faces that belong together, for every group of two photos or more."""
    if len(vectors) < 2:
        return []
    labels = _cut(vectors, photos, likeness)
    members: dict[int, list[int]] = {}
    for index, label in enumerate(labels.tolist()):
        members.setdefault(label, []).append(index)
    return [found for found in members.values() if len({photos[index] for index in found}) > 1]


def _united(
    labels: list[int | None],
    groups: list[Group],
    known: int,
    likeness: float,
    refused: Mapping[int, frozenset[int]],
) -> tuple[list[int | None], list[Group]]:
    """Unite new groups with what they resemble on average, the likest first; two that share a photo stay apart."""
    apart: dict[int, set[int]] = {}
    for index, label in enumerate(labels):
        if label is not None:
            apart.setdefault(label, set()).update(refused.get(index, ()))
    into: dict[int, int] = {}
    means = np.stack([one.mean for one in groups]) if groups else np.zeros((0, 1), np.float32)
    cosines = means @ means.T
    cosines[:known, :known] = NEVER
    np.fill_diagonal(cosines, NEVER)
    while cosines.size:
        first, second = sorted(divmod(int(cosines.argmax()), len(groups)))
        if cosines[first, second] < likeness:
            break
        one, other = groups[first], groups[second]
        if one.photos & other.photos or first in apart.get(second, ()):
            cosines[first, second] = cosines[second, first] = NEVER
            continue
        one.count, one.total, one.photos = one.count + other.count, one.total + other.total, one.photos | other.photos
        into[second], means[first] = first, one.mean
        apart.setdefault(first, set()).update(apart.get(second, ()))
        cosines[second, :] = cosines[:, second] = NEVER
        fresh = np.where(cosines[first] == NEVER, NEVER, means @ means[first])
        cosines[first, :] = cosines[:, first] = fresh
    there = [index for index in range(len(groups)) if index not in into]
    there.sort(key=lambda index: (index >= known, -len(groups[index].photos) * (index >= known)))
    places = {old: new for new, old in enumerate(there)}
    return [None if label is None else places[_root(label, into)] for label in labels], [groups[i] for i in places]


def _root(label: int, into: Mapping[int, int]) -> int:
    while label in into:
        label = into[label]
    return label


def one_person(vectors: NDArray[np.float32], *, likeness: float) -> list[int]:
    """Indices of the faces (N, E) that do not go with the largest group of the others; empty where all are one person.

    Args:
        vectors: unit-length embeddings.
        likeness: least mean cosine within one person.
    """
    if len(vectors) < 2:
        return []
    labels = _cut(vectors, [str(index) for index in range(len(vectors))], likeness)
    largest = int(np.bincount(labels).argmax())
    return [index for index, label in enumerate(labels) if label != largest]


def _cut(vectors: NDArray[np.float32], photos: Sequence[str], likeness: float) -> NDArray[np.int32]:
    """The number (N,) of each face's group: average linkage, where two faces of one photo are as far as can be."""
    distances = 1 - np.clip(vectors @ vectors.T, -1, 1).astype(np.float64)
    numbers = {photo: number for number, photo in enumerate(dict.fromkeys(photos))}
    where = np.array([numbers[photo] for photo in photos])
    distances[where[:, None] == where[None, :]] = 2.0
    np.fill_diagonal(distances, 0.0)
    tree = linkage(squareform(distances, checks=False), "average")
    found: NDArray[np.int32] = fcluster(tree, 1 - likeness, "distance")
    return found
