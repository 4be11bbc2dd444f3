"""The mini preset's CLIPTokenizer: byte pairs learnt from the renderer's words, so that each is one token.

Every byte is a token too, so any prompt tokenises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import pairwise

from tokenizers import Regex
from tokenizers.pre_tokenizers import ByteLevel, Split
from transformers import CLIPTokenizer

from fpga_models.lab.mini.networks import TEXT_LENGTH

START, END = "<|startoftext|>", "<|endoftext|>"
WORD_END = "</w>"
PIECES = Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+")  # as CLIP splits text


def build_tokenizer(words: Iterable[str]) -> CLIPTokenizer:
    """A CLIP tokenizer in which each of these words (or each part of a hyphenated one) is one token."""
    splitter = Split(PIECES, behavior="removed", invert=True)
    pieces = {piece for word in words for piece, _ in splitter.pre_tokenize_str(word.lower())}
    merges = learn_merges(sorted(pieces))
    letters = sorted(ByteLevel.alphabet())
    tokens = [*letters, *(letter + WORD_END for letter in letters), *(left + right for left, right in merges)]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys([*tokens, START, END]))}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TEXT_LENGTH)


def learn_merges(pieces: list[str]) -> list[tuple[str, str]]:
    """Byte pair merges, most frequent first and ties in alphabetical order, until every piece is one symbol."""
    split = [[*piece[:-1], piece[-1] + WORD_END] for piece in pieces]
    merges: list[tuple[str, str]] = []
    while counts := Counter(pair for symbols in split for pair in pairwise(symbols)):
        best = min(counts, key=lambda pair: (-counts[pair], pair))
        merges.append(best)
        split = [_merge(symbols, best) for symbols in split]
    return merges


def _merge(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    merged: list[str] = []
    for symbol in symbols:
        if merged and (merged[-1], symbol) == pair:
            merged[-1] += symbol
        else:
            merged.append(symbol)
    return merged
