"""The border to insightface and onnxruntime: pictures in, faces out."""

from fpga_models.core.alignment import align
from fpga_models.errors import LandmarksError
from fpga_models.faces.errors import FacePackError, PictureError
from fpga_models.faces.pack import Face, FacePack

__all__ = ["Face", "FacePack", "FacePackError", "LandmarksError", "PictureError", "align"]
