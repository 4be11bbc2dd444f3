"""`fpga people`: who is who in an archive of photographs, without any generator."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import (
    FinishError,
    JsonOption,
    Services,
    YesOption,
    confirm,
    print_facts,
    print_json,
    print_table,
    say,
    screen,
    services,
    words,
)
from orchestrator.cli.identity import ConsentText, Expires, GrantedBy, consent_of, wait_for
from orchestrator.cli.restore import FeedOption, KeyOption, SourceArgument, feed_here, sweeper_reads

if TYPE_CHECKING:
    from orchestrator.contracts.photos import Grouped
    from orchestrator.status.progress import Progress

app = typer.Typer(name="people", help="Who is who in an archive of photographs.", no_args_is_help=True)

Who = Annotated[str, typer.Argument(metavar="WHO", help="Number, name, handle or id of a person that a scan found.")]
Faces = Annotated[list[str], typer.Argument(metavar="FACE", help="Ids of faces, from `fpga people show`.")]
ArchiveOption = Annotated[
    str | None, typer.Option("--archive", metavar="SOURCE", help="Only this archive, named as it was scanned.")
]
SHOWN = 20
GROUP_SECONDS = 600.0


@app.command()
def scan(
    source: SourceArgument,
    preset: Annotated[str | None, typer.Option(help="Whose face pack looks (default: faces).")] = None,
    names: Annotated[str, typer.Option(help="Code page of names in an old zip, such as cp866.")] = "cp437",
    again: Annotated[bool, typer.Option("--again", help="Look at every photo, not only at new ones.")] = False,
    feed: FeedOption = "auto",
    idempotency_key: KeyOption = None,
    wait: Annotated[bool, typer.Option(help="Stay until everybody is grouped.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Find the faces of an archive and group them into people. Run again, it looks only at what is new."""
    from orchestrator.people import scan as service

    with services() as s:
        here = feed == "here" or (feed == "auto" and not sweeper_reads(s, source))
        made = service.submit(
            s.ledger,
            s.settings,
            source=source,
            owner=s.owner,
            preset=preset,
            names=names,
            force=again,
            idempotency_key=idempotency_key,
            fed=not here,
            operator=True,
        )
        say(f"{made.batch_id} {'goes on' if made.repeated else 'is open'}")
        if here:
            _read(s, made.batch_id)
        if not wait:
            print_json({"object": "people.scanning", "batch_id": made.batch_id}) if as_json else typer.echo(
                made.batch_id
            )
            return
        grouped = _follow(s, made.batch_id)
        _print_scan(s, made.batch_id, source, grouped, as_json=as_json)


@app.command("list")
def list_(archive: ArchiveOption = None, as_json: JsonOption = False) -> None:
    """List the people that scans found, those in most photos first."""
    from orchestrator.people import found

    with services() as s:
        people = found.people(s.ledger, s.owner, archive)
    if as_json:
        print_json({"object": "list", "data": people, "next": None})
        return
    rows = [
        (
            one["number"],
            one["name"] or one["handle"] or "",
            one["photos"],
            one["faces"],
            " ".join(one["scopes"]) or "nothing",
        )
        for one in people
    ]
    print_table(["person", "name", "photos", "faces", "allows"], rows)


@app.command()
def show(
    who: Annotated[
        str | None, typer.Argument(metavar="WHO", help="A person; without one, faces that are nobody's.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="Most faces, best first.")] = 20,
    as_json: JsonOption = False,
) -> None:
    """Show a person's faces, best first, with the photos that show each."""
    from orchestrator.people import found

    with services() as s:
        if who is None:
            person = None
            faces = found.unsorted(s.ledger, s.owner, limit=limit)
        else:
            person = found.show(s.ledger, s.owner, who, limit=limit)
            faces = person["shown"]
    if as_json:
        print_json(person or {"object": "list", "data": faces, "next": None})
        return
    if person is not None:
        facts = {name: person[name] for name in ("number", "name", "handle", "photos", "faces")}
        print_facts({**facts, "allows": ", ".join(person["scopes"]) or "nothing"})
    rows = [
        (face["id"], ", ".join(face["faults"]), "yes" if face["decided"] else "", ", ".join(face["photos"]))
        for face in faces
    ]
    print_table(["face", "poor", "decided", "photos"], rows)


@app.command()
def name(
    who: Who,
    text: Annotated[str, typer.Argument(metavar="NAME", help="What to call them.")],
    handle: Annotated[str | None, typer.Option(help="They are this person of the library, or get this handle.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Name a person; later scans put their new faces under this name."""
    from orchestrator.people import found

    with services() as s:
        _told(found.name(s.ledger, s.owner, who, text, handle), as_json)


@app.command()
def merge(who: Who, others: Annotated[list[str], typer.Argument(metavar="OTHER")], as_json: JsonOption = False) -> None:
    """Say that several people are one; the first keeps its number."""
    from orchestrator.people import found

    with services() as s:
        _told(found.merge(s.ledger, s.owner, who, others), as_json)


@app.command()
def split(faces: Faces, as_json: JsonOption = False) -> None:
    """Make a new person of these faces."""
    from orchestrator.people import found

    with services() as s:
        _told(found.split(s.ledger, s.owner, faces), as_json)


@app.command()
def give(who: Who, faces: Faces, as_json: JsonOption = False) -> None:
    """Say that these faces are this person's."""
    from orchestrator.people import found

    with services() as s:
        _told(found.give(s.ledger, s.owner, who, faces), as_json)


@app.command("not")
def not_(faces: Faces, as_json: JsonOption = False) -> None:
    """Say that these faces are not the person's with whom they were grouped."""
    from orchestrator.people import found

    with services() as s:
        count = found.refuse(s.ledger, s.owner, faces)
    print_json({"object": "people.refused", "faces": count}) if as_json else say(f"{count} faces are nobody's now")


@app.command()
def consent(
    who: Who,
    scope: Annotated[list[str], typer.Option(help="What they allow: generate, restore, swap, train.")],
    granted_by: GrantedBy = None,
    consent_text: ConsentText = None,
    expires: Expires = None,
    handle: Annotated[str | None, typer.Option(help="What manifests call them (default: by their name).")] = None,
    preset: Annotated[str | None, typer.Option(help="Whose face pack takes them in (default: faces).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what a person allows; they enter the library by the best pictures of their group."""
    from orchestrator.people import found

    with services() as s:
        given = consent_of(s, scope, granted_by, consent_text, expires)
        batch_id = found.consent(s.ledger, s.store, s.settings, s.owner, who, given, handle=handle, preset=preset)
        if batch_id is not None:
            for note in wait_for(s, batch_id, 120.0).notes:
                say(note)
        _told(found.show(s.ledger, s.owner, who), as_json)


@app.command()
def forget(
    who: Annotated[str | None, typer.Argument(metavar="WHO", help="A person who is not in the library.")] = None,
    archive: ArchiveOption = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Remove a person's faces, or all that was found in an archive. Photos stay as they are."""
    from orchestrator.errors import UsageError
    from orchestrator.people import found

    if (who is None) == (archive is None):
        raise UsageError("say whom to forget, or with --archive which archive", code="bad_option")
    confirm(f"Forget {who or archive}? What people said of these faces goes too.", yes=yes)
    with services() as s:
        if archive is not None:
            said = {"photos": found.forget_archive(s.ledger, s.owner, archive)}
        else:
            said = {"faces": found.forget(s.ledger, s.owner, str(who))}
    print_json({"object": "people.forgotten", **said}) if as_json else say(f"forgotten: {words(said)}")


@app.command()
def report(archive: ArchiveOption = None, as_json: JsonOption = False) -> None:
    """Count what was found; name photos that are there twice, and people who allow nothing."""
    from orchestrator.people import found
    from orchestrator.wording import duration

    with services() as s:
        said = found.report(s.ledger, s.settings, s.owner, archive)
    if as_json:
        print_json(said)
        return
    names = ("photos", "pictures", "faces", "people", "unsorted", "small", "blurred", "dark", "turned", "other_kind")
    print_facts({name.replace("_", " "): said[name] for name in names})
    could = said["restorable"]
    say(f"{could['faces']} faces in {could['photos']} photos are of people who allow a restoration")
    for one in could["presets"] if could["faces"] else ():
        if not one["here"]:
            say(f"to restore them: `fpga model pull {one['name']}`")
        else:
            took = "never measured here" if one["seconds"] is None else f"about {duration(one['seconds'])}"
            say(f"preset {one['name']} restores them; {took}")
    for one in said["without_consent"][:SHOWN]:
        say(f"allows nothing: {one['name'] or 'person ' + str(one['number'])}, in {one['photos']} photos")
    for twin in said["twins"][:SHOWN]:
        say(f"{twin['photo']} is {'like' if twin['how'] == 'near' else 'the same as'} {twin['of']} ({twin['how']})")
    rest = max(0, len(said["twins"]) - SHOWN) + max(0, len(said["without_consent"]) - SHOWN)
    if rest:
        say(f"and {rest} more lines; --json lists all")


@app.command()
def export(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Where side files and people.csv go.")],
    archive: ArchiveOption = None,
    names: Annotated[
        str, typer.Option(help="full: photo.jpg.xmp (digiKam, PhotoPrism); base: photo.xmp (Lightroom).")
    ] = "full",
    numbers: Annotated[bool, typer.Option("--numbers", help="Also people without a name, as 'Person 3'.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Write who is in which photo: XMP side files and one CSV. No photo is touched, no file is written over."""
    from dataclasses import asdict

    from orchestrator.errors import UsageError
    from orchestrator.people import sidecars

    if names not in ("full", "base"):
        raise UsageError(f"wanted full or base, got {names!r}", code="bad_option")
    with services() as s:
        done = sidecars.export(
            s.ledger,
            s.owner,
            folder,
            archive=archive,
            naming="full" if names == "full" else "base",
            numbers=numbers,
        )
    if as_json:
        print_json({"object": "people.exported", **asdict(done)})
        return
    say(f"{done.photos} photos with {done.faces} faces are in {folder / sidecars.PEOPLE_CSV}")
    say(f"{done.side_files} side files name somebody")
    for path in done.there[:SHOWN]:
        say(f"left as it was: {path}")
    if done.there:
        raise FinishError(2)


def _told(person: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(person)
        return
    name = f" is {person['name']!r}" if person["name"] else ""
    allows = ", ".join(person["scopes"]) or "nothing"
    say(f"person {person['number']}{name}: {person['faces']} faces in {person['photos']} photos, allows {allows}")


def _read(s: Services, batch_id: str) -> None:
    """Read the archive in this process, unless another one does."""
    from orchestrator.errors import ConflictError

    try:
        feed_here(s, batch_id, deliver=None)
    except ConflictError as error:
        if error.code != "feeding":
            raise
        say("another process reads the archive")


def _follow(s: Services, batch_id: str) -> Grouped:
    """Wait until the photos were looked at and the faces grouped; Ctrl-C leaves the scan running."""
    from orchestrator.people import scan as service
    from orchestrator.status.progress import look
    from orchestrator.status.watching import until

    try:
        with screen().status("looking") as status:
            ended = until(
                lambda: look(s.ledger, s.owner, batch_id),
                lambda one: one.ended or one.state == "paused",
                lambda one: status.update(_line(one)),
                away=lambda error: say(f"{error.message}; waiting until it does"),
            )
            if not ended.ended:
                say(f"the scan is paused; `fpga batch resume {batch_id}` lets it go on")
                raise FinishError(3)
            group_id = service.follow(s.ledger, batch_id)
            assert group_id is not None, "a scan that has ended is grouped"
            status.update("grouping the faces")
            done = until(lambda: service.grouped(s.ledger, s.owner, group_id), bool, lambda _: None)
            assert done is not None
            return done
    except KeyboardInterrupt:
        say("\nThe scan goes on. Come back with the same command.")
        raise FinishError(130) from None


def _line(found: Progress) -> str:
    from orchestrator.planning.estimate import describe

    if not found.workers:
        return f"{found.done} of {found.total} photos; no worker runs, start one with `fpga up`"
    rate = found.done / found.elapsed if found.elapsed else 0.0
    when = f", {describe(found.eta)} to go" if found.eta else ""
    return f"{found.done} of {found.total} photos looked at, {rate:.1f} a second{when}"


def _print_scan(s: Services, batch_id: str, source: str, grouped: Grouped, *, as_json: bool) -> None:
    from orchestrator.contracts.photos import PhotoOptions
    from orchestrator.ledger.queue import batches
    from orchestrator.people import found

    with s.ledger.read() as session:
        batch = batches.get(session, s.owner, batch_id)
        read = PhotoOptions.load(batch.options).read or {}
        failed = [
            {"path": item.custom_id, "code": item.error_code, "message": item.error_message}
            for item in batches.items(session, batch.id, states=("failed", "held"))
        ]
    said: dict[str, Any] = {
        "object": "people.scan",
        "batch_id": batch_id,
        "looked_at": batch.total - len(failed),
        "known": read.get("known", 0),
        "failed": failed,
        "new_people": grouped.people,
        "joined": grouped.joined,
        "seconds": round((batch.finished_at - batch.created_at).total_seconds(), 1) if batch.finished_at else None,
    }
    totals = found.totals(s.ledger, s.owner, source)
    said |= {"photos": totals.photos, "faces": totals.faces, "people": totals.people, "unsorted": totals.unsorted}
    if as_json:
        print_json(said)
    else:
        for one in failed[:SHOWN]:
            say(f"{one['path']}: {one['message']} [{one['code']}]")
        if len(failed) > SHOWN:
            say(f"and {len(failed) - SHOWN} more; --json lists all")
        shown = ("looked_at", "known", "photos", "faces", "people", "new_people", "unsorted", "seconds")
        print_facts({name.replace("_", " "): said.get(name) for name in shown})
        say("next: `fpga people list`, or the page People in photos")
    if failed:
        raise FinishError(2)
