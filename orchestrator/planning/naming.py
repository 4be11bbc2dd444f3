"""File names of outputs from a template, such as `{identity}/{custom_id}.{ext}`. A collision is an error."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from string import Formatter

from orchestrator.errors import ConflictError, UsageError

DEFAULT_TEMPLATE = "{custom_id}.{ext}"
FIELDS = ("custom_id", "index", "identity", "seed", "layout", "ext")
PART = re.compile(r"[A-Za-z0-9_+@=-][A-Za-z0-9._+@= -]*")
MAX_PART = 200
WIDTH = re.compile(r"0?\d?\d?d?")
"""Format of a field, such as `{index:04}`."""


@dataclass(frozen=True, kw_only=True)
class NameFacts:
    """What a template may say of one output; several identities are joined with `+`."""

    custom_id: str
    index: int
    identity: str
    seed: int
    layout: str
    ext: str = "png"


def output_names(template: str, outputs: Iterable[NameFacts]) -> list[str]:
    """Return one relative path for each output, all different, none leaving its directory.

    Raises:
        UsageError: the template names an unknown field, or gives a name that is no plain file name.
        ConflictError: two outputs get the same name, also where they differ only in case.
    """
    _check_template(template)
    taken: dict[str, str] = {}
    names = []
    for facts in outputs:
        try:
            name = template.format(**asdict(facts))
        except ValueError as error:
            raise UsageError(f"template {template!r} cannot be filled in: {error}", code="bad_template") from error
        _check_name(name)
        if name.lower() in taken:
            both = f"{taken[name.lower()]!r} and {facts.custom_id!r}"
            message = f"template {template!r} gives {both} the same name {name!r}"
            raise ConflictError(message, code="name_collision", name=name)
        taken[name.lower()] = facts.custom_id
        names.append(name)
    return names


def _check_template(template: str) -> None:
    try:
        fields = [(field, spec or "") for _, field, spec, _ in Formatter().parse(template) if field is not None]
    except ValueError as error:
        raise UsageError(f"template {template!r}: {error}", code="bad_template") from error
    for field, spec in fields:
        if field not in FIELDS or not WIDTH.fullmatch(spec):
            known = ", ".join(f"{{{name}}}" for name in FIELDS)
            raise UsageError(f"template {template!r} has {{{field}}}; known are {known}", code="bad_template")


def _check_name(name: str) -> None:
    for part in name.split("/"):
        if not PART.fullmatch(part) or len(part) > MAX_PART:
            raise UsageError(f"{part[:60]!r} in {name[:120]!r} is not a plain file name", code="bad_template")
