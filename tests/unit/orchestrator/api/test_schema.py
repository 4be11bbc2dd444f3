"""Requests made up from the whole document: nothing breaks the server, and no answer is one that it does not name."""

from __future__ import annotations

import collections
import os

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import content_type_conformance, status_code_conformance

from orchestrator.access import keys
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import sweeper
from tests.unit.orchestrator.played import AddPerson

schemathesis.serializer.alias("application/offset+octet-stream", "application/octet-stream")
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance]
LONG = {"watch_batch", "watch_queue", "watch_item", "watch_training_run"}
"""Streams do not end by themselves."""
EXAMPLES = 25
SAME = "FPGA_TEST_EXPLORE" not in os.environ
"""The same requests every time; FPGA_TEST_EXPLORE=1 makes up others, which is how new faults are found."""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_request_made_from_the_document_breaks_the_server(app: FastAPI, ledger: Ledger, person: AddPerson) -> None:
    person("ada", "generate")
    assert sweeper.lead(ledger, holder="test", owner="local", seconds=3600), "or it would never be ready"
    secret, _ = keys.create(ledger, "local", name="test", scopes=keys.SCOPES)
    schema = schemathesis.openapi.from_asgi("/v1/openapi.json", app)
    tried: collections.Counter[str] = collections.Counter()
    broken: list[str] = []
    for found in schema.get_all_operations():
        operation = found.ok()
        name = operation.definition.raw["operationId"]
        if name in LONG:
            continue

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=SAME,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy())
        def check(case: schemathesis.Case) -> None:
            answer = case.call(headers={"Authorization": f"Bearer {secret}"})
            tried[case.operation.definition.raw["operationId"]] += 1
            # no Prefect server is here: that is said plainly, and is no fault of ours
            away = answer.status_code == 503 and "retry-after" in answer.headers
            try:
                case.validate_response(answer, checks=CHECKS[1:] if away else CHECKS)
            except FailureGroup as group:
                for failure in group.exceptions:
                    broken.append(f"{case.method} {case.formatted_path} {answer.status_code}: {failure!s:.300}")

        check()
    assert broken == []
    assert len(tried) > 25
    print(f"{sum(tried.values())} requests over {len(tried)} operations")  # noqa: T201 the figure for the report
