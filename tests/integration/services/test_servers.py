"""Each native server serves, and comes back after a kill with what it had promised to keep."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import kombu
import pytest
import redis

from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.server import Server, ServiceFailedError, ServiceMissingError, find_program, listens

REPOSITORY = Path(__file__).parents[3]


@pytest.mark.slow
def test_redis_is_empty_for_each_test_and_keeps_what_it_logged(redis_server: Redis, redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        assert client.dbsize() == 0
        client.set("kept", "yes")
        time.sleep(1.2)  # appendfsync everysec; a process kill loses nothing even before
        redis_server.kill()
        redis_server.start()
        assert client.get("kept") == b"yes"


@pytest.mark.slow
def test_rabbitmq_takes_and_gives_messages(rabbitmq_server: RabbitMQ, rabbitmq_url: str) -> None:
    with kombu.Connection(rabbitmq_url) as connection, connection.SimpleQueue("durable") as queue:
        queue.put({"id": 1})
        message = queue.get(timeout=5)
        assert message.payload == {"id": 1}
        message.ack()


@pytest.mark.usefixtures("postgres_server")
def test_a_server_ends_with_the_process_that_started_it() -> None:
    program = (
        "import time\nfrom tests.services.postgres import Postgres\n"
        "server = Postgres()\nserver.start()\nprint(server.port, server.folder, flush=True)\ntime.sleep(60)"
    )
    starter = subprocess.Popen([sys.executable, "-c", program], cwd=REPOSITORY, stdout=subprocess.PIPE, text=True)
    assert starter.stdout is not None
    port, folder = starter.stdout.readline().split()
    assert listens(int(port))
    starter.send_signal(signal.SIGKILL)
    starter.communicate()
    end = time.monotonic() + 30
    while listens(int(port)) and time.monotonic() < end:
        time.sleep(0.05)
    assert not listens(int(port))
    assert Path(folder).is_dir(), "what a kill leaves is a folder, no process"
    subprocess.run(["rm", "-r", "--", folder], check=True)


class Broken(Server):
    name = "broken"
    user = "nobody"

    @property
    def url(self) -> str:
        return ""

    def prepare(self) -> None:
        (self.folder / "data").write_text("")

    def commands(self) -> list[list[str]]:
        return [["sh", "-c", "echo no such disk >&2; exit 3"]]

    def ready(self) -> bool:
        return False


def test_a_server_that_does_not_start_shows_its_log_and_leaves_nothing() -> None:
    server = Broken()
    with pytest.raises(ServiceFailedError, match="no such disk"), server:
        pass
    assert not server.folder.exists()


def test_a_missing_program_is_named_with_what_installs_it() -> None:
    with pytest.raises(ServiceMissingError, match=r"no-such-server.*install-services\.sh"):
        find_program("no-such-server", "/usr/lib/no-such/*/bin/no-such-server")


@pytest.mark.parametrize(("ci", "outcome"), [("", "1 skipped"), ("true", "1 error")])
def test_a_missing_server_skips_here_and_fails_in_ci(tmp_path: Path, ci: str, outcome: str) -> None:
    (tmp_path / "test_needs_it.py").write_text(
        "import pytest\nfrom tests.conftest import lend\nfrom tests.services.redis import Redis\n"
        "class Missing(Redis):\n    user = 'no-such-account'\n"
        "    def commands(self):\n        from tests.services.server import find_program\n"
        "        return [[find_program('no-such-server')]]\n"
        "@pytest.fixture\ndef missing():\n    yield from lend(Missing)\n"
        "def test_it(missing):\n    pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "CI": ci, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert outcome in done.stdout, done.stdout
