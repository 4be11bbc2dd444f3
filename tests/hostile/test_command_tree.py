"""Every command in environments that nobody wishes for: a sentence and an exit code, never a trace; JSON stays JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOBODY = 65534
STRANGER = 54321
"""A user whom the machine has no name and no home for, as containers have."""
CODES = (0, 1, 2, 3, 141)
WORST_LINES = 60


@dataclass(frozen=True, kw_only=True)
class Around:
    """One environment: what is set, where standard output goes, whose the state directory is, who runs it."""

    stdout: str = "file"
    env: dict[str, str] = field(default_factory=dict)
    without: tuple[str, ...] = ()
    state: str | None = None
    owner: int | None = None
    user: int | None = None
    help: bool = False


AROUND = {
    "a locale without letters beyond ASCII": Around(
        env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}, help=True
    ),
    "standard output closed": Around(stdout="closed"),
    "a full disk behind standard output": Around(stdout="/dev/full"),
    "a user without name and home": Around(without=("HOME", "USER", "LOGNAME"), owner=STRANGER, user=STRANGER),
    "a state of somebody else": Around(owner=NOBODY),
    "no place for a state": Around(env={"HOME": "/proc/nowhere", "TMPDIR": "/proc/nowhere"}, state="/proc/nowhere"),
    "a state with a name that URLs take apart": Around(state="a state?#50%\u00fc;&"),
}


def walk(around: Around, folder: Path) -> list[dict[str, Any]]:
    state = folder / (around.state or "state")
    if around.state is None:
        state.mkdir(mode=0o700)
    if around.owner is not None:
        os.chown(state, around.owner, around.owner)
    for parent in (folder, *folder.parents):
        if around.user is not None and parent.stat().st_uid == os.getuid() and parent != parent.parent:
            parent.chmod(parent.stat().st_mode | 0o011)
    out = folder / "out"
    out.mkdir()
    if around.user is not None:
        os.chown(out, around.user, around.user)
    kept = {name: value for name, value in os.environ.items() if name not in around.without and "FPGA" not in name}
    env = kept | {"PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1", "FPGA_STATE_DIR": str(state)} | around.env
    stdout = {"file": str(out / "stdout")}.get(around.stdout, around.stdout)
    closing: Callable[[], None] | None = (lambda: os.close(1)) if stdout == "closed" else None
    ran = subprocess.run(
        [sys.executable, "-m", "tests.hostile.walk", str(out / "report"), stdout, "help" if around.help else "no"],
        cwd=out,
        env=env,
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        stdout=None if stdout == "closed" else subprocess.DEVNULL,
        preexec_fn=closing,
        user=around.user,
        check=False,
        text=True,
        timeout=300,
    )
    assert (out / "report").exists(), ran.stderr[-2000:]
    found: list[dict[str, Any]] = json.loads((out / "report").read_text())
    return found


def complaint(ran: dict[str, Any]) -> str | None:
    """Say what is wrong with how a command ended, or None."""
    said = ran["stdout"] + ran["stderr"]
    if ran["code"] not in CODES:
        return f"ended with {ran['code']}"
    if "Traceback" in said or "fault of fpga" in said:
        return f"a trace: {ran['stderr'][-300:]}"
    if "--json" in ran["line"] and "--help" not in ran["line"]:
        try:
            json.loads(ran["stdout"] or "null")
        except ValueError:
            try:
                for line in ran["stdout"].splitlines():
                    json.loads(line)
            except ValueError:
                return f"standard output is not JSON: {ran['stdout'][:200]!r}"
    return None


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", AROUND)
def test_no_command_ends_with_a_trace_whatever_is_around_it(name: str, tmp_path: Path) -> None:
    around = AROUND[name]
    if os.geteuid() != 0 and (around.owner is not None or around.user is not None):
        pytest.skip("needs root, to hand a folder to somebody else")
    if around.user is not None:
        try:
            subprocess.run([sys.executable, "-c", ""], user=around.user, check=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip(f"another user may not run {sys.executable}: it lies in a home")

    found = walk(around, tmp_path)

    wrong = {ran["line"]: text for ran in found if (text := complaint(ran))}
    assert not wrong, "\n".join(f"fpga {line}: {text}" for line, text in list(wrong.items())[:WORST_LINES])
    assert len(found) > 60, "the whole tree was walked"
