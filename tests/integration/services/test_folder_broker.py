"""The embedded bell: what is read is whole, however quick the reader and whoever is killed."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from kombu import Connection

from orchestrator.runtime.broker import RUN_STAGE, Bell, celery_config
from orchestrator.settings import Settings

MESSAGES = 3000
WRITE = f"""
import sys
from pathlib import Path
from orchestrator.runtime.broker import Bell
from orchestrator.settings import Settings
bell = Bell(Settings(state_dir=Path(sys.argv[1])))
print("up", flush=True)
for number in range({MESSAGES}):
    bell.send("cpu.io", {{"number": number}})
"""
STALL = """
import time
def stall(path, target):
    if not str(target).endswith(".msg"):
        return path.replace(target)
    print("half", flush=True)
    time.sleep(600)
Path.rename = stall
"""


def start_writer(state: Path, more: str = "") -> subprocess.Popen[str]:
    program = WRITE.replace("bell =", more + "bell =")
    writer = subprocess.Popen([sys.executable, "-c", program, str(state)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "up\n"
    return writer


def read(state: Path, *, until: int | None, seconds: float) -> list[int]:
    """Take messages until there were so many, or none is left; what is no message raises."""
    options = celery_config(Settings(state_dir=state))["broker_transport_options"]
    found: list[int] = []
    with Connection("filesystem://", transport_options=options) as connection:
        queue = connection.SimpleQueue("cpu.io")
        deadline = time.monotonic() + seconds
        while until is None or len(found) < until:
            assert time.monotonic() < deadline, f"{len(found)} messages in {seconds} s"
            try:
                message = queue.get(block=False)
            except queue.Empty:
                if until is None:
                    break
                continue
            message.ack()
            assert message.headers["task"] == RUN_STAGE
            found.append(message.payload[1]["number"])
    return found


def test_a_reader_that_never_rests_sees_every_message_whole(tmp_path: Path) -> None:
    writer = start_writer(tmp_path)
    try:
        assert sorted(read(tmp_path, until=MESSAGES, seconds=200)) == list(range(MESSAGES))
    finally:
        writer.kill()
        writer.wait()


def test_a_writer_killed_in_the_middle_leaves_nothing_that_a_reader_sees(tmp_path: Path) -> None:
    writer = start_writer(tmp_path, STALL)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "half\n"
    assert read(tmp_path, until=None, seconds=60) == []
    writer.kill()
    writer.wait()

    Bell(Settings(state_dir=tmp_path)).send("cpu.io", {"number": -1})

    assert read(tmp_path, until=None, seconds=60) == [-1]
