"""Writes the OpenAPI document: `python -m orchestrator.api.openapi > docs/openapi.json`."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from orchestrator.api.app import create_app
from orchestrator.settings import Settings


def document() -> str:
    """Return the document as JSON, the same text for the same code."""
    with tempfile.TemporaryDirectory() as folder:
        settings = Settings(state_dir=Path(folder), database_url_=f"sqlite:///{folder}/ledger.sqlite3")
        return json.dumps(create_app(settings).openapi(), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document())
