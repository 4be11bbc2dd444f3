"""Events as mail, through a real SMTP server on loopback, to allowed addresses alone."""

from __future__ import annotations

from collections.abc import Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from pydantic import SecretStr

from orchestrator.errors import UsageError
from orchestrator.ledger import webhooks as rows
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue.batches import NewBatch, submit
from orchestrator.runtime import mail, webhooks
from orchestrator.secrets.vault import Vault
from orchestrator.settings import Settings
from tests.services.server import free_port


class Postbox:
    """Keeps what arrives, or refuses it."""

    def __init__(self) -> None:
        self.got: list[tuple[list[str], EmailMessage]] = []
        self.answer = "250 taken"

    async def handle_DATA(self, _server: SMTP, _session: Session, envelope: Envelope) -> str:  # noqa: N802 its name
        if self.answer.startswith("250"):
            assert isinstance(envelope.content, bytes)
            read = message_from_bytes(envelope.content, policy=policy.default)
            assert isinstance(read, EmailMessage)
            self.got.append((envelope.rcpt_tos, read))
        return self.answer


@pytest.fixture
def postbox() -> Postbox:
    return Postbox()


@pytest.fixture
def mailing(settings: Settings, postbox: Postbox) -> Iterator[Settings]:
    port = free_port()
    server = Controller(postbox, hostname="127.0.0.1", port=port)
    server.start()
    changes = {
        "smtp_url": SecretStr(f"smtp://127.0.0.1:{port}"),
        "mail_from": "fpga@studio.example",
        "mail_to": "ops@studio.example, @desk.example",
    }
    yield settings.model_copy(update=changes)
    server.stop()


def add(ledger: Ledger, settings: Settings, url: str) -> str:
    events = ["batch.ended", "ping"]
    return str(webhooks.add(ledger, settings, Vault.of(settings), "local", url=url, events=events)["id"])


def test_the_end_of_a_batch_arrives_once_and_names_nobody(ledger: Ledger, mailing: Settings, postbox: Postbox) -> None:
    receiver = add(ledger, mailing, "mailto:ops@studio.example")
    batch_id = submit(ledger, NewBatch(owner="local", kind="generate", name="ada's", preset="mini", items=[])).batch_id

    assert webhooks.deliver(ledger, mailing) == 1
    assert webhooks.deliver(ledger, mailing) == 0

    ((to, got),) = postbox.got
    with ledger.read() as session:
        (sent,) = rows.deliveries(session, receiver)
    assert to == ["ops@studio.example"]
    assert (sent.state, sent.status) == ("sent", 250)
    assert got["Subject"] == "[FPGA] A batch of kind generate ended: completed"
    assert got["Message-ID"] == f"<{sent.id}@studio.example>"
    assert f"/batches/{batch_id}" in got.get_content()
    assert "ada" not in got.as_string()


def test_a_server_that_refuses_gets_it_again_later(ledger: Ledger, mailing: Settings, postbox: Postbox) -> None:
    receiver = add(ledger, mailing, "mailto:anna@desk.example")
    submit(ledger, NewBatch(owner="local", kind="generate", name="n", preset="mini", items=[]))
    postbox.answer = "451 later"

    assert webhooks.deliver(ledger, mailing) == 0

    with ledger.read() as session:
        (waiting,) = rows.deliveries(session, receiver)
    assert (waiting.state, waiting.tries) == ("due", 1)
    assert waiting.error == "the mail server answered SMTPDataError"


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("mailto:eve@elsewhere.example", "mail_refused"),
        ("mailto:ops@studio.example?cc=eve@elsewhere.example", "url_invalid"),
        ("mailto:ops@studio.example,eve@elsewhere.example", "url_invalid"),
        ("mailto:ops@studio.example%0d%0aBcc:eve@elsewhere.example", "url_invalid"),
        ("mailto:", "url_invalid"),
    ],
)
def test_mail_goes_nowhere_else(ledger: Ledger, mailing: Settings, url: str, code: str) -> None:
    with pytest.raises(UsageError) as refused:
        add(ledger, mailing, url)
    assert refused.value.code == code


def test_without_a_server_there_is_no_mail(settings: Settings) -> None:
    with pytest.raises(UsageError) as refused:
        mail.check(settings, "mailto:ops@studio.example")
    assert refused.value.code == "mail_off"
