"""What was written stays: after a refusal, through a login, on the way back; refusals are in the words of who wrote."""

from __future__ import annotations

import io

import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import Check, Shoot
from tests.browser.site import Site
from tests.browser.test_home_and_gallery import Painter, submitted
from tests.unit.orchestrator.played import add_person


def test_an_empty_home_shows_the_first_steps(page: Page, site: Site, check: Check, shoot: Shoot) -> None:
    page.goto(site.url)
    expect(page.get_by_role("heading", name="Begin here")).to_be_visible()
    check(page)
    shoot(page, "first")
    page.get_by_role("link", name="How it works, in a page").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("How it works")
    check(page)
    page.goto(site.url)
    page.get_by_role("button", name="Try with example people").click()
    expect(page).to_have_url(f"{site.url}/people")


def test_a_refused_person_keeps_what_was_written(page: Page, site: Site) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(picture, "PNG")
    page.goto(f"{site.url}/people")
    page.get_by_label("Handle").fill("ada")
    page.get_by_label("Name").fill("Ada of the harbour")
    page.get_by_label("Text they saw").fill("You may be shown in our catalogue.")
    page.get_by_label("Pictures").set_input_files(
        {"name": "a.png", "mimeType": "image/png", "buffer": picture.getvalue()}
    )
    page.get_by_role("button", name="Add", exact=True).click()

    expect(page.get_by_role("alert")).to_be_visible()
    expect(page.get_by_label("Handle")).to_have_value("ada")
    expect(page.get_by_label("Name")).to_have_value("Ada of the harbour")
    expect(page.get_by_label("Text they saw")).to_have_value("You may be shown in our catalogue.")


@pytest.fixture(scope="module")
def ada(site: Site) -> str:
    """Somebody to draw."""
    return add_person(site.ledger, "ada", "generate")


def test_rows_of_a_new_batch_survive_another_page_and_an_empty_place_is_said(page: Page, site: Site, ada: str) -> None:
    page.goto(f"{site.url}/new")
    page.get_by_label("Prompt").fill("in the rain")
    page.get_by_role("button", name="Make the portraits").click()
    expect(page.locator("#answer")).to_contain_text("Put a person on a place.")

    page.get_by_role("link", name="Batches", exact=True).click()
    page.go_back()
    expect(page.get_by_label("Prompt")).to_have_value("in the rain")


def test_a_portrait_is_changed_and_drawn_again_from_its_page(page: Page, site: Site, ada: str) -> None:
    submitted(site, "harbour", 1)
    Painter(ledger=site.ledger, store=site.store, settings=site.settings).work()
    page.goto(f"{site.url}/batches")
    page.get_by_role("link", name="harbour").click()
    page.locator(".gallery a").first.click()
    page.get_by_role("link", name="Change and draw again").click()

    expect(page.get_by_label("Name of the row")).to_have_value("harbour-0000-again")
    expect(page.locator(".slot")).to_contain_text("ada")
    expect(page.get_by_label("Seed").first).not_to_have_value("")


def test_login_leads_to_the_page_that_was_wanted_and_nowhere_else(page: Page, site: Site) -> None:
    page.context.clear_cookies()
    page.goto(f"{site.url}/batches?state=failed")
    page.get_by_label("API key").fill(site.new_key())
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{site.url}/batches?state=failed")

    page.context.clear_cookies()
    page.goto(f"{site.url}/login?next=//elsewhere.example/")
    page.get_by_label("API key").fill(site.new_key())
    page.get_by_role("button", name="Log in").click()
    expect(page).to_have_url(f"{site.url}/")
