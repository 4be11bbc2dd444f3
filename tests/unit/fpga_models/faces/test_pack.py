import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from insightface.app import FaceAnalysis

from fpga_models.faces import FacePack, FacePackError, PictureError, align
from fpga_models.faces.pack import _say_once
from fpga_models.lab.mini.faces.networks import Detector, EncoderA

KPS5 = np.array([[40, 50], [70, 50], [55, 68], [44, 85], [67, 85]], np.float32)


def picture(height: int = 120, width: int = 110) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_insightface_reads_the_folder_as_it_reads_any_pack(untrained_pack: Path) -> None:
    analysis = FaceAnalysis(
        name=str(untrained_pack), allowed_modules=["detection", "recognition"], providers=["CPUExecutionProvider"]
    )

    assert set(analysis.models) == {"detection", "recognition"}
    assert analysis.models["recognition"].input_size == (112, 112)
    assert analysis.models["recognition"].input_std == 127.5
    assert analysis.models["detection"].use_kps


def test_the_stored_recogniser_embeds_as_the_trained_one_within_half_precision(
    untrained_pack: Path, networks: tuple[Detector, EncoderA]
) -> None:
    crops = [picture(112, 112), 255 - picture(112, 112)]
    batch = (torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).float() - 127.5) / 127.5

    stored = FacePack.load(untrained_pack).embed_crops(crops)

    with torch.inference_mode():
        trained = torch.nn.functional.normalize(networks[1](batch)).numpy()
    assert stored.dtype == np.float32
    assert np.abs(stored - trained).max() < 2e-3
    assert np.allclose(np.linalg.norm(stored, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("size", [(64, 96), (128, 128)])
def test_the_stored_detector_gives_the_nine_outputs_of_the_trained_one(
    untrained_pack: Path, networks: tuple[Detector, EncoderA], size: tuple[int, int]
) -> None:
    batch = torch.randn(1, 3, *size)

    stored = onnxruntime.InferenceSession(str(untrained_pack / "detector.onnx")).run(None, {"input": batch.numpy()})

    with torch.inference_mode():
        trained = networks[0](batch)
    cells = [2 * size[0] // stride * (size[1] // stride) for stride in (8, 16, 32)]
    assert [output.shape for output in stored] == [(n, width) for width in (1, 4, 10) for n in cells]
    for got, wanted in zip(stored, trained, strict=True):
        assert np.abs(got - wanted.numpy()).max() < 5e-3


def test_one_picture_embeds_like_its_aligned_crop(untrained_pack: Path) -> None:
    pack = FacePack.load(untrained_pack)

    embedding = pack.embed(picture(), KPS5)

    assert np.allclose(embedding, pack.embed_crops([align(picture(), KPS5)])[0])


def test_a_folder_without_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FacePackError, match=r"pack\.json is wanted there"):
        FacePack.load(tmp_path)


def test_an_altered_network_is_refused(pack_copy: Path) -> None:
    with (pack_copy / "detector.onnx").open("ab") as file:
        file.write(b"x")

    with pytest.raises(FacePackError, match="sha256"):
        FacePack.load(pack_copy)


def test_a_network_that_the_settings_do_not_list_is_refused(pack_copy: Path) -> None:
    (pack_copy / "extra.onnx").write_bytes((pack_copy / "recogniser.onnx").read_bytes())

    with pytest.raises(FacePackError, match=r"extra\.onnx"):
        FacePack.load(pack_copy)


@pytest.mark.parametrize(("left_out", "named"), [("detector.onnx", "detector"), ("recogniser.onnx", "recogniser")])
def test_half_a_pack_is_refused(pack_copy: Path, left_out: str, named: str) -> None:
    settings = json.loads((pack_copy / "pack.json").read_text())
    del settings["sha256"][left_out]
    (pack_copy / "pack.json").write_text(json.dumps(settings))
    (pack_copy / left_out).unlink()

    with pytest.raises(FacePackError, match=f"no face {named}"):
        FacePack.load(pack_copy)


@pytest.mark.parametrize("change", [{"det_size": 100}, {"det_thresh": 0}, {"unknown": 1}])
def test_impossible_settings_are_refused(pack_copy: Path, change: dict[str, float]) -> None:
    settings = json.loads((pack_copy / "pack.json").read_text())
    (pack_copy / "pack.json").write_text(json.dumps(settings | change))

    with pytest.raises(FacePackError, match=r"pack\.json"):
        FacePack.load(pack_copy)


def test_without_a_cuda_provider_faces_are_looked_at_on_the_processor_and_the_log_says_so_once(
    untrained_pack: Path, caplog: pytest.LogCaptureFixture
) -> None:
    _say_once.cache_clear()
    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this onnxruntime has CUDA")
    packs = [FacePack.load(untrained_pack, device=device) for device in ("cuda", "cuda:1", "cpu")]
    vectors = [pack.embed(picture(), KPS5) for pack in packs]
    assert np.array_equal(vectors[0], vectors[2])
    (said,) = [record.getMessage() for record in caplog.records if "processor" in record.getMessage()]
    assert "no cuda provider" in said


def test_an_unknown_device_is_refused(untrained_pack: Path) -> None:
    with pytest.raises(FacePackError, match="abacus"):
        FacePack.load(untrained_pack, device="abacus")


@pytest.mark.parametrize(
    "wrong", [np.zeros((8, 8), np.uint8), np.zeros((8, 8, 4), np.uint8), np.zeros((8, 8, 3), np.float32)]
)
def test_a_picture_that_is_not_uint8_rgb_is_refused(untrained_pack: Path, wrong: np.ndarray) -> None:
    with pytest.raises(PictureError, match="uint8"):
        FacePack.load(untrained_pack).detect(wrong)
