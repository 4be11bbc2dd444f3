"""A person's word on pictures: one after the other by keys, many at once, and what becomes of it."""

from __future__ import annotations

import io
import json
import zipfile

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import select

from orchestrator.ledger.tables.rows import Audit, Item
from orchestrator.ledger.tables.rows_reviews import Review
from tests.browser.conftest import Check, Shoot
from tests.browser.site import Site
from tests.browser.test_home_and_gallery import Painter, judged, submitted
from tests.unit.orchestrator.played import add_person

COUNT = 300
WATCH = """() => {
  window.waits = [];
  addEventListener("keydown", (event) => {
    const pressed = event.timeStamp;
    requestAnimationFrame(() => {
      const image = document.querySelector("#stage img");
      const done = () => window.waits.push(performance.now() - pressed);
      image.complete ? done() : image.decode().then(done);
    });
  }, true);
}"""


@pytest.fixture(scope="module")
def batch(site: Site) -> str:
    """A batch whose pictures are there and judged by the machine."""
    add_person(site.ledger, "ada", "generate")
    made = submitted(site, "autumn series", COUNT)
    Painter(ledger=site.ledger, store=site.store, settings=site.settings).work()
    judged(site.ledger, made)
    return made


def decisions(site: Site, batch_id: str) -> dict[str, str | None]:
    """Return what was decided, by the name of the item."""
    query = select(Item.custom_id, Review.decision).join(Review, Review.item_id == Item.id)
    with site.ledger.read() as session:
        return dict(session.execute(query.where(Item.batch_id == batch_id)).tuples().all())


def test_many_are_chosen_and_judged_at_once(page: Page, site: Site, batch: str, check: Check, shoot: Shoot) -> None:
    page.goto(f"{site.url}/batches/{batch}")
    boxes = page.locator('.gallery input[name="item"]')
    boxes.nth(0).check(force=True)
    boxes.nth(4).click(modifiers=["Shift"], force=True)
    expect(page.locator("#chosen")).to_have_text("5 chosen")
    check(page)
    shoot(page, "choose")

    with page.expect_download() as fetched:
        page.get_by_role("button", name="Download").click()
    names = zipfile.ZipFile(io.BytesIO(fetched.value.path().read_bytes())).namelist()
    assert len([name for name in names if name.endswith(".png")]) == 5

    page.get_by_role("button", name="Star").click()
    expect(page.get_by_role("status").filter(has_text="Your review is kept")).to_be_visible()
    expect(page.get_by_role("link", name="starred 5")).to_be_visible()

    page.get_by_role("link", name="rejected 27").click()
    page.get_by_label("all 27").check()
    page.get_by_role("button", name="Reject", exact=True).click()
    expect(page.get_by_role("link", name="rejected by you 27")).to_be_visible()
    assert sum(word == "rejected" for word in decisions(site, batch).values()) == 27


def test_three_hundred_are_reviewed_by_keys_without_a_wait(
    page: Page, site: Site, batch: str, check: Check, shoot: Shoot
) -> None:
    page.goto(f"{site.url}/")
    expect(page.locator('[data-part="attention"]')).to_contain_text("autumn series")
    page.goto(f"{site.url}/batches/{batch}/review")
    expect(page.locator("#position")).to_have_text(f"1 of {COUNT}")
    expect(page.locator("#stage img")).to_be_visible()
    check(page)
    shoot(page, "review")
    page.wait_for_timeout(500)
    page.evaluate(WATCH)

    for number in range(COUNT):
        page.keyboard.press("x" if number % 10 == 3 else "a")
        page.wait_for_timeout(30)

    waits = sorted(page.evaluate("window.waits"))
    print(f"keys: median {waits[COUNT // 2]:.0f} ms, p95 {waits[int(0.95 * COUNT)]:.0f} ms, most {waits[-1]:.0f} ms")  # noqa: T201 what it is run for
    assert len(waits) == COUNT
    assert waits[int(0.95 * COUNT)] < 100
    expect(page.locator("#tally")).to_contain_text(f"{COUNT} decided · 0 in doubt")
    expect(page.locator('body[data-unsent="0"]')).to_be_attached()
    found = decisions(site, batch)
    assert len(found) == COUNT
    assert sum(word == "rejected" for word in found.values()) == COUNT // 10

    page.goto(f"{site.url}/")
    expect(page.locator('[data-part="attention"]')).not_to_contain_text("autumn series")
    lines = page.request.get(f"{site.url}/v1/batches/{batch}/results").text().splitlines()
    assert {json.loads(line)["review"]["decision"] for line in lines} == {"approved", "rejected"}
    with site.ledger.read() as session:
        assert session.scalars(select(Audit.ref).where(Audit.action == "item.review")).first() == batch


def test_keys_zoom_star_note_and_take_back(page: Page, site: Site, batch: str) -> None:
    page.goto(f"{site.url}/batches/{batch}/review?show=approved")
    expect(page.locator("#stage img")).to_be_visible()
    first = page.locator("#name").inner_text()

    page.keyboard.press("z")
    expect(page.locator("#stage.near")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("e")
    page.keyboard.type("the one for the cover")
    page.keyboard.press("Enter")
    page.keyboard.press("u")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#name")).not_to_have_text(first)
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#note")).to_have_value("the one for the cover")
    expect(page.locator('body[data-unsent="0"]')).to_be_attached()
    assert decisions(site, batch)[first] is None


def test_chosen_portraits_are_drawn_again_with_other_seeds(page: Page, site: Site, batch: str) -> None:
    page.goto(f"{site.url}/batches/{batch}")
    page.locator('.gallery input[name="item"]').nth(0).check(force=True)
    page.get_by_role("button", name="Draw again").click()

    expect(page.get_by_role("heading", level=1)).to_have_text("autumn series (drawn again)")
    with site.ledger.read() as session:
        (new,) = session.scalars(select(Item).where(Item.custom_id == "autumn-0000-v1"))
        old = session.scalars(select(Item).where(Item.custom_id == "autumn-0000")).one()
        assert (new.params, new.seed != old.seed) == (old.params, True)


def test_one_picture_is_judged_and_downloaded_on_its_page(page: Page, site: Site, batch: str, check: Check) -> None:
    page.goto(f"{site.url}/batches/{batch}")
    page.locator(".gallery a").nth(1).click()
    page.get_by_role("button", name="Undo decision").click()
    page.get_by_role("button", name="Approve").click()
    expect(page.locator("#review")).to_contain_text("approved by you")
    check(page)
    with page.expect_download() as fetched:
        page.get_by_role("link", name="Download").click()
    assert fetched.value.path().read_bytes().startswith(b"\x89PNG")
