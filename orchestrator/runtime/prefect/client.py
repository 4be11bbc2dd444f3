"""The few calls that we make to a Prefect server, over its REST interface.

Plain HTTP and not Prefect's client, because that one takes two seconds to import and reads profiles of the user's
home; commands and the sweeper want neither. Knows nothing of batches.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from ipaddress import ip_address
from types import TracebackType
from typing import Any, Self

import httpx

from orchestrator.errors import ConflictError, NotFoundError, TransientError
from orchestrator.runtime.running import find_running
from orchestrator.settings import Settings

TIMEOUT_SECONDS = 10.0
BUSY = (httpx.codes.TOO_MANY_REQUESTS, httpx.codes.SERVICE_UNAVAILABLE)
BUSY_PAUSES = (0.1, 0.3, 1.0)


@dataclass(frozen=True, kw_only=True)
class Address:
    """Where a Prefect server answers, and its `user:password` or (Prefect Cloud) API key, if it asks for one."""

    url: str
    auth: str | None = field(default=None, repr=False)
    key: str | None = field(default=None, repr=False)

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which Prefect's own programs find this server."""
        named = {"PREFECT_API_URL": self.url, "PREFECT_API_AUTH_STRING": self.auth, "PREFECT_API_KEY": self.key}
        return {name: value for name, value in named.items() if value}

    @property
    def here(self) -> bool:
        """Whether it answers on this machine."""
        host = httpx.URL(self.url).host
        return host == "localhost" or ((host[0].isdigit() or ":" in host) and ip_address(host).is_loopback)


def locate(settings: Settings) -> Address | None:
    """Return the Prefect server to use: the configured one, else the private one of a running stack, else None."""
    if settings.prefect_api_url:
        auth, key = settings.prefect_api_auth_string, settings.prefect_api_key
        return Address(
            url=settings.prefect_api_url,
            auth=auth.get_secret_value() if auth else None,
            key=key.get_secret_value() if key else None,
        )
    running = find_running(settings)
    if running is None or running.prefect_api_url is None:
        return None
    return Address(url=running.prefect_api_url, auth=running.prefect_auth)


class PrefectApi:
    """A connection to one Prefect server; use it as a context manager.

    Every call raises TransientError `prefect_unavailable` when the server cannot be reached, fails or is still
    starting, NotFoundError for what is not there and ConflictError for what it refuses.
    """

    def __init__(self, address: Address) -> None:
        user, _, password = (address.auth or "").partition(":")
        self._client = httpx.Client(
            base_url=address.url.rstrip("/") + "/",
            auth=httpx.BasicAuth(user, password) if address.auth else None,
            headers={"Authorization": f"Bearer {address.key}"} if address.key else None,
            timeout=TIMEOUT_SECONDS,
            trust_env=not address.here,  # a proxy of the environment is no way to a server on loopback
        )

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """Make one request and return its decoded JSON, or None when the answer is empty."""
        answer = self._request(method, path, body)
        if answer.status_code == httpx.codes.NOT_FOUND:
            raise NotFoundError(f"Prefect knows no {path}", code="prefect_not_found")
        if answer.is_server_error or answer.status_code in BUSY:
            raise TransientError(f"Prefect answered {answer.status_code} to {path}", code="prefect_unavailable")
        if answer.is_error:
            raise ConflictError(
                f"Prefect refused {method} {path} with {answer.status_code}: {answer.text[:300]}",
                code="prefect_refused",
            )
        return answer.json() if answer.content else None

    def _request(self, method: str, path: str, body: Any) -> httpx.Response:
        """Ask until the server has time: it answers 503 and changes nothing when two requests meet in its SQLite."""
        try:
            for pause in BUSY_PAUSES:
                answer = self._client.request(method, path, json=body)
                if answer.status_code not in BUSY:
                    return answer
                time.sleep(pause)
            return self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise TransientError(f"Prefect cannot be reached: {error}", code="prefect_unavailable") from error

    def healthy(self) -> bool:
        """Say whether the server answers now."""
        try:
            return bool(self.call("GET", "health"))
        except (TransientError, NotFoundError):
            return False

    def deployment(self, flow: str, name: str) -> dict[str, Any]:
        """Return a deployment by the names of its flow and its own."""
        found: dict[str, Any] = self.call("GET", f"deployments/name/{flow}/{name}")
        return found

    def __enter__(self) -> Self:
        """Open the connection."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the connection."""
        self._client.close()


def connect(settings: Settings) -> PrefectApi:
    """Return a connection to the Prefect server in use.

    Raises:
        TransientError: `prefect_unavailable`, none is configured and no stack runs on the state directory.
    """
    address = locate(settings)
    if address is None:
        raise TransientError(
            "no Prefect server: start `fpga up` on this state directory, or set PREFECT_API_URL",
            code="prefect_unavailable",
        )
    return PrefectApi(address)
