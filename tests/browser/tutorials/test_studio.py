"""docs/tutorials/studio.md, step by step: two people, a batch of portraits by faces and places, looked at."""

from __future__ import annotations

import re

import pytest
from playwright.sync_api import Page, expect

from orchestrator.ledger.queue import batches
from tests.browser.conftest import Shoot
from tests.browser.site import Site
from tests.browser.tutorials.people import WORK_MS, add_person, wait_for_pictures


@pytest.mark.tutorial
@pytest.mark.timeout(1800)
def test_a_studio_makes_portraits_of_two_people(page: Page, site: Site, shoot: Shoot) -> None:
    # 1. people
    add_person(page, site, "ada", "generate")
    add_person(page, site, "bruno", "generate")
    shoot(page, "studio-person")

    # 2. rows
    page.get_by_role("link", name="New batch").click()
    page.get_by_label("Layout").select_option("group_2")
    left = page.get_by_role("button", name="left: nobody")
    expect(left).to_be_visible()
    page.get_by_role("button", name="ada").drag_to(left)
    page.get_by_role("button", name="bruno").click()
    page.get_by_role("button", name="right: nobody").click()
    page.get_by_label("Prompt").fill("photo of two smiling people side by side, city background")
    page.get_by_role("button", name="Add a row").click()
    page.get_by_role("button", name="ada", exact=True).click()
    page.get_by_role("button", name="person: nobody").click()
    page.get_by_label("Pictures", exact=True).last.fill("2")
    page.get_by_label("Name", exact=True).fill("covers")

    wait_for_pictures(page)
    shoot(page, "studio-new")

    # 3. check
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_label("What the check says")).to_contain_text("3 pictures of 2 people")
    shoot(page, "studio-check")

    # 4. make
    page.get_by_role("button", name="Make the portraits").click()
    expect(page).to_have_url(re.compile("/batches/bat_"))
    expect(page.locator(".gallery img")).to_have_count(3, timeout=WORK_MS)
    expect(page.get_by_text("completed", exact=True).first).to_be_visible(timeout=WORK_MS)
    wait_for_pictures(page)
    shoot(page, "studio-batch")

    with site.ledger.read() as session:
        batch = batches.get(session, "local", page.url.rpartition("/")[2])
        assert (batch.name, batch.state, batch.total) == ("covers", "completed", 3)
