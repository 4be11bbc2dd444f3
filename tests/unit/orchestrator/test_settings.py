"""Settings: defaults that run, unknown names refused, every one documented."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.settings import Settings, load_settings

ROOT = Path(__file__).parents[3]


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("DATABASE_URL", "CELERY_BROKER_URL", "FPGA_STORE_URL", "FPGA_STATE_DIR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def test_nothing_set_means_everything_in_one_directory(tmp_path: Path) -> None:
    settings = load_settings()

    assert settings.database_url == f"sqlite:///{tmp_path}/var/fpga/ledger.sqlite3"
    assert settings.store_url == f"file://{tmp_path}/var/fpga/store"
    assert settings.broker_url == "filesystem://"


def test_a_misspelt_setting_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPGA_GROUPSIZE", "4")

    with pytest.raises(SettingsError, match=r"FPGA_GROUPSIZE.*FPGA_GROUP_SIZE"):
        load_settings()


def test_a_value_of_the_wrong_form_is_named_with_what_was_got(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPGA_LEASE_SECONDS", "soon")

    with pytest.raises(SettingsError, match=r"lease_seconds.*'soon'"):
        load_settings()


def test_every_setting_is_in_the_documentation() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()

    names = [str(field.validation_alias or f"FPGA_{name.upper()}") for name, field in Settings.model_fields.items()]
    assert [name for name in names if f"`{name}`" not in text] == []
