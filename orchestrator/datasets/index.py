"""Rows of a version's index, which is a parquet file; its reader comes with the extra `worker`."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from orchestrator.errors import UsageError


def index_rows(index: bytes, columns: Sequence[str]) -> Iterator[tuple[Any, ...]]:
    """Yield the values of these columns, row by row, in bounded memory.

    Raises:
        UsageError: `no_parquet`, this installation is the client and control plane alone.
    """
    if find_spec("pyarrow") is None:
        raise UsageError(
            "to look into a data set, parquet files must be read: pip install 'fpga-portraits[worker]'",
            code="no_parquet",
        )
    import pyarrow.parquet as pq  # noqa: PLC0415 150 MB that a client need not have

    for batch in pq.ParquetFile(io.BytesIO(index)).iter_batches(columns=list(columns)):
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)
