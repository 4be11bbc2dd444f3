"""Every `fpga` line of the README and the docs goes through its parser: no option is written that does not exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer.main

from orchestrator.cli.app import app

ROOT = Path(__file__).resolve().parents[4]
ENDS = {"|", "||", "&", "&&", ";", ">", ">>", "<", "2>", "2>&1"}


def lines() -> list[tuple[str, str]]:
    """Page and command of each line of a shell block that begins with fpga, and of each `fpga ...` with an option."""
    found = []
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = page.read_text()
        for block in re.findall(r"^```(?:sh|bash|console)\n(.*?)^```", text, re.S | re.M):
            for line in block.replace("\\\n", " ").splitlines():
                found.extend((page.name, part[part.index("fpga ") :]) for part in [line.lstrip("$ ")] if _begins(part))
        found.extend((page.name, inline) for inline in re.findall(r"`(fpga [a-z][^`\n]* --?[a-z][^`\n]*)`", text))
    return list(dict.fromkeys(found))


def _begins(line: str) -> bool:
    return re.match(r"(?:[A-Z_]+=\S+ )*fpga ", line) is not None


def words(line: str) -> list[str]:
    line = re.sub(r"\[[^\]]*\]", "", line)  # what may be left out
    split = shlex.shlex(line, posix=True, punctuation_chars=True)
    split.whitespace_split = True
    given: list[str] = []
    for word in split:
        if word in ENDS:
            break
        given.append(word)
    return given[1:]


def parsed(command: Any, name: str, given: list[str], parent: Any = None) -> Any:
    """Parse without running; groups hand the rest on to the command that they name."""
    context = command.make_context(name, given, parent=parent)
    if not hasattr(command, "resolve_command"):
        return context
    rest = [*getattr(context, "_protected_args", ()), *context.args]
    found, below, after = command.resolve_command(context, rest)
    return parsed(below, found, after, context)


@pytest.mark.parametrize(("page", "line"), lines())
def test_a_documented_line_is_one_that_the_command_line_takes(page: str, line: str) -> None:
    given = words(line)
    if "--help" in given or not given:
        return

    try:
        parsed(typer.main.get_command(app), "fpga", given)
    except Exception as error:  # the parser is a copy of click inside of typer
        if "Missing" not in type(error).__name__:  # a sentence may name an option without all that goes before it
            raise AssertionError(f"{page}: {line}") from error


def test_lines_are_found_and_wrong_ones_are_told() -> None:
    assert len(lines()) > 25
    with pytest.raises(Exception, match="--scope"):
        parsed(typer.main.get_command(app), "fpga", words("fpga identity add anna a.jpg --scope restore"))
