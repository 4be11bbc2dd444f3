"""Follows a batch until it has ended: a live picture on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.cli.common import FinishError, Place, print_lines, say, screen, words

if TYPE_CHECKING:
    from rich.console import RenderableType

    from orchestrator.errors import TransientError
    from orchestrator.status.progress import Progress

LINE_SECONDS = 5.0
BAR_WIDTH = 40
INTERRUPTED = 130


class _Watched:
    """A batch that is looked at until there is nothing to wait for; a database that restarts is told of once."""

    def __init__(self, s: Place, batch_id: str, *, wait_paused: bool) -> None:
        self._s, self._batch_id, self._wait_paused = s, batch_id, wait_paused
        self._away = False

    def each_look(self, tell: Callable[[Progress], None]) -> Progress:
        from orchestrator.status.watching import until

        return until(self._look, self._ended, tell, away=self._tell_away)

    def _look(self) -> Progress:
        found = self._s.look(self._batch_id)
        if self._away:
            say("it answers again")
        self._away = False
        return found

    def _ended(self, found: Progress) -> bool:
        return found.ended or (found.state == "paused" and not self._wait_paused)

    def _tell_away(self, error: TransientError) -> None:
        if not self._away:
            say(f"{error.message}; waiting until it does")
        self._away = True


def follow(s: Place, batch_id: str, *, as_json: bool = False, title: str = "", wait_paused: bool = False) -> Progress:
    """Show a batch until it has ended or is paused and return the last look; Ctrl-C leaves it running.

    Args:
        as_json: print one JSON object on standard output for each change, instead of showing anything.
        wait_paused: stay while it is paused.

    Raises:
        FinishError: interrupted; how to come back has been said.
    """
    watched = _Watched(s, batch_id, wait_paused=wait_paused)
    try:
        if as_json:
            return _each_change(watched, lambda look: print_lines([look.as_json()]))
        if sys.stderr.isatty():
            return _live(watched, title)
        return _each_line(watched)
    except KeyboardInterrupt:
        say(f"\nThe batch goes on. Come back with: fpga batch watch {batch_id}")
        raise FinishError(INTERRUPTED) from None


def _live(watched: _Watched, title: str) -> Progress:
    from rich.live import Live

    with Live(console=screen(), auto_refresh=False) as live:
        shown: tuple[object, ...] = ()

        def tell(found: Progress) -> None:
            nonlocal shown
            state = (found.state, found.counts, found.stages, _when(found))
            if state != shown:
                live.update(_picture(found, title), refresh=True)
            shown = state

        return watched.each_look(tell)


def _each_line(watched: _Watched) -> Progress:
    told, seen = float("-inf"), None

    def tell(found: Progress) -> None:
        nonlocal told, seen
        state = (found.state, found.counts)
        if found.ended or (state != seen and time.monotonic() - told >= LINE_SECONDS):
            told, seen = time.monotonic(), state
            say(_line(found))

    return watched.each_look(tell)


def _each_change(watched: _Watched, tell: Callable[[Progress], None]) -> Progress:
    seen: tuple[object, ...] = ()

    def tell_changes(found: Progress) -> None:
        nonlocal seen
        state = (found.state, found.counts, found.stages)
        if state != seen:
            tell(found)
        seen = state

    return watched.each_look(tell_changes)


def _line(found: Progress) -> str:
    parts = [f"{found.done}/{found.total}", found.state, words(found.counts), _stages(found), _when(found)]
    return " · ".join(part for part in parts if part)


def _picture(found: Progress, title: str) -> RenderableType:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    bar = Table.grid(padding=(0, 1))
    bar.add_row(
        ProgressBar(total=1, completed=1 if found.ended else found.share, width=BAR_WIDTH),
        Text(f"{found.done}/{found.total}", style="bold"),
        Text(found.state),
        Text(_when(found), style="cyan"),
    )
    lines: list[RenderableType] = [
        Text(f"{title or 'batch'} {found.batch_id}", style="bold"),
        bar,
        Text(f"  {words(found.counts)}"),
    ]
    if stages := _stages(found):
        lines.append(Text(f"  now: {stages}"))
    if found.verdicts:
        lines.append(Text(f"  verdicts: {words(found.verdicts)}"))
    if found.errors:
        lines.append(Text(f"  errors: {words(found.errors)}", style="red"))
    if found.run_p50 is not None:
        lines.append(Text(f"  a stage waited {found.queue_p50:.1f} s and ran {found.run_p50:.1f} s (medians)", "dim"))
    return Group(*lines)


def _stages(found: Progress) -> str:
    return ", ".join(
        f"{stage.name} {stage.running} running {stage.progress:.0%}"
        + (f", {stage.waiting} waiting" if stage.waiting else "")
        if stage.running
        else f"{stage.name} {stage.waiting} waiting"
        for stage in found.stages
    )


def _when(found: Progress) -> str:
    from orchestrator.planning.estimate import describe
    from orchestrator.wording import duration

    if found.ended:
        return f"after {duration(found.elapsed)}"
    if found.state == "paused":
        return "paused; `fpga batch show` says why"
    if not found.workers:
        return "no worker runs; start one with `fpga up`"
    if found.eta is None:
        lacking = f": {' and '.join(found.unmeasured)} never ran here" if found.unmeasured else ""
        return f"{duration(found.elapsed)} so far, {describe(None)}{lacking}"
    return f"{describe(found.eta)} to go"
