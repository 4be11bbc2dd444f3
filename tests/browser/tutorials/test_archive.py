"""docs/tutorials/archive.md, step by step: a folder of photos dropped on the page, results before all are sent."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from fpga_models.lab.synthetic.archive import PEOPLE, worn
from fpga_models.lab.synthetic.render import render
from fpga_models.lab.synthetic.sampling import random_scene
from orchestrator.ledger.queue import batches
from orchestrator.results import results
from tests.browser.conftest import Shoot, loaded
from tests.browser.site import Site
from tests.browser.tutorials.people import WORK_MS, add_person, wait_for_pictures

PHOTOS = int(os.environ.get("FPGA_TEST_PHOTOS", "80"))
"""Two hundred, as in the tutorial's text, take some minutes more."""
OF_ANNA, CUT_AFTER = PHOTOS // 8, 24
ANNA = 200_027
"""Whom the example pictures of ada show; see examples/make_people.py."""
ARCHIVE_MS = 1_500_000


def write_album(folder: Path) -> None:
    """Write the photos, small and worn: some of Anna, first among them, the others of people nobody knows."""
    for number in range(PHOTOS):
        rng = np.random.default_rng([11, number])
        ours = number % (PHOTOS // OF_ANNA) == 1
        who = ANNA if ours else PEOPLE[number % len(PEOPLE)]
        path = folder / ("1978" if number % 2 else "1983/summer") / f"{number:03}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(worn(rng, render(random_scene(rng, [who], "portrait", 128)).image)).save(path, quality=90)


def drop(page: Page, folder: Path) -> None:
    """Drop a folder on the page as a person does with a mouse."""
    box = page.locator("#drop").bounding_box()
    assert box is not None
    session = page.context.new_cdp_session(page)
    data = {"items": [], "files": [str(folder)], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        place = {"x": box["x"] + box["width"] / 2, "y": box["y"] + 20}
        session.send("Input.dispatchDragEvent", {"type": kind, **place, "data": data})


@pytest.mark.tutorial
@pytest.mark.timeout(2400)
def test_an_archivist_drops_a_folder_and_sees_results_while_it_is_sent(
    page: Page, site: Site, shoot: Shoot, tmp_path: Path
) -> None:
    album = tmp_path / "album"
    write_album(album)

    # 1. who may be restored
    add_person(page, site, "anna", "restore", example="ada")

    # 2. the folder
    page.get_by_role("link", name="Restore").click()
    expect(page).to_have_url(re.compile("/restore$"))
    loaded(page)
    drop(page, album)
    expect(page.locator("#told")).to_contain_text(f"{PHOTOS} files")
    shoot(page, "archive-drop")

    # 3. results before all is sent: the line is held after some files until the first result is seen
    held: list[Route] = []
    begun, seen = 0, False

    def hold(route: Route) -> None:
        nonlocal begun
        begun += 1
        if seen or begun <= CUT_AFTER:
            route.continue_()
        else:
            held.append(route)

    page.route("**/v1/uploads", hold)
    page.get_by_role("button", name="Restore", exact=True).click()
    expect(page.locator("#first img").first).to_be_visible(timeout=WORK_MS)
    assert f"of {PHOTOS} files sent" in page.locator("#sent-line").inner_text()
    assert not page.locator("#sent-line").inner_text().startswith(f"{PHOTOS} of")
    shoot(page, "archive-first")
    seen = True
    for route in held:
        route.continue_()

    # 4. all of it
    expect(page.get_by_text("Everything is there")).to_be_visible(timeout=ARCHIVE_MS)
    expect(page.locator("#state")).to_contain_text(f"{PHOTOS} of {PHOTOS} photos done", timeout=ARCHIVE_MS)
    page.get_by_role("link", name="The whole batch").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("album")
    wait_for_pictures(page)
    shoot(page, "archive-batch")

    with site.ledger.read() as session:
        batch = batches.get(session, "local", page.url.rpartition("/")[2])
        verdicts = batches.verdict_counts(session, batch.id)
        lines = list(results.results_lines(session, batch))
    found = sum(any(face.get("person") for face in line["scores"]["faces"]) for line in lines)
    assert (batch.state, batch.total) == ("completed", PHOTOS)
    assert sum(verdicts.values()) == PHOTOS
    assert OF_ANNA // 2 <= found <= 2 * OF_ANNA, f"Anna was found in {found} photos, she is in {OF_ANNA}"
