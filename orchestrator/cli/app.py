"""The `fpga` command: puts the nouns together and turns errors into one plain line and an exit code."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

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
    provenance,
    restore,
    schedule,
    stack,
    sweeper,
    train,
    worker,
)
from orchestrator.cli.common import FinishError, StateDirOption, say, use_state_dir
from orchestrator.errors import FpgaError

EPILOG = "Exit codes: 0 good, 1 usage or system error, 2 finished with failed items, 130 interrupted."
INTERRUPTED = 130
SHOWN_ERRORS = 20

app = typer.Typer(
    name="fpga",
    help="Portraits of real people in bulk: generated, scored and traced.",
    epilog=EPILOG,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.callback()
def root(state_dir: StateDirOption = None) -> None:
    """Portraits of real people in bulk: generated, scored and traced."""
    use_state_dir(state_dir)


app.command()(demo.demo)
app.command()(stack.up)
app.command()(stack.serve)
app.command()(doctor.doctor)
app.command()(clean.clean)
app.add_typer(restore.app)
app.command()(provenance.reproduce)
app.command()(provenance.verify)
for noun in (batch, identity, schedule, model, dataset, train, worker, sweeper, evaluate, bench, key, audit):
    app.add_typer(noun.app)
for name, command in (("run", evaluations.run), ("list", evaluations.list_), ("compare", evaluations.compare)):
    evaluate.app.command(name)(command)


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        app(args=list(arguments), prog_name="fpga")
    except FinishError as end:
        return end.code
    except FpgaError as error:
        _complain(error, as_json="--json" in arguments)
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED
    except SystemExit as end:
        # wrong usage ends with 2 everywhere else; here 2 says that items failed
        return 1 if end.code == 2 else int(end.code or 0)
    return 0


def main() -> None:
    """Run the command line of this process."""
    sys.exit(run(sys.argv[1:]))


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
