"""Runs migrations against the ledger's database; batch mode lets SQLite alter tables."""

from __future__ import annotations

from typing import Literal

from alembic import context
from alembic.autogenerate.api import AutogenContext
from sqlalchemy import Connection

from orchestrator.ledger.engine.base import Row, UtcDateTime
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.tables import (
    rows,
    rows_api,
    rows_datasets,
    rows_photos,
    rows_reviews,
    rows_schedules,
    rows_training,
)
from orchestrator.settings import get_settings

TIMEOUTS = ("SET lock_timeout = '5s'", "SET statement_timeout = '10min'")


def plain_type(kind: str, item: object, _: AutogenContext) -> str | Literal[False]:
    """Write our own column types as what they are in the database: a migration must not change with the code."""
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def migrate(connection: Connection) -> None:
    """Bring the connected database to the wanted revision."""
    context.configure(
        connection=connection,
        target_metadata=Row.metadata,
        render_as_batch=True,
        render_item=plain_type,
        compare_type=True,
        compare_server_default=True,
        transaction_per_migration=True,
    )
    if connection.dialect.name == "postgresql":
        for statement in TIMEOUTS:
            connection.exec_driver_sql(statement)
        connection.commit()
    with context.begin_transaction():
        context.run_migrations()


for module in (rows, rows_api, rows_datasets, rows_photos, rows_reviews, rows_schedules, rows_training):
    assert module.Row.metadata is Row.metadata, "importing the modules of rows fills the metadata"
url = context.config.attributes.get("url") or get_settings().database_url
ledger = Ledger(url)
try:
    with ledger.engine.connect() as opened:
        migrate(opened)
        opened.commit()
finally:
    ledger.dispose()
