"""Decides over a whole data set: which pictures repeat, who is who, what is left out and why, who is on which side.

Reads the tables of the chunks twice, one at a time, and keeps a few numbers for each face in between: about 60 bytes
for each picture and one mean embedding for each person, whatever the pictures weigh.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from fpga_models.idzoom.errors import EmptySplitError, NoRecordsError
from fpga_models.idzoom.facts import COLUMNS, embeddings_of
from fpga_models.idzoom.people import Floats, People
from fpga_models.idzoom.records import STRATA

REASONS = ("", "duplicate", "near_duplicate", "single_picture", "no_consent", "low_quality", "mixed_split")
"""Why a picture is left out; the first means that it is not."""
SPLITS = ("train", "val")
LOOK_BITS, FACE_BITS = 3, 10
"""Two pictures repeat each other if at most so many bits of their look, and of their faces' look, differ [ours]."""
INDEX_SCHEMA = pa.schema(
    [pa.field(*column) for column in COLUMNS if column[0] not in ("label", "look", "face_look")]
    + [
        pa.field("shard", pa.int32()),
        pa.field("person", pa.string()),
        pa.field("split", pa.string()),
        pa.field("left_out", pa.string()),
    ]
)


@dataclass(frozen=True, kw_only=True)
class ArrangeOptions:
    """Choices of a build.

    Attributes:
        split: share of the people on the train side, in (0, 1]; 1 puts everybody there.
        seed: of the split; a person stays on a side when others are added.
        min_pictures: people with fewer are left out: their own picture would be its only reference.
        min_quality: faces below leave their picture out.
        same_person: cosine of embeddings above which two faces are one person.
        near_duplicates: whether pictures that look alike, faces included, count as one.
    """

    split: float = 0.9
    seed: int = 0
    min_pictures: int = 2
    min_quality: float = 0.0
    same_person: float = 0.75
    near_duplicates: bool = True


@dataclass(kw_only=True)
class Arrangement:
    """The decisions: numbers for each picture and face in the order of the chunks."""

    reason: NDArray[np.int8]
    side: NDArray[np.int8]
    person: NDArray[np.int32]
    names: list[str]
    summary: dict[str, object] = field(default_factory=dict)
    identities: dict[str, int] = field(default_factory=dict)
    """Pictures of each person of the library who is in the set."""


@dataclass(kw_only=True)
class _Seen:
    """What one pass over the chunks keeps."""

    picture: list[NDArray[np.int32]] = field(default_factory=list)
    person: list[NDArray[np.int32]] = field(default_factory=list)
    quality: list[NDArray[np.float32]] = field(default_factory=list)
    stratum: list[NDArray[np.int8]] = field(default_factory=list)
    keys: list[NDArray[np.uint64]] = field(default_factory=list)
    looks: list[NDArray[np.uint64]] = field(default_factory=list)
    views: list[NDArray[np.int16]] = field(default_factory=list)
    pictures: int = 0


def arrange(
    tables: Callable[[], Iterable[pa.Table]],
    options: ArrangeOptions,
    *,
    gallery: Mapping[str, Floats] | None = None,
    library: frozenset[str] = frozenset(),
    without_consent: frozenset[str] = frozenset(),
) -> Arrangement:
    """Decide over all chunks; `tables` is called once and yields their tables in order.

    Args:
        gallery: embeddings (512,) of people of the library by id; faces near one of them are this person.
        library: ids of everybody in the library, to say who of them is in the set.
        without_consent: of these, those who do not allow training: their pictures are left out.

    Raises:
        NoRecordsError: nothing is left.
        EmptySplitError: one side of the split would hold nobody.
    """
    people = People(same_person=options.same_person)
    for label, embedding in (gallery or {}).items():
        people.known(label, embedding)
    seen = _read(tables(), people)
    if seen.pictures == 0:
        raise NoRecordsError("No picture with a usable face was found.")
    picture, person = np.concatenate(seen.picture), people.joined()[np.concatenate(seen.person)]
    names = [_name(people, i) for i in range(len(people))]
    reason = np.zeros(seen.pictures, np.int8)
    _mark_duplicates(reason, np.concatenate(seen.keys), np.concatenate(seen.looks), options)
    poor = np.concatenate(seen.quality) < options.min_quality
    _mark(reason, picture[poor], "low_quality")
    refused = np.array([name in without_consent for name in names], bool)
    _mark(reason, picture[refused[person]], "no_consent")
    train = np.array([_is_train(name, options) for name in names], bool)[person]
    _mark_mixed(reason, picture, train)
    _mark_single(reason, picture, person, len(names), options.min_pictures)
    if not (reason == 0).any():
        raise NoRecordsError(f"No picture is left: {_words(reason)}.")
    side = np.full(seen.pictures, -1, np.int8)
    side[picture] = np.where(reason[picture] == 0, np.where(train, 0, 1), -1)
    _check_sides(side, reason, options)
    made = Arrangement(reason=reason, side=side, person=person, names=names)
    made.summary = _summary(made, picture, np.concatenate(seen.stratum), np.concatenate(seen.views), options)
    made.identities = _identities(made, picture, library)
    return made


def index_tables(tables: Iterable[pa.Table], made: Arrangement) -> Iterator[pa.Table]:
    """Yield the index, chunk by chunk: what the tables say and what was decided."""
    pictures = faces = 0
    for shard, table in enumerate(tables):
        number = _picture_numbers(table) + pictures
        count = len(table)
        person = made.person[faces : faces + count]
        columns = {name: table[name] for name in INDEX_SCHEMA.names if name in table.schema.names}
        columns["shard"] = pa.array(np.full(count, shard, np.int32))
        columns["person"] = pa.array([made.names[i] for i in person], pa.string())
        columns["split"] = pa.array([SPLITS[i] if i >= 0 else None for i in made.side[number]], pa.string())
        columns["left_out"] = pa.array([REASONS[i] or None for i in made.reason[number]], pa.string())
        yield pa.table(columns, schema=INDEX_SCHEMA)
        pictures, faces = int(number[-1]) + 1 if count else pictures, faces + count


def _read(tables: Iterable[pa.Table], people: People) -> _Seen:
    seen = _Seen()
    for table in tables:
        if len(table) == 0:
            continue
        keys, places = table["key"].to_pylist(), table["place"].to_pylist()
        names = [f"{key}.{place}" for key, place in zip(keys, places, strict=True)]
        number = _picture_numbers(table)
        first = np.flatnonzero(np.diff(number, prepend=-1))
        seen.picture.append(number + seen.pictures)
        seen.person.append(people.assign(embeddings_of(table), table["label"].to_pylist(), names))
        seen.quality.append(table["quality"].to_numpy())
        seen.stratum.append(table["stratum"].to_numpy())
        seen.views.append(table["views"].to_numpy()[first])
        seen.keys.append(np.array([int(keys[i][:16], 16) for i in first], np.uint64))
        looks = table["look"].combine_chunks().flatten().to_numpy().reshape(-1, 2)
        seen.looks.append(np.concatenate([looks, table["face_look"].to_numpy()[:, None]], 1)[first])
        seen.pictures += len(first)
    return seen


def _picture_numbers(table: pa.Table) -> NDArray[np.int32]:
    """The number of the picture of each face, from 0: a new one begins wherever place is 0."""
    numbers: NDArray[np.int32] = (np.cumsum(table["place"].to_numpy() == 0) - 1).astype(np.int32)
    return numbers


def _name(people: People, number: int) -> str:
    label = people.labels[number]
    return label if label is not None else f"unk_{hashlib.sha256(people.first[number].encode()).hexdigest()[:16]}"


def _mark(reason: NDArray[np.int8], pictures: NDArray[np.int32], why: str) -> None:
    """Leave pictures out that are not left out yet."""
    chosen = pictures[reason[pictures] == 0]
    reason[chosen] = REASONS.index(why)


def _mark_duplicates(
    reason: NDArray[np.int8], keys: NDArray[np.uint64], looks: NDArray[np.uint64], options: ArrangeOptions
) -> None:
    _, first = np.unique(keys, return_index=True)
    again = np.ones(len(keys), bool)
    again[first] = False
    _mark(reason, np.flatnonzero(again).astype(np.int32), "duplicate")
    if not options.near_duplicates:
        return
    whole = np.flatnonzero(reason == 0)
    bands = looks[whole, :2].copy().view(np.uint32).reshape(-1, 4)  # at most 3 bits differ: one band of 4 is equal
    for band in range(4):
        order = np.argsort(bands[:, band], kind="stable")
        for step in range(1, 9):  # pictures with the same band lie side by side
            one, other = whole[order[:-step]], whole[order[step:]]
            same = bands[order[:-step], band] == bands[order[step:], band]
            differ = np.bitwise_count(looks[one[same]] ^ looks[other[same]])
            alike = (differ[:, :2].sum(1) <= LOOK_BITS) & (differ[:, 2] <= FACE_BITS)
            later = np.maximum(one[same][alike], other[same][alike])
            _mark(reason, later.astype(np.int32), "near_duplicate")


def _mark_single(
    reason: NDArray[np.int8], picture: NDArray[np.int32], person: NDArray[np.int32], people: int, least: int
) -> None:
    """Leave out pictures of people with too few, until everybody who is left has enough."""
    while True:
        kept = reason[picture] == 0
        few = np.bincount(person[kept], minlength=people) < least
        lone = picture[kept & few[person]]
        if len(lone) == 0:
            return
        _mark(reason, lone, "single_picture")


def _is_train(name: str, options: ArrangeOptions) -> bool:
    """The side of a person by a hash, so that it never changes when others come or go."""
    draw = hashlib.sha256(f"{options.seed}:{name}".encode()).digest()
    return int.from_bytes(draw[:8], "big") < options.split * 2**64


def _mark_mixed(reason: NDArray[np.int8], picture: NDArray[np.int32], train: NDArray[np.bool_]) -> None:
    """Leave out pictures that show people of both sides."""
    faces = np.bincount(picture, minlength=len(reason))
    trained = np.bincount(picture, weights=train, minlength=len(reason))
    _mark(reason, np.flatnonzero((trained > 0) & (trained < faces)).astype(np.int32), "mixed_split")


def _check_sides(side: NDArray[np.int8], reason: NDArray[np.int8], options: ArrangeOptions) -> None:
    for number, name in enumerate(SPLITS if options.split < 1 else SPLITS[:1]):
        if not (side == number).any():
            raise EmptySplitError(
                f"With split {options.split:g} and seed {options.seed} the {name} side would hold nobody "
                f"({_words(reason)} pictures). Choose another share or seed, or add people."
            )


def _words(reason: NDArray[np.int8]) -> str:
    counts = Counter(REASONS[i] or "usable" for i in reason.tolist())
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _summary(
    made: Arrangement,
    picture: NDArray[np.int32],
    strata: NDArray[np.int8],
    views: NDArray[np.int16],
    options: ArrangeOptions,
) -> dict[str, object]:
    side = made.side[picture]
    parts = {}
    for number, name in enumerate(SPLITS):
        faces, pictures = side == number, made.side == number
        by_stratum = np.bincount(strata[faces], minlength=len(STRATA)).tolist()
        parts[name] = {
            "pictures": int(pictures.sum()),
            "views": int(views[pictures].sum()),
            "people": len(np.unique(made.person[faces])),
            "faces": int(faces.sum()),
            "strata": dict(zip(STRATA, by_stratum, strict=True)),
        }
    left_out = Counter(REASONS[i] for i in made.reason.tolist() if i)
    return {"splits": parts, "left_out": dict(sorted(left_out.items())), "split": options.split, "seed": options.seed}


def _identities(made: Arrangement, picture: NDArray[np.int32], known: frozenset[str]) -> dict[str, int]:
    kept = made.side[picture] >= 0
    counts = np.bincount(made.person[kept], minlength=len(made.names))
    return {made.names[i]: int(counts[i]) for i in np.flatnonzero(counts) if made.names[i] in known}
