"""Stage `probe`: stands in for the networks where the machinery around them is measured or disturbed.

It waits, then stores bytes like any other stage: the item's own mark, and random bytes of this attempt, so that a
result made twice would show. A worker refuses it unless `FPGA_PROBES` is set.
"""

from __future__ import annotations

import ctypes
import hmac
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime

from sqlalchemy.orm import Session

from orchestrator.contracts.probes import Disaster, Probed, ProbeParams
from orchestrator.errors import FpgaError, StageError
from orchestrator.ledger.queue import outputs
from orchestrator.ledger.queue.claims import Claim
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.queue.outputs import NewOutput
from workers.runtime.lease import Lease
from workers.runtime.stage import DrainedError, Ended, StageContext, upload

STEP_SECONDS = 0.1
"""So often it reports progress and looks whether it must stop."""
MARK_BYTES, ATTEMPT_BYTES = 32, 8


def probe(context: StageContext, held: Sequence[Claim], lease: Lease) -> Iterator[Ended]:
    """Wait for each of these claims, one after the other, and store what it made."""
    for c in held:
        try:
            if _wait(context, c, lease):
                yield c, _done(c)
        except FpgaError as error:
            yield c, error


def mark(batch_id: str, item_id: str) -> bytes:
    """Return the bytes with which everything that was made for this item begins."""
    return hmac.digest(batch_id.encode(), item_id.encode(), "sha256")


def _wait(context: StageContext, c: Claim, lease: Lease) -> bool:
    """Take the time that the item asks for; return whether it may be published."""
    if not context.settings.probes:
        raise StageError("this worker runs no probes; FPGA_PROBES=true allows them", code="probes_refused")
    given = ProbeParams.load(c.params)
    if given.disaster is not None:
        DISASTERS[given.disaster]()
    asked = given.milliseconds / 1000
    until = time.monotonic() + asked
    while c.stage_id not in lease.stopped:
        if context.draining():
            raise DrainedError
        rest = until - time.monotonic()
        if rest <= 0:
            return True
        time.sleep(min(rest, STEP_SECONDS))
        lease.progress(c, 1 - max(0.0, until - time.monotonic()) / asked)
    return False


def _done(c: Claim) -> Outcome:
    version_id = c.model_version_id
    assert version_id is not None, "probes are submitted with the preset's version"
    data = mark(c.batch_id, c.item_id) + os.urandom(ATTEMPT_BYTES)
    made = upload(c, data, ".bin", "application/octet-stream")

    def write(session: Session, moment: datetime) -> None:
        new = NewOutput(
            artifact_id=made.artifact, width=0, height=0, seed=c.seed, model_version_id=version_id, record={}
        )
        outputs.add(session, c, new, moment)

    return Outcome(result=Probed(sha256=made.sha256).dump(), write=write, uploads=[made])


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _segfault() -> None:
    ctypes.string_at(0)


def _take_memory() -> None:
    taken = [bytearray(1 << 26)]
    while True:
        taken.append(bytearray(1 << 26))


def _hang() -> None:
    while True:
        time.sleep(1)


def _hang_in_c() -> None:
    """Never return and never let another thread run, as a broken extension does."""
    ctypes.PyDLL(None).sleep(3600)


DISASTERS: dict[Disaster, Callable[[], None]] = {
    "kill": _die,
    "segfault": _segfault,
    "memory": _take_memory,
    "hang": _hang,
    "hang_in_c": _hang_in_c,
}
"""How an item may end the worker that takes it up."""
