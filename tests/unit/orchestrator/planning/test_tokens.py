"""What a text encoder does not read is told by row, counted as the preset's own tokenizer counts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from transformers import CLIPTokenizer

from orchestrator.contracts.portraits import PortraitParams
from orchestrator.errors import ModelError
from orchestrator.planning import tokens
from orchestrator.planning.plan import PlannedItem

SHIPPED = Path(__file__).parents[4] / "fpga_models" / "weights"
LONG = (
    "portrait of a smiling person in a studio, soft even light, neutral expression, facing the camera, plain wall "
    "behind, shallow depth of field, calm mood, sharp focus on the eyes, natural skin, tidy hair, wearing a "
)


@pytest.fixture(scope="module")
def shipped() -> tokens.Counter:
    found = tokens.counter(SHIPPED, "mini")
    assert found is not None
    return found


def item(row: int, prompt: str, *, seed: int = 5, negative: str = "") -> PlannedItem:
    params = PortraitParams(
        control="landmark",
        guidance=1.5,
        height=128,
        id_scale=1.0,
        negative_prompt=negative,
        preset="mini",
        prompt=prompt,
        steps=20,
        width=128,
        seed=seed,
    )
    return PlannedItem(index=row, row=row, custom_id=f"i{row}", params=params, params_sha256="0", seed=seed, cost=1)


def test_what_is_counted_is_what_the_encoder_is_given(shipped: tokens.Counter) -> None:
    encoder = CLIPTokenizer.from_pretrained(SHIPPED / "mini" / "tokenizer", local_files_only=True)
    for text in (LONG, "", "hello", "Überall, wo der Bär wohnt! " * 9, "a, b; c " * 40):
        read = shipped.read(text)
        whole = encoder([text], padding="max_length", truncation=True)["input_ids"][0]
        assert whole[1 : 1 + len(read.heard)] == list(read.heard)
        assert whole[1 + len(read.heard)] == encoder.eos_token_id
        assert read.tokens == len(encoder([text], add_special_tokens=False, truncation=False)["input_ids"][0])
        assert bool(read.dropped) == (read.tokens > read.most)


def test_rows_that_lose_words_are_named_and_so_are_those_that_differ_in_nothing_else(shipped: tokens.Counter) -> None:
    rows = [item(1, LONG + "red sweater"), item(2, LONG + "green sweater"), item(3, "close-up portrait"), item(4, LONG)]

    said = list(tokens.notes(rows, shipped))

    assert [one.partition(":")[0] for one in said[:3]] == ["row 1, prompt", "row 2, prompt", "row 4, prompt"]
    assert "not read: 'wall behind" in said[0]
    assert said[3].startswith("rows 1, 2, 4 differ only in words that are not read")
    assert list(tokens.notes([item(3, "close-up portrait", negative="ugly")], shipped)) == []
    assert "negative prompt" in next(tokens.notes([item(1, "a", negative=LONG)], shipped))


def test_a_night_of_long_prompts_is_told_in_a_few_lines(shipped: tokens.Counter) -> None:
    said = list(tokens.notes([item(row, f"{row} {LONG}") for row in range(1, 200)], shipped))
    assert len(said) == tokens.SHOWN + 1
    assert said[-1] == "and 189 more rows have words that are not read"


def test_the_two_files_that_bases_are_published_with_count_as_their_tokenizer_does(tmp_path: Path) -> None:
    letters = [*"abcdefghijklmnopqrstuvwxyz,"]
    pieces = [*letters, *(f"{one}</w>" for one in letters), "ca", "cat</w>", "<|startoftext|>", "<|endoftext|>"]
    folder = tmp_path / "base" / "tokenizer"
    folder.mkdir(parents=True)
    (folder / "vocab.json").write_text(json.dumps({piece: number for number, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"model_max_length": 8, "pad_token": "<|endoftext|>"}))

    found = tokens.counter(tmp_path, "base")

    assert found is not None
    theirs = CLIPTokenizer.from_pretrained(folder, local_files_only=True)
    for text in ("Cat, cab", "a CAT  sat on a cat", "dog"):
        assert found.read(text).tokens == len(theirs([text], add_special_tokens=False)["input_ids"][0])
    assert found.read("cat cat cat cat cat cat cat dog").dropped == "cat dog"


def test_a_preset_without_a_tokenizer_counts_nothing_and_a_broken_one_says_so(tmp_path: Path) -> None:
    (tmp_path / "faces").mkdir()
    assert tokens.counter(tmp_path, "faces") is None
    shutil.copytree(SHIPPED / "mini" / "tokenizer", tmp_path / "cut" / "tokenizer")
    (tmp_path / "cut" / "tokenizer" / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        tokens.counter(tmp_path, "cut")
