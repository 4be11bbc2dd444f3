"""The candidate draws a share of a batch beside the champion, and both are shown side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.contracts.portraits import SubmitOptions
from orchestrator.errors import NotFoundError, UsageError
from orchestrator.ledger import models
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches
from orchestrator.models import registry
from orchestrator.portraits import candidate
from orchestrator.portraits.submit import Submission, submit_portraits
from orchestrator.results.side_by_side import write_side_by_side
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore
from tests.unit.orchestrator.played import AddPerson, Played, lines

MANIFEST = lines(*({"custom_id": f"p{n}", "people": "ada", "seed": n} for n in range(10)))


@pytest.fixture
def challenger(ledger: Ledger, settings: Settings) -> str:
    registry.ensure_registered(ledger, settings)
    version = models.register(
        ledger, "local", preset="mini", tensor_sha256="b" * 64, location="x", licence="Apache-2.0", manifest={}
    )
    models.promote(ledger, "local", version, alias="candidate", reason="to look at")
    return version


def submit(ledger: Ledger, settings: Settings, share: float, model: str | None = None) -> Submission:
    return submit_portraits(
        ledger,
        settings,
        manifest=MANIFEST,
        format="jsonl",
        name="night",
        owner="local",
        options=SubmitOptions.asked(candidate_share=share, model=model),
    )


def test_a_share_is_drawn_by_both_with_the_same_seeds(
    ledger: Ledger,
    settings: Settings,
    store: ByteStore,
    person: AddPerson,
    worker: Played,
    challenger: str,
    tmp_path: Path,
) -> None:
    person("ada", "generate")
    made = submit(ledger, settings, 0.3)
    assert made.candidate_batch_id is not None
    with ledger.read() as session:
        first = {item.custom_id: item.seed for item in batches.items(session, made.batch_id)}
        beside = {item.custom_id: item.seed for item in batches.items(session, made.candidate_batch_id)}
        pinned = batches.get(session, "local", made.candidate_batch_id)
    assert (len(first), len(beside)) == (10, 3)
    assert beside.items() <= first.items()
    assert (pinned.model_version_id, pinned.parent_id) == (challenger, made.batch_id)

    worker.work()
    found = candidate.pairs(ledger, store, "local", made.batch_id)
    page = write_side_by_side(tmp_path / "page.html", "night", found).read_text()

    assert {pair.custom_id: pair.seed for pair in found} == beside
    assert found == candidate.pairs(ledger, store, "local", made.candidate_batch_id)
    assert page.count("data:image/png") == 6


def test_without_a_candidate_or_with_a_wrong_share_nothing_is_queued(
    ledger: Ledger, settings: Settings, store: ByteStore, person: AddPerson
) -> None:
    person("ada", "generate")
    with pytest.raises(NotFoundError, match="'candidate'"):
        submit(ledger, settings, 0.5)
    with pytest.raises(UsageError, match="candidate_share"):
        submit(ledger, settings, 1.5)
    with ledger.read() as session:
        assert batches.listing(session, "local") == []
    made = submit(ledger, settings, 0.0)
    with pytest.raises(NotFoundError, match="no candidate"):
        candidate.pairs(ledger, store, "local", made.batch_id)


def test_a_batch_may_be_pinned_to_a_version(
    ledger: Ledger, settings: Settings, person: AddPerson, challenger: str
) -> None:
    person("ada", "generate")
    made = submit(ledger, settings, 0.0, model="mini@candidate")
    models.promote(ledger, "local", challenger, reason="now live")
    models.rollback(ledger, "local", "mini", reason="no")
    with ledger.read() as session:
        assert batches.get(session, "local", made.batch_id).model_version_id == challenger
