"""The gate: a rule file decides whether a trained version may take an alias; pure, and each check gives its reason."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestrator.errors import NotFoundError, UsageError

DEFAULT = Path(__file__).with_name("gate.toml")
Metrics = Mapping[str, Any]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class EvaluationRule(_Frozen):
    """A measurement that the gate wants; two versions are compared on the same suite, seed, count and data set."""

    suite: str = "identity"
    seed: int = 0
    count: Annotated[int, Field(ge=1)] = 48


class MetricRule(_Frozen):
    """What one figure must reach: a least value, and no regression against the live version."""

    metric: str
    minimum: float | None = None
    interval: str | None = None
    tolerance: Annotated[float, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> MetricRule:
        if self.minimum is None and self.interval is None and self.tolerance is None:
            raise ValueError(f"the rule for {self.metric} has neither minimum, interval nor tolerance")
        return self


class GateRules(_Frozen):
    """A whole rule file."""

    evaluation: Annotated[tuple[EvaluationRule, ...], Field(min_length=1)]
    rule: Annotated[tuple[MetricRule, ...], Field(min_length=1)]
    merged_difference: Annotated[float, Field(gt=0)] | None = None
    """Largest difference allowed between the outputs of branch and merged form, as a share of the largest value."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One thing that was looked at: what it is, what was got and wanted, and a sentence."""

    name: str
    passed: bool
    got: float | str | None
    wanted: float | str | None
    reason: str

    def as_json(self) -> dict[str, Any]:
        """Return the object that decisions keep."""
        return asdict(self)


def read_rules(path: Path | None = None) -> GateRules:
    """Read a TOML rule file, or the one that comes with the system.

    Raises:
        NotFoundError: there is no such file.
        UsageError: it is not TOML, or not a rule file.
    """
    chosen = path or DEFAULT
    try:
        return parse_rules(tomllib.loads(chosen.read_text()))
    except FileNotFoundError as error:
        raise NotFoundError(f"there is no rule file {chosen}", code="file_not_found") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{chosen} is not TOML: {error}", code="gate_rules_invalid") from error


def parse_rules(values: Mapping[str, Any]) -> GateRules:
    """Check rules that were read from a file or a run.

    Raises:
        UsageError: `gate_rules_invalid`.
    """
    try:
        return GateRules.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"gate rules: {where}: {first['msg']}", code="gate_rules_invalid") from error


def check_metrics(rules: GateRules, candidate: Metrics, live: Metrics | None) -> list[Check]:
    """Compare metrics by suite with the rules, and with those of the live version where there is one."""
    found: list[Check] = []
    for rule in rules.rule:
        got = _number(candidate, rule.metric)
        if got is None:
            reason = f"{rule.metric} was not measured"
            found.append(Check(name=rule.metric, passed=False, got=None, wanted=rule.minimum, reason=reason))
            continue
        if rule.minimum is not None:
            found.append(_least(f"{rule.metric} minimum", got, rule.minimum, "the least value allowed"))
        if live is not None and (floor := _floor(rule, live)) is not None:
            found.append(_least(f"{rule.metric} no regression", got, *floor))
    return found


def check_facts(
    rules: GateRules, candidate: Mapping[str, Any], live: Mapping[str, Any] | None, *, tainted: Sequence[str]
) -> list[Check]:
    """Check what is known of the weights besides metrics.

    Args:
        candidate: manifest of the version.
        live: manifest of the live version, if there is one.
        tainted: what of its origin was withdrawn, in words.
    """
    words = "; ".join(tainted) or "nobody it was trained on has withdrawn"
    found = [Check(name="no tainted data", passed=not tainted, got=len(tainted), wanted=0, reason=words)]
    if live is not None:
        ours, theirs = _recogniser(candidate), _recogniser(live)
        reason = (
            "same face recogniser as the live version"
            if ours == theirs
            else "its face recogniser differs from the live version's, so the library's embeddings would not fit it"
        )
        found.append(Check(name="same recogniser", passed=ours == theirs, got=ours, wanted=theirs, reason=reason))
    if rules.merged_difference is not None:
        found.append(_merged(candidate, rules.merged_difference))
    return found


def _merged(candidate: Mapping[str, Any], most: float) -> Check:
    got = (candidate.get("made") or {}).get("merged_difference")
    passed = got is not None and float(got) <= most
    reason = (
        "the difference between branch and merged form was not measured"
        if got is None
        else f"branch and merged form differ by {float(got):.2g}, {most:.2g} is allowed"
    )
    return Check(name="merged equals branch", passed=passed, got=got, wanted=most, reason=reason)


def _least(name: str, got: float, wanted: float, meaning: str) -> Check:
    relation = "reaches" if got >= wanted else "is below"
    reason = f"{name.partition(' ')[0]} {got:.4f} {relation} {wanted:.4f}, {meaning}"
    return Check(name=name, passed=got >= wanted, got=got, wanted=wanted, reason=reason)


def _floor(rule: MetricRule, live: Metrics) -> tuple[float, str] | None:
    """Return what the live version asks of a newer one and what that number is, or None where it was not measured."""
    if rule.interval is not None and (bounds := look_up(live, rule.interval)):
        return float(bounds[0]), "the lower end of the live version's interval"
    value = _number(live, rule.metric)
    if rule.tolerance is None or value is None:
        return None
    return value - rule.tolerance, f"the live version's {value:.4f} less {rule.tolerance:g}"


def _number(metrics: Metrics, path: str) -> float | None:
    value = look_up(metrics, path)
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def look_up(metrics: Metrics, path: str) -> Any:
    """Return the value at a dotted path, or None."""
    value: Any = metrics
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _recogniser(manifest: Mapping[str, Any]) -> str | None:
    return ((manifest.get("files") or {}).get("faces/recogniser.onnx") or {}).get("tensor_sha256")
