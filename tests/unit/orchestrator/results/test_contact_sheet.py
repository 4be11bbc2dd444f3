"""The contact sheet: everything inline, everything escaped, verdicts and faults told in words."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from orchestrator.errors import ConflictError, InputError
from orchestrator.results.contact_sheet import (
    ContactSheet,
    Failure,
    PersonScore,
    Reference,
    Result,
    render_contact_sheet,
    write_contact_sheet,
)

HOSTILE = """<script>alert(1)</script>"><img src=x onerror='alert(1)'> & </style> {{ 7 * 7 }}"""


def picture(colour: str, size: int = 128, form: str = "PNG") -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(out, form)
    return out.getvalue()


def result(custom_id: str = "shot-1", verdict: str | None = "accepted") -> Result:
    return Result(
        custom_id=custom_id,
        picture=picture("orange"),
        prompt="two people in a park",
        layout="group_2",
        seed=77,
        verdict=verdict,
        people=[
            PersonScore(person="idn_1", similarity=0.81, face=0, nearest="idn_1"),
            PersonScore(person="idn_2", similarity=-0.05, face=1, nearest="idn_1"),
        ],
        matrix=[[0.81, 0.02], [0.4, -0.05]],
        seconds=1.25,
        small_faces="1 of 2 small faces drawn again",
    )


def sheet(*results: Result, failures: tuple[Failure, ...] = ()) -> ContactSheet:
    return ContactSheet(
        title="Tonight",
        batch_id="bat_1",
        state="completed_with_errors",
        results=results,
        references={
            "idn_1": Reference(label="ada", picture=picture("red", 600, "JPEG")),
            "idn_2": Reference(label="bruno", picture=None),
        },
        failures=failures,
        counts={"completed": len(results), "failed": len(failures), "held": 0},
        seconds=83.0,
        model="mini v1",
        preset="mini",
        thresholds={"accepted": 0.5},
    )


class Page(HTMLParser):
    """The tags of a page, its text, and which tags were left open."""

    VOID = ("meta", "img", "input", "use", "image", "rect")

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.tags if name == tag]


def test_the_page_is_well_formed_and_loads_nothing_from_outside() -> None:
    page = Page(render_contact_sheet(sheet(result(), failures=(Failure(custom_id="x", code="c", message="m"),))))

    assert page.open == []
    assert not page.all("script")
    assert not page.all("link")
    sources = [
        attrs.get("src") or attrs.get("href") or "" for tag in ("img", "image", "use") for attrs in page.all(tag)
    ]
    assert sources
    assert all(source.startswith(("data:image/", "#person-")) for source in sources)
    policy = next(attrs["content"] for attrs in page.all("meta") if "http-equiv" in attrs)
    assert policy == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_a_result_is_the_very_bytes_and_has_words_for_those_who_cannot_see_it() -> None:
    image = Page(render_contact_sheet(sheet(result()))).all("img")[0]

    assert base64.b64decode((image["src"] or "").partition(",")[2]) == picture("orange")
    assert image["alt"] == "Generated portrait shot-1 meant to show ada, bruno: two people in a park"
    assert image["class"] == "hard"


def test_a_large_result_is_not_shown_pixelated() -> None:
    large = replace(result(), picture=picture("teal", 512))

    assert "class" not in Page(render_contact_sheet(sheet(large))).all("img")[0]


def test_each_reference_is_stored_once_as_it_was_kept() -> None:
    one, many = (render_contact_sheet(sheet(*[result(f"s{n}") for n in range(count)])) for count in (1, 9))

    assert len(Page(one).all("image")) == len(Page(many).all("image")) == 1
    data = (Page(many).all("image")[0]["href"] or "").partition(",")[2]
    assert base64.b64decode(data) == picture("red", 600, "JPEG")
    assert Page(many).all("use").count({"href": "#person-0"}) == 10


def test_likeness_and_matrix_are_told() -> None:
    page = Page(render_contact_sheet(sheet(result())))

    for words in ("0.81", "−0.05", "more like ada", "2 faces found", "seed 77", "83 s", "mini v1"):
        assert words in page.text
    cells = [attrs.get("class") for attrs in page.all("td")]
    assert cells == [None, "own", None, None, "own beaten"]
    assert "1 of 2 small faces drawn again" in page.text


def test_a_person_without_a_face_is_named() -> None:
    lost = replace(result(verdict="rejected"), people=[PersonScore(person="idn_2", similarity=0.0)], matrix=[])

    page = Page(render_contact_sheet(sheet(lost)))

    assert "no face found" in page.text
    assert not page.all("table")


def test_verdicts_are_counted_and_can_be_filtered() -> None:
    page = Page(render_contact_sheet(sheet(result("a"), result("b"), result("c", "needs_review"))))

    assert [attrs["id"] for attrs in page.all("input")] == ["show-all", "show-accepted", "show-needs_review"]
    assert "Accepted 2" in page.text
    assert "Needs review 1" in page.text


def test_a_failure_tells_code_sentence_stage_attempt_and_row() -> None:
    failures = (
        Failure(
            custom_id="a", code="out_of_memory", message="one item alone does not fit", stage="generate", attempt=3
        ),
        Failure(custom_id="b", code="consent_missing", message="no consent", stage="validate", row=31),
    )

    text = Page(render_contact_sheet(sheet(failures=failures))).text

    for words in (
        "out_of_memory",
        "one item alone does not fit",
        "stage generate · attempt 3",
        "row 31 of the manifest",
    ):
        assert words in text


def test_hostile_text_stays_text_wherever_it_stands() -> None:
    hostile = replace(result(), custom_id=HOSTILE, prompt=HOSTILE, layout=HOSTILE, verdict=HOSTILE)
    page_of = replace(
        sheet(hostile, failures=(Failure(custom_id=HOSTILE, code=HOSTILE, message=HOSTILE, stage=HOSTILE),)),
        title=HOSTILE,
        batch_id=HOSTILE,
        state=HOSTILE,
        model=HOSTILE,
        preset=HOSTILE,
        counts={HOSTILE: 1},
        thresholds={HOSTILE: 0.5},
        references={key: Reference(label=HOSTILE) for key in ("idn_1", "idn_2")},
    )

    html = render_contact_sheet(page_of)
    page = Page(html)

    assert "<script" not in html
    assert page.open == []
    assert len(page.all("img")) == 1
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    assert html.count("</style>") == 1
    assert HOSTILE in page.text


def test_an_empty_batch_is_a_page_too() -> None:
    assert "Nothing has ended yet." in Page(render_contact_sheet(sheet())).text


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(InputError):
        render_contact_sheet(sheet(replace(result(), picture=b"<svg onload=alert(1)>")))


def test_the_file_is_written_once(tmp_path: Path) -> None:
    path = write_contact_sheet(tmp_path / "night" / "index.html", sheet(result()))

    assert path.read_text().startswith("<!doctype html>")
    with pytest.raises(ConflictError, match="not overwritten"):
        write_contact_sheet(path, sheet())
