"""Turns checked rows into items ready for the ledger: people placed, numbers filled in, seeds derived, errors by row.

Pure: the preset, the known people and the batch's own defaults come in; what a worker needs comes out as small
canonical JSON, the same bytes for the same request on every machine.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from orchestrator.contracts.base import digest
from orchestrator.contracts.portraits import MAX_SEED, BatchDefaults, Control, PlacedPerson, PortraitParams
from orchestrator.planning.naming import folded
from orchestrator.planning.places import Place, PlaceError, free_slots, overlaps, own_place, slot_place
from orchestrator.planning.presets import Layout, Preset
from orchestrator.planning.rows import ManifestRow, Person, RowError

SCOPE = "generate"
MAX_ITEMS = 50_000
BESIDE = {"extra", "layout", "style"}
"""Of the parameters: kept with them, without a say in the picture."""
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class IdentityFacts:
    """A person as the planner sees them: the id and the consent scopes in force now."""

    id: str
    scopes: frozenset[str]
    lapsed: frozenset[str] = frozenset()
    """Scopes that were given once and have expired or were withdrawn."""
    domain: str | None = None
    """What their references show: drawings or photographs, if that was looked at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedItem:
    """One portrait to make. `cost` is in megapixel-steps, doubled where guidance needs a second pass."""

    index: int
    row: int
    custom_id: str
    params: PortraitParams
    params_sha256: str
    seed: int
    cost: float


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The items of the good rows, in manifest order, and what is wrong with the others."""

    items: tuple[PlannedItem, ...]
    errors: tuple[RowError, ...]
    notes: tuple[str, ...] = ()
    cost: float = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "cost", sum(item.cost for item in self.items))

    def missing_consents(self) -> list[str]:
        """Return the sentences about consent, each once."""
        return sorted({error.message for error in self.errors if error.code == "consent_missing"})


def plan(
    rows: Iterable[ManifestRow],
    *,
    preset: Preset,
    known_identities: Mapping[str, IdentityFacts],
    defaults: BatchDefaults | None = None,
) -> Plan:
    """Plan every row; a row with an error has no items.

    Args:
        rows: as `manifest.read_manifest` returns them.
        preset: what the batch runs on.
        known_identities: by every name that a manifest may use for them.
        defaults: of the batch.
    """
    rows = list(rows)
    planner = _Planner(preset=preset, identities=known_identities, defaults=defaults or BatchDefaults())
    errors = list(_duplicates(rows))
    broken = {error.row for error in errors}
    items: list[PlannedItem] = []
    for row in rows:
        found = planner.errors_and_params(row)
        errors.extend(found.errors)
        if found.params is None or row.row in broken:
            continue
        if len(items) + row.count > MAX_ITEMS:
            errors.append(_error(row, "count", "too_many_items", f"a batch holds at most {MAX_ITEMS} pictures"))
            continue
        items.extend(planner.items(row, found.params, start=len(items)))
    return Plan(items=tuple(items), errors=tuple(sorted(errors, key=lambda error: error.row)))


def derived_seed(batch_seed: int, custom_id: str) -> int:
    """Return the seed of a row that names none: the first 32 bits of sha256 over batch seed and custom_id."""
    digest = hashlib.sha256(f"{batch_seed}\n{custom_id}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def params_digest(params: PortraitParams) -> str:
    """Return the sha256 of everything in `params` that decides the picture, so without names and `extra`."""
    return digest({name: value for name, value in params.dump().items() if name not in BESIDE})


def _error(row: ManifestRow, name: str | None, code: str, message: str) -> RowError:
    return RowError(row=row.row, field=name, code=code, message=message)


def _item_ids(row: ManifestRow) -> Iterator[str]:
    if row.count == 1:
        yield row.custom_id
    else:
        yield from (f"{row.custom_id}-{n}" for n in range(1, row.count + 1))


def _duplicates(rows: list[ManifestRow]) -> Iterator[RowError]:
    first: dict[str, int] = {}
    for row in rows:
        for custom_id in _item_ids(row):
            before = first.setdefault(folded(custom_id), row.row)  # it names files
            if before != row.row:
                message = (
                    f"custom_id {custom_id!r} is taken by row {before}; names differ by more than their case or dots "
                    "at their end"
                )
                yield _error(row, "custom_id", "duplicate_custom_id", message)
                break


@dataclass(frozen=True, kw_only=True)
class _Found:
    params: PortraitParams | None
    errors: list[RowError]


@dataclass(frozen=True, kw_only=True)
class _Planner:
    """Preset, people and defaults at hand; places of slots are worked out once for each size."""

    preset: Preset
    identities: Mapping[str, IdentityFacts]
    defaults: BatchDefaults
    slots: dict[tuple[str, tuple[int, int]], dict[str, Place]] = field(default_factory=dict)

    def errors_and_params(self, row: ManifestRow) -> _Found:
        """Return what is wrong with a row, or the parameters of its items without a seed."""
        errors: list[RowError] = []
        size = self._size(row, errors)
        steps, guidance, id_scale, control_scale = self._numbers(row, errors)
        ids = self._identities(row, errors)
        layout_name = self._layout_name(row, errors)
        layout = self.preset.layouts.get(layout_name) if layout_name else None
        prompt = self._prompt(row, layout, errors)
        if row.preset not in (None, self.preset.name):
            message = f"this batch runs preset {self.preset.name!r}, the row asks for {row.preset!r}"
            errors.append(_error(row, "preset", "preset_mismatch", message))
        placeable = not any(error.field in ("size", "layout", "people") for error in errors)
        places = self._places(row, layout_name, size, errors) if placeable else []
        control = self._control(row, places, errors)
        if errors:
            return _Found(params=None, errors=errors)
        params = PortraitParams(
            control=control,
            control_scale=control_scale,
            extra=row.extra,
            guidance=guidance,
            height=size[1],
            id_scale=id_scale,
            layout=layout_name,
            masked=row.masked is not False,
            negative_prompt=_first(row.negative_prompt, self.defaults.negative_prompt) or "",
            people=tuple(
                PlacedPerson.model_construct(
                    identity=id_, box=place.box, kps5=place.kps5, skeleton=place.skeleton, slot=place.slot
                )
                for id_, place in zip(ids, places, strict=True)
            ),
            preset=self.preset.name,
            prompt=prompt,
            small_faces=row.small_faces or self.defaults.small_faces or self.preset.defaults.small_faces,
            steps=steps,
            style=_first(row.style, self.defaults.style),
            width=size[0],
        )
        return _Found(params=params, errors=errors)

    def items(self, row: ManifestRow, params: PortraitParams, *, start: int) -> Iterator[PlannedItem]:
        """Yield the row's items, the first with the row's seed and each further one with the next."""
        seed = row.seed if row.seed is not None else derived_seed(self.defaults.seed, row.custom_id)
        passes = 2 if params.guidance > 1 else 1
        cost = params.width * params.height * params.steps * passes / 1e6
        for offset, custom_id in enumerate(_item_ids(row)):
            item_seed = (seed + offset) % (MAX_SEED + 1)
            own = params.model_copy(update={"seed": item_seed})
            yield PlannedItem(
                index=start + offset,
                row=row.row,
                custom_id=custom_id,
                params=own,
                params_sha256=params_digest(own),
                seed=item_seed,
                cost=cost,
            )

    def _size(self, row: ManifestRow, errors: list[RowError]) -> tuple[int, int]:
        size = row.size or self.defaults.size or self.preset.size
        if size not in self.preset.sizes:
            sizes = ", ".join(f"{w}x{h}" for w, h in self.preset.sizes)
            message = f"preset {self.preset.name!r} makes {sizes}, got {size[0]}x{size[1]}"
            errors.append(_error(row, "size", "bad_size", message))
        return size

    def _numbers(self, row: ManifestRow, errors: list[RowError]) -> tuple[int, float, float, float | None]:
        """Return steps, guidance, id_scale and, where the preset has a ControlNet, its strength."""
        limits, ours, preset = self.preset.limits, self.defaults, self.preset.defaults
        steps = _given(row.steps, ours.steps, preset.steps)
        guidance = float(_given(row.guidance, ours.guidance, preset.guidance))
        id_scale = float(_given(row.id_scale, ours.id_scale, preset.id_scale))
        control_scale: float | None = None
        asked: list[tuple[str, float, tuple[float, float]]] = [
            ("steps", steps, limits.steps),
            ("guidance", guidance, limits.guidance),
            ("id_scale", id_scale, limits.id_scale),
        ]
        if limits.control_scale:
            control_scale = float(_given(row.control_scale, None, preset.control_scale))
            asked.append(("control_scale", control_scale, limits.control_scale))
        elif row.control_scale is not None:
            message = f"preset {self.preset.name!r} has no ControlNet whose strength could be set"
            errors.append(_error(row, "control_scale", "no_controlnet", message))
        for name, value, (low, high) in asked:
            if not low <= value <= high:
                message = f"{name} is {low} to {high} for preset {self.preset.name!r}, got {value:g}"
                errors.append(_error(row, name, "out_of_range", message))
        return steps, guidance, id_scale, control_scale

    def _identities(self, row: ManifestRow, errors: list[RowError]) -> list[str]:
        ids = []
        for n, person in enumerate(row.people):
            name, where = person.identity, f"people[{n}].identity"
            facts = self.identities.get(name)
            if facts is None:
                errors.append(_error(row, where, "unknown_identity", f"no identity {name!r} in the library"))
                continue
            if SCOPE not in facts.scopes:
                why = "it lapsed or was withdrawn" if SCOPE in facts.lapsed else "it was never given"
                message = f"identity {name!r} has no consent for scope {SCOPE!r}: {why}"
                errors.append(_error(row, where, "consent_missing", message))
            if facts.domain not in (None, self.preset.domain):
                errors.append(_error(row, where, "outside_domain", self.preset.refusal(name)))
            ids.append(facts.id)
        for identity, times in Counter(ids).items():
            if times > 1:
                name = next(p.identity for p in row.people if self.identities[p.identity].id == identity)
                message = f"identity {name!r} stands {times} times in one picture"
                errors.append(_error(row, "people", "identity_repeated", message))
        return ids

    def _layout_name(self, row: ManifestRow, errors: list[RowError]) -> str | None:
        """Choose the row's layout: the one it names, else the batch's if it fits, else the first for so many people."""
        count = len(row.people)
        if count > self.preset.max_people:
            message = f"preset {self.preset.name!r} shows at most {self.preset.max_people} people, got {count}"
            errors.append(_error(row, "people", "too_many_people", message))
            return None
        name = row.layout or self._batch_layout(count) or self.preset.layout_for(count)
        if name is None:
            if any(_needs_slot(person) for person in row.people):
                message = f"preset {self.preset.name!r} has no layout for {count} people; give boxes"
                errors.append(_error(row, "layout", "unknown_layout", message))
            return None
        layout = self.preset.layouts.get(name)
        if layout is None:
            message = f"no layout {name!r}; preset {self.preset.name!r} has {', '.join(self.preset.layouts)}"
            errors.append(_error(row, "layout", "unknown_layout", message))
        elif count > len(layout.slots):
            message = f"layout {name!r} has {len(layout.slots)} slots, got {count} people"
            errors.append(_error(row, "people", "too_many_people", message))
        return name

    def _batch_layout(self, people: int) -> str | None:
        name = self.defaults.layout
        layout = self.preset.layouts.get(name) if name else None
        return name if layout is None or len(layout.slots) == people else None

    def _prompt(self, row: ManifestRow, layout: Layout | None, errors: list[RowError]) -> str:
        style = _first(row.style, self.defaults.style)
        if style is not None and style not in self.preset.styles:
            known = ", ".join(self.preset.styles) or "none"
            errors.append(_error(row, "style", "unknown_style", f"no style {style!r}; there is {known}"))
        words = row.prompt or (layout.caption if layout else "")
        return ", ".join(part for part in (words, self.preset.styles.get(style or "", "")) if part)

    def _places(
        self, row: ManifestRow, layout_name: str | None, size: tuple[int, int], errors: list[RowError]
    ) -> list[Place]:
        try:
            places = list(self._place_people(row, layout_name, size))
        except PlaceError as error:
            errors.append(_error(row, error.field, error.code, error.message))
            return []
        for i, j, shared in overlaps(places):
            message = f"the faces of people {i + 1} and {j + 1} overlap by {shared:.0%} of the smaller"
            errors.append(_error(row, f"people[{j}]", "people_overlap", message))
        return places

    def _place_people(self, row: ManifestRow, layout_name: str | None, size: tuple[int, int]) -> Iterator[Place]:
        layout = self.preset.layouts[layout_name] if layout_name else None
        free = free_slots(layout, row.people) if layout else iter(())
        taken: dict[str, int] = {}
        for n, person in enumerate(row.people):
            where = f"people[{n}]"
            if not _needs_slot(person):
                yield own_place(person, size, self.preset.latent_factor, where)
                continue
            assert layout_name, "a person without coordinates has a layout"
            assert layout
            name = person.slot or next(free).name
            if name in taken:
                message = f"slot {name!r} is taken by people[{taken[name]}]"
                raise PlaceError(f"{where}.slot", "slot_taken", message)
            taken[name] = n
            yield self._slot(layout_name, layout, name, size, where)

    def _slot(self, layout_name: str, layout: Layout, name: str, size: tuple[int, int], where: str) -> Place:
        key = layout_name, size
        if key not in self.slots:
            self.slots[key] = {slot.name: slot_place(slot, size) for slot in layout.slots}
        place = self.slots[key].get(name)
        if place is None:
            known = ", ".join(slot.name for slot in layout.slots)
            raise PlaceError(f"{where}.slot", "unknown_slot", f"layout {layout_name!r} has {known}, got {name!r}")
        return place

    def _control(self, row: ManifestRow, places: list[Place], errors: list[RowError]) -> Control:
        """Return the control mode; only a mode that the row itself asks for can be refused for a missing skeleton."""
        control = row.control or self.defaults.control or self.preset.defaults.control
        if control in ("skeleton", "both") and any(place.skeleton is None for place in places):
            if row.control is None:
                return "landmark"
            message = f"control {control!r} needs a skeleton or a slot for every person"
            errors.append(_error(row, "control", "skeleton_missing", message))
        return control


def _needs_slot(person: Person) -> bool:
    return person.box is None and person.kps5 is None and person.skeleton is None


def _first(mine: T | None, ours: T | None) -> T | None:
    """Return what the row says, else what its batch says, else None."""
    return ours if mine is None else mine


def _given(mine: T | None, ours: T | None, preset: T) -> T:
    """Return what the row says, else what its batch says, else what the preset does."""
    first = _first(mine, ours)
    return preset if first is None else first
