"""The gate's rules: what each check wants, what it says, and what a rule file may hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.errors import NotFoundError, UsageError
from orchestrator.models import gate

RULES = gate.parse_rules(
    {
        "evaluation": [{"suite": "identity", "seed": 0, "count": 8}],
        "rule": [
            {"metric": "identity.face_sim.mean", "minimum": 0.5, "interval": "identity.face_sim.ci95"},
            {"metric": "identity.detection_rate", "tolerance": 0.05},
        ],
        "merged_difference": 0.001,
    }
)


def metrics(mean: float, found: float = 0.95) -> dict[str, Any]:
    return {"identity": {"face_sim": {"mean": mean, "ci95": [mean - 0.03, mean + 0.03]}, "detection_rate": found}}


def refused(checks: list[gate.Check]) -> list[str]:
    return [check.name for check in checks if not check.passed]


def test_a_version_as_good_as_the_live_one_passes() -> None:
    assert refused(gate.check_metrics(RULES, metrics(0.72), metrics(0.74))) == []


def test_a_version_below_the_live_interval_is_refused_with_the_numbers() -> None:
    checks = gate.check_metrics(RULES, metrics(0.60), metrics(0.74))

    assert refused(checks) == ["identity.face_sim.mean no regression"]
    (bad,) = [check for check in checks if not check.passed]
    assert bad.reason == ("identity.face_sim.mean 0.6000 is below 0.7100, the lower end of the live version's interval")


def test_without_a_live_version_only_the_minimum_counts() -> None:
    assert refused(gate.check_metrics(RULES, metrics(0.51), None)) == []
    assert refused(gate.check_metrics(RULES, metrics(0.49), None)) == ["identity.face_sim.mean minimum"]


def test_a_figure_without_an_interval_may_fall_by_its_tolerance() -> None:
    assert refused(gate.check_metrics(RULES, metrics(0.7, 0.91), metrics(0.7, 0.95))) == []
    assert refused(gate.check_metrics(RULES, metrics(0.7, 0.89), metrics(0.7, 0.95))) == [
        "identity.detection_rate no regression"
    ]


def test_what_was_not_measured_is_refused() -> None:
    checks = gate.check_metrics(RULES, {"identity": {"detection_rate": 0.95}}, None)
    assert refused(checks) == ["identity.face_sim.mean"]
    assert "was not measured" in checks[0].reason


def test_taint_other_recogniser_and_an_unequal_merge_are_refused() -> None:
    def manifest(recogniser: str, difference: float | None) -> dict[str, Any]:
        files = {"faces/recogniser.onnx": {"tensor_sha256": recogniser}}
        return {"files": files, "made": {"merged_difference": difference}}

    good = gate.check_facts(RULES, manifest("a", 1e-5), manifest("a", None), tainted=[])
    bad = gate.check_facts(RULES, manifest("b", 0.1), manifest("a", None), tainted=["data set dsv_1 was withdrawn"])
    unmeasured = gate.check_facts(RULES, manifest("a", None), None, tainted=[])

    assert refused(good) == []
    assert refused(bad) == ["no tainted data", "same recogniser", "merged equals branch"]
    assert refused(unmeasured) == ["merged equals branch"]


def test_the_rule_file_that_comes_with_the_system_can_be_read() -> None:
    rules = gate.read_rules()
    assert {rule.metric.partition(".")[0] for rule in rules.rule} == {e.suite for e in rules.evaluation}


@pytest.mark.parametrize(
    "text",
    ["[[rule]", "", "[[evaluation]]\n[[rule]]\nmetric = 'a'", "[[evaluation]]\n[[rule]]\nmetric = 'a'\nleast = 1"],
)
def test_a_rule_file_of_another_form_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "gate.toml").write_text(text)
    with pytest.raises(UsageError) as refusal:
        gate.read_rules(tmp_path / "gate.toml")
    assert refusal.value.code == "gate_rules_invalid"
    with pytest.raises(NotFoundError):
        gate.read_rules(tmp_path / "none.toml")
