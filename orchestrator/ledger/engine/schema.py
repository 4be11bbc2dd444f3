"""Brings a database to the newest schema with Alembic, and says whether it is there."""

from __future__ import annotations

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import PACKAGE_ROOT


def config(url: str) -> Config:
    """Return Alembic's configuration for this database; works from a checkout and from an installed wheel."""
    made = Config()
    made.set_main_option("script_location", str(PACKAGE_ROOT / "migrations"))
    made.set_main_option("path_separator", "os")
    made.attributes["url"] = url
    return made


def upgrade(url: str) -> None:
    """Migrate to the newest revision; a database that is there already is left as it is."""
    command.upgrade(config(url), "head")


def revisions(ledger: Ledger) -> tuple[str | None, str | None]:
    """Return (revision of the database, newest revision of this code).

    Raises:
        TransientError: the database does not answer.
    """
    with ledger.read() as session:
        current = MigrationContext.configure(session.connection()).get_current_revision()
    return current, ScriptDirectory.from_config(config(ledger.url)).get_current_head()
