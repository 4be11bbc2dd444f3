"""Where a server listens and where a browser finds it, whatever kind of address that is."""

from __future__ import annotations

import socket

import pytest

from orchestrator.embedded.programs import free_port
from orchestrator.errors import UsageError
from orchestrator.runtime.running import listen, web_url


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:7"),
        ("0.0.0.0", "http://127.0.0.1:7"),
        ("::1", "http://[::1]:7"),
        ("::", "http://[::1]:7"),
        ("studio.example", "http://studio.example:7"),
    ],
)
def test_a_browser_is_sent_to_an_address_that_it_understands(host: str, url: str) -> None:
    assert web_url(host, 7) == url


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::1", "::"])
def test_a_port_that_is_taken_is_a_sentence_and_another_one_is_found(host: str) -> None:
    if ":" in host and not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    with listen(host, 0) as taken:
        port = int(taken.getsockname()[1])
        assert free_port(host, port) != port
        with pytest.raises(UsageError, match="FPGA_API_PORT") as caught:
            listen(host, port)
        assert caught.value.code == "port_taken"
        kinds = ("127.0.0.1", "::1") if host == "::" else ("::1",) if host == "::1" else ("127.0.0.1",)
        for near in kinds:
            socket.create_connection((near, port), 5).close()


def test_an_address_of_another_machine_is_a_sentence() -> None:
    with pytest.raises(UsageError, match="cannot be served"):
        free_port("203.0.113.7", 0)
