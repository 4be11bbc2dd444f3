"""`fpga batch`: submit manifests, watch them, fetch what they made, stop and start them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    MANIFEST_HELP,
    FinishError,
    JsonOption,
    Place,
    Services,
    WaitOption,
    WaitPausedOption,
    YesOption,
    confirm,
    moment,
    place,
    print_facts,
    print_json,
    print_lines,
    print_table,
    read_input,
    say,
    services,
)
from orchestrator.cli.options import takes
from orchestrator.cli.printing import answer, describe_batch, manifest_format, print_batch, print_items
from orchestrator.cli.restore import go_on_reading

if TYPE_CHECKING:
    from collections.abc import Mapping

    from orchestrator.cli.server import Server
    from orchestrator.contracts.portraits import PlanOptions, SubmitOptions
    from orchestrator.errors import FpgaError
    from orchestrator.planning.manifest import Format
    from orchestrator.portraits.submit import DryRun

app = typer.Typer(name="batch", help="Batches of portraits.", no_args_is_help=True)

BatchId = Annotated[str, typer.Argument(metavar="ID", help="Id of a batch; a unique beginning is enough.")]
WhyOption = Annotated[str, typer.Option("--reason", help="Kept in the audit log for good: name nobody.")]
ItemOption = Annotated[str | None, typer.Option("--item", help="Only this item.")]
ManifestPath = Annotated[Path, typer.Argument(metavar="MANIFEST", help=MANIFEST_HELP)]
FormatOption = Annotated[str | None, typer.Option("--format", help="jsonl or csv (default: by the file's ending).")]
SHOWN_ITEMS = 50
PLAIN_NAMES = "{custom_id}.{ext}"


@takes(app, "portraits:SubmitOptions", without={"growing"})
def submit(
    manifest: ManifestPath,
    name: Annotated[str | None, typer.Option(help="What to call it (default: the file's name).")] = None,
    format: FormatOption = None,
    idempotency_key: Annotated[
        str | None, typer.Option(help="The same key with the same manifest makes one batch only.")
    ] = None,
    wait: WaitOption = False,
    wait_paused: WaitPausedOption = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would happen.")] = False,
    as_json: JsonOption = False,
    *,
    options: SubmitOptions,
) -> None:
    """Submit a manifest; nothing is queued when a row is wrong, unless --skip-invalid."""
    data, form = read_input(manifest), manifest_format(manifest, format)
    if dry_run:
        _dry_run(data, form, options, as_json=as_json, skip_invalid=options.skip_invalid)
        return
    called = name or ("standard input" if str(manifest) == "-" else manifest.stem)
    with place() as s:
        if not isinstance(s, Services):
            asked = _said(options) | {"name": called}
            shown = s.submit(data, form, asked, key=idempotency_key)
            left_out = (
                f", {len({one['row'] for one in shown['errors']})} wrong rows left out" if shown["errors"] else ""
            )
            say(f"{shown['id']} has {shown['request_counts']['total']} items{left_out}")
            answer(s, shown["id"], wait=wait, wait_paused=wait_paused, as_json=as_json)
            return
        from orchestrator.portraits.submit import submit_portraits

        made = submit_portraits(
            s.ledger,
            s.settings,
            manifest=data,
            format=form,
            name=called,
            owner=s.owner,
            options=options,
            idempotency_key=idempotency_key,
        )
        if made.candidate_batch_id:
            say(f"{made.candidate_batch_id} is the candidate's share; fpga batch compare {made.batch_id} shows both")
        for note in made.notes:
            say(f"note: {note}")
        rows = len({error.row for error in made.errors})
        left_out = f", {rows} wrong rows left out" if rows else ""
        say(
            f"{made.batch_id} had been made by an earlier request"
            if made.repeated
            else f"{made.batch_id} has {made.planned} items{left_out}"
        )
        answer(s, made.batch_id, wait=wait, wait_paused=wait_paused, as_json=as_json)


@takes(app, "portraits:PlanOptions")
def validate(
    manifest: ManifestPath, format: FormatOption = None, as_json: JsonOption = False, *, options: PlanOptions
) -> None:
    """Check a manifest: wrong rows, missing consents, items and time; exit 1 when a row is wrong."""
    _dry_run(read_input(manifest), manifest_format(manifest, format), options, as_json=as_json, skip_invalid=False)


@app.command("list")
def list_(
    state: Annotated[list[str] | None, typer.Option(help="Only batches in this state; may be repeated.")] = None,
    kind: Annotated[str, typer.Option(help="generate, restore, enrol, or all.")] = "generate",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many of the newest.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """List the newest batches."""
    with place() as s:
        lines = _newest(s, state or [], None if kind == "all" else kind, limit)
    if as_json:
        print_json(lines)
        return
    rows = [
        (b["id"], b["name"], b["state"], _done(b), b["request_counts"]["failed"] or "", moment(b["created_at"]))
        for b in lines
    ]
    print_table(["id", "name", "state", "completed", "failed", "submitted"], rows)


def _newest(s: Place, states: list[str], kind: str | None, limit: int) -> list[dict[str, Any]]:
    from orchestrator.ledger.queue import batches
    from orchestrator.results.results import batch_line

    if not isinstance(s, Services):
        kinds = {"kind": kind} if kind else {}
        return list(s.rows("/v1/batches", most=limit, state=states, **kinds))
    with s.ledger.read() as session:
        found = batches.listing(session, s.owner, states=states, kind=kind, limit=limit)
        return [batch_line(batch, batches.counts(session, batch.id)) for batch in found]


@app.command()
def show(batch_id: BatchId, as_json: JsonOption = False) -> None:
    """Show a batch: counts, verdicts, times of each stage, and its items."""
    with place() as s:
        batch = describe_batch(s, batch_id, with_items=True)
    if as_json:
        print_json(batch)
        return
    print_batch(batch)
    print_items(batch["items"][:SHOWN_ITEMS])
    if len(batch["items"]) > SHOWN_ITEMS:
        say(f"and {len(batch['items']) - SHOWN_ITEMS} more; --json lists all")


@app.command()
def watch(batch_id: BatchId, wait_paused: WaitPausedOption = False, as_json: JsonOption = False) -> None:
    """Follow a batch until it has ended; exit 2 if items failed, 3 if it is paused. Ctrl-C leaves it running."""
    with place() as s:
        _follow(s, _resolve(s, batch_id), as_json=as_json, wait_paused=wait_paused)


@app.command()
def results(
    batch_id: BatchId,
    errors: Annotated[bool, typer.Option("--errors", help="Print errors.jsonl instead of results.jsonl.")] = False,
    download: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Write pictures, sidecars and lists into this folder; what is there and equal stays."
        ),
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the contact sheet, one self-contained HTML file.")
    ] = None,
    template: Annotated[
        str, typer.Option(help="Name of pictures: {custom_id} {index} {identity} {seed} {layout} {ext}.")
    ] = PLAIN_NAMES,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Put pictures in the place of others of the same name.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print what is finished so far, one JSON object in each line, or write it to files; a cut download goes on."""
    with place() as s:
        found = _resolve(s, batch_id)
        if not isinstance(s, Services):
            _results_of(s, found, errors, download, sheet, template, overwrite=overwrite, as_json=as_json)
            return
        from orchestrator.archive.reach import Reach
        from orchestrator.ledger.queue import batches
        from orchestrator.results import export, results

        written: dict[str, Any] = {}
        if download is not None:
            reach = Reach(settings=s.settings, owner=s.owner, operator=True)
            done = export.download(
                s.ledger, s.store, s.owner, found, download, template=template, overwrite=overwrite, reach=reach
            )
            written["folder"] = str(done.folder)
        if sheet is not None:
            written["sheet"] = str(export.write_contact_sheet(s.ledger, s.store, s.vault, s.owner, found, sheet))
        if written:
            print_json(written) if as_json else print_facts(written)
            if download is not None and done.failures:
                _not_written(done.failures)
            return
        with s.ledger.read() as session:
            batch = batches.get(session, s.owner, found)
            lines = results.errors_lines(session, batch) if errors else results.results_lines(session, batch)
            print_lines(lines)


def _not_written(failures: Mapping[Any, FpgaError]) -> None:
    for path, error in failures.items():
        say(f"not written: {path}: {error.message} [{error.code}]")
    raise FinishError(2)


def _results_of(
    s: Server,
    batch_id: str,
    errors: bool,
    download: Path | None,
    sheet: Path | None,
    template: str,
    *,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Do what `results` does through a server."""
    from orchestrator.errors import UsageError

    if sheet is not None or template != PLAIN_NAMES:
        option = "--sheet" if sheet is not None else "--template"
        raise UsageError(f"{option} works on the byte store itself; its own pages show a sheet", code="local_only")
    if download is None:
        for line in s.lines(f"/v1/batches/{batch_id}/{'errors' if errors else 'results'}"):
            typer.echo(line)
        return
    failures = s.download(batch_id, download, overwrite=overwrite)
    written = {"folder": str(download)}
    print_json(written) if as_json else print_facts(dict(written))
    if failures:
        _not_written(failures)


@app.command()
def compare(
    batch_id: BatchId,
    html: Annotated[Path, typer.Option(metavar="FILE", help="Write both sides to this new HTML file.")],
) -> None:
    """Show what champion and candidate made of the same items, side by side."""
    from orchestrator.portraits import candidate
    from orchestrator.results.side_by_side import write_side_by_side

    with services() as s:
        found = _resolve(s, batch_id)
        pairs = candidate.pairs(s.ledger, s.store, s.owner, found)
    say(f"written: {write_side_by_side(html, f'Champion and candidate in {found}', pairs)}")


@app.command()
def retry(
    batch_id: BatchId,
    code: Annotated[list[str] | None, typer.Option(help="Only items with this error; may be repeated.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Also what an earlier retry has.")] = False,
    wait: WaitOption = False,
    wait_paused: WaitPausedOption = False,
    as_json: JsonOption = False,
) -> None:
    """Make a new batch of the items that failed or were held, unless an earlier retry has them."""
    from orchestrator.ledger.queue import batches

    with place() as s:
        if isinstance(s, Services):
            made = batches.retry(s.ledger, s.owner, batch_id, codes=code or (), again=again).batch_id
        else:
            asked = {"codes": code or [], "again": again}
            made = s.ask("POST", f"/v1/batches/{s.resolve(batch_id)}/retry", json=asked)["id"]
        say(f"{made} retries what failed in {batch_id}")
        answer(s, made, wait=wait, wait_paused=wait_paused, as_json=as_json)


@app.command()
def cancel(batch_id: BatchId, yes: YesOption = False, as_json: JsonOption = False) -> None:
    """Cancel a batch; what is finished stays, what runs stops within one denoising step."""
    from orchestrator.ledger.queue import batches

    with place() as s:
        found = _resolve(s, batch_id)
        confirm(f"Cancel {found}?", yes=yes)
        if isinstance(s, Services):
            state = str(batches.cancel(s.ledger, s.owner, found))
        else:
            state = _ask(s, found, "cancel")["state"]
        _tell(s, found, f"{found} is {state}", as_json=as_json)


@app.command()
def pause(
    batch_id: BatchId,
    reason: Annotated[str | None, typer.Option(help="Kept with the batch.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Stop working on a batch until it is resumed; workers give back what they hold."""
    from orchestrator.ledger.queue import batches

    with place() as s:
        found = _resolve(s, batch_id)
        if isinstance(s, Services):
            batches.pause(s.ledger, s.owner, found, reason=reason)
        else:
            _ask(s, found, "pause", **({"reason": reason} if reason else {}))
        _tell(s, found, f"{found} is paused", as_json=as_json)


@app.command()
def order(
    batch_id: BatchId,
    lane: Annotated[str | None, typer.Option(help="interactive, bulk or training.")] = None,
    priority: Annotated[int | None, typer.Option(min=-3, max=3, help="Within its lane; 3 goes first.")] = None,
    top: Annotated[bool, typer.Option("--top", help="First of its lane: priority 3.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let a batch go before or behind others: another lane, or another priority within it."""
    from orchestrator.ledger.queue import batches

    with place() as s:
        found = _resolve(s, batch_id)
        priority = 3 if top else priority
        if isinstance(s, Services):
            batches.reorder(s.ledger, s.owner, found, lane=lane, priority=priority)
        else:
            _ask(s, found, "order", lane=lane, priority=priority)
        _tell(s, found, f"the order of {found} is changed", as_json=as_json)


@app.command()
def resume(batch_id: BatchId, as_json: JsonOption = False) -> None:
    """Go on with a paused batch, and read on in the source of one whose reader was killed."""
    from orchestrator.ledger.queue import batches

    with place() as s:
        found = _resolve(s, batch_id)
        if isinstance(s, Services):
            with s.ledger.read() as session:
                batch = batches.get(session, s.owner, found)
            if batch.state == "paused" or not batch.open:
                batches.resume(s.ledger, s.owner, found)
            go_on_reading(s, found)
        else:
            _ask(s, found, "resume")
        _tell(s, found, f"{found} goes on", as_json=as_json)


@app.command()
def release(batch_id: BatchId, reason: WhyOption, item: ItemOption = None, as_json: JsonOption = False) -> None:
    """Try held items again, each by itself; a batch that had ended goes on."""
    from orchestrator.ledger.queue import quarantine

    with place() as s:
        found = _resolve(s, batch_id)
        if isinstance(s, Services):
            released = len(quarantine.release(s.ledger, s.owner, found, reason=reason, item_id=item))
        else:
            released = _of_held(s, found, "release", reason, item)
        _tell(s, found, f"{released} held items of {found} are tried again", as_json=as_json)


@app.command()
def reject(batch_id: BatchId, reason: WhyOption, item: ItemOption = None, as_json: JsonOption = False) -> None:
    """Give held items up: they are cancelled."""
    from orchestrator.ledger.queue import quarantine

    with place() as s:
        found = _resolve(s, batch_id)
        if isinstance(s, Services):
            rejected = len(quarantine.reject(s.ledger, s.owner, found, reason=reason, item_id=item))
        else:
            rejected = _of_held(s, found, "reject", reason, item)
        _tell(s, found, f"{rejected} held items of {found} are given up", as_json=as_json)


def _ask(s: Server, batch_id: str, verb: str, **body: object) -> dict[str, Any]:
    answered: dict[str, Any] = s.ask("POST", f"/v1/batches/{batch_id}/{verb}", json=body or None)
    return answered


def _of_held(s: Server, batch_id: str, verb: str, reason: str, item: str | None) -> int:
    """Say what becomes of held items, and return how many those were."""
    before = s.batch(batch_id)["counts"]["held"]
    where = f"/v1/items/{item}" if item else f"/v1/batches/{batch_id}"
    s.ask("POST", f"{where}/{verb}", json={"reason": reason})
    return 1 if item else int(before)


def _said(options: PlanOptions) -> dict[str, Any]:
    """Return the options that a query says: those that somebody set."""
    return options.model_dump(mode="json", exclude_defaults=True)


def _resolve(s: Place, batch_id: str) -> str:
    """Return the full id that this beginning stands for."""
    if not isinstance(s, Services):
        return s.resolve(batch_id)
    from orchestrator.ledger.queue import batches

    with s.ledger.read() as session:
        return batches.get(session, s.owner, batch_id).id


def _follow(s: Place, batch_id: str, *, as_json: bool, wait_paused: bool) -> None:
    from orchestrator.cli.watch import follow
    from orchestrator.results.results import exit_code

    follow(s, batch_id, as_json=as_json, wait_paused=wait_paused)
    batch = describe_batch(s, batch_id)
    if not as_json:
        print_batch(batch)
    if exit_code(batch):
        raise FinishError(exit_code(batch))


def _tell(s: Place, batch_id: str, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(describe_batch(s, batch_id))
    else:
        say(sentence)


def _dry_run(data: bytes, form: Format, options: PlanOptions, *, as_json: bool, skip_invalid: bool) -> None:
    from orchestrator.portraits import submit

    with place() as s:
        if isinstance(s, Services):
            found = submit.dry_run(s.ledger, s.settings, manifest=data, format=form, owner=s.owner, options=options)
        else:
            found = submit.DryRun.of_json(s.submit(data, form, _said(options), key=None, dry_run=True))
    if as_json:
        print_json(found.as_json())
    else:
        _print_dry_run(found)
    if found.errors and not (skip_invalid and found.items):
        raise FinishError(1)


def _print_dry_run(found: DryRun) -> None:
    from orchestrator.planning.estimate import describe

    if found.errors:
        print_table(
            ["row", "field", "code", "what is wrong"], [(e.row, e.field, e.code, e.message) for e in found.errors]
        )
    print_facts(
        {
            "items": found.items,
            "people": found.people,
            "wrong rows": len({error.row for error in found.errors}),
            "time": describe(found.eta),
            "workers": found.workers,
            "items ahead": found.ahead,
        }
    )
    for note in found.notes:
        typer.echo(f"note: {note}")
    for sentence in found.missing_consents:
        typer.echo(f"consent missing: {sentence}")


def _done(batch: dict[str, Any]) -> str:
    return f"{batch['request_counts']['completed']}/{batch['request_counts']['total']}"
