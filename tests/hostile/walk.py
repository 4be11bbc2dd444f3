"""Runs every command of the tree in this process, as a hostile environment would have it, and writes what came of each.

`python -m tests.hostile.walk REPORT STDOUT HELP`: STDOUT is a path to write standard output to (or `closed`), HELP says
whether `--help` of each is run too. A command that has not ended after 20 s is written down as hung.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, get_args

import typer

from orchestrator.cli import app as commands

SECONDS = 20
STAY = {("up",), ("serve",), ("demo",), ("worker", "run"), ("sweeper", "run"), ("bench", "model")}
STAY |= {("evaluate", one) for one in ("ablate", "control", "identity", "page", "restore", "stylized", "swap")}
"""These do not end by themselves, or compute for minutes."""


class HungError(BaseException):
    """A command did not end."""


def leaves(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield every command that has none below it; click's own types stay with typer."""
    below = getattr(command, "commands", None)
    if not below:
        yield path, command
        return
    for name, one in sorted(below.items()):
        yield from leaves(one, (*path, name))


def arguments(params: Sequence[Any]) -> list[str]:
    """Return something of the right form for all that a command must be told."""
    given: list[str] = []
    for param in params:
        if not param.required:
            continue
        kind = param.bare_type
        word = str(get_args(kind)[0]) if get_args(kind) else "1" if kind in (int, float) else "nowhere"
        given += [word] if param.param_type_name == "argument" else [param.opts[0], word]
    return given + (["--json"] if any("--json" in param.opts for param in params) else [])


def run(line: list[str], stdout: str, folder: Path) -> dict[str, Any]:
    """Run one command line with standard output and error of its own."""
    if stdout != "closed":
        opened = os.open(stdout, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, 1)
        os.close(opened)
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115 as the interpreter's start does
    errors = folder / "stderr"
    opened = os.open(errors, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(opened, 2)
    os.close(opened)
    sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115 as above
    began = time.monotonic()
    signal.alarm(SECONDS)
    try:
        code: int | str = commands.run(line)
    except HungError:
        code = "hung"
    except BaseException as error:  # noqa: BLE001 whatever comes out here would reach an operator
        code = repr(error)
    finally:
        signal.alarm(0)
    sys.stderr.flush()
    said = Path(stdout).read_bytes() if stdout.startswith(str(folder)) else b""
    return {
        "line": " ".join(line),
        "code": code,
        "stdout": said.decode(errors="replace"),
        "stderr": errors.read_bytes().decode(errors="replace"),
        "seconds": round(time.monotonic() - began, 2),
    }


def hang(_number: int, _frame: FrameType | None) -> None:
    """End what does not end."""
    raise HungError


def main() -> None:
    """Walk the tree."""
    report, stdout, help_too = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "help"
    signal.signal(signal.SIGALRM, hang)
    found = []
    for path, command in leaves(typer.main.get_command(commands.app)):
        params = command.get_params(typer.Context(command))
        lines = [[*path, "--help"]] if help_too else []
        lines += [] if path in STAY else [[*path, *arguments(params)]]
        found += [run(line, stdout, report.parent) for line in lines]
    report.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
