"""docs/tutorials/engineer.md, step by step: a new version beside the champion, promoted with a reason, rolled back."""

from __future__ import annotations

import re
import time
from typing import Any

import pytest
from playwright.sync_api import Page, expect

from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.models import registry, training
from tests.browser.conftest import Shoot
from tests.browser.site import Site
from tests.browser.tutorials.people import WORK_MS, add_person, wait_for_pictures

RUN_SECONDS = 1800.0
GATE = {
    "evaluation": [{"suite": "identity", "seed": 1, "count": 4}],
    "rule": [{"metric": "identity.face_sim.mean", "minimum": 0.2, "tolerance": 0.2}],
}
STAGE = {"steps": 6, "rate": 2e-4, "warmup": 1}
RECIPE = {
    "name": "weekly",
    "dataset": "weekly",
    "steps": 12,
    "batch_size": 4,
    "save_every": 6,
    "validate_every": 6,
    "report_every": 1,
    "promote": False,
    "gate": GATE,
    "settings": {"losses": {}, "mmf": STAGE, "clone": STAGE},
}
"""Short enough for a test: it changes the weights a little and measures few scenes."""


@pytest.fixture(scope="module")
def run(site: Site) -> str:
    """A data set and a run on it, begun as `fpga dataset build` and `fpga train run` do."""
    wanted = BuildRequest(
        source="render:3:48",
        name="weekly",
        preset="mini",
        licence="Apache-2.0",
        chunk_pictures=16,
        arrange={"min_pictures": 1, "split": 0.7},
    )
    begun = datasets.build(site.ledger, site.store, site.settings, wanted, owner="local")
    datasets.wait(site.ledger, "local", begun.batch_id)
    recipe = training.read_recipe(RECIPE)
    return training.submit(site.ledger, site.settings, recipe, owner="local").run_id


def decided(site: Site, run_id: str) -> dict[str, Any]:
    """Wait until the gate has decided and return the run."""
    deadline = time.monotonic() + RUN_SECONDS
    while (found := training.show(site.ledger, "local", run_id))["gate"] is None:
        assert found["error"] is None, found["error"]
        assert time.monotonic() < deadline, f"no decision within {RUN_SECONDS:.0f} s; the run is {found['state']}"
        time.sleep(1)
    return found


def draw(page: Page, site: Site, version: str) -> None:
    """Make the same batch with one version."""
    page.goto(f"{site.url}/new")
    page.get_by_role("button", name="dario").click()
    page.get_by_role("button", name="person: nobody").click()
    page.get_by_label("Pictures", exact=True).fill("2")
    page.get_by_label("Drawn by").select_option(version)
    page.get_by_role("button", name="Make the portraits").click()
    expect(page.locator(".gallery img")).to_have_count(2, timeout=WORK_MS)


@pytest.mark.tutorial
@pytest.mark.timeout(3600)
def test_an_engineer_compares_promotes_and_rolls_back(page: Page, site: Site, shoot: Shoot, run: str) -> None:
    live = registry.champion(site.ledger, site.settings, "mini")

    # 1. the run
    page.goto(f"{site.url}/training/{run}")
    expect(page.get_by_role("img", name=re.compile("^Loss"))).to_be_visible(timeout=1000 * RUN_SECONDS)
    new = decided(site, run)["model_version_id"]
    expect(page.get_by_role("heading", name=re.compile("^Gate: passed"))).to_be_visible(timeout=WORK_MS)
    expect(page.get_by_alt_text(re.compile("^Validation pictures")).first).to_be_visible()
    wait_for_pictures(page)
    shoot(page, "engineer-run")

    # 2. the same request by both
    add_person(page, site, "dario", "generate")
    draw(page, site, live)
    draw(page, site, new)

    # 3. side by side
    page.get_by_role("link", name="Models").click()
    for name in ("Compare mini 1", "Compare mini 2"):
        page.get_by_label(name).check()
    page.get_by_role("button", name="Compare the chosen").click()
    expect(page.get_by_role("rowheader", name="face_sim.mean", exact=True, include_hidden=True)).to_have_count(1)
    expect(page.get_by_alt_text(re.compile("by mini"))).to_have_count(4)
    wait_for_pictures(page)
    shoot(page, "engineer-compare")

    # 4. promote, and back
    page.get_by_role("columnheader").get_by_role("link", name="mini 2").first.click()
    page.get_by_label("Reason").fill("same likeness, better glasses")
    page.get_by_role("button", name="Promote").click()
    expect(page.locator(".tag", has_text="champion")).to_be_visible()
    shoot(page, "engineer-model")
    assert registry.champion(site.ledger, site.settings, "mini") == new
    page.get_by_role("link", name="Models").click()
    page.get_by_label("Reason").fill("beards got worse")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("mini 1")
    assert registry.champion(site.ledger, site.settings, "mini") == live
    page.get_by_role("link", name="Models").click()
    expect(page.get_by_text("beards got worse")).to_be_visible()
    shoot(page, "engineer-models")
