"""Photos of strangers: decoded to upright sRGB, and written back changed only where they were changed.

Their bytes are parsed nowhere but in a guarded child process.
"""

from workers.photo.patch import Patch, patches_of
from workers.photo.service import Decoded, Encoded, PhotoLimits, decode_photo, encode_photo, photo_reader
from workers.photo.write import OutputOptions

__all__ = [
    "Decoded",
    "Encoded",
    "OutputOptions",
    "Patch",
    "PhotoLimits",
    "decode_photo",
    "encode_photo",
    "patches_of",
    "photo_reader",
]
