"""The floor plan in figures: rooms, arrows between them, files that run for one portrait, words that should be few.

    python -m benchmarks.house              rooms, arrows, crowded folders, `Any`, state literals, SQL
    python -m benchmarks.house --walk       project files that run from `fpga batch submit` to the downloaded picture
    python -m benchmarks.house --json       the same for machines

A room is a folder or module one level below a package. Nothing is imported to count; the walk runs the product.
"""

from __future__ import annotations

import argparse
import ast
import contextlib
import inspect
import io
import json
import os
import re
import sys
import tempfile
import threading
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workers.runtime.process import Process

ROOT = Path(__file__).parents[1]
PACKAGES = ("orchestrator", "workers", "fpga_models")
QUEUES = ("cpu.io", "gpu.generate")
SEVERAL_OF_ONE_KIND = {
    "orchestrator/cli", "orchestrator/api/v1", "orchestrator/api/pages", "migrations/versions", "workers/stages",
}  # fmt: skip
"""Folders of one kind of thing, a file each, however many there are."""
NO_SQL = {
    "sqlalchemy.orm.Session", "sqlalchemy.Engine", "sqlalchemy.event", "sqlalchemy.make_url",
    "sqlalchemy.exc.SQLAlchemyError",
}  # fmt: skip
"""What may stand outside the ledger: types that are handed on, URLs, counting of statements."""
STATE = re.compile(
    r"queued|leased|running|completed|failed|held|cancelled|cancelling|validating|in_progress|paused|completed_with_errors"
)


Function = ast.FunctionDef | ast.AsyncFunctionDef
ARRAY = re.compile(r"NDArray|Tensor|\bRgb\b|\bPixels\b")
STATE_OF_WEIGHTS = re.compile(r"(Mapping|dict)\[str, ")
"""Of weights by name each has a shape of its own."""
SHAPE = re.compile(r"\([\w.-]+(\s*[,x]\s*[^()]*)+\)|\(\)|any shape")
RAISES = re.compile(r"Raises:|[Rr]aise|[Rr]efuse|See \w+[.;]")
SKINS = ("orchestrator/api/", "orchestrator/cli/", "orchestrator/flows/")
"""Routes and commands, whose errors are documented as answers and exit codes."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What the trees say.

    Attributes:
        rooms: rooms of each package.
        arrows: pairs of rooms of one package of which the first imports the second.
        cycles: sets of folders that import each other, directly or around a corner.
        crowded: folders with more than fifteen modules that are not of one kind of thing.
        any_per_1000: the word Any in 1 000 lines.
        state_literals: strings that are a state, outside the module of states.
        sql_outside: modules outside the ledger that import SQLAlchemy's constructs.
        shapes_untold: public functions that take arrays and name no shape.
        raises_untold: public functions that raise and do not say what.
    """

    rooms: dict[str, int]
    arrows: dict[str, int]
    cycles: list[list[str]]
    crowded: dict[str, int]
    any_per_1000: float
    state_literals: int
    sql_outside: list[str]
    shapes_untold: list[str]
    raises_untold: list[str]


def modules(package: str) -> Iterator[tuple[Path, ast.Module]]:
    """The modules of a package and their trees, by path below the checkout."""
    for path in sorted((ROOT / package).rglob("*.py")):
        yield path.relative_to(ROOT), ast.parse(path.read_text(), str(path))


def imported(tree: ast.AST) -> Iterator[str]:
    """Dotted names of what a tree imports; both the module and its member for `from module import member`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(dotted: str) -> str:
    """The room that a dotted name belongs to, such as `orchestrator.ledger`."""
    return ".".join(dotted.split(".")[:2])


def arrows(package: str, depth: int = 2) -> set[tuple[str, str]]:
    """Pairs of places of one package of which the first imports the second.

    Args:
        depth: parts of a dotted name that make a place; 2 are rooms, more are folders within them.
    """
    found = set()
    for path, tree in modules(package):
        here = place(".".join(path.with_suffix("").parts), depth)
        for name in imported(tree):
            if name.split(".")[0] == package and (there := place(name, depth)) != here and there != package:
                found.add((here, there))
    return found


def place(dotted: str, depth: int) -> str:
    """The folder (or, at the top, module) of a dotted name, cut to so many parts."""
    parts = dotted.split(".")
    while parts and not (folder := ROOT.joinpath(*parts)).is_dir():
        if folder.with_suffix(".py").is_file() and len(parts) == 2:
            break
        parts.pop()
    return ".".join(parts[:depth])


def cycles(edges: set[tuple[str, str]]) -> list[list[str]]:
    """Places that reach each other, each set once, sorted."""
    reach: dict[str, set[str]] = defaultdict(set)
    for a, b in edges:
        reach[a].add(b)
    grown = True
    while grown:
        grown = False
        for found in reach.values():
            more = set().union(*(reach.get(b, set()) for b in found)) - found
            found |= more
            grown = grown or bool(more)
    rings = {tuple(sorted(b for b in reach[a] if a in reach.get(b, set()))) for a in reach if a in reach[a]}
    return sorted(list(ring) for ring in rings)


def measure() -> Plan:
    """Count everything that the trees say."""
    lines = words = literals = 0
    sql, crowd, rooms, pairs, rings = [], Counter[str](), {}, {}, []
    shapes, raises = [], []
    for package in PACKAGES:
        found = set()
        for path, tree in modules(package):
            found.add(room(".".join(path.with_suffix("").parts)))
            crowd[str(path.parent)] += path.name != "__init__.py"
            text = path.read_text()
            lines += text.count("\n")
            words += len(re.findall(r"\bAny\b", text))
            if path.name not in {"states.py", "pipelines.py"}:
                literals += sum(1 for node in ast.walk(tree) if _is_state(node))
            foreign = {name for name in imported(tree) if name.startswith("sqlalchemy")} - NO_SQL
            if foreign and not str(path).startswith("orchestrator/ledger/"):
                sql.append(str(path))
            for name, function, told in documented(tree):
                if _takes_arrays(function) and not SHAPE.search(told):
                    shapes.append(f"{path}: {name}")
                if package != "orchestrator" or not str(path).startswith(SKINS):
                    raises += [f"{path}: {name}"] if _raises(function) and not RAISES.search(told) else []
        rooms[package] = len(found - {package, f"{package}.__init__"})
        pairs[package] = len(arrows(package))
        rings += cycles(arrows(package))
    crowded = {
        folder: n
        for folder, n in crowd.items()
        if n > 15 and not any(folder.startswith(kind) for kind in SEVERAL_OF_ONE_KIND)
    }
    return Plan(
        rooms=rooms,
        arrows=pairs,
        cycles=rings,
        crowded=crowded,
        any_per_1000=round(1000 * words / lines, 2),
        state_literals=literals,
        sql_outside=sql,
        shapes_untold=shapes,
        raises_untold=raises,
    )


def documented(tree: ast.Module) -> Iterator[tuple[str, Function, str]]:
    """The public functions of a module: name, tree, and what they and their class say of them."""
    for node in tree.body:
        inside = node.body if isinstance(node, ast.ClassDef) else [node]
        above = (ast.get_docstring(node) or "") if isinstance(node, ast.ClassDef) else ""
        for function in inside:
            if isinstance(function, Function) and (function.name == "__call__" or not function.name.startswith("_")):
                yield function.name, function, f"{above}\n{ast.get_docstring(function) or ''}"


def _takes_arrays(function: Function) -> bool:
    given = [*function.args.args, *function.args.kwonlyargs]
    written = [ast.unparse(one.annotation) for one in given if one.annotation is not None]
    return any(ARRAY.search(text) and not STATE_OF_WEIGHTS.search(text) for text in written)


def _raises(function: Function) -> bool:
    return any(isinstance(node, ast.Raise) and node.exc is not None for node in ast.walk(function))


def _is_state(node: ast.AST) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str) and STATE.fullmatch(node.value) is not None


def walk() -> dict[str, list[str]]:
    """The project files that execute between the submit of one portrait and its download, by what was asked."""
    seen: dict[str, list[str]] = {}
    trace = Trace()
    with tempfile.TemporaryDirectory(prefix="fpga-walk-") as folder:
        os.environ["FPGA_STATE_DIR"] = str(Path(folder) / "state")  # the settings' one door, for this process alone
        manifest, out = Path(folder) / "one.jsonl", Path(folder) / "out"
        manifest.write_text('{"custom_id": "one", "people": ["ada"], "prompt": "a portrait in a park", "seed": 1}\n')
        _fpga("identity", "add", "ada", str(ROOT / "examples" / "people" / "ada"), "--consent", "generate", "--no-wait")
        from orchestrator.settings import load_settings  # noqa: PLC0415 counting must not load the product
        from workers.runtime.process import Process  # noqa: PLC0415

        process = Process(load_settings())
        _drain(process)
        seen["submit"] = trace.of(lambda: _fpga("batch", "submit", str(manifest)))
        seen["work"] = trace.of(lambda: _drain(process))
        batch = max(_fpga("batch", "list", "--json"), key=lambda one: one["created_at"])
        seen["fetch"] = trace.of(lambda: _fpga("batch", "results", batch["id"], "--download", str(out)))
        process.end()
        trace.end()
        assert list(out.rglob("*.png")), "the walk ends with a picture"
    return seen


def _fpga(*arguments: str) -> Any:
    from orchestrator.cli.app import run  # noqa: PLC0415

    with contextlib.redirect_stdout(io.StringIO()) as said, contextlib.redirect_stderr(sys.stdout):
        code = run(arguments)
    assert code == 0, (arguments, said.getvalue())
    return json.loads(said.getvalue()) if "--json" in arguments else None


def _drain(process: Process) -> None:
    for _ in range(3):
        process.run()


class Trace:
    """Which of the project's modules ran a function, in any thread that began while it was installed."""

    def __init__(self) -> None:
        self._seen: set[str] = set()
        threading.setprofile(self._note)
        sys.setprofile(self._note)

    def _note(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # bodies of modules and classes are not
            self._seen.add(frame.f_code.co_filename)

    def end(self) -> None:
        """Note nothing more."""
        sys.setprofile(None)
        threading.setprofile(None)

    def of(self, work: Callable[[], object]) -> list[str]:
        """Paths below the checkout of what ran while `work` did."""
        self._seen.clear()
        work()
        ours = [Path(name) for name in self._seen]
        return sorted(str(p.relative_to(ROOT)) for p in ours if p.is_relative_to(ROOT) and ".venv" not in p.parts)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--walk", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.walk:
        seen = walk()
        every = sorted(set().union(*seen.values()) - {"benchmarks/house.py"})
        facts: dict[str, Any] = {
            "files": len(every),
            **{part: len(files) for part, files in seen.items()},
            "all": every,
        }
    else:
        facts = asdict(measure())
    if options.json:
        sys.stdout.write(json.dumps(facts, indent=1) + "\n")
        return
    for name, value in facts.items():
        shown = "\n    ".join(["", *map(str, value)]) if isinstance(value, list) and value else value
        sys.stdout.write(f"{name}: {shown}\n")


if __name__ == "__main__":
    main()
