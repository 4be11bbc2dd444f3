"""Which credentials reach a Prefect server, and when a proxy is asked."""

from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from orchestrator.errors import ConflictError
from orchestrator.runtime.prefect.client import Address, PrefectApi, locate
from orchestrator.settings import Settings


class Cloud(BaseHTTPRequestHandler):
    """Answers who shows the right Authorization header, and 401 to everybody else, as Prefect Cloud does."""

    wanted = "Bearer pnu_secret"

    def do_GET(self) -> None:
        known = self.headers["Authorization"] == self.wanted
        self.send_response(200 if known else 401)
        self.end_headers()
        self.wfile.write(b"true" if known else b"{}")

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    server = HTTPServer(("127.0.0.1", 0), Cloud)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()


def url(server: HTTPServer) -> str:
    return f"http://127.0.0.1:{server.server_port}/api"


def test_an_api_key_goes_as_a_bearer_token(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url(server))
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_secret")
    address = locate(Settings())
    assert address is not None
    assert "pnu_secret" not in repr(address)

    with PrefectApi(address) as prefect:
        assert prefect.healthy()


def test_a_password_still_goes_as_basic_auth(server: HTTPServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Cloud, "wanted", "Basic " + base64.b64encode(b"fpga:secret").decode())

    with PrefectApi(Address(url=url(server), auth="fpga:secret")) as prefect:
        assert prefect.healthy()


def test_a_wrong_key_is_a_refusal_and_not_an_outage(server: HTTPServer) -> None:
    with PrefectApi(Address(url=url(server), key="other")) as prefect, pytest.raises(ConflictError, match="401"):
        prefect.call("GET", "health")


@pytest.mark.parametrize(
    ("where", "here"),
    [
        ("http://127.0.0.1:4200/api", True),
        ("http://localhost:4200/api", True),
        ("http://[::1]:4200/api", True),
        ("https://api.prefect.example/api", False),
        ("http://10.0.0.5:4200/api", False),
    ],
)
def test_only_a_server_elsewhere_is_reached_through_a_proxy(where: str, here: bool) -> None:
    assert Address(url=where).here is here
