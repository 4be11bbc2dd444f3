"""The product's Celery application as a later version may be: `celery -A tests.chaos.tomorrow_app worker`.

It knows one stage more, the one that FPGA_TEST_STAGE names; what it does is what the probe does.
"""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

from orchestrator import pipelines
from orchestrator.pipelines import Pipeline, Stage
from workers.celery import app
from workers.stages import probes
from workers.stages.probes.probe import probe

__all__ = ["app"]

STAGE = os.environ["FPGA_TEST_STAGE"]

app.conf.include = [*app.conf.include, __name__]  # the computing child is spawned and imports these
# items go through the one or through the other: a stage that gathers is passed by
newer = Stage(STAGE, "cpu.io", "probes", gathers=True)
pipelines.PIPELINES = {**pipelines.PIPELINES, "probe": Pipeline("probe", (Stage("probe", "cpu.io", "probes"), newer))}
sys.modules[f"{probes.__name__}.{STAGE}"] = SimpleNamespace(**{STAGE: probe})  # type: ignore[assignment]  # its one function
