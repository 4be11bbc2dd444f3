"""Records, shards, views, labels: what one picture becomes."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset

from fpga_models.faces.pack import Face
from fpga_models.idzoom.annotate import Label, frontal, match_labels, plain_caption, sharpness, stored
from fpga_models.idzoom.errors import ShardError
from fpga_models.idzoom.records import Record, RecordPerson, View, stratum
from fpga_models.idzoom.shards import Sample, ShardWriter, read_samples
from fpga_models.idzoom.views import squares


def person(label: str | None = "per_1") -> RecordPerson:
    return RecordPerson(
        label=label,
        box=np.array([10, 20, 50, 70], np.float32),
        kps5=np.arange(10, dtype=np.float32).reshape(5, 2),
        skeleton=np.ones((18, 3), np.float32),
        score=0.9,
        sharpness=0.5,
        frontal=0.8,
        embedding=np.full(512, 512**-0.5, np.float32),
        share=0.39,
    )


def sample(number: int = 0) -> Sample:
    image = np.random.default_rng(number).integers(0, 255, (128, 128, 3)).astype(np.uint8)
    _, data, suffix = stored(image)
    record = Record(
        key=f"{number:032x}",
        sha256=f"{number:064x}",
        width=128,
        height=128,
        caption="photo of two people",
        people=(person(), person(None)),
        views=(View(left=0, top=0, side=128, people=(0, 1)),),
        facts={"source": "test", "licence": "CC0-1.0", "consent": "none needed"},
    )
    return Sample(record=record, picture=data, suffix=suffix, masks=np.zeros((2, 64, 64), np.uint8))


def written(*samples: Sample) -> bytes:
    target = io.BytesIO()
    with ShardWriter(target) as writer:
        for one in samples:
            writer.write(one)
    return target.getvalue()


def face(left: float, side: float = 40.0) -> Face:
    kps5 = np.array([[left + 10, 10], [left + 30, 10], [left + 20, 20], [left + 12, 30], [left + 28, 30]], np.float32)
    box = np.array([left, 0, left + side, side], np.float32)
    return Face(box=box, kps5=kps5, score=0.9, embedding=np.zeros(512, np.float32))


def test_a_shard_gives_back_what_was_written_and_is_the_same_bytes_each_time() -> None:
    data = written(sample(1), sample(2))

    back = list(read_samples(io.BytesIO(data)))

    assert data == written(sample(1), sample(2))
    assert [one.record.key for one in back] == [sample(1).record.key, sample(2).record.key]
    assert back[0].record.as_json()["people"] == sample(1).record.as_json()["people"]
    assert back[0].picture == sample(1).picture
    np.testing.assert_allclose(back[1].record.people[1].embedding, 512**-0.5, atol=1e-4)


def test_a_stock_webdataset_reader_takes_a_shard(tmp_path: Path) -> None:
    (tmp_path / "00000.tar").write_bytes(written(sample(1), sample(2)))

    rows = list(load_dataset("webdataset", data_files=str(tmp_path / "*.tar"), split="train", streaming=True))

    assert [row["json"]["caption"] for row in rows] == ["photo of two people"] * 2
    assert rows[0]["png"].size == (128, 128)


def test_a_shard_cut_short_or_of_strangers_is_refused() -> None:
    whole = written(sample(1), sample(2))
    foreign = io.BytesIO()
    with ShardWriter(foreign) as writer:
        writer.write_files("x", {"png": b"", "json": json.dumps({"schema": "other"}).encode()})

    with pytest.raises(ShardError):
        list(read_samples(io.BytesIO(whole[: len(whole) // 2])))
    with pytest.raises(ShardError, match="not one of ours"):
        list(read_samples(io.BytesIO(foreign.getvalue())))


@pytest.mark.parametrize(("share", "index"), [(0.01, 0), (0.04, 1), (0.0799, 1), (0.1, 2), (0.31, 3), (0.32, 4)])
def test_strata_begin_at_their_lower_bound(share: float, index: int) -> None:
    assert stratum(share) == index


def test_views_zoom_on_every_face_and_never_cut_somebody_in_half() -> None:
    near, far = np.array([40, 40, 72, 80], np.float32), np.array([300, 60, 330, 100], np.float32)

    views = squares(400, 300, [near, far], side=64, max_people=4)

    assert (views[0].side, views[0].people) == (300, (0, 1))
    assert {view.people for view in views[1:]} == {(0,), (1,)}
    for view in views:
        assert 0 <= view.left <= 400 - view.side
        assert 0 <= view.top <= 300 - view.side


def test_a_picture_too_small_for_the_preset_has_no_views() -> None:
    assert squares(50, 50, [np.array([5, 5, 45, 45], np.float32)], side=128, max_people=4) == ()


def test_labels_go_to_the_largest_face_from_left_to_right_or_to_their_place() -> None:
    small, large = face(0, 20), face(100, 60)

    assert match_labels([small, large], []) == [None, None]
    assert match_labels([small, large], [Label(person="a")]) == [None, "a"]
    assert match_labels([small, large], [Label(person="a"), Label(person="b")]) == ["a", "b"]
    assert match_labels([small], [Label(person="a"), Label(person="b")]) is None
    placed = [Label(person="b", nose=(121.0, 21.0)), Label(person="c", nose=(400.0, 400.0))]
    assert match_labels([small, large], placed) == [None, "b"]


def test_a_stored_picture_is_small_enough_and_small_ones_lose_nothing() -> None:
    little = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)

    assert stored(little)[0] is little
    assert stored(little)[2] == "png"
    image, data, suffix = stored(np.zeros((1000, 4000, 3), np.uint8))
    assert (image.shape, suffix, data[:2]) == ((512, 2048, 3), "jpg", b"\xff\xd8")


def test_sharpness_and_frontality_fall_as_they_should() -> None:
    noise = np.random.default_rng(0).integers(0, 255, (112, 112, 3)).astype(np.uint8)
    smooth = np.tile(np.linspace(0, 255, 112).astype(np.uint8)[:, None, None], (1, 112, 3))
    turned = face(0).kps5.copy()
    turned[2, 0] = turned[0, 0]

    assert sharpness(noise) > 0.7 > 0.2 > sharpness(smooth)
    assert frontal(face(0).kps5) == 1
    assert frontal(turned) == 0


def test_a_plain_caption_counts() -> None:
    assert [plain_caption(n) for n in (1, 2, 6)] == ["photo of a person", "photo of two people", "photo of 6 people"]
