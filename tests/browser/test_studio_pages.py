"""Pages of people, new batches, restoring, models, training, schedules: seen, used by keyboard, and nothing inline."""

from __future__ import annotations

import re
import time
from collections import defaultdict
from datetime import UTC, datetime

import pytest
from playwright.sync_api import FilePayload, Page, Route, expect

from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows_training import TrainRecord
from orchestrator.models import registry, retraining
from tests.browser.conftest import Check, Shoot, loaded, tab_to
from tests.browser.site import Site
from tests.browser.tutorials.people import EXAMPLES
from tests.unit.orchestrator.played import picture
from tests.unit.orchestrator.trained import add_dataset, begin, finish, measure


def add(page: Page, site: Site, handle: str, *scopes: str) -> None:
    """Add a person through the page; the played worker finds a face at once."""
    page.goto(f"{site.url}/people")
    page.get_by_label("Handle").fill(handle)
    page.get_by_label("Pictures").set_input_files(EXAMPLES / handle / "1.png")
    for scope in scopes:
        page.locator(f"input[name=scopes][value={scope}]").first.check()
    page.get_by_role("button", name="Add", exact=True).click()
    expect(page.get_by_text("A worker looks for the face")).to_be_visible()
    site.worker.work()
    expect(page).to_have_url(re.compile("/people/idn_"))


@pytest.fixture(scope="module")
def versions(site: Site) -> tuple[str, str, str]:
    """A champion, a better version, and the run that made it, with curves."""
    live = registry.ensure_registered(site.ledger, site.settings)
    measure(site.ledger, live, 0.7)
    run = begin(site.ledger, site.settings, add_dataset(site.ledger), promote=False)
    with site.ledger.write() as session:
        for step in range(1, 11):
            for kind, facts in (
                ("step", {"stage": "mmf", "loss": 1 / step, "rate": 1e-3}),
                ("validation", {"own_id": 0.06 * step, "no_id": 0.1, "wrong_id": 0.2}),
            ):
                row = TrainRecord(run_id=run.run_id, kind=kind, step=step, owner="local", facts=facts, at=now())
                session.add(row)
    better = finish(site.ledger, run, "c" * 64, 0.8)
    retraining.conclude(site.ledger, run.batch_id)
    return live, better, run.run_id


def now() -> datetime:
    return datetime.now(UTC)


def photo(name: str, data: bytes) -> FilePayload:
    return {"name": name, "mimeType": "image/jpeg", "buffer": data}


def refusing_the_first(page: Page, pattern: str, *, seconds: int) -> dict[str, list[float]]:
    """Answer the first of these requests with 429; return when each came, by its body."""
    came: defaultdict[str, list[float]] = defaultdict(list)

    def answer(route: Route) -> None:
        came[str(route.request.post_data)].append(time.monotonic())
        if sum(map(len, came.values())) > 1:
            route.continue_()
        else:
            route.fulfill(status=429, headers={"Retry-After": str(seconds)}, json={"code": "rate_limited"})

    page.route(pattern, answer)
    return came


def test_a_batch_is_made_without_a_mouse(page: Page, site: Site, check: Check) -> None:
    add(page, site, "ada", "generate")
    add(page, site, "bruno", "restore")
    page.goto(f"{site.url}/new")
    page.get_by_label("Layout").select_option("group_2")

    for face, place in (("ada", "left: nobody"), ("bruno no consent", "right: nobody")):
        tab_to(page, face)
        page.keyboard.press("Enter")
        expect(page.get_by_role("button", name=face)).to_have_attribute("aria-pressed", "true")
        tab_to(page, place)
        page.keyboard.press("Enter")
    tab_to(page, "Check")
    page.keyboard.press("Enter")

    expect(page.get_by_label("What the check says")).to_contain_text("consent_missing")
    expect(page.locator(".row-wrong")).to_contain_text("bruno")
    check(page)
    page.get_by_role("button", name="right: bruno").click()  # nobody is held: the place is cleared
    page.get_by_label("Layout").select_option("portrait")
    page.get_by_role("button", name="Check", exact=True).click()
    expect(page.get_by_label("What the check says")).to_contain_text("1 picture of 1 person")
    page.get_by_role("button", name="Make the portraits").click()
    expect(page).to_have_url(re.compile("/batches/bat_"))


def test_a_face_is_dragged_onto_a_place_and_rows_are_copied(page: Page, site: Site, shoot: Shoot) -> None:
    for handle in ("clara", "emeka", "flora"):
        add(page, site, handle, "generate")
    page.goto(f"{site.url}/new")
    place = page.get_by_role("button", name="center: nobody")
    expect(place).to_be_visible()

    page.get_by_role("button", name="clara").drag_to(place)
    loaded(page)
    shoot(page, "new")
    page.get_by_label("Prompt").fill("<b>bold</b>")
    page.get_by_role("button", name="Copy this row").click()

    expect(page.get_by_role("button", name="center: clara")).to_have_count(2)
    page.get_by_role("button", name="Make the portraits").click()
    expect(page).to_have_url(re.compile("/batches/bat_"))
    with site.ledger.read() as session:
        made = batches.get(session, "local", page.url.rpartition("/")[2])
        params = [item.params for item in batches.items(session, made.id)]
    assert [one["prompt"] for one in params] == ["<b>bold</b>"] * 2


def test_a_manifest_is_checked_by_row_before_anything_is_queued(page: Page, site: Site, check: Check) -> None:
    page.goto(f"{site.url}/new")
    data = b"custom_id,people\na,nobody\n<i>,ada\n"
    page.get_by_label("Drop a CSV").set_input_files({"name": "n.csv", "mimeType": "text/csv", "buffer": data})

    page.get_by_role("button", name="Make the portraits").click()

    told = page.get_by_label("What the check says")
    expect(told).to_contain_text("Row 2")
    expect(told).to_contain_text("Row 3")
    expect(told).to_contain_text("unknown_identity")
    check(page)


def test_a_person_is_erased_with_a_receipt_to_keep(page: Page, site: Site, check: Check) -> None:
    add(page, site, "dario", "generate")
    check(page)
    page.get_by_label("Type dario to confirm").fill("dario")
    page.get_by_role("button", name="Erase for ever").click()

    with page.expect_download() as download:
        page.get_by_role("link", name="Download the receipt").click()

    assert download.value.suggested_filename.startswith("erased-idn_")
    assert b'"signature"' in download.value.path().read_bytes()
    check(page)


def test_models_and_runs_are_read_by_everybody(
    page: Page, site: Site, check: Check, versions: tuple[str, str, str]
) -> None:
    live, better, run = versions
    for address, heading in (
        ("people", "People"),
        ("models", "Models"),
        (f"models/{better}", "mini 2"),
        (f"models/compare?model={live}&model={better}", "Versions side by side"),
        ("training", "Training"),
        (f"training/{run}", "mini on"),
        ("schedules", "Schedules"),
        ("notices", "Notices"),
    ):
        page.goto(f"{site.url}/{address}")
        expect(page.get_by_role("heading", level=1)).to_contain_text(heading)
        check(page)


def test_two_versions_are_chosen_compared_promoted_and_rolled_back(
    page: Page, site: Site, versions: tuple[str, str, str]
) -> None:
    page.goto(f"{site.url}/models")
    page.get_by_label("Compare mini 1").check()
    page.get_by_label("Compare mini 2").check()
    page.get_by_role("button", name="Compare the chosen").click()
    expect(page.get_by_role("cell", name="0.8 [0.77, 0.83]")).to_be_visible()

    page.get_by_role("link", name="mini 2").click()
    page.get_by_label("Reason").fill("better eyes")
    page.get_by_role("button", name="Promote").click()
    expect(page.locator(".tag.good").first).to_have_text(re.compile("candidate|champion"))
    assert registry.champion(site.ledger, site.settings, "mini") == versions[1]

    page.goto(f"{site.url}/models")
    page.get_by_label("Reason").fill("no, worse")
    page.get_by_role("button", name="Roll back").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("mini 1")
    assert registry.champion(site.ledger, site.settings, "mini") == versions[0]


def test_photos_are_sent_one_bad_file_stops_no_other_and_a_later_visit_sends_only_what_is_missing(
    page: Page, site: Site, check: Check
) -> None:
    page.goto(f"{site.url}/restore")
    check(page)
    photos = [photo(f"{number}.jpg", picture((number, 9, 9), form="JPEG")) for number in range(5)]
    page.get_by_label("Photos or an archive").set_input_files(photos[:2])
    page.get_by_label("unknown people too").check()
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_role("alert")).to_contain_text("attestation_missing")

    page.get_by_label("On what ground").fill("my own family")
    page.route("**/v1/batches/*/close", lambda route: route.abort())
    page.get_by_role("button", name="Restore").click()
    expect(page.get_by_text("2 of 2 files sent")).to_be_visible()
    address = page.url
    page.unroute("**/v1/batches/*/close")
    page.goto(address)
    sent: list[str] = []
    page.on("request", lambda request: sent.append(request.method) if request.url.endswith("/v1/uploads") else None)
    came = refusing_the_first(page, "**/v1/batches/*/photos", seconds=2)
    page.get_by_label("Photos or an archive").set_input_files([*photos, photo("broken.jpg", b"no photo")])
    page.get_by_role("button", name="Go on").click()
    expect(page.get_by_text("Everything is there")).to_be_visible()

    assert len(sent) == 4, "the two that are there already are not sent again"
    ((first, again),) = [times for times in came.values() if len(times) > 1]
    assert again - first >= 2, "who is told to wait for two seconds waits for them"
    expect(page.locator("#state")).to_contain_text("1 could not be restored")
    batch_id = address.rpartition("=")[2]
    with site.ledger.read() as session:
        batch = batches.get(session, "local", batch_id)
        states = {item.custom_id: item.state for item in batches.items(session, batch.id)}
    assert not batch.open
    assert sorted(states) == ["0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "broken.jpg"]
    assert states["broken.jpg"] == "failed"
    check(page)
