"""Writes what a batch made to files: a folder that loads as a data set, and a contact sheet that needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.ledger import batches, identities
from orchestrator.ledger.rows import Batch
from orchestrator.ledger.session import Ledger
from orchestrator.planning.naming import DEFAULT_TEMPLATE, NameFacts
from orchestrator.results import errors_lines, results_lines
from orchestrator.storage import ByteStore
from orchestrator.web.results_folder import FolderItem, write_results_folder


def download(
    ledger: Ledger, store: ByteStore, owner: str, batch_id: str, folder: Path, *, template: str = DEFAULT_TEMPLATE
) -> Path:
    """Write the pictures that are finished now, their sidecars, results.jsonl and errors.jsonl; return the folder.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: a file is there already, or two pictures get one name; nothing is overwritten.
        UsageError: the template is wrong or the folder cannot be written.
        StoreUnavailableError, TransientError: bytes cannot be read, or the disk is full.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        handles = {row.id: row.handle or row.id for row, _ in identities.listing(session, owner)}
        items = [
            FolderItem(
                facts=_facts(item, handles),
                item=item,
                columns=_columns(item, batch, handles),
                load=partial(store.get, item["output"]["key"], sha256=item["output"]["sha256"]),
            )
            for item in results_lines(session, batch)
            if item["output"] is not None
        ]
        errors = list(errors_lines(session, batch))
    write_results_folder(folder, items, errors, template=template)
    return folder


def _people(item: Mapping[str, Any], handles: Mapping[str, str]) -> list[str]:
    return [handles.get(person["identity"], person["identity"]) for person in item["params"].get("people", ())]


def _facts(item: Mapping[str, Any], handles: Mapping[str, str]) -> NameFacts:
    return NameFacts(
        custom_id=item["custom_id"],
        index=item["position"],
        identity="+".join(_people(item, handles)),
        seed=item["output"]["seed"],
        layout=item["params"].get("layout") or "free",
    )


def _columns(item: Mapping[str, Any], batch: Batch, handles: Mapping[str, str]) -> dict[str, str | int | float | None]:
    params, output = item["params"], item["output"]
    return {
        "custom_id": item["custom_id"],
        "text": params.get("prompt"),
        "people": "+".join(_people(item, handles)),
        "layout": params.get("layout"),
        "seed": output["seed"],
        "verdict": item["verdict"],
        "similarity": item["similarity"],
        "preset": batch.preset,
        "model_version": output["model_version"],
        "sha256": output["sha256"],
    }
