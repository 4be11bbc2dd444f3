"""Engine and session scopes: one writer at a time on SQLite, read committed with timeouts on PostgreSQL.

SQLite transactions that read first and write later fail at once when another writer is active, and the busy timeout is
not even consulted; so we own the BEGIN: `write()` takes the lock at the start (BEGIN IMMEDIATE), `read()` never does.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session, sessionmaker
from sqlalchemy.pool import ConnectionPoolEntry

from orchestrator.errors import SettingsError, TransientError
from orchestrator.settings import Settings, sqlite_path

P = ParamSpec("P")
R = TypeVar("R")

SQLITE_PRAGMAS = (
    "PRAGMA journal_mode=WAL",  # readers never wait for the writer
    "PRAGMA synchronous=FULL",  # what we acknowledged survives a power cut
    "PRAGMA busy_timeout=30000",
    "PRAGMA foreign_keys=ON",
    "PRAGMA wal_autocheckpoint=1000",
    "PRAGMA secure_delete=ON",  # what was erased is overwritten, not only unlinked
)
POSTGRES_OPTIONS = (
    "-c lock_timeout=5s -c statement_timeout=30s -c idle_in_transaction_session_timeout=30s -c timezone=UTC"
)
POOL_SECONDS = 5.0
"""So long a caller waits for a connection before it is told to come back."""
SQLITE_READERS = 40
"""As many as a server has threads: a file has room for all of them."""
WANTED = "DATABASE_URL must name a PostgreSQL database or an SQLite file, such as postgresql+psycopg://user@host/name"
POSTGRES_LINE = {
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
}
"""A server that vanished without a word, or a cable pulled, is an error within half a minute, not within two hours."""
RETRYABLE_SQLSTATES = {"40001", "40P01", "55P03", "57P01", "57P02", "57P03"}


@dataclass(frozen=True, kw_only=True)
class Quota:
    """How much one owner may have waiting; 0 sets no limit. See orchestrator.ledger.queue.quotas."""

    items: int = 0
    pixels_day: int = 0
    upload_bytes: int = 0

    @classmethod
    def of(cls, settings: Settings) -> Quota:
        """Return the limits of this installation."""
        return cls(
            items=settings.quota_items,
            pixels_day=settings.quota_megapixels_day * 10**6,
            upload_bytes=settings.quota_upload_bytes,
        )


def _utc() -> datetime:
    return datetime.now(UTC)


class Ledger:
    """The database behind one URL, opened once per process and never shared across a fork."""

    def __init__(self, url: str, quota: Quota | None = None, clock: Callable[[], datetime] = _utc) -> None:
        """Open a database; `clock` says the time of an SQLite file, which has none of its own."""
        self.url = url
        self.engine = _engine(url).execution_options(fpga_clock=clock)
        self._quota = quota
        self.is_sqlite = self.engine.dialect.name == "sqlite"
        self._readers = sessionmaker(self.engine, expire_on_commit=False)
        self._writers = sessionmaker(self.engine.execution_options(fpga_write=True), expire_on_commit=False)

    @classmethod
    def of(cls, settings: Settings) -> Ledger:
        """Return the ledger of this installation, with its quotas.

        Raises:
            SettingsError: its URL names no database that we know.
        """
        return cls(settings.database_url, Quota.of(settings))

    @contextmanager
    def read(self) -> Iterator[Session]:
        """Yield a session for queries; nothing it changes is kept."""
        with _typed_errors(), self._readers() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """Yield a session in one transaction, committed at the end, rolled back on any error."""
        with _typed_errors(), self._writers.begin() as session:
            session.info[Quota.__name__] = self._quota
            yield session

    def settle(self) -> None:
        """Bring an SQLite file up to its journal and empty that, so that no former page is left in it.

        A long reader may keep the journal from being emptied; the next call does it. PostgreSQL is left alone: there
        old rows go with its own vacuum, and its journal with its own retention.
        """
        if self.is_sqlite:
            with self.engine.connect() as connection:
                connection.connection.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def wait(self, seconds: float) -> None:
        """Wait before a transaction is tried again."""
        time.sleep(seconds)

    def dispose(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def now(session: Session | Connection) -> datetime:
    """Return the time that leases are compared with: the database's own clock, or this host's for SQLite."""
    bind = session.get_bind() if isinstance(session, Session) else session
    if bind.dialect.name == "sqlite":
        clock: Callable[[], datetime] = bind.get_execution_options().get("fpga_clock", _utc)
        return clock()
    moment: datetime = session.execute(text("SELECT clock_timestamp()")).scalar_one()
    return moment.astimezone(UTC)


def retrying(function: Callable[Concatenate[Ledger, P], R]) -> Callable[Concatenate[Ledger, P], R]:
    """Repeat a whole transaction that lost a lock, a serialization race or its connection: five times, then give up."""

    @wraps(function)
    def repeated(ledger: Ledger, /, *args: P.args, **kwargs: P.kwargs) -> R:
        for pause in (0.05, 0.2, 0.5, 1.0):
            try:
                return function(ledger, *args, **kwargs)
            except TransientError:
                ledger.wait(pause)
        return function(ledger, *args, **kwargs)

    return repeated


@contextmanager
def _typed_errors() -> Iterator[None]:
    try:
        yield
    except PoolTimeoutError as error:
        raise TransientError("all connections to the database are busy", code="database_busy") from error
    except DBAPIError as error:
        if not _passing(error):
            raise
        raise TransientError(f"the database did not answer: {error.orig}", code="database_unavailable") from error


def _passing(error: DBAPIError) -> bool:
    """Tell a fault that passes by itself from a mistake of ours."""
    if error.connection_invalidated or getattr(error.orig, "sqlstate", None) in RETRYABLE_SQLSTATES:
        return True
    if isinstance(error.orig, sqlite3.OperationalError):
        return any(word in str(error.orig) for word in ("locked", "busy", "full", "disk I/O"))
    return isinstance(error, OperationalError)


def _engine(url: str) -> Engine:
    try:
        parsed = make_url(url)
    except ArgumentError as error:  # its text may show what was given, a password included
        raise SettingsError(WANTED) from error
    if parsed.get_backend_name() == "postgresql":
        return create_engine(
            parsed,
            pool_pre_ping=True,
            pool_size=5,
            max_overflow=5,
            pool_timeout=POOL_SECONDS,
            pool_recycle=1800,
            connect_args={"options": POSTGRES_OPTIONS, "connect_timeout": 5, **POSTGRES_LINE},
        )
    if parsed.get_backend_name() != "sqlite" or not parsed.database:
        raise SettingsError(f"{WANTED}, got one of {parsed.get_backend_name()!r}")
    path = sqlite_path(url)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        path.touch(mode=0o600)
    engine = create_engine(
        parsed,
        connect_args={"timeout": 30, "check_same_thread": False},
        pool_size=SQLITE_READERS,
        max_overflow=0,
        pool_timeout=POOL_SECONDS,
    )
    event.listen(engine, "connect", _prepare_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _prepare_sqlite(connection: object, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # type: ignore[attr-defined]  # the driver must not begin by itself
    cursor = connection.cursor()  # type: ignore[attr-defined]  # a driver's own connection
    for pragma in SQLITE_PRAGMAS:
        cursor.execute(pragma)
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    write = connection.get_execution_options().get("fpga_write", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")
