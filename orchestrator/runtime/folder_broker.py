"""Celery's filesystem transport for the embedded bell, with files that appear whole.

Kombu's own opens a file under its final name and then fills it: a reader that is quick, or a writer that is killed in
between, hands Celery half a message, and the worker ends. Here every file is written beside and renamed.
"""

from __future__ import annotations

import time
import uuid
from pathlib import Path
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps

UNSEEN = "~"
"""How names of files end that are not whole; no reader asks for them."""


class Channel(filesystem.Channel):  # type: ignore[misc]  # kombu has no types
    """A channel whose messages and bindings appear under their names when they are whole."""

    def _put(self, queue: str, payload: dict[str, Any], **_: Any) -> None:
        name = f"{round(time.monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        _write(Path(self.data_folder_out) / name, payload)

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        wanted = filesystem.exchange_queue_t(routing_key or "", pattern or "", queue or "")
        self.control_folder.mkdir(exist_ok=True)
        with (self.control_folder / "lock").open("a") as guard:
            filesystem.lock(guard, filesystem.LOCK_EX)  # until it is closed
            bound = self.get_table(exchange)
            if wanted not in bound:
                _write(self._exchange_file(exchange), [wanted, *bound])


class Transport(filesystem.Transport):  # type: ignore[misc]  # kombu has no types
    """Kombu's, with our channel."""

    Channel = Channel


def _write(path: Path, content: object) -> None:
    unseen = path.with_name(f"{path.name}.{uuid.uuid4()}{UNSEEN}")
    unseen.write_text(dumps(content))
    unseen.rename(path)


def install() -> None:
    """Let `filesystem://` mean this transport in this process."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
