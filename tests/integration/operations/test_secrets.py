"""Marker secrets in every setting that may hold one, and every output searched for them (T43)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.integration.workers.rig import ROOT

pytestmark = pytest.mark.slow
MARKER = "hunter2"
DEAD = "127.0.0.1:1"
SECRETS = {
    "DATABASE_URL": f"postgresql+psycopg://fpga:{MARKER}db@{DEAD}/fpga",
    "CELERY_BROKER_URL": f"redis://:{MARKER}broker@{DEAD}/0",
    "FPGA_STORE_URL": "s3://portraits",
    "AWS_ENDPOINT_URL_S3": f"http://{DEAD}",
    "AWS_ACCESS_KEY_ID": f"{MARKER}access",
    "AWS_SECRET_ACCESS_KEY": f"{MARKER}secret",
    "AWS_SESSION_TOKEN": f"{MARKER}session",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_MAX_ATTEMPTS": "1",
    "PREFECT_API_URL": f"http://{DEAD}/api",
    "PREFECT_API_AUTH_STRING": f"{MARKER}prefect:{MARKER}auth",
    "PREFECT_API_KEY": f"{MARKER}cloud",
    "FPGA_DATA_KEYS": "aHVudGVyMi1odW50ZXIyLWh1bnRlcjItaHVudGVyMi0=",
    "FPGA_SIGNING_KEYS": "aHVudGVyMi1odW50ZXIyLWh1bnRlcjItc2lnbmVyMi0=",
    "FPGA_LOG_LEVEL": "debug",
}
SECRET_WORDS = (MARKER, "aHVudGVyMi")
EMBEDDED = ("DATABASE_URL", "FPGA_STORE_URL")
"""Left out where a command shall find its database and store, and fail at what comes after."""


def fpga(state: Path, *arguments: str, without: tuple[str, ...] = (), **changes: str) -> str:
    """Run a command and return everything that it said."""
    given = {name: value for name, value in (SECRETS | changes).items() if name not in without}
    ran = subprocess.run(
        [sys.executable, "-m", "orchestrator.cli.app", "--state-dir", str(state), *arguments],
        cwd=ROOT,
        env={**os.environ, **given},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return ran.stdout + ran.stderr


def told(said: str) -> list[str]:
    return [line for line in said.splitlines() if any(word in line for word in SECRET_WORDS)]


@pytest.mark.parametrize(
    "arguments",
    [("doctor",), ("doctor", "--json"), ("batch", "list", "--json")],
)
@pytest.mark.parametrize("without", [(), EMBEDDED])
def test_no_command_tells_a_secret(tmp_path: Path, arguments: tuple[str, ...], without: tuple[str, ...]) -> None:
    said = fpga(tmp_path / "state", *arguments, without=without)

    assert said
    assert told(said) == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DATABASE_URL", f"{MARKER} is no URL"),
        ("DATABASE_URL", f"mysql://fpga:{MARKER}@{DEAD}/fpga"),
        ("CELERY_BROKER_URL", f"sqs://{MARKER}:{MARKER}@"),
        ("FPGA_STORE_URL", f"ftp://{MARKER}@{DEAD}/"),
        ("FPGA_DATA_KEYS", MARKER),
        ("FPGA_SIGNING_KEYS", MARKER),
    ],
)
def test_a_setting_that_is_refused_is_not_shown(tmp_path: Path, name: str, value: str) -> None:
    for arguments in (("doctor", "--json"), ("identity", "receipt", "key")):
        said = fpga(tmp_path / "state", *arguments, without=EMBEDDED if name not in EMBEDDED else (), **{name: value})

        assert told(said) == [], said
        assert "Traceback" not in said


def test_a_worker_whose_broker_is_away_logs_no_password(tmp_path: Path) -> None:
    given = {name: value for name, value in SECRETS.items() if name not in EMBEDDED}
    state = tmp_path / "state"
    fpga(state, "batch", "list", without=EMBEDDED)  # brings the database up
    log = tmp_path / "worker.log"
    with log.open("wb") as out:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "workers", "worker", "-Q", "cpu.io"],
            cwd=ROOT,
            env={**os.environ, **given, "FPGA_STATE_DIR": str(state)},
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            deadline = time.monotonic() + 60
            while DEAD.encode() not in log.read_bytes():
                assert time.monotonic() < deadline, log.read_text()
                time.sleep(0.2)
        finally:
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()

    assert told(log.read_text()) == []


def test_signed_links_are_in_no_log(tmp_path: Path, moto_url: str) -> None:
    program = (
        "import hashlib, boto3, httpx\n"
        "from orchestrator import logs\nfrom orchestrator.settings import get_settings\n"
        "from orchestrator.storage import content_key, open_store\n"
        "logs.setup(get_settings())\n"
        "boto3.client('s3').create_bucket(Bucket='portraits')\n"
        "store = open_store(get_settings())\n"
        "key = content_key('local', hashlib.sha256(b'x').hexdigest(), '.png')\n"
        "store.put(key, b'x', media_type='image/png')\n"
        "link = store.url(key, expires_seconds=60)\n"
        "assert 'X-Amz-Signature' in link and httpx.get(link).content == b'x'\n"
    )
    given = {"FPGA_STORE_URL": "s3://portraits", "AWS_ENDPOINT_URL_S3": moto_url, "FPGA_S3_ADDRESSING_STYLE": "path"}
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env={**os.environ, **{k: v for k, v in SECRETS.items() if k != "DATABASE_URL"}, **given},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert ran.returncode == 0, ran.stderr
    assert "X-Amz" not in ran.stderr
    assert told(ran.stderr) == []
