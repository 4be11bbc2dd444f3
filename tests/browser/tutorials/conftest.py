"""The whole embedded system for the tutorials: worker, API and pages, the mini preset and an empty library.

FPGA_TEST_SCREENSHOTS=docs/images/pages writes the pictures that the tutorials show.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from orchestrator.embedded.stack import Stack
from orchestrator.ledger.engine.session import Ledger
from orchestrator.settings import Settings
from orchestrator.storage import open_store
from tests.browser.site import Site
from tests.services.server import free_port

START_SECONDS = 900.0


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A running system; all tutorials share it, each with people of its own."""
    state = tmp_path_factory.mktemp("stack") / "state"
    settings = Settings(state_dir=state, api_port=free_port(), torch_threads=1)
    with Stack(settings, prefect=False, api=True) as running:
        running.wait_ready(START_SECONDS)
        ledger = Ledger(settings.database_url)
        url = f"http://127.0.0.1:{settings.api_port}"
        yield Site(url=url, settings=settings, ledger=ledger, store=open_store(settings))
        ledger.dispose()


@pytest.fixture(scope="module")
def site(stack: Site) -> Site:
    """What the browser's fixtures look at."""
    return stack
