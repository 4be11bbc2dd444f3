"""Buckets open only to whom they were granted, with credentials of the grant, and ours to nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.archive import open_source
from orchestrator.archive.reach import Reach, grants
from orchestrator.errors import ForbiddenError, SettingsError, UsageError
from orchestrator.settings import Settings

KEYS = 'access_key_id = "a"\nsecret_access_key = "b"\n'
GRANTS = f"""
[[grant]]
owner = "alice"
url = "s3://alice-scans/2024"
{KEYS}
[[grant]]
owner = "alice"
url = "s3://alice-done/"
may = ["write"]
endpoint_url = "http://minio.example:9000"
{KEYS}
"""


def reach(path: Path, owner: str = "alice", *, text: str = GRANTS, operator: bool = False) -> Reach:
    file = path / "buckets.toml"
    file.touch(mode=0o600)
    file.write_text(text)
    settings = Settings(state_dir=path, store_url_="s3://fpga/prod", buckets_file=file)
    return Reach(settings=settings, owner=owner, operator=operator)


def test_a_granted_prefix_opens_with_the_credentials_of_its_grant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-operators")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")

    place = reach(tmp_path).place("s3://alice-done/out", "write")

    client = place.client()
    assert client.meta.endpoint_url == "http://minio.example:9000"
    assert client._request_signer._credentials.access_key == "a"  # type: ignore[attr-defined]  # botocore's own


def test_a_prefix_is_a_folder_and_not_the_beginning_of_its_neighbour(tmp_path: Path) -> None:
    mine = reach(tmp_path)

    assert mine.place("s3://alice-scans/2024", "read").prefix == "2024/"
    assert mine.place("s3://alice-scans/2024/may", "read").prefix == "2024/may"
    assert mine.place("s3://alice-scans/2024/", "read").prefix == "2024/"


@pytest.mark.parametrize(
    ("url", "may", "owner"),
    [
        ("s3://alice-scans/2024-private/x.png", "read", "alice"),
        ("s3://alice-scans/2024/../2023/x.png", "read", "alice"),
        ("s3://alice-scans/", "read", "alice"),
        ("s3://alice-scans", "read", "alice"),
        ("s3://alice-scans/2024/", "write", "alice"),
        ("s3://alice-done/", "read", "alice"),
        ("s3://alice-done-too/", "write", "alice"),
        ("s3://alice-scans/2024/", "read", "eve"),
        ("s3://anything/else", "read", "eve"),
    ],
)
def test_what_was_not_granted_stays_shut(tmp_path: Path, url: str, may: str, owner: str) -> None:
    with pytest.raises(ForbiddenError, match="FPGA_BUCKETS_FILE"):
        reach(tmp_path, owner).place(url, may)  # type: ignore[arg-type]  # from a table


@pytest.mark.parametrize("operator", [True, False])
def test_the_bucket_of_the_system_is_nobodys(tmp_path: Path, operator: bool) -> None:
    everything = f'[[grant]]\nowner = "alice"\nurl = "s3://fpga/"\nmay = ["read", "write"]\n{KEYS}'

    with pytest.raises(UsageError) as caught:
        reach(tmp_path, text=everything, operator=operator).place("s3://fpga/prod/o/alice/", "read")

    assert caught.value.code == "bucket_of_the_system"


def test_the_operators_own_commands_reach_what_their_variables_reach(tmp_path: Path) -> None:
    assert reach(tmp_path, operator=True, text="").place("s3://anything/at/all", "write").grant is None


def test_a_bucket_opens_for_nobody_who_was_not_named() -> None:
    with pytest.raises(ForbiddenError):
        open_source("s3://any/thing")


@pytest.mark.parametrize(
    "text",
    [
        '[[grant]]\nowner = "alice"\nurl = "s3://x/"\n',
        f'[[grant]]\nowner = "alice"\nurl = "s3://x/"\nprofile = "default"\n{KEYS}',
        f'[[grant]]\nowner = "alice"\nurl = "/etc"\n{KEYS}',
        f'[[grant]]\nowner = "alice"\nurl = "s3://x/"\nmay = []\n{KEYS}',
        "[[grant",
    ],
)
def test_a_grant_without_credentials_of_its_own_or_malformed_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(SettingsError) as caught:
        grants(reach(tmp_path, text=text).settings)

    assert caught.value.code == "buckets_file_invalid"


def test_a_file_of_credentials_that_others_may_read_is_refused(tmp_path: Path) -> None:
    settings = reach(tmp_path).settings
    assert settings.buckets_file is not None
    settings.buckets_file.chmod(0o644)

    with pytest.raises(SettingsError, match="chmod 600"):
        grants(settings)
