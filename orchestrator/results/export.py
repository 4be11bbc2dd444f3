"""Writes what a batch made to files: a folder that loads as a data set, and a contact sheet that needs no server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from orchestrator.archive.reach import Reach
from orchestrator.contracts.portraits import PortraitParams
from orchestrator.errors import FpgaError, UsageError
from orchestrator.ledger import evaluations, identities, models, photos
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Batch, ModelVersion
from orchestrator.planning.naming import DEFAULT_TEMPLATE, NameFacts
from orchestrator.results import contact_sheet
from orchestrator.results.contact_sheet import ContactSheet, Failure, PersonScore, Reference, Result
from orchestrator.results.delivery import Delivery
from orchestrator.results.photo_sheet import write_photo_sheet
from orchestrator.results.results import errors_lines, results_lines
from orchestrator.results.results_folder import FolderItem, write_results_folder
from orchestrator.secrets.vault import Vault
from orchestrator.storage import ByteStore

SHEET_PICTURES = 1000


@dataclass(frozen=True, kw_only=True)
class Downloaded:
    """Where results were written, and what could not be, by path."""

    folder: Path
    failures: Mapping[str, FpgaError]


def download(
    ledger: Ledger,
    store: ByteStore,
    owner: str,
    batch_id: str,
    folder: Path,
    *,
    template: str = DEFAULT_TEMPLATE,
    overwrite: bool = False,
    reach: Reach | None = None,
) -> Downloaded:
    """Write the pictures that are finished now, their sidecars, results.jsonl and errors.jsonl.

    Args:
        reach: who may read the source again, for files of an archive that are copied as they are.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: another file has a name that is needed, or two pictures get one name; nothing is overwritten.
        UsageError: the template is wrong or the folder cannot be written.
        StoreUnavailableError, TransientError: bytes cannot be read, or the disk is full.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        if batch.kind == photos.KIND:
            delivery = Delivery(ledger, store, owner, batch.id, str(folder), reach)
            delivery.finish()
            return Downloaded(folder=folder, failures=delivery.failures)
        handles = {row.id: row.handle or row.id for row, _ in identities.listing(session, owner)}
        items = [
            FolderItem(
                facts=_facts(item, handles),
                item=item,
                columns=_columns(item, batch, handles),
                sha256=item["output"]["sha256"],
                load=partial(store.get, item["output"]["key"], sha256=item["output"]["sha256"]),
            )
            for item in results_lines(session, batch)
            if item["output"] is not None
        ]
        errors = list(errors_lines(session, batch))
    write_results_folder(folder, items, errors, template=template, overwrite=overwrite)
    return Downloaded(folder=folder, failures={})


def write_contact_sheet(
    ledger: Ledger,
    store: ByteStore,
    vault: Vault,
    owner: str,
    batch_id: str,
    path: Path,
    *,
    library: bool = True,
) -> Path:
    """Write one self-contained HTML page of what is finished now and return its path.

    Args:
        library: whether it shows who is in the library: handles, and the aligned face that enrolment kept of each. No
            picture that a stranger handed in is decoded here.

    Raises:
        NotFoundError: there is no such batch.
        ConflictError: the file is there already.
        UsageError: the batch has too many pictures for one page, or the file cannot be written.
        StoreUnavailableError, TransientError: bytes cannot be read, or the disk is full.
    """
    with ledger.read() as session:
        batch = batches.get(session, owner, batch_id)
        if batch.kind == photos.KIND:
            return write_photo_sheet(session, store, batch, path)
        finished = [item for item in results_lines(session, batch) if item["output"] is not None]
        if len(finished) > SHEET_PICTURES:
            raise UsageError(
                f"a contact sheet shows at most {SHEET_PICTURES} pictures, this batch has {len(finished)}; "
                "see --download",
                code="too_many_pictures",
            )
        shown = dict.fromkeys(person["identity"] for item in finished for person in item["params"].get("people", ()))
        people = {row.id: row.handle or row.id for row, _ in identities.listing(session, owner)} if library else {}
        crops = identities.crops(session, list(shown), unseal=vault.open) if library else {}
        version = models.get(session, batch.model_version_id) if batch.model_version_id else None
        sheet = ContactSheet(
            title=batch.name,
            batch_id=batch.id,
            state=batch.state,
            results=(),
            references={i: Reference(label=people.get(i, i), picture=crops.get(i)) for i in shown},
            failures=[_failure(line) for line in errors_lines(session, batch)],
            counts={state: count for state, count in batches.counts(session, batch.id).items() if count},
            seconds=_seconds(batch),
            model=f"version {version.number} ({version.tensor_sha256[:12]})" if version else "",
            preset=batch.preset,
            thresholds=_thresholds(session, version),
            made_at=batch.finished_at or now(session),
        )
    sheet = replace(sheet, results=[_result(item, store) for item in finished])
    return contact_sheet.write_contact_sheet(path, sheet)


def _result(item: Mapping[str, Any], store: ByteStore) -> Result:
    params, output, scores = PortraitParams.load(item["params"]), item["output"], item["scores"] or {}
    people = params.people
    scored = scores.get("people") or [{} for _ in people]
    return Result(
        custom_id=item["custom_id"],
        picture=store.get(output["key"], sha256=output["sha256"]),
        prompt=params.prompt,
        seed=output["seed"],
        verdict=item["verdict"],
        people=[
            PersonScore(
                person=person.identity,
                similarity=score.get("similarity"),
                face=score.get("face"),
                nearest=people[score["nearest"]].identity if score.get("nearest") is not None else None,
                slot=person.slot,
            )
            for person, score in zip(people, scored, strict=True)
        ],
        matrix=scores.get("matrix", ()),
        layout=params.layout,
        seconds=sum(stage["seconds"] or 0.0 for stage in item["stages"]),
        redraws=item["redraws"],
        small_faces=output["small_faces"],
    )


def _failure(line: Mapping[str, Any]) -> Failure:
    error = line["error"]
    return Failure(
        custom_id=line["custom_id"] or "",
        code=error["code"],
        message=error["message"],
        stage=error.get("stage"),
        attempt=error.get("attempt"),
        row=line.get("row"),
    )


def _seconds(batch: Batch) -> float | None:
    ended, began = batch.finished_at, batch.started_at
    return (ended - began).total_seconds() if ended and began else None


def _thresholds(session: Session, version: ModelVersion | None) -> dict[str, float]:
    """Return the two lines that a verdict draws."""
    if version is None or not version.manifest.get("verdict"):
        return {}
    drawn = evaluations.thresholds(session, version)
    return {"accepted": drawn.accept, "needs review": drawn.review}


def _people(item: Mapping[str, Any], handles: Mapping[str, str]) -> list[str]:
    return [handles.get(identity, identity) for identity in PortraitParams.load(item["params"]).identities()]


def _facts(item: Mapping[str, Any], handles: Mapping[str, str]) -> NameFacts:
    return NameFacts(
        custom_id=item["custom_id"],
        index=item["position"],
        identity="+".join(_people(item, handles)),
        seed=item["output"]["seed"],
        layout=PortraitParams.load(item["params"]).layout or "free",
    )


def _columns(item: Mapping[str, Any], batch: Batch, handles: Mapping[str, str]) -> dict[str, str | int | float | None]:
    params, output = PortraitParams.load(item["params"]), item["output"]
    return {
        "custom_id": item["custom_id"],
        "text": params.prompt,
        "people": "+".join(_people(item, handles)),
        "layout": params.layout,
        "seed": output["seed"],
        "verdict": item["verdict"],
        "similarity": item["similarity"],
        "preset": batch.preset,
        "model_version": output["model_version"],
        "sha256": output["sha256"],
    }
