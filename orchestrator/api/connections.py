"""Connections that ask for nothing may not keep out those that do: time for a request's head, and room for the rest.

uvicorn bounds how long a connection idles between requests, but neither how long a first request may take to come nor
how many connections wait; a client without a key could hold them all.
"""

from __future__ import annotations

import asyncio
import resource
from collections import OrderedDict
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_SECONDS = 10.0
"""So long a request's line and headers may take to arrive."""
MOST = 900
"""Connections at a time; with more, the one that has waited longest without a request is closed."""
FILES = 4096
"""Open files that a server asks its system for; the usual 1024 are few more than the connections."""

_waiting: OrderedDict[Connection, None] = OrderedDict()


class Connection(H11Protocol):
    """One connection of a client."""

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Begin to wait for a request; make room if there is none."""
        super().connection_made(transport)
        self._wait()
        if len(self.connections) > MOST and _waiting:
            next(iter(_waiting)).transport.abort()

    def data_received(self, data: bytes) -> None:
        """Take bytes; once a request is whole enough to be answered, its head is here."""
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwait()
        elif self._head is None:  # a next request has begun on a connection that was kept
            self._wait()

    def on_response_complete(self) -> None:
        """Go on; a request that was sent meanwhile is waited for like a first one."""
        super().on_response_complete()
        if self.cycle is not None and not self.cycle.response_complete:
            self._unwait()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._unwait()
        super().connection_lost(exc)

    def _wait(self) -> None:
        _waiting[self] = None
        self._head = self.loop.call_later(HEAD_SECONDS, self._too_slow)

    def _unwait(self) -> None:
        _waiting.pop(self, None)
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def _too_slow(self) -> None:
        self._unwait()
        if not self.transport.is_closing():
            self.transport.abort()


def allow_files() -> None:
    """Raise this process's limit of open files as far as it may be."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted: Any = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
