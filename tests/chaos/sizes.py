"""How much memory and how many open files processes have over their lives, to see what grows."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
LEAST_LOOKS = 20


@dataclass(frozen=True, kw_only=True)
class Look:
    """One process at one moment."""

    megabytes: float
    files: int


@dataclass(frozen=True, kw_only=True)
class Growth:
    """How one process grew in the last quarter of the time that it was watched, against the quarter before."""

    megabytes: float
    files: float


@dataclass
class Sizes:
    """What was seen of each process, by pid."""

    seen: dict[int, list[Look]] = field(default_factory=dict)

    def look(self, pids: Iterable[int]) -> None:
        """Note the sizes of those that live."""
        for pid in pids:
            try:
                pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
                files = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
            except OSError:
                continue
            self.seen.setdefault(pid, []).append(Look(megabytes=pages * PAGE_MB, files=files))

    @contextmanager
    def watched(self, pids: Callable[[], Iterable[int]], seconds: float) -> Iterator[None]:
        """Look every so many seconds, in a thread, until the context is left."""
        over = threading.Event()

        def watch() -> None:
            while not over.wait(seconds):
                self.look(pids())

        thread = threading.Thread(target=watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def growths(self) -> list[Growth]:
        """Return the growth of every process that was watched for long enough; the first half is for warming up."""
        return [_growth(looks) for looks in self.seen.values() if len(looks) >= LEAST_LOOKS]


def _growth(looks: list[Look]) -> Growth:
    quarter = len(looks) // 4
    before, after = looks[-2 * quarter : -quarter], looks[-quarter:]
    return Growth(
        megabytes=median(look.megabytes for look in after) - median(look.megabytes for look in before),
        files=median(look.files for look in after) - median(look.files for look in before),
    )
