"""What is refused before any route looks at it: bodies too large, other charsets, odd bytes in addresses, floods."""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from email.message import Message as Header
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from orchestrator.api.problems import for_asker, from_error, problem
from orchestrator.errors import AccessError, LimitError
from orchestrator.settings import Settings

JSON_BYTES = 2**20
BULK = {"/v1/batches", "/v1/batches/dry-run", "/v1/identities", "/v1/schedules", "/people", "/batches/new"}
BULKY = re.compile(r"/v1/(uploads/|batches/by-key/|batches/[^/]+/items$)")
"""Paths that take manifests, pictures or parts of files; bodies of all others are at most JSON_BYTES."""
KEYLESS = {"/login", "/logout"}
"""Paths whose small bodies are read without a key."""
BODY_SECONDS, IDLE_SECONDS, SLOWEST = 60.0, 30.0, 4096
"""A body has a minute, and a second more for every SLOWEST bytes that arrived; no two pieces lie further apart."""
LONGEST_URL = 8192
KNOWN_KEYS = 10_000
Authenticate = Callable[[Mapping[str, str]], Any]


class Limits:
    """ASGI middleware that bounds requests, and asks for the key before a byte of a body is read.

    Args:
        body_bytes: of bodies that hold manifests, pictures or parts of files.
        authenticate: returns who asks, by a request's headers, or raises AccessError.
        hosts: by which names this server is called.
    """

    def __init__(self, app: ASGIApp, *, body_bytes: int, authenticate: Authenticate, hosts: frozenset[str]) -> None:
        self._app = app
        self._body_bytes = body_bytes
        self._authenticate = authenticate
        self._hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        refused = _unknown_host(headers.get("host"), self._hosts) or _refused(path, scope["query_string"], headers)
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
        if path not in KEYLESS and _has_body(headers):
            try:
                scope["fpga_bearer"] = await run_in_threadpool(self._authenticate, headers)
            except AccessError as error:
                await for_asker(from_error(path, error), path, headers)(scope, receive, send)
                return
        received, whole, began = 0, False, time.monotonic()

        async def counted() -> Message:
            nonlocal received, whole
            if whole:  # what comes now is the client's leaving
                return await receive()
            left = BODY_SECONDS + received / SLOWEST - (time.monotonic() - began)
            try:
                message = await asyncio.wait_for(receive(), max(0.1, min(IDLE_SECONDS, left)))
            except TimeoutError as error:
                raise HTTPException(408, "the body came too slowly") from error
            received += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if received > limit:
                raise HTTPException(413, detail)
            return message

        await self._app(scope, counted, send)


def _has_body(headers: Mapping[str, str]) -> bool:
    return "transfer-encoding" in headers or headers.get("content-length", "0") != "0"


def own_hosts(settings: Settings) -> frozenset[str]:
    """Return the names by which clients may call this server: the setting's, localhost, and the machine's own."""
    given = {name.strip().lower().rstrip(".") for name in settings.allowed_hosts.split(",") if name.strip()}
    return frozenset({*given, "localhost", settings.api_host.lower(), socket.gethostname().lower()})


def _unknown_host(host: str | None, known: frozenset[str]) -> tuple[int, str, str] | None:
    """Refuse a name that is none of ours: some page's own, which was made to lead here, or one that links would copy.

    An address names nobody, so it cannot be made to lead elsewhere.
    """
    if host is None or "*" in known:
        return None
    name, bracket, _ = host.rpartition("]")
    bare = name.removeprefix("[") if bracket else host.partition(":")[0]
    if bare.lower().rstrip(".") in known or _is_address(bare):
        return None
    return 400, "host_unknown", f"this server is not called {bare[:80]!r}; its operator names it in FPGA_ALLOWED_HOSTS"


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


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
