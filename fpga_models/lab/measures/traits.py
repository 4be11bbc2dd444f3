"""Which traits a face shows: a classifier of our own, trained on real renders only, which the product never loads.

It reads aligned crops as the judge does. What it cannot read on a real face of the same size is no fault of a
generator, so its accuracy is always given beside that on real ones (legibility.py).
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fpga_models.lab.synthetic.identity import BEARDS, EYE_COLOURS, GLASSES, HAIR_COLOURS, HAIR_STYLES, Identity
from fpga_models.metrics.errors import EvaluatorError

Image = NDArray[np.uint8]
Labels = NDArray[np.int64]
FILE_NAME = "traits.onnx"
TRAITS: dict[str, tuple[str, ...]] = {
    "glasses": GLASSES,
    "eye_colour": tuple(EYE_COLOURS),
    "brows": ("thin", "medium", "thick"),
    "beard": BEARDS,
    "hair_style": HAIR_STYLES,
    "hair_colour": tuple(HAIR_COLOURS),
}
"""What is read, with the possible answers; the network's outputs are the answers of all traits in this order."""
ANSWERS = sum(map(len, TRAITS.values()))


def labels(identities: Sequence[int]) -> Labels:
    """Return the true answers (N, T) of people by their seeds, as indices into TRAITS."""
    people = [Identity.from_seed(int(seed)).attributes() for seed in identities]
    rows = [[answers.index(person[name]) for name, answers in TRAITS.items()] for person in people]
    return np.array(rows, np.int64).reshape(-1, len(TRAITS))


def decide(scores: NDArray[np.float32]) -> Labels:
    """Return the likeliest answer of each trait (N, T) from the network's scores (N, ANSWERS)."""
    parts = np.split(scores, np.cumsum([len(answers) for answers in TRAITS.values()])[:-1], axis=1)
    return np.stack([part.argmax(1) for part in parts], axis=1)


class TraitReader:
    """Reads the traits of aligned crops, with onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def load(cls, directory: Path, *, threads: int = 1) -> "TraitReader":
        """Load `traits.onnx` from a folder.

        Raises:
            EvaluatorError: it is not there, or does not map (N, 3, 112, 112) to (N, ANSWERS).
        """
        path = directory / FILE_NAME
        if not path.is_file():
            raise EvaluatorError(f"No trait classifier at {path}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        got = session.get_inputs()[0].shape[1:], session.get_outputs()[0].shape[1:]
        if got != ([3, 112, 112], [ANSWERS]):
            raise EvaluatorError(f"{path} maps (N, *{got[0]}) to (N, *{got[1]}); (N, 3, 112, 112) to (N, {ANSWERS}).")
        return cls(session)

    def read(self, crops: Sequence[Image]) -> Labels:
        """Return the answers (N, T) for RGB crops, each (112, 112, 3) uint8."""
        if not crops:
            return np.zeros((0, len(TRAITS)), np.int64)
        batch = (np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        return decide(self._session.run(None, {self._session.get_inputs()[0].name: batch})[0])
