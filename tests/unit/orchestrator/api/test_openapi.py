"""The document in the repository is the one that the code makes, and is valid OpenAPI 3.1."""

from __future__ import annotations

import json
from pathlib import Path

from openapi_spec_validator import validate

from orchestrator.api.openapi import document
from orchestrator.api.reference import reference

ROOT = Path(__file__).parents[4]


def test_the_document_in_the_repository_is_that_of_the_code() -> None:
    kept = (ROOT / "docs" / "openapi.json").read_text()

    assert kept == document(), "run: python -m orchestrator.api.openapi > docs/openapi.json"


def test_the_reference_is_made_from_the_document_and_shows_every_operation() -> None:
    kept = (ROOT / "docs" / "api-reference.md").read_text()
    spec = json.loads(document())

    assert kept == reference(spec), "run: python -m orchestrator.api.reference > docs/api-reference.md"
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            assert f"### `{method.upper()} {path}`\n\n`{operation['operationId']}`" in kept
    assert "$ref" not in kept
    assert "None" not in kept.replace("If-None-Match", "")


def test_the_document_is_valid_and_its_operations_have_names_of_their_own() -> None:
    made = json.loads(document())

    validate(made)
    assert made["openapi"].startswith("3.1")
    ids = [operation["operationId"] for path in made["paths"].values() for operation in path.values()]
    assert len(ids) == len(set(ids))
