"""Cuts a face out of a picture in ArcFace's frame, from its five landmarks. Pure."""

import cv2
import numpy as np
from insightface.utils.face_align import arcface_dst
from numpy.typing import NDArray

from fpga_models.errors import LandmarksError

Image = NDArray[np.uint8]
Floats = NDArray[np.float32]
CROP_SIDE = 112


def align(image: Image, kps5: Floats) -> Image:
    """Cut the face at landmarks (5, 2) px out of an RGB picture; returns (112, 112, 3), black outside the picture.

    Coordinates count from the picture's edge: the middle of the first pixel is 0.5.

    Raises:
        LandmarksError: the landmarks are not five finite points.
    """
    points = np.asarray(kps5, np.float64)
    if points.shape != (5, 2) or not np.isfinite(points).all():
        got = f"shape {points.shape}" if points.shape != (5, 2) else "values that are not finite"
        raise LandmarksError(f"Five finite points (5, 2) are wanted as landmarks, got {got}.")
    matrix = similarity(points - 0.5, np.asarray(arcface_dst, np.float64))  # OpenCV counts from pixel centres
    crop: Image = cv2.warpAffine(image, matrix, (CROP_SIDE, CROP_SIDE), borderValue=(0.0, 0.0, 0.0))
    return crop


def similarity(points: NDArray[np.float64], target: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the (2, 3) rotation, scale and shift that best moves points (N, 2) onto a target (least squares).

    The points are read as complex numbers, where rotation and scale are one factor. Raises LandmarksError if all
    points are the same.
    """
    source, aim = points @ [1, 1j], target @ [1, 1j]
    centred = source - source.mean()
    spread = np.vdot(centred, centred).real
    if spread <= 0:
        raise LandmarksError("Five different points are wanted as landmarks, got one point five times.")
    turn = np.vdot(centred, aim - aim.mean()) / spread
    shift = aim.mean() - turn * source.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]])
