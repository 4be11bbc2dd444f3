"""A real server process over a ledger of its own, and the play of workers that fills it."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from orchestrator.access import keys
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, open_store
from tests.services.server import free_port
from tests.unit.orchestrator.played import Played

START_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where the pages are, and the ledger and store that they show."""

    url: str
    settings: Settings
    ledger: Ledger
    store: ByteStore

    @property
    def worker(self) -> Played:
        """A worker without networks."""
        return Played(ledger=self.ledger, store=self.store, settings=self.settings)

    def new_key(self, owner: str = "local") -> str:
        """Return the secret of a new key."""
        return keys.create(self.ledger, owner, name="browser", scopes=keys.SCOPES)[0]

    def login_link(self, owner: str = "local") -> str:
        """Return a link that logs a browser in, once."""
        return keys.login_link(self.ledger, owner, self.url)


@contextmanager
def serving(settings: Settings) -> Iterator[Site]:
    """Serve these settings' pages from another process until the block ends."""
    port = free_port()
    ledger = Ledger(settings.database_url)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FPGA_")},
        "FPGA_STATE_DIR": str(settings.state_dir),
        "FPGA_MODELS_DIR": str(settings.models_dir),
        "FPGA_API_PORT": str(port),
        "FPGA_API_RATE_PER_MINUTE": str(settings.api_rate_per_minute),
    }
    log = settings.state_dir / "server.log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestrator.api.server"],
            env=environment,
            stdout=out,
            stderr=out,
        )
    try:
        site = Site(url=f"http://127.0.0.1:{port}", settings=settings, ledger=ledger, store=open_store(settings))
        _wait(site, process, log)
        yield site
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        ledger.dispose()


def _wait(site: Site, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while True:
        try:
            if httpx.get(f"{site.url}/login", timeout=5).status_code == 200:
                return
        except httpx.TransportError:
            pass
        if process.poll() is not None or time.monotonic() > end:
            raise RuntimeError(f"the server did not start; its log ends with\n{log.read_text()[-2000:]}")
        time.sleep(0.1)
