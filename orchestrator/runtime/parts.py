"""What of the system is down, as far as its ledger and this machine's stack know: one sentence a part, without a call.

`fpga doctor`, Home, `fpga schedule list` and the event `part.down` say the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from orchestrator.ledger import photos, webhooks
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import outbox, sweeper
from orchestrator.runtime.running import find_running
from orchestrator.settings import Settings

PATIENCE = timedelta(minutes=1)
"""What is away for so long is down; a restart takes less."""
READ_WITHIN = timedelta(minutes=15)
"""An archive that nobody reads is tried again within ten."""
EVENTS = DOWN, UP = "part.down", "part.up"


@dataclass(frozen=True, kw_only=True)
class Down:
    """A part that does not do its work, what that means, and what to do."""

    part: str
    sentence: str
    fix: str


def down(ledger: Ledger, settings: Settings) -> list[Down]:
    """Return the parts that are down, of those that anybody asked to run."""
    found = []
    with ledger.read() as session:
        moment = now(session)
        led_until = sweeper.led_until(session)
        unread = photos.neglected(session, moment - READ_WITHIN)
        untold = outbox.stuck(session, "flow.start", moment - PATIENCE)
    if led_until is not None and led_until < moment - PATIENCE:
        since = led_until.isoformat(timespec="minutes")
        sentence = f"no sweeper runs since {since}: schedules, archives to read and work of lost workers wait"
        found.append(Down(part="sweeper", sentence=sentence, fix="start `fpga up` or `fpga sweeper run`"))
    elif unread:
        sentence = f"{unread} archives are open and nobody reads their source"
        found.append(
            Down(part="feeder", sentence=sentence, fix="see the sweeper's log, and that it reaches the source")
        )
    stack = find_running(settings)
    for part, sentence in (stack.down if stack else {}).items():
        found.append(Down(part=part, sentence=sentence, fix="mend what the log says, then start `fpga up` again"))
    if untold and "prefect-server" not in [one.part for one in found]:
        sentence = f"flow runs are not shown: {untold}; batches and schedules run all the same"
        found.append(
            Down(part="prefect-server", sentence=sentence, fix="check PREFECT_API_URL and that the server runs")
        )
    return found


class Teller:
    """Tells receivers of events when a part went down, and when it came back; the sweeper's leader asks it to."""

    def __init__(self, ledger: Ledger, settings: Settings) -> None:
        self._ledger, self._settings = ledger, settings
        self._known: dict[str, Down] = {}

    def look(self) -> None:
        """Compare with the last look and write an event for each difference."""
        found = {one.part: one for one in down(self._ledger, self._settings)}
        news = [(DOWN, found[part]) for part in found.keys() - self._known.keys()]
        news += [(UP, self._known[part]) for part in self._known.keys() - found.keys()]
        if news:
            with self._ledger.write() as session:
                for event, one in news:
                    told = {"part": one.part, "sentence": one.sentence, "fix": one.fix}
                    webhooks.announce(session, self._settings.owner, event, told, now(session))
        self._known = found
