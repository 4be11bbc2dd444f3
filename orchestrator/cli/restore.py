"""`fpga restore`, `fpga swap` and `fpga redo`: archives of photos in, the same tree out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    FinishError,
    JsonOption,
    Services,
    WaitOption,
    WaitPausedOption,
    place,
    print_facts,
    print_json,
    say,
    screen,
    words,
)
from orchestrator.cli.options import takes
from orchestrator.errors import NotFoundError, UsageError

if TYPE_CHECKING:
    from orchestrator.cli.server import Server
    from orchestrator.contracts.photos import RedoOptions, RestoreOptions
    from orchestrator.photos.feeding import Fed
    from orchestrator.photos.restore import Look

SourceArgument = Annotated[
    str, typer.Argument(metavar="SOURCE", help="Folder, pattern, zip, tar, one photo, or s3://bucket/prefix.")
]
OutOption = Annotated[
    str | None,
    typer.Option(metavar="DIR", help="Folder or s3://bucket/prefix for the same tree; waits for it."),
]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Only say what the source holds.")]
FeedOption = Annotated[
    str, typer.Option(help="Who reads the source: sweeper (of a running stack), here (this command), or auto.")
]
PresetOption = Annotated[str | None, typer.Option(help="Preset to run on (default: FPGA_PRESET, or mini).")]
KeyOption = Annotated[str | None, typer.Option(help="The same key with the same request makes one batch only.")]

MADE_FOR = {"drawn": "drawn people", "photographs": "photographs"}


SHOWN = 20
"""Files that are named on the screen; files.jsonl names all."""
app = typer.Typer()
"""Holds the commands of this module, which stand at the root."""


@takes(
    app,
    "photos:RestoreOptions",
    without={"task", "good", "only", "attested", "rules", "to", "of", "pairs"},
    everyone="identity",
)
def restore(
    source: SourceArgument,
    out: OutOption = None,
    only: Annotated[list[str] | None, typer.Option(help="Restore only this person; may be repeated.")] = None,
    attest: Annotated[
        str | None, typer.Option(metavar="TEXT", help="On what ground you may restore unknown people; is recorded.")
    ] = None,
    skip_good: Annotated[
        float | None, typer.Option(help="Faces at least so like their person (cosine) stay as they are.")
    ] = None,
    preset: PresetOption = None,
    idempotency_key: KeyOption = None,
    feed: FeedOption = "auto",
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    *,
    options: RestoreOptions,
) -> None:
    """Repair the faces of a photo archive; everything else stays as it is."""
    options = options.changed(good=skip_good, only=only or (), attested=attest)
    _run(source, options, out, preset, idempotency_key, feed, dry_run=dry_run, wait=wait, as_json=as_json)


@takes(
    app,
    "photos:RestoreOptions",
    without={"task", "good", "only", "attested", "rules", "to", "of", "min_face", "everyone", "unknown"},
)
def swap(
    source: SourceArgument,
    out: OutOption = None,
    map_: Annotated[
        Path | None, typer.Option("--map", metavar="FILE", help="CSV or JSONL with photo, face, from, to.")
    ] = None,
    to: Annotated[list[str] | None, typer.Option(help="Who comes in; may be repeated.")] = None,
    of: Annotated[
        str | None, typer.Option("--from", help="Whose face goes (default: the largest of each photo).")
    ] = None,
    preset: PresetOption = None,
    idempotency_key: KeyOption = None,
    feed: FeedOption = "auto",
    dry_run: DryRunOption = False,
    wait: WaitOption = False,
    as_json: JsonOption = False,
    *,
    options: RestoreOptions,
) -> None:
    """Put people of the library into photos, by a map or by pairs; all of them must allow `swap`."""
    from orchestrator.cli.common import read_input
    from orchestrator.cli.printing import manifest_format
    from orchestrator.planning.swaps import read_map

    rules = read_map(read_input(map_), manifest_format(map_, None)) if map_ else []
    options = options.changed(task="swap", rules=rules, to=to or (), of=of)
    _run(source, options, out, preset, idempotency_key, feed, dry_run=dry_run, wait=wait, as_json=as_json)


@takes(app, "photos:RedoOptions", without={"good"})
def redo(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Id of a photo's item, from `fpga batch results`.")],
    skip_good: Annotated[float | None, typer.Option(help="Another bound for faces that stay.")] = None,
    wait: WaitOption = False,
    wait_paused: WaitPausedOption = False,
    as_json: JsonOption = False,
    *,
    options: RedoOptions,
) -> None:
    """Make one photo again with another setting; its faces and inversions are used again."""
    from orchestrator.cli.printing import answer
    from orchestrator.photos import restore as service

    with place() as s:
        options = options.changed(good=skip_good)
        if isinstance(s, Services):
            batch_id = service.redo(s.ledger, s.settings, s.owner, item, options)
        else:
            asked = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            batch_id = s.ask("POST", f"/v1/items/{item}/redo", json=asked)["id"]
        answer(s, batch_id, wait=wait, wait_paused=wait_paused, as_json=as_json)


def go_on_reading(s: Services, batch_id: str) -> None:
    """Read on in the source of an open batch that no other process reads; used by `fpga batch resume`."""
    from orchestrator.errors import ConflictError
    from orchestrator.ledger import photos
    from orchestrator.ledger.queue import batches

    with s.ledger.read() as session:
        batch = batches.get(session, s.owner, batch_id)
        served = batch.id in [one.id for one in photos.to_serve(session)]
    if batch.kind not in photos.READ or not batch.open or (served and _sweeper_leads(s)):
        return
    try:
        feed_here(s, batch.id, deliver=None)
    except ConflictError as error:
        if error.code != "feeding":
            raise
        say("another process reads its source")


def _run(
    source: str,
    options: RestoreOptions,
    out: str | None,
    preset: str | None,
    key: str | None,
    feed: str,
    *,
    dry_run: bool,
    wait: bool,
    as_json: bool,
) -> None:
    from orchestrator.cli.printing import answer
    from orchestrator.photos import restore as service

    with place() as s:
        if not isinstance(s, Services):
            if dry_run or feed == "here":
                raise UsageError(
                    f"{'--dry-run' if dry_run else '--feed here'} reads the source where the server runs, without "
                    "FPGA_API_URL",
                    code="local_only",
                )
            asked = options.model_dump(mode="json", by_alias=True, exclude_defaults=True)
            _run_there(s, source, asked | ({"preset": preset} if preset else {}), out, key, wait=wait, as_json=as_json)
            return
        if dry_run:
            _print_look(
                service.look(s.ledger, s.settings, source=source, options=options, owner=s.owner, preset=preset),
                as_json,
            )
            return
        here = _word(feed, "auto", "sweeper", "here") == "here" or (feed == "auto" and not sweeper_reads(s, source))
        made = service.submit(
            s.ledger,
            s.settings,
            source=source,
            options=options,
            owner=s.owner,
            preset=preset,
            out=out,
            idempotency_key=key,
            fed=not here,
            operator=True,
        )
        say(f"{made.batch_id} {'had been made by an earlier request' if made.repeated else 'is open'}")
        delivery = _delivery(s, made.batch_id, out)
        if here:
            feed_here(s, made.batch_id, deliver=delivery)
        if delivery is not None:
            _deliver_until_ended(s, made.batch_id, delivery)
        answer(s, made.batch_id, wait=wait or out is not None, as_json=as_json)
        if delivery is not None and delivery.failures:
            raise FinishError(2)


def _run_there(
    s: Server, source: str, asked: dict[str, Any], out: str | None, key: str | None, *, wait: bool, as_json: bool
) -> None:
    """Hand a source to a server, photo by photo where it is a folder, and fetch the tree if a folder is to have it."""
    from orchestrator.cli.printing import answer
    from orchestrator.cli.watch import follow

    path, headers = Path(source), {"Idempotency-Key": key} if key else {}
    bucket = {"out": out} if out and out.startswith("s3://") else {}
    if source.startswith("s3://"):
        asked |= {"source": source}
    elif path.is_file():
        asked |= {"upload": s.upload(path)}
    elif not path.is_dir():
        raise NotFoundError(f"there is no file or folder {source}", code="file_not_found")
    made = s.ask("POST", "/v1/restorations", json=asked | bucket, headers=headers)["id"]
    if path.is_dir():
        _hand_over(s, made, path)
    if out and not bucket:
        follow(s, made)
        failures = s.download(made, Path(out), overwrite=False)
        for where, error in failures.items():
            say(f"not written: {where}: {error.message} [{error.code}]")
    answer(s, made, wait=wait or out is not None, as_json=as_json)
    if out and not bucket and failures:
        raise FinishError(2)


def _hand_over(s: Server, batch_id: str, folder: Path) -> None:
    """Send the files of a folder one by one and close the batch; links are not followed, and hidden files stay."""
    sent = left = 0
    with screen().status("sending photos") as status:
        for file in sorted(one for one in folder.rglob("*") if one.is_file() and not one.is_symlink()):
            inside = file.relative_to(folder)
            if any(part.startswith(".") for part in inside.parts) or not file.stat().st_size:
                left += 1
                continue
            body = {"upload": s.upload(file), "path": inside.as_posix()}
            skipped = s.ask("POST", f"/v1/batches/{batch_id}/photos", json=body)["skipped"]
            sent, left = sent + (skipped is None), left + (skipped is not None)
            status.update(f"sending photos: {sent}")
    s.ask("POST", f"/v1/batches/{batch_id}/close")
    say(f"sent {sent} photos, {left} files are no photos")


def sweeper_reads(s: Services, source: str) -> bool:
    """Whether the sweeper can read the source: it runs on this machine, or the source is a bucket."""
    from orchestrator.runtime.running import find_running

    return _sweeper_leads(s) and (source.startswith("s3://") or find_running(s.settings) is not None)


def _sweeper_leads(s: Services) -> bool:
    from orchestrator.ledger.engine.session import now
    from orchestrator.ledger.queue import sweeper

    with s.ledger.read() as session:
        until = sweeper.led_until(session)
        return until is not None and until > now(session)


def feed_here(s: Services, batch_id: str, *, deliver: Any) -> None:
    """Read the source in this process, with a line of how far it has come."""
    from orchestrator.photos import feeding

    console = screen()
    with console.status("reading the source") as status:

        def tick(fed: Fed) -> None:
            counts = {"photos": fed.photos, "refused": fed.refused, "no photo": sum(fed.skipped.values())}
            status.update(fed.waiting or f"reading the source: {words(counts)}")
            if deliver is not None:
                deliver.step()

        fed = feeding.feed(s.ledger, s.store, s.settings, s.owner, batch_id, tick)
    say(f"read {fed.photos} photos, {fed.refused} files refused, {sum(fed.skipped.values())} files are no photos")


def _delivery(s: Services, batch_id: str, out: str | None) -> Any:
    from orchestrator.archive.reach import Reach
    from orchestrator.photos.restore import absolute
    from orchestrator.results.delivery import Delivery

    reach = Reach(settings=s.settings, owner=s.owner, operator=True)
    return Delivery(s.ledger, s.store, s.owner, batch_id, absolute(out), reach) if out else None


def _deliver_until_ended(s: Services, batch_id: str, delivery: Any) -> None:
    """Write results as they come; Ctrl-C leaves the batch running."""
    from orchestrator.status.progress import Progress, look
    from orchestrator.status.watching import until

    with screen().status("restoring") as status:

        def tell(found: Progress) -> None:
            status.update(f"{found.state}: {found.done} of {found.total} photos, {words(found.counts)}")
            if not found.ended:
                delivery.step()

        try:
            until(
                lambda: look(s.ledger, s.owner, batch_id),
                lambda found: found.ended or found.state == "paused",
                tell,
                away=lambda error: say(f"{error.message}; waiting until it does"),
            )
        except KeyboardInterrupt:
            say(f"\nThe batch goes on. Come back with: fpga batch results {batch_id} --download DIR")
            raise FinishError(130) from None
    delivery.finish()
    for path in delivery.absent[:SHOWN]:
        say(f"not in the tree: {json.dumps(path, ensure_ascii=False)}")
    if len(delivery.absent) > SHOWN:
        say(f"and {len(delivery.absent) - SHOWN} more; files.jsonl says why of each, and --mirror copies them")
    for path, error in delivery.failures.items():
        say(f"not written: {path}: {error.message} [{error.code}]")


def _word(given: str, *allowed: str) -> Any:
    from orchestrator.errors import UsageError

    if given not in allowed:
        raise UsageError(f"wanted {' or '.join(allowed)}, got {given!r}", code="bad_option")
    return given


def _print_look(found: Look, as_json: bool) -> None:
    if as_json:
        print_json(found.as_json())
        return
    print_facts(
        {
            "photos": found.photos,
            "size": f"{found.size / 2**20:.1f} MiB",
            "no photos": words(found.skipped),
            "refused": len(found.refused) or None,
            "preset": f"{found.preset}, made for {MADE_FOR[found.domain]}; other faces stay as they are",
            "restores": "yes" if found.draws else "no: finds, pairs and reports; `fpga model pull sdxl` restores",
            "known people": found.known_people,
            "needed": "--attest TEXT, for unknown people" if found.must_attest else None,
            "unknown people": "found by their faces, restored by the best of them" if found.cluster else "stay",
        }
    )
    for refusal in found.refused:
        typer.echo(f"{refusal['path']}: {refusal['message']} [{refusal['code']}]")
