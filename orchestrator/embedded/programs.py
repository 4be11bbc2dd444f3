"""The commands of the embedded stack and the environment each of them gets: that of this process's settings."""

from __future__ import annotations

import os
import secrets
import socket
import sys
from pathlib import Path

from pydantic import SecretStr

from orchestrator.embedded.supervisor import Program
from orchestrator.errors import UsageError
from orchestrator.pipelines import QUEUES
from orchestrator.runtime.prefect.client import Address
from orchestrator.runtime.prefect.deployments import POOL
from orchestrator.runtime.running import check_computes_here, listen, write_private
from orchestrator.settings import PACKAGE_ROOT, Settings, without_proxy

SERVER, FLOW_WORKER, WORKER, API = "prefect-server", "prefect-worker", "worker", "api"
FLOW_RUNS = 4
"""So many runs that somebody began in Prefect's forms may make their batches at a time; each is a process of 150 MB."""
SERVER_SETTINGS = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_LOGGING_LEVEL": "WARNING",
    # by default only events are ever removed, and flow runs kept for ever
    "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",
    "PREFECT_SERVER_SERVICES_DB_VACUUM_RETENTION_PERIOD": "P14D",
    "PREFECT_SERVER_EVENTS_RETENTION_PERIOD": "P3D",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
}
CLIENT_SETTINGS = {
    "DO_NOT_TRACK": "1",
    "PREFECT_CLI_COLORS": "false",
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # the default is pickle
    "PREFECT_FLOWS_HEARTBEAT_FREQUENCY": "30",
    "PREFECT_WORKER_QUERY_SECONDS": "3",
}


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment for a child: ours, with exactly these settings, and nothing of Prefect's."""
    known = {str(spec.validation_alias or f"FPGA_{name}").upper() for name, spec in Settings.model_fields.items()}
    env = {k: v for k, v in os.environ.items() if k not in known and not k.startswith("PREFECT_")}
    for name, spec in Settings.model_fields.items():
        value = getattr(settings, name)
        if value is None or (name != "state_dir" and value == spec.get_default()):
            continue
        plain = value.get_secret_value() if isinstance(value, SecretStr) else value
        text = str(plain.absolute()) if isinstance(plain, Path) else str(plain)
        env[str(spec.validation_alias or f"FPGA_{name}").upper()] = text
    env["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    env["PYTHONUNBUFFERED"] = "1"
    return env


def private_address(settings: Settings) -> Address:
    """Return a free port on loopback for the private server, and its password, made at the first start."""
    path = settings.state_dir / "prefect-auth"
    if not path.exists():
        write_private(path, f"fpga:{secrets.token_urlsafe(24)}")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return Address(url=f"http://127.0.0.1:{port}/api", auth=path.read_text())


def prefect_server(settings: Settings, address: Address) -> Program:
    """Return the private Prefect server, on loopback, with a database of its own."""
    port = address.url.rpartition(":")[2].partition("/")[0]
    return Program(
        name=SERVER,
        command=[sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", port],
        env=_prefect_environment(settings, address)
        | SERVER_SETTINGS
        | {"PREFECT_SERVER_API_AUTH_STRING": address.auth or ""},
    )


def flow_worker(settings: Settings, address: Address) -> Program:
    """Return the Prefect worker that starts a process for each flow run."""
    options = ["--pool", POOL, "--type", "process", "--name", "embedded", "--limit", str(FLOW_RUNS)]
    return Program(
        name=FLOW_WORKER,
        command=[sys.executable, "-m", "prefect", "worker", "start", *options, "--install-policy", "never"],
        env=_prefect_environment(settings, address),
    )


def worker(settings: Settings, number: int) -> Program:
    """Return the Celery worker that computes, for every queue.

    Raises:
        UsageError: `no_worker`, this installation lacks the extra `worker`.
    """
    check_computes_here()
    options = ["-Q", ",".join(QUEUES), "-n", f"embedded-{number}@%h"]
    return Program(
        name=f"{WORKER}-{number}",
        command=[sys.executable, "-m", "celery", "-A", "workers", "worker", *options],
        env=environment(settings),
        essential=True,
    )


def api(settings: Settings) -> Program:
    """Return the server of the HTTP API and the pages; without it batches still complete."""
    return Program(name=API, command=[sys.executable, "-m", "orchestrator.api.server"], env=environment(settings))


def free_port(host: str, wanted: int) -> int:
    """Return the wanted port of this host if it is free, else one that is.

    Raises:
        UsageError: this machine has no such address.
    """
    try:
        probe = listen(host, wanted)
    except UsageError:
        probe = listen(host, 0)
    with probe:
        return int(probe.getsockname()[1])


def _prefect_environment(settings: Settings, address: Address) -> dict[str, str]:
    home = settings.state_dir.absolute() / "prefect"
    scratch = home / "tmp"
    for folder in (home, scratch):
        folder.mkdir(exist_ok=True, mode=0o700)
    return (
        environment(settings)
        | CLIENT_SETTINGS
        # a runner's folder in a shared /tmp belongs to whoever came first; and loopback is never asked of a proxy
        | {"TMPDIR": str(scratch), **without_proxy(os.environ)}
        | {"PREFECT_HOME": str(home), **address.environment}
    )
