"""Who is who: faces grouped into people by their embeddings, one chunk at a time, labels of the source trusted.

Leader clustering with running means, then one pass that joins people who turn out to be the same [ours]. Memory is one
mean for each person, not for each face.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
BLOCK = 1024


class People:
    """People found so far: numbers from 0, a label or None each, and the sum of their embeddings."""

    def __init__(self, *, same_person: float) -> None:
        """`same_person` is the cosine above which a face joins a person."""
        self._same = same_person
        self._sums = np.zeros((64, 0), np.float32)
        self.labels: list[str | None] = []
        self.first: list[str] = []
        """Key and place of the first face of each person, which names those without a label."""
        self._by_label: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.labels)

    def known(self, label: str, embedding: Floats) -> int:
        """Enter somebody who is known before any picture is seen."""
        self._fit(len(embedding))
        return self._number(label, embedding, "")

    def assign(self, embeddings: Floats, labels: Sequence[str | None], names: Sequence[str]) -> NDArray[np.int32]:
        """The person of each face (F, E), unit length; new people are entered. `names` are keys with places."""
        self._fit(embeddings.shape[1])
        unknown = any(label is None for label in labels)
        before = len(self)
        cosines = embeddings @ self._means()[:before].T if unknown and before else np.zeros((len(labels), 0))
        found = np.empty(len(labels), np.int32)
        for i, label in enumerate(labels):
            if label is not None:
                found[i] = self._number(label, embeddings[i], names[i])
                continue
            best = int(cosines[i].argmax()) if before else -1
            if best < 0 or cosines[i, best] < self._same:
                best = self._newest(embeddings[i], before)
            found[i] = self._add(None, embeddings[i], names[i]) if best < 0 else best
            if best >= 0:
                self._sums[best] += embeddings[i]
        return found

    def joined(self) -> NDArray[np.int32]:
        """The number of the person that each person turned out to be: itself, or an earlier one.

        People with two different labels are never joined: the source says that they are two.
        """
        means, target = self._means(), np.arange(len(self), dtype=np.int32)
        open_ = np.array([label is None for label in self.labels], bool)
        if not open_.any():
            return target
        for start in range(0, len(self), BLOCK):
            close = means[start : start + BLOCK] @ means.T >= self._same
            close[:, :] &= open_[start : start + BLOCK, None] | open_[None, :]
            for i, j in np.argwhere(np.triu(close, k=start + 1)):
                self._join(target, start + int(i), int(j))
        return np.array([_root(target, i) for i in range(len(self))], np.int32)

    def _join(self, target: NDArray[np.int32], i: int, j: int) -> None:
        low, high = sorted((_root(target, i), _root(target, j)))
        if low == high or (self.labels[low] is not None and self.labels[high] is not None):
            return
        if self.labels[high] is not None:  # the one who has a label keeps it
            low, high = high, low
        target[high] = low

    def _newest(self, embedding: Floats, before: int) -> int:
        """The best of the people entered since the block of cosines was computed, or -1."""
        if len(self) == before:
            return -1
        sums = self._sums[before : len(self)]
        cosines = sums @ embedding / np.maximum(np.linalg.norm(sums, axis=1), 1e-6)
        best = int(cosines.argmax())
        return before + best if cosines[best] >= self._same else -1

    def _number(self, label: str, embedding: Floats, name: str) -> int:
        number = self._by_label.get(label)
        if number is None:
            number = self._by_label[label] = self._add(label, embedding, name)
        else:
            self._sums[number] += embedding
        return number

    def _fit(self, width: int) -> None:
        """Be as wide as the recogniser, which the first embedding says."""
        if not len(self):
            self._sums = np.zeros((64, width), np.float32)

    def _add(self, label: str | None, embedding: Floats, name: str) -> int:
        number = len(self)
        if number == len(self._sums):
            self._sums = np.concatenate([self._sums, np.zeros_like(self._sums)])
        self._sums[number] = embedding
        self.labels.append(label)
        self.first.append(name)
        return number

    def _means(self) -> Floats:
        sums = self._sums[: len(self)]
        means: Floats = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-6)
        return means


def _root(target: NDArray[np.int32], number: int) -> int:
    while target[number] != number:
        number = int(target[number])
    return number
