"""Webhooks: events of the ledger, signed as Standard Webhooks says, delivered at least once beside everything else.

A receiver whose address is `mailto:` gets a mail instead (`mail.py`).

An event is written in the transaction that it tells of. A thread of the sweeper delivers, so that a dead receiver
delays no job; each receiver has its own back-off, all are told side by side, and however slowly one answers, it has
a moment and no more. Where a name leads is looked up once, every address is checked, and the connection goes to the
very address that was checked.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import secrets
import socket
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import httpx

from orchestrator.errors import ConflictError, FpgaError, ReceiverError, UsageError
from orchestrator.ledger import webhooks
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.tables.rows_api import Delivery, Webhook, webhook_place
from orchestrator.runtime import mail, parts
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings

log = logging.getLogger(__name__)
EVENTS = ("batch.ended", "schedule.failed", *parts.EVENTS, "ping")
SECRET_PREFIX = "whsec_"
TIMEOUT = httpx.Timeout(10.0, connect=5.0)
WHOLE_SECONDS = 15.0
"""So long a receiver has for everything; the timeouts above only bound each step."""
MOST = 20
"""So many receivers one owner may have."""


def add(ledger: Ledger, settings: Settings, vault: Vault, owner: str, *, url: str, events: list[str]) -> dict[str, Any]:
    """Enter a receiver and return it with its secret, which is not shown again.

    Raises:
        UsageError: the address is neither https nor mail that the operator allows, or leads to a private network; an
            event is not known.
        ConflictError: the owner has too many receivers.
    """
    unknown = sorted(set(events) - set(EVENTS))
    if unknown or not events:
        raise UsageError(f"an event is {' or '.join(EVENTS)}; got {', '.join(unknown) or 'none'}", code="bad_event")
    if url.startswith(mail.SCHEME):
        mail.check(settings, url)
    else:
        check_url(url, private=settings.webhook_private)
    secret = SECRET_PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()
    webhook_id = new_id("whk")
    envelope = vault.new(webhook_place(webhook_id, url))
    with ledger.read() as session:
        if len(webhooks.listing(session, owner)) >= MOST:
            raise ConflictError(f"an owner has at most {MOST} webhooks", code="too_many_webhooks")
    row = webhooks.add(
        ledger,
        webhook_id=webhook_id,
        owner=owner,
        url=url,
        events=sorted(set(events)),
        data_key=envelope.key,
        secret=vault.seal(envelope, secret.encode()).decode(),
    )
    return {**as_object(row), "secret": secret}


def check_url(url: str, *, private: bool) -> None:
    """Check what an address says, before it is looked up.

    Raises:
        UsageError: it is no https address, holds a password or a fragment, or names a private network.
    """
    try:
        parts, sent_to = urlsplit(url), httpx.URL(url)
        host, port = parts.hostname, parts.port
    except (ValueError, httpx.InvalidURL) as error:  # the second is who delivers
        raise UsageError("a webhook's url cannot be read", code="url_invalid") from error
    if host != sent_to.host.strip("[]"):
        raise UsageError("a webhook's url can be read in two ways", code="url_invalid")
    if parts.scheme not in (("https", "http") if private else ("https",)) or not host:
        raise UsageError("a webhook's url begins with https://", code="url_invalid")
    if parts.username or parts.password or parts.fragment or port == 0 or len(url) > 2000 or not url.isascii():
        raise UsageError("a webhook's url is plain: no user, password or fragment", code="url_invalid")
    if not private:
        try:
            check_address(ipaddress.ip_address(host))
        except ValueError:
            with suppress(OSError):  # a name; but some spell an address so: 0x7f.1, 2130706433
                check_address(ipaddress.IPv4Address(socket.inet_aton(host)))
            if host == "localhost" or host.endswith((".localhost", ".local", ".internal")):
                raise UsageError(f"{host} is on a private network", code="address_private") from None


def check_address(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    """Check that an address is a public one.

    Raises:
        UsageError: `address_private`.
    """
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is not None:
            check_address(inner)
        elif address in NAT64:
            check_address(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
        if any(address in network for network in NEVER):
            raise UsageError(f"{address} is not a public address", code="address_private")
    if not address.is_global or address.is_multicast:
        raise UsageError(f"{address} is not a public address", code="address_private")


NAT64 = ipaddress.ip_network("64:ff9b::/96")
NEVER = [
    ipaddress.ip_network(one)
    for one in (
        "64:ff9b:1::/48",  # a network's own translation to IPv4 (RFC 8215)
        "::/96",  # IPv4-compatible, deprecated
        "::ffff:0:0:0/96",  # IPv4-translated
        "fec0::/10",  # site-local, deprecated
        "5f00::/16",  # segments inside a network (RFC 9602)
        "3fff::/20",  # documentation (RFC 9637)
    )
]
"""IPv6 ranges that lead, or once led, to private places, and that Python's `is_global` lets through."""


def resolve(host: str, port: int, *, private: bool) -> str:
    """Look a name up once and return the address to connect to.

    Raises:
        ReceiverError: there is no such name.
        UsageError: one of its addresses is private: then none is used.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ReceiverError(f"{host} cannot be looked up") from error
    addresses = [str(entry[4][0]).partition("%")[0] for entry in found]
    if not private:
        for address in addresses:
            check_address(ipaddress.ip_address(address))
    return addresses[0]


def sign(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """Return the signature of the Standard Webhooks specification: HMAC-SHA256 over id, time and body."""
    key = base64.b64decode(secret.removeprefix(SECRET_PREFIX))
    said = f"{message_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.new(key, said, hashlib.sha256).digest()).decode()


def request(settings: Settings, receiver: Webhook, secret: str, delivery: Delivery, moment: datetime) -> httpx.Request:
    """Return the signed request of one event, to the address that was checked.

    Raises:
        ReceiverError: there is no such name.
        UsageError: its address is private by now.
    """
    body = json.dumps(delivery.body, ensure_ascii=False, separators=(",", ":")).encode()
    stamp = int(moment.timestamp())
    check_url(receiver.url, private=settings.webhook_private)
    url = httpx.URL(receiver.url)
    port = url.port or (443 if url.scheme == "https" else 80)
    address = resolve(url.host, port, private=settings.webhook_private)
    headers = {
        "Content-Type": "application/json",
        "Host": url.netloc.decode("ascii"),
        "User-Agent": "fpga-webhooks/1",
        "webhook-id": delivery.id,
        "webhook-timestamp": str(stamp),
        "webhook-signature": sign(secret, delivery.id, stamp, body),
    }
    # the certificate is checked for the name, the connection goes to the address
    told = {"sni_hostname": url.host, "timeout": TIMEOUT.as_dict()}
    return httpx.Request("POST", url.copy_with(host=address), content=body, headers=headers, extensions=told)


async def send(asked: httpx.Request) -> int:
    """Send one event and return the receiver's status; its answer is not read.

    Raises:
        ReceiverError: it could not be reached, took too long, or answered with anything but 2xx; redirects are not
            followed.
    """
    host = str(asked.extensions["sni_hostname"])
    try:
        async with asyncio.timeout(WHOLE_SECONDS), httpx.AsyncClient(trust_env=False) as http:
            answer = await http.send(asked, stream=True)
            await answer.aclose()
    except TimeoutError as error:
        raise ReceiverError(f"{host} took longer than {WHOLE_SECONDS:g} s") from error
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ReceiverError(f"{type(error).__name__} at {host}") from error
    if not 200 <= answer.status_code < 300:
        raise ReceiverError(f"{host} answered {answer.status_code}", answer.status_code)
    return answer.status_code


def deliver(ledger: Ledger, settings: Settings) -> int:
    """Deliver the oldest due event of each receiver, side by side, and return how many were taken."""
    with ledger.read() as session:
        moment = now(session)
        due = webhooks.due(session, moment)
    return sum(asyncio.run(_round(ledger, settings, due, moment)))


async def _round(
    ledger: Ledger, settings: Settings, due: Sequence[tuple[Delivery, Webhook]], moment: datetime
) -> list[bool]:
    vault = Vault.of(settings)

    async def one(delivery: Delivery, receiver: Webhook) -> bool:
        try:
            if receiver.url.startswith(mail.SCHEME):
                status = await asyncio.to_thread(mail.send, settings, mail.check(settings, receiver.url), delivery)
            else:
                secret = vault.open(receiver.envelope, receiver.secret.encode()).decode()
                asked = await asyncio.to_thread(request, settings, receiver, secret, delivery, moment)
                status = await send(asked)
        except FpgaError as error:
            log.warning("webhook postponed", extra={"delivery": delivery.id, "error": error.code})
            status_seen = error.status if isinstance(error, ReceiverError) else None
            await asyncio.to_thread(webhooks.postpone, ledger, delivery, error.message, status_seen)
            return False
        except Exception as error:  # the outermost place of one row: what it says may not end the loop for others
            log.error("webhook postponed", exc_info=error, extra={"delivery": delivery.id})
            await asyncio.to_thread(webhooks.postpone, ledger, delivery, type(error).__name__, None)
            return False
        await asyncio.to_thread(webhooks.sent, ledger, delivery.id, status)
        return True

    return await asyncio.gather(*(one(delivery, receiver) for delivery, receiver in due))


def as_object(row: Webhook) -> dict[str, Any]:
    """Return the JSON object of a receiver; its secret is not in it."""
    return {
        "id": row.id,
        "object": "webhook",
        "url": row.url,
        "events": row.events,
        "created_at": row.created_at.isoformat(),
    }


def delivery_object(row: Delivery) -> dict[str, Any]:
    """Return the JSON object of an event on its way."""
    return {
        "id": row.id,
        "object": "webhook.delivery",
        "webhook_id": row.webhook_id,
        "event": row.event,
        "state": row.state,
        "tries": row.tries,
        "status": row.status,
        "error": row.error,
        "created_at": row.created_at.isoformat(),
        "next_at": row.next_at.isoformat() if row.state == "due" else None,
        "sent_at": row.sent_at.isoformat() if row.sent_at else None,
    }
