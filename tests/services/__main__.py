"""Run servers by hand until Ctrl-C: `python -m tests.services up [postgres redis rabbitmq swift]`.

Prints the settings that use them, one `NAME=value` a line, once all answer.
"""

from __future__ import annotations

import argparse
import contextlib
import signal
import sys
import threading

from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.server import Server, ServiceFailedError, ServiceMissingError
from tests.services.swift import Swift

KINDS: dict[str, type[Server]] = {kind.name: kind for kind in (Postgres, Redis, RabbitMQ, Swift)}


def settings_of(server: Server) -> dict[str, str]:
    """Return the environment variables that make the product use a server."""
    if isinstance(server, Postgres):
        return {"DATABASE_URL": server.url}
    if isinstance(server, Swift):
        server.create_bucket("fpga")
        return server.environment_for_clients() | {"FPGA_STORE_URL": "s3://fpga", "FPGA_S3_ADDRESSING_STYLE": "path"}
    return {"CELERY_BROKER_URL": server.url}


def main() -> int:
    """Start what was asked for, print, wait, stop."""
    parser = argparse.ArgumentParser(prog="python -m tests.services", description=__doc__)
    parser.add_argument("action", choices=["up"])
    parser.add_argument("names", nargs="*", metavar="name", help=", ".join(KINDS))
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - set(KINDS):
        parser.error(f"unknown {', '.join(sorted(unknown))}; known are {', '.join(KINDS)}")
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    with contextlib.ExitStack() as stack:
        try:
            servers = [stack.enter_context(KINDS[name]()) for name in arguments.names or ["postgres", "redis", "swift"]]
        except (ServiceMissingError, ServiceFailedError) as error:
            sys.stderr.write(f"{error}\n")
            return 1
        for server in servers:
            for name, value in settings_of(server).items():
                sys.stdout.write(f"{name}={value}\n")
        sys.stdout.flush()
        asked.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
