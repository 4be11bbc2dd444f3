"""The same commands through a server: processes in which no network library, and no database, can be had."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
import tomllib
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import uvicorn

from orchestrator.access import keys
from orchestrator.api.app import create_app
from orchestrator.cli.server import Server
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from tests.test_architecture import IMPORTED_AS, ROOT
from tests.unit.orchestrator.played import AddPerson, Played, lines, picture

Fpga = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def url(settings: Settings) -> Iterator[str]:
    app = create_app(settings)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_config=None, lifespan="off"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        threading.Event().wait(0.02)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def fpga(url: str, ledger: Ledger, tmp_path: Path) -> Iterator[Fpga]:
    """Run a command as a light client would: nothing of the extra `worker` can be imported."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["worker"]
    absent = {re.match(r"[\w-]+", one).group().lower() for one in extras}  # type: ignore[union-attr]  # each has a name
    absent = {IMPORTED_AS.get(name, name.replace("-", "_")) for name in absent}
    program = (
        f"import sys\nsys.modules.update(dict.fromkeys({sorted(absent)!r}))\n"
        "from orchestrator.cli.app import main\nmain()"
    )
    secret, _ = keys.create(ledger, "local", name="client", scopes=keys.SCOPES)
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("FPGA_", "DATABASE_"))}
    home = tmp_path / "client"
    ours = {"FPGA_API_URL": url, "FPGA_API_KEY": secret, "FPGA_STATE_DIR": str(home), "PYTHONPATH": str(ROOT)}

    def run(*arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", program, *arguments],
            env=kept | ours | more,
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    yield run
    assert not home.exists(), "a client has no state of its own"


def test_a_client_without_networks_submits_watches_and_downloads(
    fpga: Fpga, person: AddPerson, worker: Played, tmp_path: Path
) -> None:
    person("ada", "generate")
    rows = lines(*({"custom_id": f"a{n}", "people": [{"identity": "ada"}]} for n in range(3)))
    (tmp_path / "night.jsonl").write_bytes(rows)

    checked = fpga("batch", "validate", "night.jsonl", "--json")
    assert (checked.returncode, json.loads(checked.stdout)["items"]) == (0, 3), checked.stderr
    submitted = fpga("batch", "submit", "night.jsonl", "--seed", "7", "--idempotency-key", "k")
    batch = submitted.stdout.strip()
    assert submitted.returncode == 0, submitted.stderr
    assert "has 3 items" in submitted.stderr
    assert fpga("batch", "submit", "night.jsonl", "--seed", "7", "--idempotency-key", "k").stdout.strip() == batch

    worker.work(failing=["a2"])
    watched = fpga("batch", "watch", batch, "--json")
    assert watched.returncode == 2, watched.stderr  # an item failed
    assert json.loads(watched.stdout.splitlines()[-1])["state"] == "completed_with_errors"
    (listed,) = json.loads(fpga("batch", "list", "--json").stdout)
    assert (listed["id"], listed["name"]) == (batch, "night")
    shown = json.loads(fpga("batch", "show", batch, "--json").stdout)
    assert [item["status"] for item in shown["items"]] == ["completed", "completed", "failed"]

    told = fpga("batch", "results", batch)
    assert [json.loads(line)["custom_id"] for line in told.stdout.splitlines()] == ["a0", "a1"]
    written = fpga("batch", "results", batch, "--download", "out", "--json")
    assert written.returncode == 0, written.stderr
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"a0.png", "a1.png", "results.jsonl", "errors.jsonl"}
    (tmp_path / "out" / "a0.png").write_bytes(b"mine")
    again = fpga("batch", "results", batch, "--download", "out")
    assert again.returncode == 2
    assert "a0.png: another file of this name is there [file_exists]" in again.stderr
    assert (tmp_path / "out" / "a0.png").read_bytes() == b"mine"

    retried = fpga("batch", "retry", batch).stdout.strip()
    assert fpga("batch", "pause", retried, "--reason", "later").returncode == 0
    assert json.loads(fpga("batch", "resume", retried, "--json").stdout)["state"] == "in_progress"
    assert json.loads(fpga("batch", "cancel", retried, "--yes", "--json").stdout)["state"] == "cancelled"


def test_what_a_server_says_no_to_ends_as_it_does_without_one(fpga: Fpga, tmp_path: Path) -> None:
    (tmp_path / "bad.jsonl").write_bytes(lines({"custom_id": "a", "people": [{"identity": "nobody"}]}))

    wrong = fpga("batch", "submit", "bad.jsonl")
    assert wrong.returncode == 1
    assert "row 1" in wrong.stderr
    absent = fpga("batch", "show", "bat_none", "--json")
    assert (absent.returncode, json.loads(absent.stderr)["error"]["code"]) == (1, "batch_not_found")
    refused = fpga("batch", "list", "--json", FPGA_API_KEY="nonsense")
    assert (refused.returncode, json.loads(refused.stderr)["error"]["code"]) == (1, "key_invalid")
    away = fpga("batch", "list", "--json", FPGA_API_URL="http://127.0.0.1:9")
    assert (away.returncode, json.loads(away.stderr)["error"]["code"]) == (1, "server_away")
    local = fpga("clean", "--json")
    assert (local.returncode, json.loads(local.stderr)["error"]["code"]) == (1, "local_only")


def test_schedules_and_models_answer_as_they_do_on_the_ledger(fpga: Fpga, person: AddPerson, tmp_path: Path) -> None:
    person("ada", "generate")
    (tmp_path / "night.jsonl").write_bytes(lines({"custom_id": "a", "people": [{"identity": "ada"}]}))

    added = fpga("schedule", "add", "nightly", "night.jsonl", "--cron", "0 2 * * *", "--json")
    assert json.loads(added.stdout)["created"], added.stderr
    assert json.loads(fpga("schedule", "run", "nightly", "--json").stdout)["batch_id"].startswith("bat_")
    assert [one["name"] for one in json.loads(fpga("schedule", "list", "--json").stdout)] == ["nightly"]
    assert "goes on" in fpga("schedule", "remove", "nightly").stderr
    version = json.loads(fpga("model", "list", "--json").stdout)[0]
    assert json.loads(fpga("model", "show", "mini@champion", "--json").stdout)["id"] == version["id"]
    assert json.loads(fpga("train", "list", "--json").stdout) == []


def test_people_are_added_shown_and_erased_through_a_server(fpga: Fpga, worker: Played, tmp_path: Path) -> None:
    (tmp_path / "ada.png").write_bytes(picture())
    begun = fpga("identity", "add", "ada", "ada.png", "--consent", "generate", "--no-wait", "--json")
    assert begun.returncode == 0, begun.stderr
    worker.work()

    assert [one["handle"] for one in json.loads(fpga("identity", "list", "--json").stdout)] == ["ada"]
    changed = json.loads(fpga("identity", "consent", "ada", "--grant", "restore", "--json").stdout)
    assert {one["scope"] for one in changed["consents"]} == {"generate", "restore"}
    proof = fpga("identity", "erase", "ada", "--yes", "--receipt", "receipt.json")
    assert proof.returncode == 0, proof.stderr
    assert json.loads((tmp_path / "receipt.json").read_text())["references"] == 1


def test_a_folder_of_photos_goes_up_file_by_file(fpga: Fpga, tmp_path: Path) -> None:
    (tmp_path / "album" / "1970").mkdir(parents=True)
    (tmp_path / "album" / "1970" / "one.jpg").write_bytes(picture(form="JPEG"))
    (tmp_path / "album" / "note.txt").write_text("no photo")
    with zipfile.ZipFile(tmp_path / "album.zip", "w") as archive:
        archive.write(tmp_path / "album" / "1970" / "one.jpg", "one.jpg")

    sent = fpga("restore", "album", "--attest", "our own", "--json")
    assert sent.returncode == 0, sent.stderr
    assert "sent 1 photos, 1 files are no photos" in sent.stderr
    assert json.loads(sent.stdout)["request_counts"]["total"] == 1
    packed = fpga("restore", "album.zip", "--attest", "our own")
    assert packed.returncode == 0, packed.stderr


def test_an_upload_that_is_cut_off_goes_on_where_the_server_has_it(
    url: str, ledger: Ledger, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first part is sent and its answer lost, as by a cut line: the server has more than the client knows."""
    secret, _ = keys.create(ledger, "local", name="client", scopes=keys.SCOPES)
    monkeypatch.setattr("orchestrator.cli.server.PART_BYTES", 1000)
    (tmp_path / "file.zip").write_bytes(os.urandom(3500))
    server = Server(url, secret)
    behind = server.ask("POST", "/v1/uploads", headers={"Upload-Length": "3500"})["id"]
    octets = {"Content-Type": "application/offset+octet-stream"}
    server.ask("PATCH", f"/v1/uploads/{behind}", content=b"x" * 1000, headers={"Upload-Offset": "0"} | octets)

    assert server.send(behind, tmp_path / "file.zip") == 3500
    assert server.ask("GET", f"/v1/uploads/{behind}")["sha256"]
    assert server.ask("GET", f"/v1/uploads/{server.upload(tmp_path / 'file.zip')}")["sha256"]
    server.close()
