"""Events as mail, through the operator's own SMTP server, to addresses that the operator allowed.

A receiver of events whose address is `mailto:NAME@HOST` gets a mail instead of a request. Mails name no person: ids,
states and counts, as webhooks do.
"""

from __future__ import annotations

import smtplib
import ssl
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit

from orchestrator.contracts.base import JsonObject
from orchestrator.errors import ReceiverError, UsageError
from orchestrator.ledger.tables.rows_api import Delivery
from orchestrator.settings import Settings
from orchestrator.wording import number

SCHEME = "mailto:"
TIMEOUT_SECONDS = 10.0
PORTS = {"smtp": 587, "smtps": 465}


def check(settings: Settings, url: str) -> str:
    """Return the address that a `mailto:` receiver names.

    Raises:
        UsageError: `mail_off` without an SMTP server, `url_invalid` for no address, `mail_refused` for one that is not
            among those the operator allows.
    """
    if settings.smtp_url is None or not settings.mail_from:
        raise UsageError(
            "this installation sends no mail: FPGA_SMTP_URL and FPGA_MAIL_FROM name its server and sender",
            code="mail_off",
        )
    try:
        address = Address(addr_spec=unquote(url.removeprefix(SCHEME)))
    except (ValueError, IndexError, HeaderParseError) as error:
        raise UsageError(
            "an address for mail reads mailto:NAME@HOST, with nothing after it", code="url_invalid"
        ) from error
    allowed = [one.strip().lower() for one in settings.mail_to.split(",") if one.strip()]
    if not {address.addr_spec.lower(), f"@{address.domain.lower()}"} & set(allowed):
        raise UsageError(
            "mail goes to addresses of FPGA_MAIL_TO alone; ask the operator to add it", code="mail_refused"
        )
    return address.addr_spec


def message(settings: Settings, address: str, delivery: Delivery) -> EmailMessage:
    """Return the mail of one event; its Message-ID is the event's, so that a repeat can be told."""
    made = EmailMessage()
    made["From"], made["To"] = settings.mail_from, address
    made["Date"] = format_datetime(delivery.created_at)
    made["Message-ID"] = f"<{delivery.id}@{Address(addr_spec=settings.mail_from).domain}>"
    made["Auto-Submitted"] = "auto-generated"
    subject, lines = told(delivery.event, delivery.body.get("data", {}))
    made["Subject"] = f"[FPGA] {subject}"
    made.set_content("\n".join([f"{subject}.", *lines, "", f"Event {delivery.id}, {delivery.event}."]) + "\n")
    return made


def told(event: str, data: JsonObject) -> tuple[str, list[str]]:
    """Return an event as a line, and what else is to be said of it."""
    if event == "batch.ended":
        counts = data.get("counts")
        said = (
            [f"{name.replace('_', ' ')}: {number(int(str(count)))}" for name, count in sorted(counts.items())]
            if isinstance(counts, dict)
            else []
        )
        state = str(data.get("state")).replace("_", " ")
        return f"A batch of kind {data.get('kind')} ended: {state}", [
            *said,
            f"Its page: /batches/{data.get('batch_id')}",
        ]
    if event == "ping":
        return "A test: mail arrives here", []
    return f"Something needs you: {event}", [
        f"{name.replace('_', ' ')}: {value}" for name, value in sorted(data.items())
    ]


def send(settings: Settings, address: str, delivery: Delivery) -> int:
    """Hand one event to the SMTP server and return 250, its word for taken.

    `smtps://` speaks TLS from the first byte; `smtp://` changes to TLS before anything is said, but on this machine.

    Raises:
        ReceiverError: the server cannot be reached, has no TLS, or refuses.
    """
    assert settings.smtp_url is not None, "check() was asked before"
    parts = urlsplit(settings.smtp_url.get_secret_value())
    host, port = parts.hostname or "", parts.port or PORTS.get(parts.scheme, 587)
    context = ssl.create_default_context()
    try:
        with (
            smtplib.SMTP_SSL(host, port, timeout=TIMEOUT_SECONDS, context=context)
            if parts.scheme == "smtps"
            else smtplib.SMTP(host, port, timeout=TIMEOUT_SECONDS)
        ) as server:
            if parts.scheme == "smtp" and host not in ("localhost", "127.0.0.1", "::1"):
                server.starttls(context=context)
            if parts.username:
                server.login(unquote(parts.username), unquote(parts.password or ""))
            server.send_message(message(settings, address, delivery))
    except (smtplib.SMTPException, OSError) as error:
        raise ReceiverError(f"the mail server answered {type(error).__name__}") from error
    return 250
