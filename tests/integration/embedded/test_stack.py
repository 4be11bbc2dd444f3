"""The whole embedded stack as its own process: refused twice, killed, restarted, drained. Real Prefect, real worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.embedded import programs
from orchestrator.embedded.stack import Stack
from orchestrator.errors import ConflictError, NotFoundError, SettingsError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.runtime.prefect.client import connect
from orchestrator.runtime.running import announce, find_running, only_one, open_state_dir, status_path
from orchestrator.settings import Settings

ROOT = Path(__file__).parents[3]
UP = """
from orchestrator import logs
from orchestrator.embedded.stack import Stack
from orchestrator.settings import get_settings
logs.setup(get_settings())
with Stack(get_settings()) as stack:
    stack.wait_ready(240, prefect=True)
    print("ready", flush=True)
    stack.run_forever()
print("drained", flush=True)
"""


def wait(until: Callable[[], object], what: str, seconds: float = 150.0) -> None:
    deadline = time.monotonic() + seconds
    while not until():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.1)


def of_this_stack(state_dir: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"FPGA_STATE_DIR={state_dir}".encode() in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
        except OSError:
            continue
    return found


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(state_dir=tmp_path / "state", sweep_seconds=0.3, drain_seconds=5, torch_threads=1)


@pytest.fixture
def up(settings: Settings) -> Iterator[Callable[[], subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []

    def start() -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", UP],
            cwd=ROOT,
            env=programs.environment(settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.slow  # two starts of everything: a minute alone on two cores, several on busy ones
@pytest.mark.timeout(600)
def test_a_killed_stack_leaves_no_process_and_its_next_start_goes_on_and_drains(
    settings: Settings, up: Callable[[], subprocess.Popen[str]]
) -> None:
    first = up()
    running = find_running(settings)
    assert running is not None
    assert running.pid == first.pid
    ledger = Ledger(settings.database_url)
    item = NewItem(custom_id="a", params={}, params_sha256="0" * 64, seed=1)
    batch_id = batches.submit(
        ledger,
        NewBatch(owner="local", kind="generate", name="t", preset="mini", items=[item], paused=True),
    ).batch_id

    def flow_run() -> dict[str, object]:
        with ledger.read() as session:
            flow_run_id = batches.get(session, "local", batch_id).flow_run_id
        if flow_run_id is None:
            return {}
        with connect(settings) as api:
            found: dict[str, object] = api.call("GET", f"flow_runs/{flow_run_id}")
            return found

    wait(lambda: flow_run().get("state_type") == "PAUSED", "the flow run shows the paused batch")

    first.kill()
    first.wait()
    wait(lambda: not of_this_stack(settings.state_dir), "no child has outlived the parent", 20)
    assert find_running(settings) is None

    second = up()
    batches.cancel(ledger, "local", batch_id)
    wait(lambda: flow_run().get("state_type") == "CANCELLED", "the flow run ends as the batch did")
    ledger.dispose()

    second.send_signal(signal.SIGTERM)
    rest, _ = second.communicate(timeout=60)
    assert rest == "drained\n"
    assert second.returncode == 0
    assert of_this_stack(settings.state_dir) == []
    assert find_running(settings) is None


def test_a_second_stack_on_one_state_directory_is_refused_and_names_the_first(settings: Settings) -> None:
    open_state_dir(settings)
    with only_one(settings):
        announce(settings)
        with pytest.raises(ConflictError, match=f"process {os.getpid()} already runs") as refused:
            Stack(settings).start()
        assert refused.value.details["pid"] == str(os.getpid())
        assert find_running(settings) is not None, "the refused one left the first one's file alone"


def test_a_lock_that_a_killed_process_left_behind_is_free(settings: Settings) -> None:
    open_state_dir(settings)
    (settings.state_dir / "lock").write_text("999999")
    with only_one(settings):
        assert (settings.state_dir / "lock").read_text() == str(os.getpid())


def test_a_start_that_fails_half_way_leaves_nothing_behind(settings: Settings, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    stack = Stack(settings.model_copy(update={"models_dir": tmp_path / "empty"}), prefect=False)
    with pytest.raises(NotFoundError):
        stack.start()
    assert not status_path(settings).exists()
    assert signal.getsignal(signal.SIGTERM) is before
    with only_one(settings):
        pass  # the lock is free


def test_a_state_directory_that_others_may_enter_is_refused(settings: Settings) -> None:
    settings.state_dir.mkdir()
    settings.state_dir.chmod(0o755)
    with pytest.raises(SettingsError, match="mode 755"):
        Stack(settings).start()


def test_children_get_this_process_s_settings_and_nothing_of_the_user_s_prefect(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "https://elsewhere.example/api")
    monkeypatch.setenv("FPGA_GROUP_SIZE", "5")
    env = programs.environment(settings)
    assert not [name for name in env if name.startswith("PREFECT_")]
    assert "FPGA_GROUP_SIZE" not in env
    assert env["FPGA_DRAIN_SECONDS"] == "5.0"
    assert env["FPGA_STATE_DIR"] == str(settings.state_dir)
