"""The table of a chunk: one row for each face, with what later steps decide on. Parquet, without pixels.

Signatures find pictures that look alike: 128 bits of brightness differences, 64 bits of the faces' embeddings.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fpga_models.idzoom.records import Image, Record, stratum

COLUMNS = [
    ("key", pa.string()),
    ("place", pa.int16()),
    ("faces", pa.int16()),
    ("label", pa.string()),
    ("width", pa.int32()),
    ("height", pa.int32()),
    ("box", pa.list_(pa.float32(), 4)),
    ("quality", pa.float32()),
    ("side_px", pa.float32()),
    ("share", pa.float32()),
    ("stratum", pa.int8()),
    ("views", pa.int16()),
    ("look", pa.list_(pa.uint64(), 2)),
    ("face_look", pa.uint64()),
]


def schema(width: int) -> pa.Schema:
    """The columns of a chunk whose embeddings have so many numbers."""
    return pa.schema([*COLUMNS, ("embedding", pa.list_(pa.float16(), width))])


class FactsTable:
    """Gathers the rows of a chunk.

    Args:
        width: numbers of an embedding, as the recogniser has it.
    """

    def __init__(self, width: int) -> None:
        self._schema = schema(width)
        self._rows: list[dict[str, object]] = []

    def add(self, record: Record, image: Image) -> None:
        """Add the faces of one record."""
        seen, faces = look(image), face_look([person.embedding for person in record.people])
        for place, person in enumerate(record.people):
            self._rows.append(
                {
                    "key": record.key,
                    "place": place,
                    "faces": len(record.people),
                    "label": person.label,
                    "width": record.width,
                    "height": record.height,
                    "box": person.box,
                    "quality": person.quality,
                    "side_px": person.side_px,
                    "share": person.share,
                    "stratum": stratum(person.share),
                    "views": len(record.views),
                    "look": seen,
                    "face_look": faces,
                    "embedding": person.embedding.astype(np.float16),
                }
            )

    def table(self) -> pa.Table:
        """The table, with a row for each face."""
        return pa.Table.from_pylist(self._rows, schema=self._schema)


def embeddings_of(table: pa.Table) -> NDArray[np.float32]:
    """The embeddings (F, E) of a table of faces, rows of unit length."""
    width = table.schema.field("embedding").type.list_size
    flat = table["embedding"].combine_chunks().flatten().to_numpy(zero_copy_only=False)
    rows: NDArray[np.float32] = flat.reshape(-1, width).astype(np.float32)
    unit: NDArray[np.float32] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit


def look(image: Image) -> list[int]:
    """128 bits of an RGB picture: whether brightness rises across and down an 8x8 grid (difference hash)."""
    grey = cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), (9, 9), interpolation=cv2.INTER_AREA).astype(np.int16)
    across, down = np.diff(grey, axis=1)[:8] > 0, np.diff(grey, axis=0)[:, :8] > 0
    return [_bits(across.ravel()), _bits(down.ravel())]


def face_look(embeddings: Sequence[NDArray[np.float32]]) -> int:
    """64 bits of the mean of the people's embeddings, each (E,): its side of 64 fixed planes (Charikar 2002)."""
    mean = np.mean(embeddings, axis=0)
    planes = np.random.default_rng(64).standard_normal((64, len(mean)))
    return _bits(planes @ mean > 0)


def _bits(values: NDArray[np.bool_]) -> int:
    return int.from_bytes(np.packbits(values).tobytes(), "big")
