"""The drawn world as material for data sets: pictures for a build, or a training folder drawn, embedded and encoded.

The same arrays as the steps of `python -m fpga_models.lab.mini` leave, without the pictures of the crops in between.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from fpga_models.core.alignment import CROP_SIDE
from fpga_models.core.autoencoder import Autoencoder, open_autoencoder
from fpga_models.core.weights import bytes_sha256
from fpga_models.faces.pack import FacePack
from fpga_models.idzoom.annotate import Label, RawPicture, stored
from fpga_models.idzoom.materialise import FORMAT, REFERENCES, latents_of
from fpga_models.idzoom.scenes import create_arrays
from fpga_models.lab.synthetic.dataset import SCENE_ARRAYS, TRAIN_IDENTITIES, aligned_crop, scene_of, write_scenes
from fpga_models.lab.synthetic.render import render

AT_ONCE = 64
Report = Callable[[float], None]


def materialise_recipe(seed: int, count: int, preset: Path, out: Path, *, report: Report = lambda share: None) -> Path:
    """Draw the first `count` scenes of a seed and write the training folder; a whole one that is there is kept.

    Args:
        preset: folder of the preset whose recogniser embeds the people and whose autoencoder encodes the pictures.
        report: called with the share done in [0, 1].

    Raises:
        FacePackError, OSError: the preset is not whole, or the disk is full.
    """
    marker = out / "materialised.json"
    facts = {"format": FORMAT, "seed": seed, "count": count}
    if marker.is_file() and json.loads(marker.read_text()) == facts:
        return out
    shutil.rmtree(out, ignore_errors=True)
    (out / "latents").mkdir(parents=True)
    _draw(out, seed, count, open_autoencoder(preset / "vae"), report)
    shown = np.unique(np.load(out / "scenes" / "identity.npy"))
    faces = FacePack.load(preset / "faces")
    np.save(out / "embeddings.npy", _embed(out / "crops", seed, shown[shown >= 0].tolist(), faces, report))
    marker.write_text(json.dumps(facts))
    return out


def _draw(out: Path, seed: int, count: int, vae: Autoencoder, report: Report) -> None:
    create_arrays(out / "scenes", SCENE_ARRAYS, count)
    images = np.load(out / "scenes" / "images.npy", mmap_mode="r")
    latents = None
    with (out / "scenes" / "captions.jsonl").open("w") as lines:
        for start in range(0, count, AT_ONCE):
            indices = range(start, min(start + AT_ONCE, count))
            for caption in write_scenes(out / "scenes", indices, seed, TRAIN_IDENTITIES):
                lines.write(json.dumps({"caption": caption}) + "\n")
            encoded = latents_of(images[indices.start : indices.stop], vae)
            if latents is None:
                shape = (count, *encoded.shape[1:])
                latents = np.lib.format.open_memmap(out / "latents" / "scenes.npy", "w+", np.float16, shape)
            latents[indices.start : indices.stop] = encoded
            report(0.5 * indices.stop / count)
    assert latents is not None, "a recipe draws at least one picture"
    latents.flush()


def _embed(folder: Path, seed: int, shown: Sequence[int], faces: FacePack, report: Report) -> NDArray[np.float16]:
    """Embeddings (P, 8, 512) of the people who are shown, zeros for others, each from crops that no scene shows.

    The crops stay in the folder, as large as those of everybody, though nobody's take no room on the disk.
    """
    folder.mkdir()
    shape = (len(TRAIN_IDENTITIES) * REFERENCES, CROP_SIDE, CROP_SIDE, 3)
    kept = np.lib.format.open_memmap(folder / "crops.npy", "w+", np.uint8, shape)
    found = np.zeros((len(TRAIN_IDENTITIES), REFERENCES, 512), np.float16)
    for done, person in enumerate(shown):
        first = person * REFERENCES
        crops = []
        for index in range(first, first + REFERENCES):
            rng = np.random.default_rng([seed, 1, index])
            face_px = float(np.exp(rng.uniform(np.log(18), np.log(90))))
            crops.append(aligned_crop(rng, TRAIN_IDENTITIES[person], face_px))
        kept[first : first + REFERENCES] = crops
        found[person] = faces.embed_crops(crops)
        if done % AT_ONCE == 0:
            report(0.5 + 0.5 * done / len(shown))
    return found


def rendered(seed: int, indices: range) -> Iterator[RawPicture]:
    """Pictures of the mini world with the people in them, the same as lab/synthetic/dataset.py draws."""
    cv2.setNumThreads(1)
    for index in indices:
        picture = render(scene_of(seed, index, TRAIN_IDENTITIES))
        image, data, suffix = stored(picture.image)
        labels = tuple(
            Label(person=f"render-{person.identity}", nose=(float(person.kps5[2, 0]), float(person.kps5[2, 1])))
            for person in picture.people
        )
        yield RawPicture(
            name=f"{index:08d}.png",
            sha256=bytes_sha256(data),
            data=data,
            suffix=suffix,
            image=image,
            labels=labels,
            caption=picture.caption,
        )
