"""What the tutorials' readers do more than once: add a person, wait for a batch."""

from __future__ import annotations

import re
from pathlib import Path

from playwright.sync_api import Page, expect

from tests.browser.conftest import loaded
from tests.browser.site import Site

EXAMPLES = Path(__file__).parents[3] / "examples" / "people"
WORK_MS = 900_000
"""How long a reader waits for a worker at most; a busy machine is slow."""


def add_person(page: Page, site: Site, handle: str, *scopes: str, example: str | None = None) -> None:
    """Add a person of the examples on the page People, and wait until the worker has found their face.

    Args:
        example: whose pictures, where the handle is another one.
    """
    page.goto(f"{site.url}/people")
    page.get_by_label("Handle").fill(handle)
    page.get_by_label("Pictures").set_input_files(sorted((EXAMPLES / (example or handle)).glob("*.png")))
    for scope in scopes:
        page.locator(f"input[name=scopes][value={scope}]").first.check()
    page.get_by_label("Granted by").fill("signed form 2026-11")
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page).to_have_url(re.compile("/people/idn_"), timeout=WORK_MS)


def wait_for_pictures(page: Page) -> None:
    """Go to the top of a page and wait until every picture in sight is there."""
    page.evaluate("window.scrollTo(0, 0)")
    loaded(page, WORK_MS / 1000)
