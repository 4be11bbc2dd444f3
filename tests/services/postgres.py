"""PostgreSQL from Debian's packages: one cluster, any number of fresh databases."""

from __future__ import annotations

import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from tests.services.server import Server, ServiceFailedError, find_program

TRIES = 30


class Postgres(Server):
    """A private cluster with trust authentication on loopback.

    Writes are not synced to disk: a killed process loses nothing, only a power cut would.
    """

    name = "postgres"
    user = "postgres"

    @property
    def url(self) -> str:
        """SQLAlchemy URL of the maintenance database."""
        return self.database_url("postgres")

    def database_url(self, database: str) -> str:
        """Return the SQLAlchemy URL of one database."""
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/{database}"

    def prepare(self) -> None:
        """Create the cluster."""
        initdb = find_program("initdb", "/usr/lib/postgresql/*/bin/initdb")
        self.run([initdb, "-D", "data", "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])

    def start(self) -> None:
        """Start the server; after a kill its sessions, in groups of their own, may need a moment to let go."""
        for left in reversed(range(TRIES)):
            try:
                super().start()
                return
            except ServiceFailedError as error:
                if not left or "shared memory block" not in str(error):
                    raise
                time.sleep(0.1)

    def commands(self) -> list[list[str]]:
        """Run in the foreground with small memory."""
        options = {
            "listen_addresses": "127.0.0.1",
            "port": self.port,
            "unix_socket_directories": self.folder,
            "fsync": "off",
            "full_page_writes": "off",
            "shared_buffers": "32MB",
            "max_connections": 200,
            "timezone": "UTC",
        }
        program = find_program("postgres", "/usr/lib/postgresql/*/bin/postgres")
        return [[program, "-D", "data", *(f"--{name}={value}" for name, value in options.items())]]

    def ready(self) -> bool:
        """Say whether a connection succeeds."""
        try:
            self.execute("SELECT 1")
        except psycopg.OperationalError:
            return False
        return True

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Shut down the fast way: open sessions are rolled back."""
        super().stop(how)

    def execute(self, statement: str) -> None:
        """Run one statement outside of a transaction."""
        with psycopg.connect(host="127.0.0.1", port=self.port, user="postgres", autocommit=True) as connection:
            connection.execute(statement.encode())

    @contextmanager
    def database(self) -> Iterator[str]:
        """Lend a new empty database as its SQLAlchemy URL; it is dropped afterwards, open sessions or not."""
        name = f"test_{uuid.uuid4().hex[:12]}"
        self.execute(f"CREATE DATABASE {name}")
        try:
            yield self.database_url(name)
        finally:
            self.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
