"""How many words of a prompt a preset's text encoder reads, by the preset's own tokenizer, and which rows lose some.

A CLIP encoder has so many places, two of them taken by its marks of beginning and end; what comes behind the last would
be dropped without a word, and the style stands at the end. Workers ask the encoders of `sd15` and `sdxl` window after
window (fpga_models.core.text), that of `mini` once.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers

from orchestrator.contracts.portraits import PortraitParams
from orchestrator.errors import ModelError
from orchestrator.planning.plan import PlannedItem, params_digest

MARKS, CLIP_PLACES, WINDOWS = 2, 77, 8
"""Of an encoder's places two are marks; the published encoders of 77 are asked for so many windows of a prompt."""
SHOWN = 10
"""So many rows are named; of the others it is said how many there are."""
SHOWN_WORDS = 80
PIECES = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
"""What CLIP's tokenizer takes a text apart into [its published configuration]."""


@dataclass(frozen=True, kw_only=True)
class Read:
    """What of a text is read: so many tokens it has, so many are read; those, and the words that are not."""

    tokens: int
    most: int
    heard: tuple[int, ...]
    dropped: str


class Counter:
    """The tokenizer of one preset."""

    def __init__(self, tokenizer: Tokenizer, most: int) -> None:
        self._tokenizer, self.most = tokenizer, most

    def read(self, text: str) -> Read:
        """Return how much of a text is read."""
        encoded = self._tokenizer.encode(text, add_special_tokens=False)
        count = len(encoded.ids)
        end = encoded.offsets[self.most - 1][1] if count > self.most else len(text)
        heard = tuple(encoded.ids[: self.most])
        return Read(tokens=count, most=self.most, heard=heard, dropped=text[end:].strip(" ,"))


@lru_cache(maxsize=8)
def counter(models_dir: Path, preset: str) -> Counter | None:
    """Return the counter of a preset; None where it draws from no text, or its words are in no form known here.

    Raises:
        ModelError: its tokenizer cannot be read.
    """
    folder = models_dir / preset / "tokenizer"
    files = ("tokenizer.json", "merges.txt")
    if not any((folder / name).is_file() for name in files):
        return None
    try:
        places = int(json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"])
        if (folder / "tokenizer.json").is_file():
            tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        else:
            tokenizer = _clip(folder)
        tokenizer.no_truncation()
        tokenizer.no_padding()
    except Exception as error:  # tokenizers raises Exception itself for a file it cannot read
        raise ModelError(f"the tokenizer of preset {preset!r} cannot be read: {error}") from error
    return Counter(tokenizer, (places - MARKS) * (WINDOWS if places == CLIP_PLACES else 1))


def notes(items: Iterable[PlannedItem], found: Counter) -> Iterator[str]:
    """Yield a sentence for every row of which words are not read, and for rows that differ in such words alone."""
    rows = {item.row: item.params for item in reversed(list(items))}
    read = {text: found.read(text) for params in rows.values() for text in (params.prompt, params.negative_prompt)}
    cut = {row: params for row, params in sorted(rows.items()) if _dropped(params, read)}
    for row, params in list(cut.items())[:SHOWN]:
        name = "prompt" if read[params.prompt].dropped else "negative prompt"
        one = read[params.prompt if name == "prompt" else params.negative_prompt]
        yield (
            f"row {row}, {name}: it has {one.tokens} tokens and the first {one.most} are read; not read: "
            f"{one.dropped[:SHOWN_WORDS]!r}"
        )
    if len(cut) > SHOWN:
        yield f"and {len(cut) - SHOWN} more rows have words that are not read"
    heard = {text: str(one.heard) for text, one in read.items()}
    ends_early = {heard[params.prompt] for params in cut.values()}
    alike: dict[str, list[int]] = defaultdict(list)
    for row, params in sorted(rows.items()):
        if heard[params.prompt] in ends_early:
            same = {
                "prompt": heard[params.prompt],
                "negative_prompt": heard[params.negative_prompt],
                "seed": 0,
            }
            alike[params_digest(params.model_copy(update=same))].append(row)
    for group in alike.values():
        if len({(rows[row].prompt, rows[row].negative_prompt) for row in group}) > 1:
            named = ", ".join(map(str, group[:SHOWN])) + (", ..." if len(group) > SHOWN else "")
            yield f"rows {named} differ only in words that are not read: with the same seed they give the same picture"


def _dropped(params: PortraitParams, read: Mapping[str, Read]) -> bool:
    return bool(read[params.prompt].dropped or read[params.negative_prompt].dropped)


def _clip(folder: Path) -> Tokenizer:
    """Build CLIP's tokenizer from the two files that bases are published with."""
    merges = (folder / "merges.txt").read_text(encoding="utf-8").splitlines()
    pairs = [(left, right) for left, _, right in (line.partition(" ") for line in merges[1:]) if right]
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    tokenizer = Tokenizer(models.BPE(vocabulary, pairs, end_of_word_suffix="</w>", unk_token="<|endoftext|>"))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    return tokenizer
