"""What is refused before any route looks at it: bodies too large, other charsets, odd bytes in addresses, floods."""

from __future__ import annotations

import re
import threading
import time
from collections import OrderedDict
from email.message import Message as Header

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import for_asker, problem
from orchestrator.errors import LimitError

JSON_BYTES = 2**20
BULK = {"/v1/batches", "/v1/batches/dry-run", "/v1/identities", "/v1/schedules", "/people", "/batches/new"}
BULKY = re.compile(r"/v1/(uploads/|batches/by-key/|batches/[^/]+/items$)")
"""Paths that take manifests, pictures or parts of files; bodies of all others are at most JSON_BYTES."""
LONGEST_URL = 8192
KNOWN_KEYS = 10_000


class Limits:
    """ASGI middleware that bounds requests; upload parts have a bound of their own, which their route holds."""

    def __init__(self, app: ASGIApp, *, body_bytes: int) -> None:
        self._app = app
        self._body_bytes = body_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _refused(path, scope["query_string"], headers)
        if refused is not None:
            status, code, detail = refused
            await for_asker(problem(path, status, code, detail), path, headers)(scope, receive, send)
            return
        limit = self._body_bytes if path in BULK or BULKY.match(path) else JSON_BYTES
        detail = f"a body has at most {limit} bytes here"
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > limit:
            await for_asker(problem(path, 413, "body_too_large", detail), path, headers)(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > limit:
                raise HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)


def _refused(path: str, query: bytes, headers: dict[str, str]) -> tuple[int, str, str] | None:
    if len(path) + len(query) > LONGEST_URL:
        return 400, "address_too_long", f"an address has at most {LONGEST_URL} characters"
    if any(ord(c) < 32 or ord(c) == 127 or 0xD800 <= ord(c) <= 0xDFFF for c in path) or b"%00" in query:
        return 400, "address_invalid", "an address holds no control characters"
    if "content-type" in headers:
        parsed = Header()
        parsed["content-type"] = headers["content-type"]
        charset = str(parsed.get_param("charset") or "utf-8").lower()
        if charset not in ("utf-8", "utf8", "us-ascii"):
            return 415, "charset", f"bodies are UTF-8, got {charset[:40]!r}"
    return None


class Rate:
    """A bucket for each key that fills with `per_minute` requests a minute and holds a quarter of that at most."""

    def __init__(self, per_minute: int) -> None:
        self._per_second = per_minute / 60
        self._most = max(1.0, per_minute / 4)
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def take(self, key_id: str, cost: float = 1.0) -> None:
        """Take one request out of the key's bucket, or a share of one.

        Raises:
            LimitError: it is empty.
        """
        moment = time.monotonic()
        with self._lock:
            left, since = self._buckets.pop(key_id, (self._most, moment))
            left = min(self._most, left + (moment - since) * self._per_second)
            # a refused request takes nothing, else several that ask again would keep each other out
            self._buckets[key_id] = (left - cost if left >= cost else left, moment)
            if len(self._buckets) > KNOWN_KEYS:
                self._buckets.popitem(last=False)
        if left < cost:
            wait = max(1, round((cost - left) / self._per_second + 0.5))
            raise LimitError("too many requests with this key", code="rate_limited", retry_after=wait)
