"""`fpga key`: keys of the HTTP API."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestrator.cli.common import JsonOption, moment, print_json, print_table, say, services

app = typer.Typer(name="key", help="Keys of the HTTP API.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the key is for.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(help="read, write, people, models, admin, override; may be repeated (default: read and write)."),
    ] = None,
    days: Annotated[float | None, typer.Option(help="How long it is valid (default: for ever).")] = None,
    owner: Annotated[str | None, typer.Option(help="Whose key it is (default: FPGA_OWNER).")] = None,
    as_json: JsonOption = False,
) -> None:
    """Make a key and print it. It is shown once; only its sha256 is kept."""
    from orchestrator.access import keys

    with services() as s:
        secret, made = keys.create(s.ledger, owner or s.owner, name=name, scopes=scope or keys.USUAL, days=days)
    if as_json:
        print_json({**made, "key": secret})
    else:
        typer.echo(secret)
        say(f"{made['id']} may {', '.join(made['scopes'])}; keep the key, it is not shown again")


@app.command("list")
def list_(
    sessions: Annotated[bool, typer.Option("--sessions", help="The sessions of browsers that are open.")] = False,
    as_json: JsonOption = False,
) -> None:
    """List the keys of this owner, or the open sessions, without their secrets."""
    from orchestrator.access import keys

    with services() as s:
        found = keys.list_keys(s.ledger, s.owner, kind="session" if sessions else "key")
    if as_json:
        print_json(found)
        return
    columns = ["id", "name", "scopes", "created", "expires", "last used", "revoked"]
    times = ("created_at", "expires_at", "used_at", "revoked_at")
    print_table(columns, [(k["id"], k["name"], " ".join(k["scopes"]), *(moment(k[t]) for t in times)) for k in found])


@app.command()
def revoke(
    key_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the key, or of a session.")],
    as_json: JsonOption = False,
) -> None:
    """End a key and the sessions that it opened, or one session, at once."""
    from orchestrator.access import keys

    with services() as s:
        ended = keys.revoke(s.ledger, s.owner, key_id)
    if as_json:
        print_json(ended)
    else:
        say(f"{ended['id']} opens nothing any more")


@app.command()
def login() -> None:
    """Print a link that logs a browser in, once, within a quarter of an hour."""
    from orchestrator.access import keys
    from orchestrator.runtime.running import find_running, web_url

    with services() as s:
        running = find_running(s.settings)
        base = (running and running.api_url) or web_url(s.settings.api_host, s.settings.api_port)
        typer.echo(keys.login_link(s.ledger, s.owner, base))
