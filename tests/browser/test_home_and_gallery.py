"""Home, the list of batches and a batch's gallery, as people see them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select, update

from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import claims, workers
from orchestrator.ledger.tables.rows import Item, Output
from orchestrator.portraits import submit
from tests.browser.conftest import Check, Shoot, loaded, tab_to
from tests.browser.site import Site
from tests.unit.orchestrator.played import Played, add_person, lines

PEOPLE = sorted((Path(__file__).parents[2] / "examples" / "people").glob("*/*.png"))


class Painter(Played):
    """A worker whose pictures are those of the examples."""

    def draw(self, c: claims.Claim) -> bytes:
        """Return one of the examples, by the seed."""
        return PEOPLE[c.seed % len(PEOPLE)].read_bytes()


def submitted(site: Site, name: str, count: int) -> str:
    """Submit a batch of portraits and return its id."""
    short = name.split()[0].lower()
    people = [{"identity": "ada"}]
    rows = [{"custom_id": f"{short}-{n:04d}", "people": people, "seed": n} for n in range(count)]
    made = submit.submit_portraits(
        site.ledger, site.settings, manifest=lines(*rows), format="jsonl", owner="local", name=name
    )
    return made.batch_id


def judged(ledger: Ledger, batch_id: str) -> None:
    """Let every sixth picture be in doubt and every eleventh rejected, similarities falling."""
    with ledger.write() as session:
        for item_id, position in session.execute(
            select(Item.id, Item.position).where(Item.batch_id == batch_id, Item.output_id.is_not(None))
        ).tuples():
            word = "rejected" if position % 11 == 5 else "needs_review" if position % 6 == 3 else "accepted"
            values = {"verdict": word, "similarity": {"accepted": 0.8, "needs_review": 0.45, "rejected": 0.2}[word]}
            session.execute(update(Item).where(Item.id == item_id).values(**values))
            session.execute(update(Output).where(Output.item_id == item_id).values(**values))


@pytest.fixture(scope="module", autouse=True)
def ada(site: Site) -> str:
    """The one whom all portraits show."""
    return add_person(site.ledger, "ada", "generate")


@pytest.fixture(scope="module")
def studio(site: Site) -> tuple[str, str]:
    """A batch that has ended with faults, and one that waits; return both ids."""
    done = submitted(site, "Autumn catalogue", 70)
    painter = Painter(ledger=site.ledger, store=site.store, settings=site.settings)
    failing = [f"autumn-{n:04d}" for n in (2, 30, 55)]
    painter.work(failing=failing)
    judged(site.ledger, done)
    waiting = submitted(site, "Team pictures", 24)
    workers.register(site.ledger, owner="local", device="cpu", queues=["gpu.generate", "cpu.io"])
    return done, waiting


def test_home_tells_what_runs_what_needs_a_look_and_who_works(
    page: Page, site: Site, studio: tuple[str, str], check: Check, shoot: Shoot
) -> None:
    page.goto(site.url)

    running = page.get_by_role("region", name="Running now")
    expect(running).to_contain_text("Team pictures")
    expect(running).to_contain_text("0 of 24")
    attention = page.get_by_role("region", name="Needs a look")
    expect(attention).to_contain_text("3 × pipe_broken")
    expect(page.get_by_role("region", name="Workers")).to_contain_text("idle")
    expect(page.get_by_role("region", name="Queue")).to_contain_text("24 waiting")
    loaded(page)
    shoot(page, "home")
    check(page)

    tab_to(page, "3 × pipe_broken")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Autumn catalogue")
    expect(page.locator(".gallery li")).to_have_count(3)


def test_home_follows_a_batch_that_is_submitted_while_one_looks(
    page: Page, site: Site, studio: tuple[str, str]
) -> None:
    page.goto(site.url)
    running = page.get_by_role("region", name="Running now")
    expect(running).not_to_contain_text("Late guests")

    batch_id = submitted(site, "Late guests", 2)
    expect(running).to_contain_text("Late guests")

    page.goto(f"{site.url}/batches/{batch_id}")
    page.get_by_role("button", name="Cancel batch").click()
    page.get_by_role("button", name="Leave it").click()
    expect(page.get_by_role("button", name="Cancel it")).to_be_hidden()
    page.get_by_role("button", name="Cancel batch").click()
    page.get_by_role("button", name="Cancel it").click()
    expect(page.get_by_role("status")).to_contain_text("being cancelled")
    expect(page.locator(".badge").first).to_have_text("cancelled")


def test_a_gallery_is_cut_down_sorted_and_turned_over(
    page: Page, site: Site, studio: tuple[str, str], check: Check, shoot: Shoot
) -> None:
    page.goto(f"{site.url}/batches/{studio[0]}")
    expect(page.locator(".gallery li")).to_have_count(60)
    loaded(page)
    shoot(page, "batch")
    check(page)

    page.get_by_role("link", name="More pictures").click()
    expect(page.locator(".gallery li")).to_have_count(10)
    page.get_by_role("link", name=re.compile("^needs review")).click()
    expect(page.locator(".gallery li")).to_have_count(11)
    expect(page.locator(".gallery .badge.needs_review")).to_have_count(11)
    page.get_by_role("link", name=re.compile("^all 70")).click()
    expect(page.locator(".gallery li")).to_have_count(60)
    page.get_by_role("link", name="least alike first").click()
    expect(page.locator(".gallery .badge").first).to_have_text(re.compile("rejected"))
    for name in ("Retry what failed", "Retry these: pipe_broken", "results.jsonl"):
        tab_to(page, name)


def test_batches_are_listed_and_found(
    page: Page, site: Site, studio: tuple[str, str], check: Check, shoot: Shoot
) -> None:
    page.goto(f"{site.url}/batches")
    shoot(page, "batches")
    check(page)

    page.get_by_label("Name or id").fill("autumn")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("tbody tr")).to_have_count(1)
    page.get_by_label("Name or id").fill("<b>nothing</b>")
    page.get_by_role("button", name="Show").click()
    expect(page.locator("main")).to_contain_text("No batch fits")
    check(page)


def test_ten_thousand_items_stay_usable(page: Page, site: Site, check: Check) -> None:
    batch_id = submitted(site, "Whole school", 10_000)

    page.goto(f"{site.url}/batches/{batch_id}")

    expect(page.locator(".gallery li")).to_have_count(60)
    expect(page.get_by_role("link", name=re.compile("^all 10"))).to_be_visible()
    check(page)
    page.get_by_role("link", name="More pictures").click()
    expect(page.locator(".gallery .cut").first).to_have_text("whole-0060")
