"""The PostgreSQL fixture gives what it promises."""

from __future__ import annotations

import psycopg
import sqlalchemy as sa

from tests.services.postgres import Postgres


def test_a_test_gets_an_empty_database_of_its_own(postgres_server: Postgres, postgres_url: str) -> None:
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("CREATE TABLE mine (id int)"))
    with postgres_server.database() as other:
        assert sa.inspect(sa.create_engine(other)).get_table_names() == []
    assert sa.inspect(engine).get_table_names() == ["mine"]


def test_a_killed_server_comes_back_with_every_committed_row() -> None:
    with Postgres() as server, server.database() as url:
        dsn = url.replace("+psycopg", "")
        with psycopg.connect(dsn) as connection:
            connection.execute("CREATE TABLE kept AS SELECT generate_series(1, 100) AS id")
        server.kill()
        server.start()
        with psycopg.connect(dsn) as connection:
            assert connection.execute("SELECT count(*) FROM kept").fetchone() == (100,)
