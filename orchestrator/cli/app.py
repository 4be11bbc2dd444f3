"""The `fpga` command: puts the nouns together and turns errors into one plain line and an exit code."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from orchestrator.cli import (
    audit,
    batch,
    bench,
    clean,
    dataset,
    demo,
    doctor,
    evaluate,
    evaluations,
    identity,
    key,
    model,
    people,
    provenance,
    restore,
    schedule,
    stack,
    sweeper,
    train,
    worker,
)
from orchestrator.cli.common import FinishError, StateDirOption, say, use_state_dir
from orchestrator.errors import FpgaError, UsageError
from orchestrator.version import SOFTWARE

EPILOG = (
    "Exit codes: 0 good, 1 usage or system error, 2 items failed, 3 paused while waited for, 4 photos that the preset "
    "was not made for, 130 interrupted, 141 nobody reads the output."
)
INTERRUPTED = 130
CUT_OFF = 141
"""What a shell calls a command whose reader went away: 128 and SIGPIPE."""
SHOWN_ERRORS = 20
OURS = ("orchestrator", "workers", "fpga_models", "migrations")

app = typer.Typer(
    name="fpga",
    help="Portraits of real people in bulk: generated, scored and traced.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(SOFTWARE)
        raise typer.Exit


@app.callback()
def root(
    state_dir: StateDirOption = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Portraits of real people in bulk: generated, scored and traced."""
    use_state_dir(state_dir)


app.command()(demo.demo)
app.command()(stack.up)
app.command()(stack.serve)
app.command()(doctor.doctor)
app.command()(clean.clean)
app.command()(sweeper.migrate)
app.add_typer(restore.app)
app.command()(provenance.reproduce)
app.command()(provenance.verify)
for noun in (batch, identity, people, schedule, model, dataset, train, worker, sweeper, evaluate, bench, key, audit):
    app.add_typer(noun.app)
for name, command in (("run", evaluations.run), ("list", evaluations.list_), ("compare", evaluations.compare)):
    evaluate.app.command(name)(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; what nobody foresaw is a sentence too, and its trace a file."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a locale without the letters of a name must not end a command
            stream.reconfigure(errors="backslashreplace")
    try:
        app(args=list(arguments), prog_name="fpga")
        sys.stdout.flush()
    except FinishError as end:
        return end.code
    except FpgaError as error:
        _complain(error, as_json="--json" in arguments)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _close(sys.stdout)
        return CUT_OFF
    except OSError as error:
        _close(sys.stdout)
        _complain(_named(error), as_json="--json" in arguments)
        return 1
    except ModuleNotFoundError as error:
        ours = (error.name or "").partition(".")[0] in OURS
        missing = _unforeseen(traceback.format_exc()) if ours else _lacking(error.name)
        _complain(missing, as_json="--json" in arguments)
        return 1
    except Exception:  # noqa: BLE001 the outermost place: an operator is told in a sentence, never by a trace
        _complain(_unforeseen(traceback.format_exc()), as_json="--json" in arguments)
        return 1
    except SystemExit as end:
        # wrong usage ends with 2 everywhere else; here 2 says that items failed
        return 1 if end.code == 2 else int(end.code or 0)
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


def _named(error: OSError) -> FpgaError:
    """Say what of the machine stands in the way."""
    place = f"{error.filename}: " if error.filename else ""
    return UsageError(f"{place}{(error.strerror or str(error)).lower()}", code="machine")


def _lacking(name: str | None) -> FpgaError:
    """Say what an extra would bring."""
    return UsageError(
        f"this command needs {name}, which this installation lacks; its extras are worker, gpu, otel and bench: "
        "pip install 'fpga-portraits[EXTRA]'",
        code="extra_missing",
    )


def _unforeseen(trace: str) -> FpgaError:
    """Keep a trace in a file of its own and say where it is."""
    last = trace.strip().splitlines()[-1][:200]
    try:
        handle, name = tempfile.mkstemp(prefix="fpga-", suffix=".txt")
        with os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
            file.write(trace)
    except OSError:
        return FpgaError(f"this is a fault of fpga: {last}")
    return FpgaError(f"this is a fault of fpga, please report it with the file {name}: {last}")


def _close(stream: object) -> None:
    """Leave a stream that nobody reads to the void, so that the interpreter's end does not complain of it."""
    with contextlib.suppress(OSError, ValueError, AttributeError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())  # type: ignore[attr-defined]  # else suppressed


def _complain(error: FpgaError, *, as_json: bool) -> None:
    if as_json:
        say(json.dumps({"error": error.as_json()}, ensure_ascii=False))
        return
    say(f"error: {error.message}")
    rows = error.details.get("errors", [])
    for row in rows[:SHOWN_ERRORS]:
        where = f"row {row['row']}" + (f", {row['field']}" if row.get("field") else "")
        say(f"  {where}: {row['message']} [{row['code']}]")
    if len(rows) > SHOWN_ERRORS:
        say(f"  and {len(rows) - SHOWN_ERRORS} more; --json lists all")


if __name__ == "__main__":
    main()
