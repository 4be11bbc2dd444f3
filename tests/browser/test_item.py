"""The page of an item, as people see it: who is who, before and after, and making it again."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from PIL import Image, ImageFilter
from playwright.sync_api import Page, expect

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.ledger.queue import claims
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.portraits import submit
from tests.browser.conftest import Check, Shoot, loaded, tab_to
from tests.browser.site import Site
from tests.unit.orchestrator.played import Played, lines, restored_photo

PEOPLE = Path(__file__).parents[2] / "examples" / "people"


class Pair(Played):
    """A worker whose pictures show two of the examples side by side."""

    def draw(self, c: claims.Claim) -> bytes:
        """Return the pictures of ada and bruno beside each other."""
        whole = Image.new("RGB", (448, 224))
        for place, name in enumerate(("ada", "bruno")):
            whole.paste(Image.open(PEOPLE / name / f"{c.seed % 3 + 1}.png"), (224 * place, 0))
        return _png(whole)


@pytest.fixture(scope="module")
def couple(site: Site) -> str:
    """A batch of portraits of two people, one of which failed; return its id."""
    painter = Pair(ledger=site.ledger, store=site.store, settings=site.settings)
    consent = ConsentGiven(scopes=("generate", "restore"), granted_by="test")
    new = [
        NewPerson(
            handle=name,
            pictures=(Picture(name="1.png", data=(PEOPLE / name / "1.png").read_bytes()),),
            consent=consent,
        )
        for name in ("ada", "bruno")
    ]
    identities.add(site.ledger, site.store, site.settings, new, owner="local")
    painter.work()
    people = [{"identity": "ada"}, {"identity": "bruno"}]
    rows = [{"custom_id": f"couple-{n}", "people": people, "seed": n, "prompt": "two <b>friends</b>"} for n in range(3)]
    batch_id = submit.submit_portraits(
        site.ledger, site.settings, manifest=lines(*rows), format="jsonl", owner="local", name="Couples"
    ).batch_id
    painter.work(failing=["couple-2"], similarity=0.71)
    return batch_id


def test_an_item_says_who_is_who_without_colour_and_leads_to_the_next(
    page: Page, site: Site, couple: str, check: Check, shoot: Shoot
) -> None:
    page.goto(f"{site.url}/batches/{couple}")
    page.get_by_role("link", name="couple-0").click()

    matrix = page.get_by_role("region", name="Who is who")
    expect(matrix.get_by_role("row")).to_have_count(3)
    expect(matrix.get_by_role("row").nth(1)).to_contain_text("at this person's place")
    expect(page.locator("main")).to_contain_text("two <b>friends</b>")
    loaded(page)
    shoot(page, "item")
    check(page)

    tab_to(page, "Next")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("couple-1")
    page.get_by_role("link", name="Next").click()
    expect(page.get_by_role("alert")).to_contain_text("pipe broke")
    check(page)


def test_a_portrait_is_made_again_while_one_looks(page: Page, site: Site, couple: str) -> None:
    page.goto(f"{site.url}/batches/{couple}")
    page.get_by_role("link", name="couple-1").click()
    tab_to(page, "Reproduce and compare")

    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_contain_text("queued")
    Pair(ledger=site.ledger, store=site.store, settings=site.settings).work(similarity=0.71)

    expect(page.locator("main")).to_contain_text("Made again: bit equal", timeout=60_000)


def test_a_photo_slides_between_before_and_after_by_the_keyboard(
    page: Page, site: Site, couple: str, check: Check, shoot: Shoot
) -> None:
    after = Image.open(PEOPLE / "clara" / "1.png").convert("RGB").resize((448, 448))
    before = after.filter(ImageFilter.GaussianBlur(5)).convert("L").convert("RGB")
    with site.ledger.read() as session:
        ada = next(iter(submit.known_identities(session, "local").values())).id
    item_id = restored_photo(site.ledger, site.store, site.settings, "1950/garden.png", _png(before), _png(after), ada)
    page.goto(f"{site.url}/items/{item_id}")
    slider = page.get_by_role("slider")
    cut = "getComputedStyle(document.querySelector('.compare')).getPropertyValue('--cut')"
    assert page.evaluate(cut) == "50%"
    loaded(page)
    shoot(page, "photo")
    check(page)

    tab_to(page, "Line between before, at its left, and after, at its right")
    page.keyboard.press("ArrowRight")
    assert page.evaluate(cut) == "51%"
    expect(slider).to_have_value("51")

    page.get_by_label("Fidelity").fill("0.2")
    page.get_by_role("button", name="Restore again").click()
    expect(page.get_by_role("status")).to_contain_text("queued")
    expect(page).not_to_have_url(re.compile(item_id))


def test_what_is_held_is_released_and_given_up_by_a_person(
    page: Page, site: Site, couple: str, check: Check, shoot: Shoot
) -> None:
    rows = [{"custom_id": f"heavy-{n}", "people": [{"identity": "ada"}]} for n in range(2)]
    batch_id = submit.submit_portraits(
        site.ledger, site.settings, manifest=lines(*rows), format="jsonl", owner="local", name="Heavy"
    ).batch_id
    painter = Pair(ledger=site.ledger, store=site.store, settings=site.settings)
    painter.hold()
    page.goto(f"{site.url}/batches/{batch_id}")
    shoot(page, "held")
    check(page)

    page.get_by_role("link", name="heavy-0").click()
    check(page)
    page.get_by_label("Reason").fill("too large for any of our machines")
    page.get_by_role("button", name="Give it up").click()
    expect(page.get_by_role("status")).to_contain_text("cancelled")
    page.goto(f"{site.url}/batches/{batch_id}")
    page.get_by_label("Reason").fill("the worker has more memory now")
    page.get_by_role("button", name="Try it again").click()
    expect(page.get_by_role("status")).to_contain_text("What was held is tried again")
    painter.work()

    expect(page.locator("main")).to_contain_text("1 completed · 1 cancelled")


def test_what_one_types_stays_while_the_page_follows_its_batch(page: Page, site: Site, couple: str) -> None:
    row = {"custom_id": "first", "people": [{"identity": "ada"}]}
    batch_id = submit.submit_portraits(
        site.ledger,
        site.settings,
        manifest=lines(row),
        format="jsonl",
        owner="local",
        name="Growing",
        options=SubmitOptions(growing=True),
    ).batch_id
    painter = Pair(ledger=site.ledger, store=site.store, settings=site.settings)
    painter.hold()
    page.goto(f"{site.url}/batches/{batch_id}")
    page.get_by_label("Reason").fill("more mem")

    more = lines({**row, "custom_id": "second"})
    submit.add_portraits(site.ledger, site.settings, manifest=more, format="jsonl", owner="local", batch_id=batch_id)
    painter.hold()

    expect(page.get_by_role("link", name=re.compile("^held 2"))).to_be_visible()
    expect(page.get_by_label("Reason")).to_have_value("more mem")


def test_an_erased_face_is_not_shown_out_of_the_browsers_cache(page: Page, site: Site, couple: str) -> None:
    page.goto(f"{site.url}/batches/{couple}")
    loaded(page)
    address = page.locator(".gallery img").first.get_attribute("src")
    with site.ledger.read() as session:
        bruno = submit.known_identities(session, "local")["bruno"].id

    identities.erase(site.ledger, site.store, site.settings, "local", bruno)

    answer = page.goto(f"{site.url}{address}")
    assert answer is not None
    assert answer.status == 404


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()
