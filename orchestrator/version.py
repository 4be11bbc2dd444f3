"""The version of this installation; pyproject.toml is the one place that says it."""

from __future__ import annotations

from importlib import metadata

PACKAGE = "fpga-portraits"
VERSION = metadata.version(PACKAGE)
SOFTWARE = f"fpga {VERSION}"
"""How we call ourselves in the records of what we made."""
