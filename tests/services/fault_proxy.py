"""An HTTP proxy in front of a real server that spoils chosen requests: the network of a bad night, on request.

Each request takes the next planned fault; when none is planned, `rule` decides, and by default lets everything pass.
"""

from __future__ import annotations

import http.client
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import urlsplit

Fault = (
    Literal[
        "pass",
        "hang",  # take the request, never answer
        "stall",  # take half of the request body, pass nothing on, never answer
        "lose",  # pass it on, then break the connection instead of answering
        "cut",  # answer with half of the body, then break the connection
        "flip",  # change one byte of the answer's body
        "flip_request",  # change one byte of the request's body
    ]
    | int  # answer with this status instead of passing it on
)
_CODES = {409: "ConditionalRequestConflict", 501: "NotImplemented", 503: "SlowDown", 507: "InsufficientStorage"}


class FaultProxy(ThreadingHTTPServer):
    """Passes requests on to `upstream`, spoiling those that `faults` says."""

    daemon_threads = True

    def __init__(self, upstream: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.upstream = urlsplit(upstream).netloc
        self.faults: deque[Fault] = deque()
        self.rule: Callable[[str], Fault] = lambda request: "pass"
        """From `METHOD /path?query` to its fault."""
        self.seen: list[tuple[str, dict[str, str]]] = []
        """Every request as `METHOD /path` and its headers in lower case."""
        self.spoiled = threading.Event()
        """Set when a hanging or stalling fault has been reached."""
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """Where clients reach it."""
        return f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that went away."""
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)  # type: ignore[arg-type]  # what socketserver gave us

    def plan(self, *faults: Fault) -> None:
        """Spoil the next requests, one fault each, in this order."""
        self.faults.extend(faults)

    def next_fault(self, request: str) -> Fault:
        """Take the fault of this request."""
        try:
            return self.faults.popleft()
        except IndexError:
            return self.rule(request)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultProxy

    def handle_any(self) -> None:
        fault = self.server.next_fault(f"{self.command} {self.path}")
        self.server.seen.append(
            (f"{self.command} {self.path}", {name.lower(): value for name, value in self.headers.items()})
        )
        length = int(self.headers.get("Content-Length", 0))
        if fault in ("hang", "stall"):
            self.rfile.read(length // 2 if fault == "stall" else length)
            self.server.spoiled.set()
            self.server.closing.wait()
            self.close_connection = True
            return
        body = self.rfile.read(length)
        if isinstance(fault, int):
            self.refuse(fault)
            return
        if fault == "flip_request" and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        status, headers, answer = self.forward(body)
        if fault == "lose":
            self.close_connection = True
            return
        if fault == "flip" and answer:
            answer = answer[:-1] + bytes([answer[-1] ^ 1])
        self.send_response_only(status)
        for name, value in headers:
            if name.lower() not in ("transfer-encoding", "content-length", "connection"):
                self.send_header(name, value)
        stated = dict(headers).get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", stated or str(len(answer)))
        self.end_headers()
        if fault == "cut":
            self.wfile.write(answer[: len(answer) // 2])
            self.close_connection = True
        else:
            self.wfile.write(answer)

    do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = handle_any  # noqa: N815  # names that http.server asks for

    def forward(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        connection = http.client.HTTPConnection(self.server.upstream, timeout=60)
        try:
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() != "expect":
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        finally:
            connection.close()

    def refuse(self, status: int) -> None:
        code = _CODES.get(status, "InternalError")
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>spoiled on purpose</Message></Error>".encode()
        self.send_response_only(status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@contextmanager
def fault_proxy(upstream: str) -> Iterator[FaultProxy]:
    """Run a proxy in front of an endpoint URL."""
    proxy = FaultProxy(upstream)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.closing.set()
        proxy.shutdown()
        thread.join()
        proxy.server_close()
