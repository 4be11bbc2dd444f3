"""Writes a generated picture as PNG with the record of how it was made inside; same input, same bytes.

It knows nothing of the ledger. The record names people by identity id only; reading it back is
`orchestrator.pictures.read_record`, which needs no worker.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from orchestrator.pictures import RECORD_KEY

Level = Literal["none", "minimal", "full"]
MINIMAL = ("schema", "software", "preset", "model_version", "model_sha256")
"""What the record keeps at level minimal: nothing of prompt, people, seed or the client's own names."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
XMP_KEY = "XML:com.adobe.xmp"
XMP = (
    '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>'
    '<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    '<rdf:Description rdf:about="" xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" '
    f'Iptc4xmpExt:DigitalSourceType="{SOURCE_TYPE}"/>'
    '</rdf:RDF></x:xmpmeta><?xpacket end="r"?>'
)


def encode_png(image: NDArray[np.uint8], record: Mapping[str, Any], *, level: Level = "full") -> bytes:
    """Return the PNG of an image with its record.

    Args:
        image: (H, W, 3), sRGB.
        record: small JSON that says how the picture was made; the customary `parameters` text is taken from it.
        level: `full` carries the whole record, `minimal` only what made the picture and that it was made by a model,
            `none` nothing but pixels.

    Raises:
        ValueError: the image has another shape or type.
    """
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"an image is uint8 (H, W, 3), got {image.dtype} {image.shape}")
    info = PngInfo()
    if level != "none":
        kept = dict(record) if level == "full" else {key: record[key] for key in MINIMAL if key in record}
        info.add_itxt(RECORD_KEY, json.dumps(kept, sort_keys=True, ensure_ascii=False, allow_nan=False))
        info.add_itxt(XMP_KEY, XMP)
    if level == "full":
        info.add_itxt("parameters", parameters_text(record))
    out = io.BytesIO()
    Image.fromarray(image).save(out, format="PNG", pnginfo=info, compress_level=6)
    return out.getvalue()


def parameters_text(record: Mapping[str, Any]) -> str:
    """Return the text that common viewers show: prompt, negative prompt, then one line of settings."""
    params: Mapping[str, Any] = record.get("params", {})
    settings = {
        "Steps": params.get("steps"),
        "Sampler": "DDIM",
        "CFG scale": params.get("guidance"),
        "Seed": record.get("seed"),
        "Size": f"{params.get('width')}x{params.get('height')}",
        "Model hash": str(record.get("model_sha256", ""))[:10] or None,
        "Model": record.get("preset"),
        "Version": record.get("software"),
    }
    lines = [str(params.get("prompt", ""))]
    if params.get("negative_prompt"):
        lines.append(f"Negative prompt: {params['negative_prompt']}")
    lines.append(", ".join(f"{name}: {_quoted(value)}" for name, value in settings.items() if value is not None))
    return "\n".join(lines)


def _quoted(value: object) -> str:
    """Return a value as the line of settings has it: quoted where it would break the line."""
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(mark in text for mark in ',:\n"') else text


def encode_crop(crop: NDArray[np.uint8]) -> bytes:
    """Return the PNG of an aligned face (112, 112, 3) uint8 RGB."""
    out = io.BytesIO()
    Image.fromarray(crop).save(out, "PNG")
    return out.getvalue()


def decode_crop(data: bytes | None) -> NDArray[np.uint8] | None:
    """Return the aligned face that `encode_crop` wrote; None for none. Only for bytes that the vault vouches for."""
    if data is None:
        return None
    with Image.open(io.BytesIO(data), formats=("PNG",)) as opened:
        return np.asarray(opened.convert("RGB"))
