"""Embeddings of all rendered crops by the exported recogniser, as training of the generator wants them."""

from pathlib import Path

import cv2
import numpy as np
import onnxruntime
from insightface.model_zoo import get_model
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from fpga_models.lab.mini.faces.encoders import Crops

BATCH = 64


def embed_crops(recogniser: Path, crops: Crops, *, threads: int = 1) -> NDArray[np.float16]:
    """Embed crops (P, V, 112, 112, 3) through insightface; returns (P, V, 512), L2-normalised."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    model = get_model(str(recogniser), providers=["CPUExecutionProvider"], sess_options=options)
    flat = crops.reshape(-1, *crops.shape[2:])
    embeddings = np.empty((len(flat), model.output_shape[1]), np.float16)
    for start in track(range(0, len(flat), BATCH), "embeddings", console=Console(stderr=True)):
        batch = [cv2.cvtColor(crop, cv2.COLOR_RGB2BGR) for crop in np.asarray(flat[start : start + BATCH])]
        found = model.get_feat(batch)
        embeddings[start : start + BATCH] = found / np.linalg.norm(found, axis=1, keepdims=True)
    return embeddings.reshape(*crops.shape[:2], -1)
