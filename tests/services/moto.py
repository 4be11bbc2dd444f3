"""moto's S3 over HTTP, in a thread of this process: quick, and needs nothing installed."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from moto.server import ThreadedMotoServer


@contextmanager
def moto_endpoint() -> Iterator[str]:
    """Run a server that accepts any credentials; lend its endpoint URL."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)  # it writes a line for every request
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        yield f"http://{host}:{port}"
    finally:
        server.stop()
