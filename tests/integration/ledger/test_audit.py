"""The audit log takes no change, and what an insider changes all the same is found at the first bad row (T44)."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest
from sqlalchemy import delete, select, text, update
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from orchestrator.errors import TransientError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.tables.rows import Audit

ROWS = 60
TAMPERS = 200


@pytest.fixture
def filled(ledger: Ledger) -> Ledger:
    for number in range(ROWS):
        with ledger.write() as session:
            audit.write(session, f"owner{number % 3}", "test.act", f"ref{number}", {"n": number}, now(session))
    return ledger


def as_insider(session: Session) -> None:
    """Take the triggers away, as somebody with the database's own password can."""
    if session.get_bind().dialect.name == "sqlite":
        session.execute(text("DROP TRIGGER audit_refuses_update"))
        session.execute(text("DROP TRIGGER audit_refuses_delete"))
    else:
        session.execute(text("ALTER TABLE audit DISABLE TRIGGER USER"))


def ids(session: Session) -> list[int]:
    return list(session.scalars(select(Audit.id).order_by(Audit.id)))


def tamper(session: Session, chance: random.Random) -> int:
    """Change, delete or swap rows and return the id of the first that cannot be right any more."""
    known = ids(session)
    place = chance.randrange(len(known))
    chosen, following = known[place], known[place + 1] if place + 1 < len(known) else known[place]
    kind = chance.choice(["owner", "actor", "action", "ref", "detail", "at", "hash", "previous", "delete", "swap"])
    row = update(Audit).where(Audit.id == chosen)
    if kind == "delete":
        session.execute(delete(Audit).where(Audit.id == chosen))
        return following
    if kind == "swap":
        other = chance.choice([one for one in known if one != chosen])
        for before, after in ((chosen, -1), (other, chosen), (-1, other)):
            session.execute(update(Audit).where(Audit.id == before).values(id=after))
        return min(chosen, other)
    if kind == "detail":
        session.execute(row.values(detail={"n": -1}))
    elif kind == "at":
        session.execute(row.values(at=session.get_one(Audit, chosen).at + timedelta(microseconds=1)))
    else:
        session.execute(row.values({kind: "0f" * 32}))
    return chosen


def test_a_whole_chain_is_found_whole(filled: Ledger) -> None:
    with filled.read() as session:
        found = audit.verify(session)

    assert (found.rows, found.broken) == (ROWS, None)
    assert found.head != audit.GENESIS


@pytest.mark.parametrize("change", [update(Audit).values(actor="somebody"), delete(Audit)])
def test_the_database_refuses_to_change_or_delete_a_row(filled: Ledger, change: object) -> None:
    with pytest.raises((DBAPIError, TransientError), match="append-only"), filled.write() as session:
        session.execute(change)  # type: ignore[call-overload]  # any statement

    with filled.read() as session:
        assert audit.verify(session).broken is None


def test_a_row_cannot_be_replaced_on_sqlite_either(filled: Ledger) -> None:
    if not filled.is_sqlite:
        pytest.skip("PostgreSQL has no INSERT OR REPLACE")
    columns = "id, owner, actor, action, ref, detail, at, previous, hash"
    forged = text(f"INSERT OR REPLACE INTO audit ({columns}) SELECT {columns.replace('actor', repr('eve'))} FROM audit")

    with pytest.raises((DBAPIError, TransientError), match="append-only"), filled.write() as session:
        session.execute(forged)


def test_two_hundred_random_tampers_are_found_at_the_first_bad_row(filled: Ledger) -> None:
    seed = 20261128
    chance = random.Random(seed)
    missed = []
    for number in range(TAMPERS):
        session = filled._writers()
        as_insider(session)
        expected = tamper(session, chance)
        session.flush()
        session.expire_all()
        if audit.verify(session).broken != expected:
            missed.append((number, expected, audit.verify(session).broken))
        session.rollback()
        session.close()

    assert missed == [], f"seed {seed}"


def test_a_hash_that_was_written_down_elsewhere_finds_a_chain_that_was_written_anew(filled: Ledger) -> None:
    with filled.read() as session:
        row = session.scalars(select(Audit).order_by(Audit.id)).all()[ROWS // 2]
        kept = (row.id, row.hash)
        assert audit.verify(session, anchor=kept).broken is None
        assert audit.verify(session, anchor=(row.id, "0" * 64)).broken == row.id
        assert audit.verify(session, anchor=(10**6, "0" * 64)).broken == 10**6


def test_writers_at_once_make_one_chain(ledger: Ledger) -> None:
    from concurrent.futures import ThreadPoolExecutor

    def write(number: int) -> None:
        with ledger.write() as session:
            audit.write(session, "local", "test.act", f"ref{number}", {}, now(session))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(write, range(40)))

    with ledger.read() as session:
        found = audit.verify(session)
    assert (found.rows, found.broken) == (40, None)
