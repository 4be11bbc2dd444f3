"""Server-sent events: one look at the ledger for all streams of a batch, whatever their number.

A stream stands at a place in what happened. It reads what lies behind from the ledger, page by page, until it has
caught up with the feed's short log, and follows that; so memory does not grow with streams, items or slow readers.
"""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import json
import logging
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Any

from starlette.concurrency import run_in_threadpool

from orchestrator.access import keys
from orchestrator.api.context import Caller
from orchestrator.errors import AccessError, FpgaError, TransientError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Item
from orchestrator.ledger.views import events, listings
from orchestrator.ledger.views.events import Event, Place
from orchestrator.results import results

log = logging.getLogger(__name__)
LOOK_SECONDS = 0.5
PING_SECONDS = 15.0
KEPT = 1024
"""Events that a feed remembers; who is further behind reads the ledger."""
MOST_STREAMS, MOST_OF_OWNER = 1000, 250
Chunk = tuple[Place, bytes]


class Feed:
    """What happens to one batch, or to all batches of an owner, while somebody watches."""

    def __init__(self, ledger: Ledger, owner: str, batch_id: str | None, start: Place) -> None:
        self._ledger, self._owner, self._batch_id = ledger, owner, batch_id
        self._log: list[Chunk] = []
        self._floor = self._head = start
        self._news = asyncio.Event()
        self.progress = b""
        self.ended = False
        self.watchers = 0

    async def run(self) -> None:
        """Look for news until nobody watches."""
        while self.watchers:
            with contextlib.suppress(TransientError):  # the next look may be luckier
                try:
                    found, progress, ended = await run_in_threadpool(self._look)
                except TransientError:
                    raise
                except Exception as error:  # the outermost place of a feed: its listeners are told, others live on
                    log.error("feed ended", exc_info=error, extra={"batch": self._batch_id})
                    self.ended, self._head = True, self._floor
                    self._news.set()
                    return
                self._log += found
                if found:
                    self._head = found[-1][0]
                if len(self._log) > 2 * KEPT:
                    self._floor = self._log[-KEPT - 1][0]
                    del self._log[:-KEPT]
                if found or progress != self.progress or ended != self.ended:
                    self.progress, self.ended = progress, ended
                    self._news.set()
                    self._news = asyncio.Event()
                if len(found) == events.PAGE:
                    continue
            await asyncio.sleep(LOOK_SECONDS)

    async def stream(self, after: Place) -> AsyncIterator[bytes]:
        """Yield every event behind a place, progress in between, and an empty piece when nothing happened for long."""
        told = b""
        while True:
            news = self._news
            if after < self._floor:
                for place, chunk in await run_in_threadpool(self._read, after):
                    yield chunk
                    after = place
                continue
            for place, chunk in self._log[bisect.bisect_right(self._log, after, key=lambda one: one[0]) :]:
                if place.id.startswith(events.LAST) and self.progress != told:
                    told = self.progress  # a reader who leaves at the end of the batch has heard the last counts
                    yield told
                yield chunk
                after = place
            if self.progress != told:
                told = self.progress
                yield told
            if self.ended and after >= self._head:
                return
            try:
                await asyncio.wait_for(news.wait(), PING_SECONDS)
            except TimeoutError:
                yield b""

    def _look(self) -> tuple[list[Chunk], bytes, bool]:
        with self._ledger.read() as session:
            if self._batch_id is None:
                progress: dict[str, object] = {"queues": listings.queues(session, self._owner)}
                found = events.since(session, self._owner, self._head)
                return self._written(found), sent("queue", progress), False
            batch = listings.batch(session, self._owner, self._batch_id)
            over = batch.state in BATCH_ENDED  # before the look: what ends after it is seen by the next one
            found = events.since(session, self._owner, self._head, batch_id=self._batch_id)
            counts = batches.counts(session, batch.id)
            told = any(one.name == "batch.ended" for one in found) or self._head.id.startswith(events.LAST)
            progress = {"state": batch.state, "counts": counts, "verdicts": batches.verdict_counts(session, batch.id)}
            return self._written(found), sent("batch.progress", progress), over and told

    def _read(self, after: Place) -> list[Chunk]:
        with self._ledger.read() as session:
            found = events.since(session, self._owner, after, batch_id=self._batch_id)
        # beyond the log's beginning the log goes on
        return self._written([one for one in found if one.place <= self._floor]) or [(self._floor, b"")]

    def _written(self, found: list[Event] | Any) -> list[Chunk]:
        return [(one.place, sent(one.name, _body(self._ledger, one), str(one.place))) for one in found]


def _body(ledger: Ledger, one: Event) -> dict[str, Any]:
    if isinstance(one.row, Item) and one.stage is not None:
        item = one.row
        said = {"object": "batch.item.drawn", "batch_id": item.batch_id, "id": item.id, "custom_id": item.custom_id}
        return {**said, "round": one.stage.round, "output_id": item.output_id}
    if isinstance(one.row, Item):
        return results.item_line(one.row, None)
    with ledger.read() as session:
        return results.batch_line(one.row, batches.counts(session, one.row.id))


class Feeds:
    """The feeds of this process, each alive as long as somebody watches it."""

    def __init__(self) -> None:
        self._feeds: dict[tuple[str, str | None], Feed] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._streams: Counter[str] = Counter()

    async def counted(self, caller: Caller, events: AsyncGenerator[bytes]) -> AsyncIterator[bytes]:
        """Yield a stream of any kind while there are not too many, of this owner or of all."""
        owner = caller.owner
        if self._streams[owner] >= MOST_OF_OWNER or self._streams.total() >= MOST_STREAMS:
            yield sent("error", {"code": "too_many_streams", "message": "too many streams; poll instead"})
            return
        self._streams[owner] += 1
        try:
            async with contextlib.aclosing(events):
                async for chunk in events:
                    yield chunk
        finally:
            self._streams[owner] -= 1

    async def watch(self, caller: Caller, batch_id: str | None, after: Place) -> AsyncGenerator[bytes]:
        """Yield the events of a batch, or of the caller's batches, behind a place; pings while nothing happens.

        The key is asked for again with every ping: a revoked one hears no more.
        """
        key = (caller.owner, batch_id)
        feed = self._feeds.get(key)
        if feed is None:
            feed = self._feeds[key] = Feed(caller.ledger, caller.owner, batch_id, after)
        feed.watchers += 1
        if feed.watchers == 1:
            task = asyncio.create_task(feed.run())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        try:
            yield b"retry: 2000\n\n"
            async for chunk in feed.stream(after):
                if not chunk:
                    await run_in_threadpool(_still_valid, caller)
                yield chunk or b": ping\n\n"
        except AccessError:
            return
        finally:
            feed.watchers -= 1
            if not feed.watchers:
                self._feeds.pop(key, None)


async def changes(caller: Caller, name: str, look: Callable[[], tuple[dict[str, Any], bool]]) -> AsyncGenerator[bytes]:
    """Yield one thing's state whenever it differs from the last one told; `look` says too whether it has ended."""
    told = None
    quiet = 0.0
    yield b"retry: 2000\n\n"
    while True:
        try:
            state, ended = await run_in_threadpool(look)
            chunk = sent(name, state)
            if chunk != told:
                told, quiet = chunk, 0.0
                yield chunk
            if ended:
                return
            quiet += 2 * LOOK_SECONDS
            if quiet >= PING_SECONDS:
                quiet = 0.0
                await run_in_threadpool(_still_valid, caller)
                yield b": ping\n\n"
        except TransientError:
            pass
        except FpgaError:
            return  # it was erased, or the key was revoked
        await asyncio.sleep(2 * LOOK_SECONDS)


def sent(name: str, body: dict[str, Any], event_id: str | None = None) -> bytes:
    """Return one event as it is sent."""
    first = f"id: {event_id}\n" if event_id else ""
    return f"{first}event: {name}\ndata: {json.dumps(body, ensure_ascii=False)}\n\n".encode()


def _still_valid(caller: Caller) -> None:
    """Raise AccessError where the key of a stream was revoked or has expired."""
    with caller.ledger.read() as session:
        keys.check_alive(session, caller.bearer.key_id)
