"""The whole embedded system for the tutorials: `fpga up` with its worker, the mini preset and an empty library.

FPGA_TEST_SCREENSHOTS=docs/images/pages writes the pictures that the tutorials show.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.errors import FpgaError
from orchestrator.ledger import workers
from orchestrator.ledger.session import Ledger, now
from orchestrator.running import find_running
from orchestrator.settings import Settings
from orchestrator.storage import open_store
from tests.browser.site import Site
from tests.services.server import free_port

FPGA = Path(sys.executable).with_name("fpga")
START_SECONDS = 300.0
EXAMPLES = Path(__file__).parents[3] / "examples" / "people"


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running system; all tutorials share it, each with people of its own."""
    folder = tmp_path_factory.mktemp("stack")
    settings = Settings(state_dir=folder / "state", api_port=free_port())
    environment = os.environ | {"FPGA_TORCH_THREADS": "1", "FPGA_API_PORT": str(settings.api_port)}
    with (folder / "up.log").open("wb") as log:
        command = [FPGA, "--state-dir", settings.state_dir, "up", "--no-prefect"]
        up = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
    try:
        ledger = _ready(settings, up, folder / "up.log")
        yield Site(
            url=f"http://127.0.0.1:{settings.api_port}", settings=settings, ledger=ledger, store=open_store(settings)
        )
        ledger.dispose()
    finally:
        up.send_signal(signal.SIGINT)
        try:
            up.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(up.pid, signal.SIGKILL)
            up.wait()


@pytest.fixture(scope="module")
def site(stack: Site) -> Site:
    """What the browser's fixtures look at."""
    return stack


def _ready(settings: Settings, up: subprocess.Popen[bytes], log: Path) -> Ledger:
    """Wait until a worker can be given work, and return the ledger."""
    deadline = time.monotonic() + START_SECONDS
    while True:
        assert up.poll() is None, log.read_text()
        assert time.monotonic() < deadline, f"not ready within {START_SECONDS:.0f} s\n{log.read_text()}"
        if find_running(settings) is not None and "worker ready" in log.read_text():
            ledger = Ledger(settings.database_url)
            try:
                with ledger.read() as session:
                    if workers.living(session, now(session)):
                        return ledger
            except FpgaError:
                pass  # the schema is being made
            ledger.dispose()
        time.sleep(0.5)
