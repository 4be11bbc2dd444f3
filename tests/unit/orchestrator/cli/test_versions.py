"""Databases of other versions and directories of other users: a sentence, and nothing is changed."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command

from orchestrator.cli.app import run
from orchestrator.embedded import programs
from orchestrator.errors import SettingsError
from orchestrator.ledger.engine import schema
from orchestrator.runtime.prefect.client import Address
from orchestrator.runtime.running import open_state_dir
from orchestrator.settings import Settings, get_settings


def revision(settings: Settings, path: Path | None = None) -> str:
    with closing(sqlite3.connect(path or settings.state_dir / "ledger.sqlite3")) as database:
        (found,) = database.execute("SELECT version_num FROM alembic_version").fetchone()
        return str(found)


def stamp(settings: Settings, number: str) -> None:
    with closing(sqlite3.connect(settings.state_dir / "ledger.sqlite3")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = ?", (number,))


@pytest.mark.parametrize(("number", "sentence"), [("9999", "a newer version of fpga has made"), ("0001", "`fpga up`")])
def test_a_command_that_only_reads_migrates_nothing_and_says_what_would(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    number: str,
    sentence: str,
) -> None:
    stamp(settings, number)
    monkeypatch.setenv("FPGA_STATE_DIR", str(settings.state_dir))
    get_settings.cache_clear()
    try:
        assert run(["batch", "list"]) == 1
    finally:
        get_settings.cache_clear()
    said = capfd.readouterr().err
    assert sentence in said
    assert "Traceback" not in said
    assert revision(settings) == number
    assert not list(settings.state_dir.glob("*.before-*"))


def test_a_migration_says_what_it_did_and_keeps_a_copy_of_before(settings: Settings) -> None:
    newest = revision(settings)
    command.downgrade(schema.config(settings.database_url), "-1")
    before = revision(settings)
    assert before != newest

    told = schema.upgrade(settings.database_url)

    copy = settings.state_dir / f"ledger.sqlite3.before-{before}"
    assert told is not None
    assert str(copy) in told
    assert (revision(settings), revision(settings, copy)) == (newest, before)
    assert copy.stat().st_mode & 0o077 == 0
    assert schema.upgrade(settings.database_url) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="hands a folder to somebody else")
def test_the_state_of_somebody_else_is_refused_by_name_and_nothing_is_left_in_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir(mode=0o700)
    os.chown(state, 65534, 65534)
    with pytest.raises(SettingsError, match="belongs to user nobody") as caught:
        open_state_dir(Settings(state_dir=state))
    assert caught.value.code == "state_dir_foreign"
    assert list(state.iterdir()) == []


def test_what_the_stack_starts_keeps_its_passing_files_in_its_own_state(settings: Settings) -> None:
    address = Address(url="http://127.0.0.1:4200/api", auth="fpga:x")
    for program in (programs.prefect_server(settings, address), programs.flow_worker(settings, address)):
        assert Path(program.env["TMPDIR"]).is_relative_to(settings.state_dir)
        assert Path(program.env["TMPDIR"]).stat().st_mode & 0o077 == 0
        assert "127.0.0.1" in program.env["NO_PROXY"].split(",")
