"""One watcher for all batches: moves the flow runs that show them, from the sweeper and over Prefect's interface.

No process waits for a batch and none that waits takes a slot of the flow worker. What Prefect shows follows the ledger:
a state, a progress bar, a link and, at the end, a table of counts. Killed and started again, it asks Prefect which runs
are still alive. It decides nothing; a Prefect server that is away costs a view.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from orchestrator.contracts.base import Json
from orchestrator.errors import NotFoundError, TransientError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BatchState
from orchestrator.ledger.queue import batches
from orchestrator.runtime.dispatch import SHOWN, deliver
from orchestrator.runtime.prefect import shown, zombies
from orchestrator.runtime.prefect.client import PrefectApi, connect
from orchestrator.runtime.prefect.shown import Shown
from orchestrator.runtime.running import find_running
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
COUNT_SECONDS = 10.0
"""So often the items of batches that are under way are counted."""
PAGE = 200
"""Prefect gives no more flow runs at a time."""
ALIVE = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]


@dataclass(kw_only=True)
class _Told:
    """What Prefect was told of a batch."""

    run_id: str
    state: str = ""
    message: str = ""
    progress_id: str | None = None


class Watcher:
    """Tells Prefect of every batch that has a flow run, until nothing more will come of it."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger, self._settings = ledger, settings
        self._told: dict[str, _Told] = {}
        self._counted = float("-inf")
        self._begun = False

    def look(self) -> int:
        """Tell of what has changed and return of how many batches that was; one that cannot be told stops no other.

        Raises:
            TransientError: Prefect or the ledger does not answer; what was not told is told later.
        """
        deliver(self._ledger, self._settings, ["flow.start"], self._started)
        with self._ledger.read() as session:
            found = batches.shown(session)
        counting = time.monotonic() - self._counted >= COUNT_SECONDS
        told = self._told
        due = [one for one, (_, state) in found.items() if counting and state != BatchState.PAUSED]
        due += [one for one, (_, state) in found.items() if one not in told or told[one].state != state]
        due += [one for one in told if one not in found]
        if self._begun and not due:
            return 0
        with connect(self._settings) as api:
            if not self._begun:
                zombies.watch(api)
                for batch_id, left in self._left(api).items():
                    told.setdefault(batch_id, left)
                due += [one for one in told if one not in found]
                self._begun = True
            for batch_id in dict.fromkeys(due):
                run_id, state = found.get(batch_id, (None, "ended"))
                one = told.setdefault(batch_id, _Told(run_id=str(run_id)))
                self._tell(api, batch_id, one)
                one.state = state
        if counting:
            self._counted = time.monotonic()
        return len(due)

    def _started(self, batch_id: str, run_id: str) -> None:
        self._told[batch_id] = _Told(run_id=run_id)

    def _left(self, api: PrefectApi) -> dict[str, _Told]:
        """Return the batches whose flow runs an earlier process left alive."""
        left: dict[str, _Told] = {}
        while True:
            where = {"tags": {"all_": [SHOWN]}, "state": {"type": {"any_": ALIVE}}}
            asked = {"flow_runs": where, "limit": PAGE, "offset": len(left), "sort": "START_TIME_ASC"}
            runs = api.call("POST", "flow_runs/filter", asked)
            left |= {run["name"]: _Told(run_id=run["id"]) for run in runs}
            if len(runs) < PAGE:
                return left

    def _tell(self, api: PrefectApi, batch_id: str, told: _Told) -> None:
        try:
            found = shown.of(self._ledger, batch_id)
            self._show(api, batch_id, told, found)
        except TransientError:
            raise  # the next one would wait for the same server
        except NotFoundError as error:
            log.warning("flow run not shown", extra={"batch": batch_id, "error": error.code})
            self._told.pop(batch_id, None)
        except Exception:  # the outermost place of one batch: what is wrong with it keeps no other from being shown
            log.exception("flow run not shown", extra={"batch": batch_id})
        else:
            if found.over:
                self._told.pop(batch_id, None)

    def _show(self, api: PrefectApi, batch_id: str, told: _Told, found: Shown) -> None:
        if found.message == told.message:
            return
        if not told.message:
            self._leave(api, told, batch_id, "link", "markdown", self._link(batch_id))
        if told.progress_id is None:
            told.progress_id = self._leave(api, told, batch_id, "progress", "progress", found.percent)
        else:
            api.call("PATCH", f"artifacts/{told.progress_id}", {"data": found.percent})
        if found.table:
            self._leave(api, told, batch_id, "result", "markdown", f"**{found.message}**\n\n{found.table}")
        state = {"type": found.state, "message": found.message}
        api.call("POST", f"flow_runs/{told.run_id}/set_state", {"state": state, "force": True})
        told.message = found.message

    def _leave(self, api: PrefectApi, told: _Told, batch_id: str, what: str, kind: str, data: Json) -> str:
        artifact = {
            "key": f"{what}-{batch_id.replace('_', '-')}",
            "type": kind,
            "description": f"Batch {batch_id}",
            "data": data,
            "flow_run_id": told.run_id,
        }
        return str(api.call("POST", "artifacts/", artifact)["id"])

    def _link(self, batch_id: str) -> str:
        running = find_running(self._settings)
        if running and running.api_url:
            return f"[{batch_id}]({running.api_url}/batches/{batch_id})"
        return f"`fpga batch show {batch_id}`"
