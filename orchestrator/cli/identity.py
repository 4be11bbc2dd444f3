"""`fpga identity`: the library of people, what they allow, and taking them away."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli import receipt
from orchestrator.cli.common import (
    JsonOption,
    Place,
    Services,
    YesOption,
    confirm,
    moment,
    place,
    print_facts,
    print_json,
    print_table,
    read_input,
    say,
    services,
)

if TYPE_CHECKING:
    from datetime import datetime

    from orchestrator.cli.server import Server
    from orchestrator.errors import FpgaError
    from orchestrator.people.identities import ConsentGiven, Enrolled, Picture

app = typer.Typer(name="identity", help="People: reference pictures and consent.", no_args_is_help=True)
app.add_typer(receipt.app)

Who = Annotated[str, typer.Argument(metavar="WHO", help="Handle or id of a person.")]
GrantedBy = Annotated[str | None, typer.Option(help="Who wrote the consent down (default: the owner).")]
ConsentText = Annotated[Path | None, typer.Option(help="File with the text they saw; its sha256 is kept.")]
Expires = Annotated[str | None, typer.Option(help="Until when, such as 2027-01-31.")]


@app.command()
def rekey(as_json: JsonOption = False) -> None:
    """Wrap every data key by the first master key and open it with that key alone; after a new one was put in front."""
    from orchestrator.people.rekey import rekey as change

    with services() as s:
        done = change(s.ledger, s.vault)
    if as_json:
        print_json(done.as_json())
        return
    print_facts({kind: f"{count} wrapped, {done.opened[kind]} opened" for kind, count in done.wrapped.items()})
    say("everything opens with the first master key alone; the others may be thrown away, once no backup needs them")


@app.command()
def newkey() -> None:
    """Print a new master key for FPGA_DATA_KEYS. It is shown once; without it nobody can read the references."""
    from cryptography.fernet import Fernet

    typer.echo(Fernet.generate_key().decode())


@app.command()
def add(
    handle: Annotated[str, typer.Argument(help="What manifests call this person.")],
    pictures: Annotated[list[Path], typer.Argument(help="Reference pictures, folders of them, or - for one.")],
    consent: Annotated[list[str] | None, typer.Option(help="Scope they allow: generate, restore, swap, train.")] = None,
    granted_by: GrantedBy = None,
    consent_text: ConsentText = None,
    expires: Expires = None,
    name: Annotated[str | None, typer.Option(help="Their name, for your eyes only.")] = None,
    more: Annotated[bool, typer.Option("--more", help="Add to a person who is there already.")] = False,
    same_person: Annotated[
        bool, typer.Option("--same-person", help="All pictures show this person, however unlike they look.")
    ] = False,
    preset: Annotated[str | None, typer.Option(help="Whose face pack looks at them (default: FPGA_PRESET).")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until a worker has found the faces.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 120.0,
    as_json: JsonOption = False,
) -> None:
    """Add a person: each picture must show exactly one face. Nothing is kept of a picture that does not."""
    from orchestrator.people.identities import NewPerson
    from orchestrator.people.identities import add as add_people

    with place() as s:
        if not isinstance(s, Services):
            if preset or same_person:
                raise _local("--preset" if preset else "--same-person")
            consents = _consent_said(consent or [], granted_by, consent_text, expires)
            _add_there(s, handle, _pictures(pictures), consents, name, more, timeout if wait else 0.0, as_json)
            return
        given = consent_of(s, consent or [], granted_by, consent_text, expires)
        person = NewPerson(
            handle=handle, name=name, pictures=tuple(_pictures(pictures)), consent=given, same_person=same_person
        )
        batch_id = add_people(s.ledger, s.store, s.settings, [person], owner=s.owner, more=more, preset=preset)
        if not wait:
            say("a worker will look at the pictures; follow with: fpga batch watch " + batch_id)
            print_json({"object": "identity.enrolling", "batch_id": batch_id}) if as_json else typer.echo(batch_id)
            return
        found = wait_for(s, batch_id, timeout)
    if as_json:
        print_json(found.as_json())
    else:
        for note in found.notes:
            say(note)
        say(f"{handle} is in the library")
        typer.echo(found.identity_id)


def _local(what: str) -> FpgaError:
    from orchestrator.errors import UsageError

    return UsageError(f"{what} works where the server runs, without FPGA_API_URL", code="local_only")


def _consent_said(
    scopes: list[str], granted_by: str | None, text: Path | None, expires: str | None
) -> dict[str, str | list[str]]:
    """Return a consent as requests say it."""
    said = {
        "scopes": _scopes(scopes),
        "granted_by": granted_by,
        "text": read_input(text).decode("utf-8", "replace") if text else None,
        "expires_at": _time(expires).isoformat() if expires else None,
    }
    return {name: value for name, value in said.items() if value}


def _add_there(
    s: Server,
    handle: str,
    pictures: list[Picture],
    consent: dict[str, str | list[str]],
    name: str | None,
    more: bool,
    seconds: float,
    as_json: bool,
) -> None:
    """Do what `add` does through a server, and wait so long for the faces."""
    from orchestrator.errors import InputError, TransientError

    form = {"consent_text" if key == "text" else key: value for key, value in consent.items()}
    form |= {"handle": handle, "more": str(more).lower(), **({"name": name} if name else {})}
    files = [("pictures", (one.name, one.data)) for one in pictures]
    headers = {"Prefer": f"wait={min(30, int(seconds))}"} if seconds else {}
    made = s.ask("POST", "/v1/identities", data=form, files=files, headers=headers)
    until = time.monotonic() + seconds
    while seconds and not (made["id"] or made["error"]) and time.monotonic() < until:
        time.sleep(0.5)
        (item,) = s.rows(f"/v1/batches/{made['batch_id']}/items")
        made["error"] = item["error"]
        if item["status"] == "completed":
            made["id"] = s.ask("GET", f"/v1/identities/{handle}")["id"]
    if made["error"]:
        raise InputError(made["error"]["message"], code=made["error"]["code"], batch_id=made["batch_id"])
    if made["id"]:
        batch_id = made.pop("batch_id")
        for note in made["notes"]:
            say(note)
        say(f"{handle} is in the library")
        print_json(made) if as_json else typer.echo(made["id"])
    elif not seconds:
        batch_id = made["batch_id"]
        say("a worker will look at the pictures; follow with: fpga batch watch " + batch_id)
        print_json({"object": "identity.enrolling", "batch_id": batch_id}) if as_json else typer.echo(batch_id)
    else:
        raise TransientError(
            f"no worker has finished with the pictures within {seconds:g} s; follow with: fpga batch watch "
            f"{made['batch_id']}",
            code="still_waiting",
            batch_id=made["batch_id"],
        )


@app.command()
def reembed(
    who: Annotated[list[str] | None, typer.Argument(metavar="WHO", help="Handles or ids; else everybody.")] = None,
    wait: Annotated[bool, typer.Option(help="Wait until a worker has done it.")] = True,
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait at most.")] = 600.0,
    as_json: JsonOption = False,
) -> None:
    """Embed the sealed references by the present model's recogniser; no picture is asked for twice."""
    from orchestrator.people import identities

    with services() as s:
        batch_id = identities.reembed(s.ledger, s.settings, owner=s.owner, who=who or [])
        if batch_id is None:
            say("there is nobody in the library who allows anything")
            found = []
        elif not wait:
            say("a worker will embed them; follow with: fpga batch watch " + batch_id)
            print_json({"object": "identity.reembedding", "batch_id": batch_id}) if as_json else typer.echo(batch_id)
            return
        else:
            found = identities.wait_enrolled(s.ledger, s.owner, batch_id, timeout_seconds=timeout)
    failed = [one for one in found if one.error]
    waiting = [one for one in found if not one.error and not one.identity_id]
    if as_json:
        print_json({"object": "identity.reembedded", "batch_id": batch_id, "people": [one.as_json() for one in found]})
    else:
        for one in failed:
            say(f"{one.handle}: {one.error['message'] if one.error else ''}")
        say(f"{len(found) - len(failed) - len(waiting)} people are embedded, {len(failed)} could not be")
    if failed or waiting:
        raise typer.Exit(1)


@app.command("list")
def list_(as_json: JsonOption = False) -> None:
    """List the people of the library."""
    from orchestrator.people.identities import list_people

    with place() as s:
        people = list_people(s.ledger, s.owner) if isinstance(s, Services) else list(s.rows("/v1/identities"))
    if as_json:
        print_json(people)
        return
    rows = [(p["handle"], p["id"], p["references"], ", ".join(p["scopes"]), moment(p["created_at"])) for p in people]
    print_table(["handle", "id", "references", "allows", "since"], rows)


@app.command()
def check(as_json: JsonOption = False) -> None:
    """Compare everybody in the library with everybody else; exit 2 where two entries may be one person."""
    from orchestrator.cli.common import FinishError
    from orchestrator.people.duplicates import alike

    with services() as s:
        found = alike(s.ledger, s.settings, s.owner)
    if as_json:
        print_json([one.as_json() for one in found])
    elif found:
        print_table(["one", "other", "likeness", "threshold"], [(f.first, f.second, f.likeness, f.pair) for f in found])
    else:
        say("no two entries resemble each other as one person's pictures do")
    if found:
        raise FinishError(2)


@app.command()
def show(who: Who, as_json: JsonOption = False) -> None:
    """Show a person with references and every consent ever given."""
    with place() as s:
        _print_person(_person(s, who), as_json=as_json)


@app.command()
def consent(
    who: Who,
    grant: Annotated[list[str] | None, typer.Option(help="Scope they allow now; may be repeated.")] = None,
    revoke: Annotated[list[str] | None, typer.Option(help="Scope they no longer allow; may be repeated.")] = None,
    granted_by: GrantedBy = None,
    consent_text: ConsentText = None,
    expires: Expires = None,
    as_json: JsonOption = False,
) -> None:
    """Write down what a person allows, or ends; without either, show it."""
    from orchestrator.people import identities

    with place() as s:
        if isinstance(s, Services):
            if revoke:
                identities.revoke(s.ledger, s.owner, who, _scopes(revoke))
            if grant:
                given = consent_of(s, grant, granted_by, consent_text, expires)
                identities.grant(s.ledger, s.owner, who, given)
        else:
            for scope in _scopes(revoke or []):
                s.ask("DELETE", f"/v1/identities/{who}/consents/{scope}")
            if grant:
                asked = _consent_said(grant, granted_by, consent_text, expires)
                s.ask("POST", f"/v1/identities/{who}/consents", json=asked)
        _print_person(_person(s, who), as_json=as_json)


@app.command()
def erase(
    who: Who,
    to: Annotated[
        Path | None,
        typer.Option("--receipt", help="Where the receipt goes (default: receipts/ID.json in the state directory)."),
    ] = None,
    yes: YesOption = False,
    as_json: JsonOption = False,
) -> None:
    """Take a person away with everything that shows them, and prove it with a receipt. Cannot be undone."""
    from orchestrator.people import identities
    from orchestrator.settings import get_settings

    with place() as s:
        person = _person(s, who)
        confirm(f"Erase {who} ({person['id']}) and every picture of this person?", yes=yes)
        path = to or get_settings().state_dir / "receipts" / f"{person['id']}.json"
        identities.check_receipt_path(path)
        if isinstance(s, Services):
            proof = identities.erase(s.ledger, s.store, s.settings, s.owner, person["id"])
        else:
            proof = s.ask("DELETE", f"/v1/identities/{person['id']}")
        identities.write_receipt(proof, path)
    if as_json:
        print_json(proof)
    else:
        say(f"erased {proof['references']} references, {proof['outputs']} outputs, {proof['objects']} stored objects")
        typer.echo(path)


def _person(s: Place, who: str) -> dict[str, Any]:
    from orchestrator.people import identities

    if isinstance(s, Services):
        return identities.show(s.ledger, s.owner, who)
    person: dict[str, Any] = s.ask("GET", f"/v1/identities/{who}")
    person.pop("used_in", None)
    return person


def wait_for(s: Services, batch_id: str, timeout: float) -> Enrolled:
    """Wait for one person and return how it ended; say so when nobody works.

    Raises:
        InputError: the pictures are not usable.
        TransientError: the time was over first.
    """
    from orchestrator.errors import InputError, TransientError
    from orchestrator.ledger.engine.session import now
    from orchestrator.ledger.queue import workers
    from orchestrator.people.identities import wait_enrolled

    with s.ledger.read() as session:
        if not workers.living(session, now(session)):
            say("no worker runs; the pictures wait for one: start `fpga up`")
    (found,) = wait_enrolled(s.ledger, s.owner, batch_id, timeout_seconds=timeout)
    if found.error:
        raise InputError(found.error["message"], code=found.error["code"], batch_id=batch_id)
    if found.identity_id is None:
        raise TransientError(
            f"no worker has finished with the pictures within {timeout:g} s; follow with: fpga batch watch {batch_id}",
            code="still_waiting",
            batch_id=batch_id,
        )
    return found


def _pictures(paths: list[Path]) -> list[Picture]:
    from orchestrator.archive.kinds import PHOTO_ENDINGS
    from orchestrator.people.identities import Picture

    files: list[Path] = []
    for path in paths:
        inside = sorted(p for p in path.iterdir() if p.suffix[1:].lower() in PHOTO_ENDINGS) if path.is_dir() else [path]
        files += inside
    return [Picture(name=path.name, data=read_input(path)) for path in files]


def consent_of(
    s: Services, scopes: list[str], granted_by: str | None, text: Path | None, expires: str | None
) -> ConsentGiven:
    """Return a consent as options give it."""
    from orchestrator.people.identities import ConsentGiven

    return ConsentGiven(
        scopes=tuple(_scopes(scopes)),
        granted_by=granted_by or s.owner,
        text=read_input(text) if text else None,
        expires_at=_time(expires) if expires else None,
    )


def _scopes(given: list[str]) -> list[str]:
    return [scope.strip() for part in given for scope in part.split(",") if scope.strip()]


def _time(text: str) -> datetime:
    """Read a date or time; without a zone it is local.

    Raises:
        UsageError: it is neither.
    """
    from datetime import datetime

    from orchestrator.errors import UsageError

    try:
        return datetime.fromisoformat(text).astimezone()
    except ValueError as error:
        raise UsageError(f"a date such as 2027-01-31 is wanted, got {text!r}", code="bad_date") from error


def _print_person(person: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        print_json(person)
        return
    print_facts({name: person[name] for name in ("id", "handle", "name", "created_at")})
    print_table(
        ["reference", "sha256", "face box", "score"],
        [
            (r["id"], r["sha256"][:16], " ".join(f"{v:g}" for v in r["face"].get("box", ())), r["face"].get("score"))
            for r in person["references"]
        ],
    )
    print_table(
        ["scope", "state", "granted by", "granted", "expires", "revoked"],
        [
            (
                c["scope"],
                c["state"],
                c["granted_by"],
                moment(c["granted_at"]),
                moment(c["expires_at"]),
                moment(c["revoked_at"]),
            )
            for c in person["consents"]
        ],
    )
