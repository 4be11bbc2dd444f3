"""`fpga demo`: the whole chain once, from reference pictures to a contact sheet, on this machine alone."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    FinishError,
    JsonOption,
    Services,
    StateDirOption,
    print_json,
    say,
    services,
    use_state_dir,
    words,
)

if TYPE_CHECKING:
    from orchestrator.settings import Settings

READY_SECONDS = 90.0
ENROL_SECONDS = 90.0
FLOW_SECONDS = 15.0


def demo(
    state_dir: StateDirOption = None,
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running at the end, until Ctrl-C.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Add eight people, make fourteen portraits of them, and write a contact sheet."""
    use_state_dir(state_dir)
    from orchestrator.cli.stack import hear_ctrl_c, ready
    from orchestrator.embedded.stack import Stack
    from orchestrator.people import examples
    from orchestrator.runtime.running import open_state_dir
    from orchestrator.settings import get_settings

    settings = get_settings()
    open_state_dir(settings)
    _log_to_file(settings)
    hear_ctrl_c()
    began = time.monotonic()
    say(f"starting on {settings.state_dir}")
    # short batches want a fresher look than the default, which is meant for nights
    lively = settings.model_copy(update={"heartbeat_seconds": min(settings.heartbeat_seconds, 2.0)})
    with Stack(lively) as stack:
        stack.wait_ready(READY_SECONDS, on_event=ready)
        with services() as s:
            _add_people(s, examples.FOLDER)
            batch = _make_portraits(s, examples.MANIFEST)
            folder = settings.state_dir / "demo" / batch["id"]
            page = _write(s, batch["id"], folder)
            flow = _flow_state(s, batch["id"])
        seconds = time.monotonic() - began
        _report(batch, page, flow, seconds, as_json=as_json)
        if keep:
            say("everything keeps running; Ctrl-C drains")
            stack.run_forever()
    if batch["state"] != "completed":
        raise FinishError(2)


def _log_to_file(settings: Settings) -> None:
    """Keep log lines out of the live picture."""
    from orchestrator import logs

    logs.setup(settings)
    folder = settings.state_dir / "logs"
    folder.mkdir(exist_ok=True, mode=0o700)
    handler = logging.FileHandler(folder / "demo.log")
    handler.setFormatter(logs.TextFormatter())
    logging.getLogger().handlers[:] = [handler]


def _add_people(s: Services, folder: Path) -> None:
    """Add the people whose folder's name is not in the library yet; a second demo finds them all there.

    Raises:
        InputError: a picture was refused.
        TransientError: the worker did not look at the pictures in time.
    """
    from orchestrator.errors import InputError, TransientError
    from orchestrator.people import examples, identities

    known = {person["handle"] for person in identities.list_people(s.ledger, s.owner)}
    new = examples.people(known, folder=folder)
    if not new:
        say(f"{len(known)} people are in the library already")
        return
    say(f"adding {len(new)} people with {sum(len(person.pictures) for person in new)} reference pictures")
    batch_id = identities.add(s.ledger, s.store, s.settings, new, owner=s.owner)
    ended = identities.wait_enrolled(s.ledger, s.owner, batch_id, timeout_seconds=ENROL_SECONDS)
    for one in ended:
        if one.error:
            raise InputError(f"{one.handle}: {one.error['message']}", code=one.error["code"])
        if one.identity_id is None:
            raise TransientError(f"the worker did not look at {one.handle} in {ENROL_SECONDS:g} s", code="stack_slow")


def _make_portraits(s: Services, manifest: Path) -> dict[str, Any]:
    """Submit the manifest, show it until it has ended, and return the batch with its items."""
    from orchestrator.cli.printing import describe_batch
    from orchestrator.cli.watch import follow
    from orchestrator.portraits.submit import submit_portraits

    made = submit_portraits(
        s.ledger, s.settings, manifest=manifest.read_bytes(), format="jsonl", name="demo", owner=s.owner
    )
    follow(s, made.batch_id, title="portraits")
    return describe_batch(s, made.batch_id, with_items=True)


def _write(s: Services, batch_id: str, folder: Path) -> Path:
    from orchestrator.results import export

    export.download(s.ledger, s.store, s.owner, batch_id, folder / "portraits")
    return export.write_contact_sheet(s.ledger, s.store, s.vault, s.owner, batch_id, folder / "index.html")


def _flow_state(s: Services, batch_id: str) -> str:
    """Give the flow run that watches the batch a moment to notice its end, and say what it is."""
    from orchestrator.errors import NotFoundError, TransientError
    from orchestrator.ledger.queue import batches
    from orchestrator.runtime.prefect.client import connect

    deadline = time.monotonic() + FLOW_SECONDS
    state = "not started"
    while state not in ("COMPLETED", "FAILED", "CRASHED") and time.monotonic() < deadline:
        with s.ledger.read() as session:
            flow_run_id = batches.get(session, s.owner, batch_id).flow_run_id
        if flow_run_id:
            try:
                with connect(s.settings) as api:
                    state = str(api.call("GET", f"flow_runs/{flow_run_id}")["state_type"])
            except (TransientError, NotFoundError) as error:
                state = error.code
        time.sleep(0.5)
    return state.lower()


def _report(batch: dict[str, Any], page: Path, flow: str, seconds: float, *, as_json: bool) -> None:
    from orchestrator.cli.printing import print_batch, print_items

    if as_json:
        print_json({**batch, "contact_sheet": str(page), "folder": str(page.parent), "demo_seconds": round(seconds, 1)})
        return
    print_items(batch["items"])
    typer.echo()
    print_batch(batch)
    counts = batch["request_counts"]
    typer.echo()
    typer.echo(f"{counts['completed']} of {counts['total']} portraits in {seconds:.0f} s, all told")
    typer.echo(f"verdicts       {words(batch['verdicts']) or 'none'}")
    typer.echo(f"flow run       {flow}")
    typer.echo(f"pictures       {page.parent / 'portraits'}")
    typer.echo(f"contact sheet  {page}")
