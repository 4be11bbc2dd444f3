"""What all commands share: options, services opened once, output for people and as JSON."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from rich.console import Console

    from orchestrator.cli.server import Server
    from orchestrator.ledger.engine.session import Ledger
    from orchestrator.secrets.vault import Vault
    from orchestrator.settings import Settings
    from orchestrator.status.progress import Progress
    from orchestrator.storage import ByteStore

MANIFEST_HELP = "JSONL or CSV file, or - for standard input."
WIDE = 180
"""Columns of a table that is not shown on a terminal."""
ID = re.compile(r"[a-z]{3,4}_[0-9a-z]{26}")
COLOURS = {
    **dict.fromkeys(("completed", "accepted", "ready", "champion", "passed"), "green"),
    **dict.fromkeys(("completed_with_errors", "needs_review", "paused", "held", "cancelling"), "yellow"),
    **dict.fromkeys(("failed", "rejected", "refused", "offline"), "red"),
    **dict.fromkeys(("in_progress", "running", "leased", "validating"), "cyan"),
}

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
WaitOption = Annotated[
    bool, typer.Option("--wait", help="Stay until it has ended; exit 2 if items failed, 3 if it is paused.")
]
WaitPausedOption = Annotated[bool, typer.Option("--wait-paused", help="Stay also while it is paused.")]
StateDirOption = Annotated[
    Path | None, typer.Option("--state-dir", help="Directory of the embedded stack (default: var/fpga).")
]


class FinishError(Exception):
    """Ends the command with this exit code; what there was to say has been said."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


@dataclass(frozen=True, kw_only=True)
class Services:
    """What a command works with."""

    settings: Settings
    ledger: Ledger
    store: ByteStore

    @property
    def owner(self) -> str:
        """Whose batches and people these are."""
        return self.settings.owner

    def look(self, batch_id: str) -> Progress:
        """Take one look at a batch."""
        from orchestrator.status.progress import look

        return look(self.ledger, self.owner, batch_id)

    @property
    def vault(self) -> Vault:
        """What opens reference pictures."""
        from orchestrator.secrets.vault import Vault

        return Vault.of(self.settings)


Place: TypeAlias = "Services | Server"
"""Where a command works: at the ledger itself, or through a server."""


def use_state_dir(path: Path | None) -> None:
    """Choose the state directory for this process and those it starts."""
    if path is not None:
        from orchestrator.settings import choose_state_dir

        choose_state_dir(path)


@contextmanager
def services() -> Iterator[Services]:
    """Open ledger and byte store; an embedded database is made where there is none. No command but `fpga up` migrates.

    Raises:
        SettingsError: the environment is wrong, or the database is not at the newest revision.
        UsageError: `local_only`, this environment has a server and no database.
    """
    from orchestrator import tracing
    from orchestrator.errors import UsageError
    from orchestrator.ledger.engine.session import Ledger
    from orchestrator.settings import get_settings
    from orchestrator.storage import open_store

    settings = get_settings()
    if settings.api_url:
        raise UsageError(
            "this command works on the database and the byte store themselves, and FPGA_API_URL names a server: run "
            "it where the server runs, without FPGA_API_URL",
            code="local_only",
        )
    tracing.setup(settings, "cli")
    _prepare(settings)
    ledger = Ledger.of(settings)
    try:
        _check_schema(settings, ledger)
        yield Services(settings=settings, ledger=ledger, store=open_store(settings))
    finally:
        ledger.dispose()


@contextmanager
def place() -> Iterator[Place]:
    """Open the server that `FPGA_API_URL` names, else ledger and byte store.

    Raises:
        SettingsError: there is a server and no key, or what `services` raises.
    """
    from orchestrator.errors import SettingsError
    from orchestrator.settings import get_settings

    settings = get_settings()
    if not settings.api_url:
        with services() as s:
            yield s
        return
    if settings.api_key is None:
        raise SettingsError("FPGA_API_URL is set: set FPGA_API_KEY as well, to a key of `fpga key create`")
    from orchestrator.cli.server import Server

    server = Server(settings.api_url, settings.api_key.get_secret_value())
    try:
        yield server
    finally:
        server.close()


def _prepare(settings: Settings) -> None:
    from orchestrator.runtime.running import open_state_dir

    if settings.database_url_ is None or settings.store_url_ is None:
        open_state_dir(settings)


def _check_schema(settings: Settings, ledger: Ledger) -> None:
    from orchestrator.errors import SettingsError
    from orchestrator.ledger.engine import schema

    current, newest = schema.revisions(ledger)
    if current == newest:
        return
    schema.check_not_newer(current, settings.database_url)
    if settings.database_url_ is not None:
        raise SettingsError(
            f"the database is at revision {current or 'nothing'}, this code wants {newest}; run `fpga migrate`",
            code="database_outdated",
        )
    if current is not None:
        raise SettingsError(
            f"the database of {settings.state_dir} is at revision {current}, this version wants {newest}; `fpga up` "
            "brings it there and keeps a copy of before",
            code="database_outdated",
        )
    schema.upgrade(settings.database_url)


def read_input(path: Path) -> bytes:
    """Return the bytes of a file, or of standard input for `-`.

    Raises:
        UsageError: it cannot be read.
    """
    from orchestrator.errors import NotFoundError, UsageError

    if str(path) == "-":
        return sys.stdin.buffer.read()
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no file {path}", code="file_not_found") from error
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", code="file_unreadable") from error


def print_json(value: Any) -> None:
    """Print one JSON value, indented, on standard output."""
    typer.echo(json.dumps(value, indent=2, ensure_ascii=False))


def print_lines(values: Iterable[Any]) -> None:
    """Print JSON values on standard output, one in each line."""
    for value in values:
        typer.echo(json.dumps(value, ensure_ascii=False))


def say(text: str) -> None:
    """Tell people something on standard error."""
    typer.echo(text, err=True)


def screen() -> Console:
    """Return the console of standard error."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str | None = None) -> None:
    """Print a table for people on standard output: ids whole, states in colour, long words folded and never cut."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=WIDE)
    shown = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if not shown:
        say("nothing to list")
    table = Table(title=title, box=None, title_justify="left", header_style="bold", pad_edge=False)
    for number, name in enumerate(columns):
        ids = [len(row[number]) for row in shown if ID.fullmatch(row[number])]
        table.add_column(name, overflow="fold", no_wrap=bool(ids), min_width=max(ids, default=None))
    for row in shown:
        table.add_row(*(Text(cell, style=COLOURS.get(cell, "")) for cell in row))
    console.print(table)


def print_facts(facts: dict[str, object]) -> None:
    """Print names and values below each other on standard output; values that are None or empty are left out."""
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max((len(name) for name in shown), default=0)
    for name, value in shown.items():
        typer.echo(f"{name:<{width}}  {value}")


def words(counts: dict[str, int]) -> str:
    """Say counts in words, zeros left out, such as `completed 4, failed 1`."""
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def moment(iso: str | None) -> str:
    """Shorten an ISO time to local `YYYY-MM-DD HH:MM:SS`."""
    from datetime import datetime

    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S") if iso else ""


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that cannot be undone.

    Raises:
        UsageError: the answer is no, or nobody is there to give one.
    """
    from orchestrator.errors import UsageError

    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError(f"{question} Nobody can answer here: repeat with --yes", code="not_confirmed")
    if not typer.confirm(question, err=True):
        raise UsageError("nothing was done", code="not_confirmed")
