"""What every page shares: logging in and out, navigation, errors people can read."""

from __future__ import annotations

from playwright.sync_api import Browser, Page, expect

from tests.browser.conftest import Check, Shoot, tab_to
from tests.browser.site import Site


def test_a_person_logs_in_with_a_key_and_out_again(browser: Browser, site: Site, check: Check, shoot: Shoot) -> None:
    key = site.new_key()
    page = browser.new_page()
    page.goto(site.url)
    expect(page).to_have_url(f"{site.url}/login")
    shoot(page, "login")
    check(page)

    page.get_by_label("API key").fill("fpga_nonsense")
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("alert")).to_contain_text("not known")

    page.get_by_label("API key").fill(key)
    page.get_by_role("button", name="Log in").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("Home")

    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{site.url}/login")
    page.goto(site.url)
    expect(page).to_have_url(f"{site.url}/login")
    page.close()


def test_the_first_tab_skips_to_the_content(page: Page, site: Site) -> None:
    page.goto(site.url)

    tab_to(page, "Skip to content", most=1)
    page.keyboard.press("Enter")

    assert page.evaluate("document.activeElement.id") == "main"


def test_a_wrong_address_says_so_on_a_page_of_ours(page: Page, site: Site, check: Check) -> None:
    for address in ("/nowhere", "/batches/bat_nothing"):
        answer = page.goto(site.url + address)

        assert answer is not None
        assert answer.status == 404
        expect(page.get_by_role("heading", level=1)).to_have_text("Not found")
        expect(page.get_by_role("navigation")).to_be_visible()
        check(page)


def test_a_form_that_another_site_sends_is_refused(page: Page, site: Site) -> None:
    refused = page.request.post(f"{site.url}/logout", headers={"Origin": "https://evil.example", "Accept": "text/html"})

    assert refused.status == 403
    page.goto(site.url)
    expect(page.get_by_role("heading", level=1)).to_have_text("Home")


def test_back_shows_no_face_after_log_out(browser: Browser, site: Site) -> None:
    page = browser.new_page()
    page.goto(site.login_link())
    page.goto(f"{site.url}/people")
    expect(page.get_by_role("heading", level=1)).to_have_text("People")

    page.get_by_role("button", name="Log out").click()
    expect(page).to_have_url(f"{site.url}/login")
    page.go_back()

    expect(page).to_have_url(f"{site.url}/login?next=%2Fpeople")
    page.close()
