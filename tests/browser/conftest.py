"""Debian's Chromium, driven by Playwright, looks at a real server.

FPGA_TEST_SCREENSHOTS=docs/images/pages writes the pictures of the documentation.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from axe_core_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Browser, BrowserContext, Page, Request, expect, sync_playwright

from orchestrator.ledger.engine import schema
from orchestrator.settings import Settings
from tests.browser.site import Site, serving
from tests.services.server import ServiceMissingError, find_program

PRESETS = Path(__file__).parents[1] / "presets"
WAIT_MS = 60_000
"""How long a page may take at most; a busy machine is slow."""
DESK, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
Check = Callable[[Page], None]
Shoot = Callable[[Page, str], None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Every test of a browser is a long one."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    """The browser; a machine without one skips these tests, and fails them where CI=true.

    It ends with this package: as long as Playwright runs, no later test can call asyncio.run in this thread.
    """
    try:
        program = find_program("chromium")
    except ServiceMissingError as missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    options = ["--no-sandbox"] if os.getuid() == 0 else []
    expect.set_options(timeout=WAIT_MS)
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=program, args=options)
        yield started
        started.close()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An empty site for the tests of one module."""
    folder = tmp_path_factory.mktemp("site")
    models, state = folder / "models", folder / "state"
    shutil.copytree(PRESETS, models)
    facts = {"format": 1, "model_sha256": "a" * 64, "made": {"command": "none"}, "files": {}}
    (models / "mini" / "weights.json").write_text(json.dumps(facts))
    state.mkdir(mode=0o700)
    schema.upgrade(f"sqlite:///{state / 'ledger.sqlite3'}")
    with serving(Settings(state_dir=state, models_dir=models)) as served:
        yield served


@pytest.fixture(scope="module")
def context(browser: Browser, site: Site) -> Iterator[BrowserContext]:
    """A browser that is logged in; a request to anywhere else fails the test that made it."""
    opened = browser.new_context(viewport=DESK, reduced_motion="reduce")
    opened.set_default_timeout(WAIT_MS)
    opened.new_page().goto(site.login_link())
    yield opened
    opened.close()


@pytest.fixture
def page(context: BrowserContext, site: Site) -> Iterator[Page]:
    """A tab; when the test ends, it must have asked nobody else for anything and have logged no error."""
    opened = context.new_page()
    foreign: list[str] = []
    errors: list[str] = []

    def asked(request: Request) -> None:
        if urlsplit(request.url).scheme not in ("data", "blob") and not request.url.startswith(site.url):
            foreign.append(request.url)

    opened.on("request", asked)
    opened.on("pageerror", lambda error: errors.append(str(error)))
    opened.on("console", lambda said: errors.append(said.text) if "Content Security Policy" in said.text else None)
    yield opened
    opened.close()
    assert foreign == []
    assert errors == []


@pytest.fixture
def check() -> Check:
    """Check a page as a careful reader would: axe in light and dark, its weight, no sideways scrolling on a phone."""
    axe = Axe()

    def checked(page: Page) -> None:
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            found = axe.run(page)["violations"]
            told = [(one["id"], one["help"], [node["html"][:200] for node in one["nodes"][:3]]) for one in found]
            assert told == [], f"{page.url} in {scheme}"
        page.emulate_media(color_scheme="light")
        html = page.request.get(page.url).body()
        assert len(html) + _weight(page) < 150_000, page.url
        page.set_viewport_size(PHONE)
        wide = page.evaluate("document.documentElement.scrollWidth")
        page.set_viewport_size(DESK)
        assert wide <= PHONE["width"], f"{page.url} is {wide} px wide on a phone"

    return checked


@pytest.fixture
def shoot() -> Shoot:
    """Save a page as it looks now, if pictures were asked for: in light, in dark, and on a phone."""
    folder = os.environ.get("FPGA_TEST_SCREENSHOTS")

    def shot(page: Page, name: str) -> None:
        if not folder:
            return
        Path(folder).mkdir(parents=True, exist_ok=True)
        for kind, scheme, size in (("", "light", DESK), ("-dark", "dark", DESK), ("-phone", "light", PHONE)):
            page.emulate_media(color_scheme=scheme)
            page.set_viewport_size(size)
            loaded(page)
            _save(page.screenshot(), Path(folder) / f"{name}{kind}.webp")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(DESK)

    return shot


def tab_to(page: Page, name: str, most: int = 200) -> None:
    """Press Tab until the control of this name has the focus."""
    for _ in range(most):
        page.keyboard.press("Tab")
        focused = page.evaluate("(document.activeElement.ariaLabel || document.activeElement.textContent || '').trim()")
        if focused == name:
            return
    raise AssertionError(f"{name!r} is not reached by {most} presses of Tab on {page.url}")


def loaded(page: Page, seconds: float = 60.0) -> None:
    """Wait until the pictures in view are there; from here, since the pages' policy forbids a wait inside of them."""
    script = "[...document.images].filter(i => i.getBoundingClientRect().top < innerHeight).every(i => i.naturalWidth)"
    end = time.monotonic() + seconds
    while not page.evaluate(script):
        assert time.monotonic() < end, f"pictures of {page.url} did not load"
        page.wait_for_timeout(50)


def _weight(page: Page) -> int:
    """Return the bytes of the page's style sheets and scripts."""
    files = page.evaluate(
        "[...document.querySelectorAll('link[rel=stylesheet], script[src]')].map(e => e.href || e.src)"
    )
    return sum(len(page.request.get(address).body()) for address in files)


def _save(png: bytes, path: Path) -> None:
    """Write a screenshot as WebP of at most 150 KB."""
    for quality in (80, 65, 50, 35):
        out = io.BytesIO()
        Image.open(io.BytesIO(png)).save(out, "WEBP", quality=quality, method=6)
        if out.tell() < 150_000:
            break
    path.write_bytes(out.getvalue())
