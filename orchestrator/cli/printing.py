"""How commands that make or show a batch read a manifest's name and answer: its object, its tables, its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from orchestrator.cli.common import FinishError, Place, Services, moment, print_facts, print_json, print_table, words

if TYPE_CHECKING:
    from orchestrator.planning.manifest import Format


def manifest_format(path: Path, chosen: str | None) -> Format:
    """Return the manifest's format: the chosen one, else that of the file's ending.

    Raises:
        UsageError: neither says it.
    """
    from orchestrator.errors import UsageError
    from orchestrator.planning.manifest import FORMATS

    if chosen in ("jsonl", "csv"):
        return "csv" if chosen == "csv" else "jsonl"
    if chosen is None and path.suffix.lower() in FORMATS:
        return FORMATS[path.suffix.lower()]
    if chosen is None and str(path) == "-":
        return "jsonl"
    raise UsageError(f"a manifest is jsonl or csv, got {chosen or path.name!r}; see --format", code="bad_format")


def answer(s: Place, batch_id: str, *, wait: bool, as_json: bool, wait_paused: bool = False) -> None:
    """End a submit: wait if asked to, and print the batch on standard output."""
    from orchestrator.cli.watch import follow
    from orchestrator.results.results import exit_code

    wait = wait or wait_paused
    if wait:
        follow(s, batch_id, wait_paused=wait_paused)
    batch = describe_batch(s, batch_id)
    if as_json:
        print_json(batch)
    elif wait:
        print_batch(batch)
    else:
        typer.echo(batch_id)
    if wait and exit_code(batch):
        raise FinishError(exit_code(batch))


def describe_batch(s: Place, batch_id: str, *, with_items: bool = False) -> dict[str, Any]:
    """Return the object of a batch, with light objects of its items if asked for."""
    if not isinstance(s, Services):
        return s.batch(batch_id, with_items=with_items)
    from orchestrator.ledger.queue import batches
    from orchestrator.results.results import batch_object, item_lines

    with s.ledger.read() as session:
        batch = batches.get(session, s.owner, batch_id)
        shown = batch_object(session, batch)
        if with_items:
            shown["items"] = item_lines(session, batch)
        return shown


def print_batch(batch: dict[str, Any]) -> None:
    """Print a batch for people, without its items."""
    counts = batch["request_counts"]
    print_facts(
        {
            "id": batch["id"],
            "name": batch["name"],
            "state": batch["state"],
            "reason": batch["reason"],
            "items": f"{counts['total']} ({words(batch['counts'])})",
            "rows left out": batch["rejected_rows"] or None,
            "verdicts": words(batch["verdicts"]),
            "unchanged": words(batch["unchanged"]),
            "errors": words(batch["error_counts"]),
            "preset": f"{batch['preset']} ({batch['model_version'] or 'no version'})",
            "submitted": moment(batch["created_at"]),
            "started": moment(batch["started_at"]),
            "finished": moment(batch["finished_at"]),
            "seconds": batch["seconds"],
            "retries": batch["parent_id"],
            "flow run": batch["flow_run_id"],
        }
    )
    if batch["stages"]:
        columns = ["stage", "items", "waited p50", "p90", "max", "ran p50", "p90", "max"]
        rows = [
            (
                stage["name"],
                stage["count"],
                *(f"{stage['queue_seconds'][key]:.2f}" for key in ("p50", "p90", "max")),
                *(f"{stage['run_seconds'][key]:.2f}" for key in ("p50", "p90", "max")),
            )
            for stage in batch["stages"]
        ]
        print_table(columns, rows)


def print_items(items: list[dict[str, Any]]) -> None:
    """Print items for people, one in each line."""
    rows = [
        (
            item["custom_id"],
            item["status"],
            item["verdict"],
            "" if item["similarity"] is None else f"{item['similarity']:.3f}",
            "" if item["run_seconds"] is None else f"{item['run_seconds']:.1f}",
            "" if item["error"] is None else f"{item['error']['code']}: {item['error']['message']}",
        )
        for item in items
    ]
    print_table(["custom_id", "state", "verdict", "similarity", "ran s", "error"], rows)
