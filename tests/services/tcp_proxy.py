"""A TCP proxy before a real server: cuts all connections on request, or one of them in the middle of a commit."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

CHUNK = 1 << 16


class TcpProxy:
    """Passes bytes to `port` of this machine; `cut_commits` is the share of commits whose connection is cut.

    Half of those are cut before the server sees the commit, half after it, so that only the answer is lost.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_commits = 0.0
        self.cuts = 0
        self._chance = random.Random(seed)
        self._unanswered: set[tuple[socket.socket, socket.socket]] = set()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Break every connection that is open now."""
        for pair in list(self._pairs):
            self._close(pair)
            self.cuts += 1

    def close(self) -> None:
        """Accept nothing more and break what is open."""
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                server = socket.create_connection(self._upstream, timeout=5)
                server.settimeout(None)
            except OSError:
                client.close()
                continue
            pair = client, server
            self._pairs.add(pair)
            for source, target in (pair, (server, client)):
                threading.Thread(target=self._pass, args=(source, target, pair), daemon=True).start()

    def _pass(self, source: socket.socket, target: socket.socket, pair: tuple[socket.socket, socket.socket]) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if pair in self._unanswered:
                    break  # the server has answered, and so it has committed; nobody will hear of it
                if source is pair[0] and b"COMMIT" in data and self._chance.random() < self.cut_commits:
                    self.cuts += 1
                    if self._chance.random() < 0.5:
                        break
                    self._unanswered.add(pair)
                target.sendall(data)
        self._close(pair)

    def _close(self, pair: tuple[socket.socket, socket.socket]) -> None:
        self._pairs.discard(pair)
        self._unanswered.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


@contextlib.contextmanager
def tcp_proxy(port: int, *, seed: int = 0) -> Iterator[TcpProxy]:
    """Run a proxy before a port of this machine."""
    proxy = TcpProxy(port, seed=seed)
    try:
        yield proxy
    finally:
        proxy.close()
