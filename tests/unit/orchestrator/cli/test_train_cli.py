"""`fpga train`, `fpga model` and `fpga evaluate` as their users meet them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli.app import run
from orchestrator.ledger.engine.session import Ledger
from orchestrator.models import registry, retraining, training
from orchestrator.settings import Settings, get_settings
from tests.unit.orchestrator.trained import RULES, add_dataset, begin, finish, measure

Fpga = Callable[..., tuple[int, str, str]]


@pytest.fixture
def fpga(settings: Settings, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Fpga:
    """Run a command line on the test's own state directory; returns exit code, standard output, standard error."""
    monkeypatch.setenv("FPGA_STATE_DIR", str(settings.state_dir))
    monkeypatch.setenv("FPGA_MODELS_DIR", str(settings.models_dir))
    get_settings.cache_clear()

    def call(*arguments: str | Path) -> tuple[int, str, str]:
        capfd.readouterr()
        code = run([str(argument) for argument in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def test_a_run_is_queued_paused_resumed_and_cancelled(fpga: Fpga, ledger: Ledger, settings: Settings) -> None:
    add_dataset(ledger)
    code, out, err = fpga(
        "train", "run", "--dataset", "faces", "--steps", "12", "--set", "recipe=C2", "--set", "accumulate=2", "--json"
    )
    queued = json.loads(out)

    assert (code, queued["state"], queued["steps"]) == (0, "in_progress", 12)
    assert (queued["plan"]["recipe"], queued["plan"]["accumulate"]) == ("C2", 2)
    for verb, state in (("pause", "paused"), ("resume", "in_progress"), ("cancel", "cancelled")):
        more = ("--yes",) if verb == "cancel" else ()
        code, out, _ = fpga("train", verb, queued["id"], *more, "--json")
        assert (code, json.loads(out)["state"]) == (0, state)
    code, out, _ = fpga("train", "list")
    assert queued["id"] in out
    assert "0/12" in out
    assert "queued" in err


def test_what_cannot_be_trained_ends_with_one_and_a_sentence(fpga: Fpga, ledger: Ledger, tmp_path: Path) -> None:
    add_dataset(ledger)
    (tmp_path / "gate.toml").write_text("[[rule]]\nmetric = 'a'\n")
    for arguments, words in (
        (("--dataset", "none", "--steps", "5"), "no data set version 'none'"),
        (("--dataset", "faces", "--steps", "5", "--from", "candidate"), "'candidate'"),
        (("--dataset", "faces", "--steps", "5", "--gate", str(tmp_path / "gate.toml")), "gate rules"),
        (("--dataset", "faces", "--steps", "5", "--set", "nonsense"), "FIELD=VALUE"),
    ):
        code, _, err = fpga("train", "run", *arguments)
        assert code == 1
        assert words in err


def test_following_ends_with_two_where_the_gate_refused(fpga: Fpga, ledger: Ledger, settings: Settings) -> None:
    measure(ledger, registry.ensure_registered(ledger, settings), 0.74)
    worse = begin(ledger, settings, add_dataset(ledger))
    finish(ledger, worse, "b" * 64, 0.5)

    code, out, err = fpga("train", "watch", worse.run_id)
    assert code == 2
    assert "0.5000 is below 0.7100" in err
    assert "in_progress" not in out

    better = training.submit(
        ledger,
        settings,
        training.read_recipe({"dataset": "faces", "steps": 5, "gate": RULES, "promote": True}),
        owner="local",
    )
    version = finish(ledger, better, "c" * 64, 0.8)
    code, out, _ = fpga("train", "watch", better.run_id, "--json")
    assert code == 0
    assert json.loads(out.splitlines()[-1])["gate"]["alias"] == "champion"
    assert registry.champion(ledger, settings, "mini") == version


def test_models_are_told_apart_compared_promoted_and_rolled_back(
    fpga: Fpga, ledger: Ledger, settings: Settings, tmp_path: Path
) -> None:
    live = registry.ensure_registered(ledger, settings)
    measure(ledger, live, 0.74)
    made = begin(ledger, settings, add_dataset(ledger))
    worse = finish(ledger, made, "b" * 64, 0.6)
    retraining.conclude(ledger, made.batch_id)

    code, _, err = fpga("model", "promote", worse, "--reason", "I like it")
    assert code == 1
    assert "--override" in err
    assert fpga("model", "promote", worse, "--reason", "I like it", "--override")[0] == 0
    code, out, _ = fpga("model", "rollback", "--reason", "no", "--json")
    assert (code, json.loads(out)["id"]) == (0, live)
    _, out, err = fpga("model", "history")
    assert "against the gate" in err
    assert "rolled back, no" in err
    code, out, _ = fpga("model", "diff", live, worse, "--json")
    assert json.loads(out)["facts"]["tensor_sha256"] == ["a" * 64, "b" * 64]
    code, out, err = fpga("evaluate", "compare", live, worse, "--html", tmp_path / "page.html")
    assert code == 0
    assert (tmp_path / "page.html").read_text().count("<circle") == 2
    _, out, _ = fpga("evaluate", "compare", live, worse)
    assert "0.74 [0.71, 0.77]" in out
    assert fpga("model", "taint-report")[2].strip() == "nothing is tainted"


def test_an_evaluation_is_queued_and_listed(fpga: Fpga, ledger: Ledger, settings: Settings) -> None:
    live = registry.ensure_registered(ledger, settings)
    measure(ledger, live, 0.74)

    code, _, err = fpga("evaluate", "run", "mini@champion", "--suite", "identity", "--count", "8")
    assert (code, "is queued" in err) == (0, True)
    code, out, _ = fpga("evaluate", "list", live, "--json")
    assert [row["figures"]["face_sim"]["mean"] for row in json.loads(out)] == [0.74]
    code, _, err = fpga("evaluate", "run", "mini@champion", "--suite", "held_out")
    assert code == 1
    assert "wants a data set" in err
