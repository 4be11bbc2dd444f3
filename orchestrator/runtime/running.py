"""What a running stack tells other commands on the same state directory, and the lock that keeps it the only one."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path

from orchestrator.errors import ConflictError, SettingsError, UsageError
from orchestrator.ledger.queue.workers import boot_id, process_started
from orchestrator.settings import Settings


@dataclass(frozen=True, kw_only=True)
class StackInfo:
    """A running stack: its process, where its pages are, and its Prefect server once that answers."""

    pid: int
    pid_started: str
    boot_id: str
    prefect_api_url: str | None = None
    prefect_auth: str | None = None
    api_url: str | None = None
    down: Mapping[str, str] = field(default_factory=dict)
    """Parts that were given up, each with a sentence."""


def status_path(settings: Settings) -> Path:
    """Return the file in which a running stack says who it is; only its owner may read it."""
    return settings.state_dir / "stack.json"


def find_running(settings: Settings) -> StackInfo | None:
    """Return the stack that runs on this state directory, or None; the file of a killed one is not believed."""
    try:
        info = StackInfo(**json.loads(status_path(settings).read_text()))
    except (OSError, ValueError, TypeError):
        return None
    return info if info.boot_id == boot_id() and process_started(info.pid) == info.pid_started else None


def announce(
    settings: Settings,
    api_url: str | None = None,
    *,
    prefect_api_url: str | None = None,
    prefect_auth: str | None = None,
    down: Mapping[str, str] | None = None,
) -> None:
    """Write who runs here, at once and whole."""
    info = StackInfo(
        pid=os.getpid(),
        pid_started=process_started(os.getpid()) or "unknown",
        boot_id=boot_id(),
        prefect_api_url=prefect_api_url,
        prefect_auth=prefect_auth,
        api_url=api_url,
        down=down or {},
    )
    write_private(status_path(settings), json.dumps(asdict(info)))


def write_private(path: Path, text: str) -> None:
    """Replace a file that only its owner may read; a reader sees the old text or the new."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)


def open_state_dir(settings: Settings) -> None:
    """Create the state directory, closed to other users.

    Raises:
        SettingsError: it exists and others may enter, or it cannot be made.
    """
    folder = settings.state_dir
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        mode = folder.stat().st_mode & 0o777
    except OSError as error:
        raise SettingsError(f"state directory {folder} cannot be made: {error.strerror}") from error
    owner = folder.stat().st_uid
    if owner != os.geteuid():
        raise SettingsError(
            f"state directory {folder} belongs to user {_user(owner)}; run this as {_user(owner)}, or choose another "
            "FPGA_STATE_DIR: files of another user would lock the owner out",
            code="state_dir_foreign",
        )
    if mode & 0o077:
        raise SettingsError(f"state directory {folder} has mode {mode:o}; wanted 700: what it holds is about people")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def web_url(host: str, port: int) -> str:
    """Return where a browser of this machine finds a server that listens on this host."""
    near = {"0.0.0.0": "127.0.0.1", "": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{near}]:{port}" if ":" in near else f"http://{near}:{port}"


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens there, on `::` for both kinds of address; port 0 is any free one.

    Raises:
        UsageError: `port_taken`, or there is no such address on this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, dualstack_ipv6=host == "::")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(
            f"{web_url(host, port)} cannot be served: {reason}; see FPGA_API_HOST and FPGA_API_PORT", code="port_taken"
        ) from error


@contextmanager
def only_one(settings: Settings) -> Iterator[None]:
    """Hold the state directory's lock; it falls with the process, so a killed holder leaves nothing to clean up.

    Raises:
        ConflictError: another process holds it; the message names its pid.
    """
    with os.fdopen(os.open(settings.state_dir / "lock", os.O_RDWR | os.O_CREAT, 0o600), "r+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = file.read().strip() or "unknown"
            raise ConflictError(
                f"process {holder} already runs on {settings.state_dir}; stop it, or choose another FPGA_STATE_DIR",
                code="state_dir_taken",
                pid=holder,
            ) from error
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


def check_computes_here() -> None:
    """Make sure that the networks' libraries are installed beside the control plane.

    Raises:
        UsageError: `no_worker`, this installation lacks the extra `worker`.
    """
    if find_spec("torch") is None:
        raise UsageError(
            "this installation is the client and control plane alone; "
            "what computes needs more: pip install 'fpga-portraits[worker]'",
            code="no_worker",
        )
