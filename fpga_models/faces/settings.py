"""`pack.json`: what a face pack says about itself beside its ONNX files, checked when it is loaded."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from fpga_models.core.presets import Domain
from fpga_models.core.weights import file_sha256
from fpga_models.faces.errors import FacePackError

FILE_NAME = "pack.json"
DOMAINS: tuple[Domain, ...] = get_args(Domain)


@dataclass(frozen=True, kw_only=True)
class PackSettings:
    """What a pack says of itself.

    Attributes:
        det_size: detector input side in px, a multiple of 32.
        det_thresh: score threshold in (0, 1).
        licence: of its networks.
        sha256: of each file.
        close_ups: whether each picture is looked at at 128 px too, for faces that fill it.
        domain: what its networks were trained to see.
        training: on which pictures, as far as that is known.
        rates: what thresholds get wrong, by size of face: `side` px, `threshold`, `false_match`, `false_non_match`.
    """

    det_size: int
    det_thresh: float
    licence: str
    sha256: dict[str, str]
    close_ups: bool = False
    domain: Domain = "drawn"
    training: str = ""
    rates: tuple[dict[str, float], ...] = ()


def read_settings(directory: Path) -> PackSettings:
    """Read and check `pack.json`.

    Raises:
        FacePackError: there is none, it lacks a value or has an impossible one, or a file is missing or altered.
    """
    path = directory / FILE_NAME
    if not path.is_file():
        raise FacePackError(f"No face pack at {directory}: {FILE_NAME} is wanted there.")
    try:
        settings = PackSettings(**json.loads(path.read_text()))
    except (TypeError, ValueError) as error:
        raise FacePackError(f"{path} must hold det_size, det_thresh, licence and sha256: {error}.") from error
    if settings.det_size <= 0 or settings.det_size % 32 or not 0 < settings.det_thresh < 1:
        got = f"det_size {settings.det_size} and det_thresh {settings.det_thresh}"
        wanted = "a positive multiple of 32 and a number between 0 and 1"
        raise FacePackError(f"{path} has {got}; wanted are {wanted}.")
    if settings.domain not in DOMAINS:
        raise FacePackError(f"{path} has domain {settings.domain!r}; wanted is one of {', '.join(DOMAINS)}.")
    for name, wanted in settings.sha256.items():
        _check_file(directory / name, wanted)
    unlisted = {file.name for file in directory.glob("*.onnx")} - settings.sha256.keys()
    if unlisted:
        raise FacePackError(f"{directory} holds {', '.join(sorted(unlisted))}, which pack.json does not list.")
    return settings


def _check_file(path: Path, wanted: str) -> None:
    if not path.is_file():
        raise FacePackError(f"The face pack lists {path.name}, which is not in {path.parent}.")
    got = file_sha256(path)
    if got != wanted:
        raise FacePackError(f"{path} has sha256 {got}; pack.json wants {wanted}.")
