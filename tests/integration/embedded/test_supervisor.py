"""Children of a supervisor, stood in for by small commands: restarted, given up, stopped, and never left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.embedded.supervisor import Program, Supervisor

ROOT = Path(__file__).parents[3]
SLEEPS = "import time; time.sleep(600)"
# a grandchild in a session of its own, as Prefect starts flow runs
HAS_A_CHILD = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {SLEEPS!r}], start_new_session=True)"
# ... and by a thread, which keeps its children for a moment when the process dies
HAS_A_CHILD_OF_A_THREAD = (
    "import subprocess, sys, threading; threading.Thread(target=subprocess.run, "
    f"args=([sys.executable, '-c', {SLEEPS!r}],), kwargs={{'start_new_session': True}}).start()"
)


def wait(until: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.02)


def marked(mark: str) -> list[int]:
    """Return the processes that carry a mark in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TEST_MARK={mark}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


def program(code: str, mark: str, *, essential: bool = True) -> Program:
    env = {"PATH": os.environ["PATH"], "TEST_MARK": mark}
    return Program(name="child", command=[sys.executable, "-c", code], env=env, essential=essential)


@pytest.fixture
def mark(tmp_path: Path) -> str:
    return str(tmp_path)


@pytest.fixture
def supervisor(tmp_path: Path) -> Iterator[Supervisor]:
    made = Supervisor(tmp_path / "logs")
    yield made
    made.close()


def test_a_killed_child_is_restarted_after_a_second(supervisor: Supervisor, mark: str) -> None:
    supervisor.add(program(SLEEPS, mark))
    wait(lambda: len(marked(mark)) == 2, "guard and child run")
    (guard,) = supervisor.pids().values()
    (child,) = set(marked(mark)) - {guard}
    os.kill(child, signal.SIGKILL)
    wait(lambda: supervisor.check() == [] and not supervisor.pids(), "the supervisor notices that it is gone")
    noticed = time.monotonic()

    wait(lambda: supervisor.check() == [] and supervisor.pids(), "it is started again")
    assert time.monotonic() - noticed > 0.9
    assert supervisor.pids()["child"] != guard


def test_an_essential_child_that_dies_five_times_is_given_up_with_its_last_words(
    supervisor: Supervisor, mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.embedded.supervisor.LONGEST_PAUSE_SECONDS", 0.0)
    supervisor.add(program("raise SystemExit('no such device')", mark))
    sentences: list[str] = []

    def given_up() -> bool:
        sentences[:] = supervisor.check()
        return bool(sentences)

    wait(given_up, "the child is given up")
    (sentence,) = sentences
    assert "child ended 5 times" in sentence
    assert sentence.endswith("no such device")
    assert supervisor.pids() == {}


def test_a_child_that_is_not_essential_may_be_given_up_in_silence(
    supervisor: Supervisor, mark: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("orchestrator.embedded.supervisor.LONGEST_PAUSE_SECONDS", 0.0)
    supervisor.add(program("print('once', flush=True)", mark, essential=False))

    def five() -> bool:
        assert supervisor.check() == []
        return (tmp_path / "logs" / "child.log").read_text().count("once") == 5

    wait(five, "it ran five times")
    time.sleep(0.3)
    assert supervisor.check() == []
    assert supervisor.pids() == {}


def test_stop_lets_a_child_end_by_itself_and_kills_one_that_will_not(
    supervisor: Supervisor, mark: str, tmp_path: Path
) -> None:
    log = tmp_path / "logs" / "child.log"
    ends = "import signal, sys; signal.signal(15, lambda *_: sys.exit(0)); print('up', flush=True); signal.pause()"
    supervisor.add(program(ends, mark))
    wait(lambda: "up" in log.read_text(), "it listens")
    assert supervisor.stop({"child": 60.0}), "it ended in time"

    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    supervisor.add(program(deaf, mark))
    wait(lambda: "deaf" in log.read_text(), "it does not listen")
    assert not supervisor.stop({"child": 0.5}), "it had to be killed"
    wait(lambda: not marked(mark), "nothing of it is left", 20)


@pytest.mark.parametrize("code", [HAS_A_CHILD, HAS_A_CHILD_OF_A_THREAD])
def test_killing_takes_grandchildren_along_whatever_session_they_are_in(
    supervisor: Supervisor, mark: str, code: str
) -> None:
    supervisor.add(program(code, mark))
    wait(lambda: len(marked(mark)) == 3, "guard, child and grandchild run")
    supervisor.kill()
    assert marked(mark) == []


def test_no_child_outlives_a_parent_that_is_killed(tmp_path: Path, mark: str) -> None:
    parent = f"""
import sys, time
from pathlib import Path
from orchestrator.embedded.supervisor import Program, Supervisor
supervisor = Supervisor(Path({str(tmp_path / "logs")!r}))
for name in ("one", "two"):
    command = [sys.executable, "-c", {HAS_A_CHILD_OF_A_THREAD!r}]
    supervisor.add(Program(name=name, command=command, env={{"TEST_MARK": {mark!r}}}))
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], cwd=ROOT)
    wait(lambda: len(marked(mark)) == 6, "two guards with a child and a grandchild each run")
    process.kill()
    process.wait()
    wait(lambda: not marked(mark), "all of them are gone", 20)


def test_a_child_that_was_only_just_started_is_ended_though_a_shell_ignores_the_signal(
    supervisor: Supervisor, mark: str
) -> None:
    former = signal.signal(signal.SIGQUIT, signal.SIG_IGN)  # as a shell does for its background jobs
    try:
        supervisor.add(program(SLEEPS, mark))
        began = time.monotonic()
        supervisor.kill()
    finally:
        signal.signal(signal.SIGQUIT, former)
    assert time.monotonic() - began < 60
    assert marked(mark) == []
