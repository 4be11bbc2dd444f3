"""A data folder as training reads it: rendered scenes, and made-up latents, embeddings and crops."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from fpga_models.idzoom.scenes import create_arrays
from fpga_models.lab.synthetic.dataset import SCENE_ARRAYS, write_scenes

SCENES, PEOPLE = 28, 12


def write_training_folder(folder: Path, *, embedding_dim: int = 512) -> Path:
    create_arrays(folder / "scenes", SCENE_ARRAYS, SCENES)
    captions = write_scenes(folder / "scenes", range(SCENES), 0, range(0, PEOPLE))
    (folder / "scenes" / "captions.jsonl").write_text("".join(json.dumps({"caption": c}) + "\n" for c in captions))
    (folder / "latents").mkdir()
    rng = np.random.default_rng(0)
    np.save(folder / "latents" / "scenes.npy", rng.standard_normal((SCENES, 16, 16, 16)).astype(np.float16))
    embeddings = rng.standard_normal((PEOPLE, 8, embedding_dim)).astype(np.float32)
    np.save(folder / "embeddings.npy", embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True))
    (folder / "crops").mkdir()
    np.save(folder / "crops" / "crops.npy", rng.integers(0, 256, (PEOPLE * 8, 112, 112, 3), np.uint8))
    (folder / "source.json").write_text(json.dumps({"source": f"render:0:{SCENES}"}))
    return folder
