"""An automation in Prefect that calls a flow run crashed when its process has gone silent.

Prefect itself leaves such a run `Running` for ever. This changes Prefect's view and nothing else: no batch waits for a
flow run, an archive whose reader was killed is read on by a run of its own, and what a dead worker held comes back with
its lease.
"""

from __future__ import annotations

from typing import Any

from orchestrator.runtime.dispatch import TAG
from orchestrator.runtime.prefect.client import PrefectApi

NAME = "fpga: flow runs without a sign of life"
SILENT_SECONDS = 120
"""Four of the heartbeats that our flows send every 30 s (PREFECT_FLOWS_HEARTBEAT_FREQUENCY)."""
HEARTBEAT = "prefect.flow-run.heartbeat"
ENDS = [f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed", "AwaitingRetry")]


def watch(api: PrefectApi, *, seconds: int = SILENT_SECONDS) -> bool:
    """Create the automation unless it is there, and return whether it was created.

    Args:
        seconds: how long a run of ours may be silent; Prefect's own least is 10.

    Raises:
        TransientError: Prefect cannot be reached.
    """
    if api.call("POST", "automations/filter", {"automations": {"name": {"any_": [NAME]}}}):
        return False
    api.call("POST", "automations/", _automation(seconds))
    return True


def _automation(seconds: int) -> dict[str, Any]:
    return {
        "name": NAME,
        "description": "Made by FPGA's sweeper. It changes what Prefect shows; batches do not depend on it.",
        "enabled": True,
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.id": f"prefect.tag.{TAG}"},
            "after": [HEARTBEAT],
            "expect": [HEARTBEAT, *ENDS],
            "for_each": ["prefect.resource.id"],
            "threshold": 1,
            "within": seconds,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"no sign of life for {seconds} s; its batch goes on without it",
            }
        ],
    }
