"""A TCP proxy before a real server: cuts all connections on request, one of them in the middle of a commit, or any.

A stand-in for `tc netem` and toxiproxy, of which the usual kernels of containers have the one and Debian the other not.
"""

from __future__ import annotations

import contextlib
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

CHUNK = 1 << 16
Pair = tuple[socket.socket, socket.socket]


@dataclass(frozen=True, kw_only=True)
class Weather:
    """What a network does to each piece of data (at most `CHUNK` bytes), by seconds (from, to) and by chance."""

    delay: tuple[float, float] = (0.0, 0.0)
    """Each way; the next piece of the same connection is taken up after it."""
    stalls: float = 0.0
    stall: tuple[float, float] = (0.0, 0.0)
    """Nothing is lost, all of it comes late."""
    resets: float = 0.0
    silences: float = 0.0
    silence: tuple[float, float] = (0.0, 0.0)
    """Both ways are dead without a word for so long, then the connection is reset: a half-open connection, as it ends
    where TCP's own timeouts act. They cannot act here, since the proxy's kernel goes on answering for the other end."""


CALM = Weather()


class TcpProxy:
    """Passes bytes to `port` of this machine; `cut_commits` is the share of commits whose connection is cut.

    Half of those are cut before the server sees the commit, half after it, so that only the answer is lost.
    `weather` says what happens to everything else; it may change at any time.
    """

    def __init__(self, port: int, *, seed: int = 0) -> None:
        self._upstream = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.cut_commits = 0.0
        self.cuts = 0
        self.weather = CALM
        self.stalls = self.resets = self.silences = 0
        self._chance = random.Random(seed)
        self._unanswered: set[Pair] = set()
        self._silent: set[Pair] = set()
        self._pairs: set[Pair] = set()
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

    def _pass(self, source: socket.socket, target: socket.socket, pair: Pair) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(CHUNK):
                if pair in self._unanswered:
                    break  # the server has answered, and so it has committed; nobody will hear of it
                if source is pair[0] and b"COMMIT" in data and self._chance.random() < self.cut_commits:
                    self.cuts += 1
                    if self._chance.random() < 0.5:
                        break
                    self._unanswered.add(pair)
                if self.weather is not CALM and not self._survives(pair):
                    break
                if pair not in self._silent:
                    target.sendall(data)
        self._close(pair)

    def _survives(self, pair: Pair) -> bool:
        """Let the weather act on one piece of data; return whether its connection goes on."""
        weather, fate = self.weather, self._chance.random()
        time.sleep(self._chance.uniform(*weather.delay))
        if fate < weather.resets:
            self.resets += 1
            self._reset(pair)
            return False
        fate -= weather.resets
        if fate < weather.silences and pair not in self._silent:
            self.silences += 1
            self._silent.add(pair)
            time.sleep(self._chance.uniform(*weather.silence))
            self._reset(pair)
            return False
        fate -= weather.silences
        if 0 <= fate < weather.stalls:
            self.stalls += 1
            time.sleep(self._chance.uniform(*weather.stall))
        return True

    def _reset(self, pair: Pair) -> None:
        """End a connection with RST on both sides."""
        for end in pair:
            with contextlib.suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._close(pair, how=socket.SHUT_RD)

    def _close(self, pair: Pair, *, how: int = socket.SHUT_RDWR) -> None:
        for known in (self._pairs, self._unanswered, self._silent):
            known.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(how)
            end.close()


@contextlib.contextmanager
def tcp_proxy(port: int, *, seed: int = 0) -> Iterator[TcpProxy]:
    """Run a proxy before a port of this machine."""
    proxy = TcpProxy(port, seed=seed)
    try:
        yield proxy
    finally:
        proxy.close()
