"""Errors of the border to insightface.

ModelError
├── FacePackError   the folder of networks is missing, changed or not what insightface reads
└── PictureError    the picture is not uint8 RGB
"""

from fpga_models.errors import ModelError


class FacePackError(ModelError):
    """The folder of face networks is missing, changed or not what insightface reads."""

    code = "face_pack_invalid"


class PictureError(ModelError):
    """The picture is not uint8 RGB."""

    code = "picture_invalid"
