"""The judge: a recogniser of another architecture and other training people, which the product never loads."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from fpga_models.metrics.errors import EvaluatorError

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
FILE_NAME = "evaluator.onnx"


class EvaluationEncoder:
    """Embeds aligned crops; the tensor contract of ArcFace, read with onnxruntime."""

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session

    @classmethod
    def load(cls, directory: str | Path, *, threads: int = 1) -> "EvaluationEncoder":
        """Load `evaluator.onnx` from a folder.

        Raises:
            EvaluatorError: it is not there, or does not map (N, 3, 112, 112) to (N, D).
        """
        path = Path(directory) / FILE_NAME
        if not path.is_file():
            raise EvaluatorError(f"No evaluation encoder at {path}.")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        got = session.get_inputs()[0].shape[1:], len(session.get_outputs()[0].shape)
        if got != ([3, 112, 112], 2):
            raise EvaluatorError(f"{path} maps (N, *{got[0]}) to {got[1]} axes; (N, 3, 112, 112) to (N, D) is wanted.")
        return cls(session)

    def embed_crops(self, crops: Sequence[Image]) -> Floats:
        """Embed RGB crops, each (112, 112, 3) uint8; returns (N, D), rows L2-normalised."""
        if not crops:
            return np.zeros((0, self._session.get_outputs()[0].shape[1]), np.float32)
        batch = (np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) - 127.5) / 127.5
        found = self._session.run(None, {self._session.get_inputs()[0].name: batch})[0]
        embeddings: Floats = found / np.maximum(np.linalg.norm(found, axis=1, keepdims=True), 1e-12)
        return embeddings
