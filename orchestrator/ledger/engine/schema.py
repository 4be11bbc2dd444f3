"""Brings a database to the newest schema with Alembic, and says whether it is there."""

from __future__ import annotations

import sqlite3
from contextlib import closing

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.errors import SettingsError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import PACKAGE_ROOT, sqlite_path


def config(url: str) -> Config:
    """Return Alembic's configuration for this database; works from a checkout and from an installed wheel."""
    made = Config()
    made.set_main_option("script_location", str(PACKAGE_ROOT / "migrations"))
    made.set_main_option("path_separator", "os")
    made.attributes["url"] = url
    return made


def upgrade(url: str) -> str | None:
    """Migrate to the newest revision and return a sentence on it, or None where the database was there already.

    Of an SQLite file that holds something, a copy is kept beside it: `NAME.before-REVISION`.

    Raises:
        SettingsError: `database_newer`, a later version of this software has migrated it.
    """
    ledger = Ledger(url)
    try:
        current, newest = revisions(ledger)
    finally:
        ledger.dispose()
    if current == newest:
        return None
    check_not_newer(current, url)
    copy = _keep_copy(url, current) if current and ledger.is_sqlite else None
    command.upgrade(config(url), "head")
    kept = f"; a copy of before is {copy}" if copy else ""
    return f"the database is at revision {newest} now, it was at {current or 'nothing'}{kept}"


def check_not_newer(current: str | None, url: str) -> None:
    """Make sure that this code knows the revision of a database.

    Raises:
        SettingsError: `database_newer`.
    """
    if not is_newer(current, url):
        return
    newest = ScriptDirectory.from_config(config(url)).get_current_head()
    raise SettingsError(
        f"the database is at revision {current}, which a newer version of fpga has made; this one knows revisions up "
        f"to {newest}. Install the newer version again, or go back as docs/downgrade.md says",
        code="database_newer",
    )


def is_newer(revision: str | None, url: str) -> bool:
    """Say whether a revision is one that this code does not know: a later version has made it."""
    known = ScriptDirectory.from_config(config(url)).walk_revisions()
    return revision is not None and all(script.revision != revision for script in known)


def revisions(ledger: Ledger) -> tuple[str | None, str | None]:
    """Return (revision of the database, newest revision of this code).

    Raises:
        TransientError: the database does not answer.
    """
    with ledger.read() as session:
        current = MigrationContext.configure(session.connection()).get_current_revision()
    return current, ScriptDirectory.from_config(config(ledger.url)).get_current_head()


def _keep_copy(url: str, revision: str) -> str:
    """Copy an SQLite file as it is at one moment, writers or not; the copy is for its owner alone."""
    path = sqlite_path(url)
    target = path.with_name(f"{path.name}.before-{revision}")
    target.unlink(missing_ok=True)
    target.touch(mode=0o600)
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(target)) as copy:
        source.backup(copy)
    return str(target)
