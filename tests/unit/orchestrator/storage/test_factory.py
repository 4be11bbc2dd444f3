"""A store URL in the settings opens the store it names, or is refused with what was wanted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from orchestrator.errors import SettingsError
from orchestrator.settings import Settings
from orchestrator.storage import open_store
from orchestrator.storage.local import LocalStore
from orchestrator.storage.s3 import S3Store


def test_nothing_said_opens_a_directory_in_the_state_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FPGA_STORE_URL", raising=False)
    store = open_store(Settings(state_dir=tmp_path / "with space"))
    assert isinstance(store, LocalStore)
    assert store.root == tmp_path / "with space" / "store"


def test_an_s3_url_opens_a_bucket_below_a_prefix(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://store.example")
    settings = Settings(
        store_url_="s3://bucket/some/prefix/", s3_addressing_style="path", s3_public_endpoint_url="https://pub.example"
    )
    store = open_store(settings)
    assert isinstance(store, S3Store)
    link = store.url("a/b", expires_seconds=60)
    assert link.startswith("https://pub.example/bucket/some/prefix/a/b?")


@pytest.mark.parametrize(
    "url",
    ["", "/plain/path", "file://", "file:///", "file://host/path", "s3://", "s3://b/../c", "s3://b?x=1", "gs://b/p"],
)
def test_any_other_url_is_refused(url: str) -> None:
    with pytest.raises(SettingsError, match="FPGA_STORE_URL") as caught:
        open_store(Settings(store_url_=url or "nothing"))
    assert caught.value.code == "store_url_invalid"


def test_a_password_in_a_url_is_refused_and_not_shown() -> None:
    with pytest.raises(SettingsError) as caught:
        open_store(Settings(store_url_="s3://user:hunter2@bucket/prefix"))
    assert "hunter2" not in str(caught.value)


def test_a_directory_needs_no_boto3() -> None:
    program = "import sys, orchestrator.storage; print('boto3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
