"""One server on loopback: its own temporary folder and port, start, kill, restart, stop.

A server dies with the process that started it, and can be killed and started again on the same port and data.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self


class ServiceMissingError(Exception):
    """The server is not installed here; the message says what would install it."""


class ServiceFailedError(Exception):
    """The server did not start; the message ends with the last lines of its log."""


def free_port() -> int:
    """Return a TCP port of 127.0.0.1 that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def listens(port: int) -> bool:
    """Say whether somebody accepts TCP connections on this port of 127.0.0.1."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1):
            return True
    except OSError:
        return False


def find_program(name: str, *patterns: str) -> str:
    """Return the path of a program on PATH or, failing that, the newest match of the glob patterns below `/`.

    Raises:
        ServiceMissingError: it is nowhere.
    """
    if found := shutil.which(name):
        return found
    matches = sorted((path for pattern in patterns for path in Path("/").glob(pattern.lstrip("/"))), reverse=True)
    if not matches:
        raise ServiceMissingError(f"{name} is not installed; run scripts/install-services.sh all")
    return str(matches[0])


class Server(ABC):
    """One or more processes that serve together; use it as a context manager, or call start and close."""

    name: ClassVar[str]
    user: ClassVar[str]
    """The account of the package, taken when we are root: several servers refuse to run as root."""
    start_seconds: ClassVar[float] = 30.0

    def __init__(self) -> None:
        self.port = free_port()
        self.folder = Path(tempfile.mkdtemp(prefix=f"fpga-{self.name}-", dir="/tmp"))  # root's own tmp is closed
        self.log = self.folder / "log"
        self.processes: list[subprocess.Popen[bytes]] = []

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it."""

    @abstractmethod
    def commands(self) -> list[list[str]]:
        """Return the commands that run the server in the foreground; the first is the one to be told to stop."""

    @abstractmethod
    def ready(self) -> bool:
        """Say whether the server answers now."""

    @abstractmethod
    def prepare(self) -> None:
        """Write configuration and data before the first start."""

    def environment(self) -> dict[str, str]:
        """Return all variables that the server gets."""
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "LC_ALL": "C.UTF-8"}

    def start(self) -> None:
        """Start the process and wait until it answers.

        Raises:
            ServiceMissingError: the program is not installed.
            ServiceFailedError: it ended, or did not answer in `start_seconds`.
        """
        if not any(self.folder.iterdir()):
            self.prepare()
            self.hand_over()
        for command in self.commands():
            self.processes.append(self.spawn(command))
        end = time.monotonic() + self.start_seconds
        while not self.ready():
            if any(process.poll() is not None for process in self.processes) or time.monotonic() > end:
                tail = self.log.read_text(errors="replace")[-2000:]
                self.kill()
                raise ServiceFailedError(f"{self.name} did not start; its log ends with:\n{tail}")
            time.sleep(0.03)

    def spawn(self, command: list[str]) -> subprocess.Popen[bytes]:
        """Start one process in a group of its own, its output going to the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [*self.as_user(), *command],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.folder,
                env=self.environment(),
                start_new_session=True,
            )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> None:
        """End the server in its orderly way, or by force after 20 seconds; the data stay."""
        if self.processes:
            self.processes[0].send_signal(how)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.processes[0].wait(20)
        self.kill()

    def kill(self) -> None:
        """End every process and its children with SIGKILL; the data stay as they are at this moment."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self.processes = []

    def close(self) -> None:
        """Stop and remove everything."""
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def run(self, command: list[str]) -> None:
        """Run one preparing command as the server's account in its folder."""
        self.hand_over()
        done = subprocess.run(
            [*self.as_user(), *command],
            cwd=self.folder,
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise ServiceFailedError(f"{command[0]} failed: {(done.stderr or done.stdout)[-2000:]}")

    def as_user(self) -> list[str]:
        """Return the prefix that drops root for the package's account, and ties the process to ours."""
        tie = ["setpriv", "--pdeathsig", "KILL"]
        if os.geteuid() == 0:
            tie += ["--reuid", self.user, "--regid", str(self.account().pw_gid), "--init-groups"]
        return [*tie, "--"]

    def account(self) -> pwd.struct_passwd:
        """Return the package's account.

        Raises:
            ServiceMissingError: it does not exist, hence the package is not installed.
        """
        try:
            return pwd.getpwnam(self.user)
        except KeyError:
            raise ServiceMissingError(f"account {self.user} does not exist; run scripts/install-services.sh") from None

    def hand_over(self) -> None:
        """Give the folder and what is in it to the account that the server runs as."""
        if os.geteuid() == 0:
            account = self.account()
            for path in [self.folder, *self.folder.rglob("*")]:
                os.chown(path, account.pw_uid, account.pw_gid)

    def __enter__(self) -> Self:
        """Start."""
        with contextlib.ExitStack() as undo:
            undo.callback(self.close)
            self.start()
            undo.pop_all()  # it runs: nothing to undo
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop and remove."""
        self.close()
