"""What a route works with: the services of this process, and who is asking."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated

from fastapi import Depends, Request, Security
from fastapi.security import APIKeyCookie, HTTPAuthorizationCredentials, HTTPBearer, SecurityScopes
from fastapi.security.utils import get_authorization_scheme_param
from starlette.requests import cookie_parser

from orchestrator.access import keys
from orchestrator.access.keys import Bearer
from orchestrator.api.limits import Rate
from orchestrator.errors import AccessError, ForbiddenError
from orchestrator.ledger.engine.session import Ledger
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore

COOKIE = "fpga_session"
LOGINS_PER_MINUTE = 60
SAFE_METHODS = {"GET", "HEAD", "OPTIONS"}


@dataclass(frozen=True, kw_only=True)
class Context:
    """Opened once per process."""

    settings: Settings
    ledger: Ledger
    store: ByteStore
    rate: Rate
    logins: Rate = field(default_factory=lambda: Rate(LOGINS_PER_MINUTE))
    """By address: what comes without a key is counted too."""

    @cached_property
    def vault(self) -> Vault:
        """What seals reference pictures, secrets of webhooks, and links to files."""
        return Vault.of(self.settings)


@dataclass(frozen=True, kw_only=True)
class Caller:
    """One request's services, for the owner of its key."""

    context: Context
    bearer: Bearer

    @property
    def owner(self) -> str:
        """Whose rows this request may see."""
        return self.bearer.owner

    @property
    def ledger(self) -> Ledger:
        """The database."""
        return self.context.ledger

    @property
    def store(self) -> ByteStore:
        """The bytes."""
        return self.context.store

    @property
    def settings(self) -> Settings:
        """This deployment's settings."""
        return self.context.settings


def context_of(request: Request) -> Context:
    """Return what the application was made with."""
    context = request.app.state.context
    assert isinstance(context, Context), context
    return context


_bearer = HTTPBearer(auto_error=False, description="A key made by `fpga key create`.")
_cookie = APIKeyCookie(name=COOKIE, auto_error=False, description="A browser's session.")


def _caller(
    request: Request,
    context: Annotated[Context, Depends(context_of)],
    given: Annotated[HTTPAuthorizationCredentials | None, Security(_bearer)] = None,
    session: Annotated[str | None, Security(_cookie)] = None,
) -> Caller:
    bearer = request.scope.get("fpga_bearer") or who_asks(context.ledger, request.headers)
    if given is None and request.method not in SAFE_METHODS:
        check_origin(request)
    return Caller(context=context, bearer=bearer)


def who_asks(ledger: Ledger, headers: Mapping[str, str]) -> Bearer:
    """Return who bears the key, or the browser's session, in a request's headers.

    A program bears its key, a browser its session; neither passes for the other.

    Raises:
        AccessError: there is none, or it opens nothing.
    """
    if (said := headers.get("authorization")) is not None:
        scheme, secret = get_authorization_scheme_param(said)
        if scheme.lower() != "bearer" or not secret:
            raise AccessError("the Authorization header must be `Bearer` and a key")
        return keys.authenticate(ledger, secret)
    session = cookie_parser(headers.get("cookie", "")).get(COOKIE)
    if not session:
        raise AccessError("this needs a key: send `Authorization: Bearer KEY`", code="key_missing")
    return keys.authenticate(ledger, session, kind="session")


def check_origin(request: Request) -> None:
    """Refuse a browser's request that another site made it send; its cookie is SameSite=Strict besides.

    Raises:
        ForbiddenError: `foreign_origin`.
    """
    origin = request.headers.get("origin")
    if origin is None and request.headers.get("sec-fetch-site", "same-origin") in ("same-origin", "none"):
        return
    if origin is None or not of_this_site(request, origin):
        raise ForbiddenError("this came from another site", code="foreign_origin")


def of_this_site(request: Request, origin: str) -> bool:
    """Tell whether a browser names this site as the one that its request comes from."""
    scheme, _, host = origin.partition("://")
    # behind a proxy that speaks TLS a page is https though the request here is not, never the other way round
    return host == request.headers.get("host") and scheme in (request.url.scheme, "https")


class Allowed:
    """Dependency that lets in who has the scopes of its place.

    Args:
        cost: what the request takes of the key's rate.
        purpose: requests with one have a rate of their own beside the others.
    """

    def __init__(self, *, cost: float = 1.0, purpose: str = "") -> None:
        self._cost = cost
        self._purpose = purpose

    def __call__(self, needed: SecurityScopes, caller: Annotated[Caller, Depends(_caller)]) -> Caller:
        """Return the caller.

        Raises:
            ForbiddenError: the key has not this scope.
            LimitError: it asks too often.
        """
        caller.context.rate.take(f"{caller.bearer.rate_id} {self._purpose}", self._cost)
        for scope in needed.scopes:
            if scope not in caller.bearer.scopes:
                raise ForbiddenError(f"this needs a key with the scope {scope!r}")
        return caller


# scopes stand in the document too: OpenAPI 3.1 lists roles beside any kind of key
Reader = Annotated[Caller, Security(Allowed(), scopes=["read"])]
Viewer = Annotated[Caller, Security(Allowed(cost=0.05), scopes=["read"])]
"""Who looks at pictures: the sixty of a page take no more of the rate than three requests."""
Writer = Annotated[Caller, Security(Allowed(), scopes=["write"])]
Sender = Annotated[Caller, Security(Allowed(cost=0.1, purpose="files"), scopes=["write"])]
"""Who sends files: each takes three requests, and a folder of thousands must not keep its owner out of the pages."""
Librarian = Annotated[Caller, Security(Allowed(), scopes=["people"])]
Promoter = Annotated[Caller, Security(Allowed(), scopes=["models"])]
Admin = Annotated[Caller, Security(Allowed(), scopes=["admin"])]
