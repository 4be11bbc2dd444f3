"""What docs/reliability.md has a row for: each hazard, and what in this repository shows that it is met.

A row is shown by scenarios (tests/chaos/scenarios.py), by the simulation, by tests, or not at all, and then says why.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Row:
    """One hazard."""

    id: str
    what: str
    tests: tuple[str, ...] = ()
    note: str = ""
    """What is not shown, and why."""


LEDGER, STORAGE, WORKERS = "tests/integration/ledger", "tests/integration/storage", "tests/integration/workers"
UNIT = "tests/unit/orchestrator"
ROWS = (
    Row(id="T01", what="deterministic simulation of workers, sweepers, broker, store, clock and clients"),
    Row(
        id="T02",
        what="random orders of ledger events against a model",
        tests=(f"{LEDGER}/test_lifecycle_properties.py",),
    ),
    Row(id="T03", what="each guard taken out is noticed by T01"),
    Row(id="T04", what="SIGKILL of computing children"),
    Row(id="T05", what="SIGKILL of whole workers"),
    Row(id="T06", what="SIGKILL of every process at once"),
    Row(id="T07", what="SIGSTOP beyond the lease, then awake and publishing"),
    Row(id="T08", what="SIGKILL of sweepers"),
    Row(id="T09", what="two sweepers at once, one with a clock 120 s ahead (on PostgreSQL)"),
    Row(
        id="T10", what="crash at every point of publishing", note="T01 kills at every transaction and every store call"
    ),
    Row(id="T11", what="Redis killed and started again"),
    Row(id="T12", what="broker's memory wiped; messages twice, late, unknown, never"),
    Row(id="T13", what="submits while the broker is away", note="away for 0.5 to 3 s, not for a minute"),
    Row(
        id="T14",
        what="Redis restart with the flags that make Celery deaf",
        note="no canary: workers look by themselves",
    ),
    Row(id="T15", what="RabbitMQ killed and started again"),
    Row(id="T16", what="RabbitMQ's consumer timeout", note="30 s instead of 30 min, looked at every 5 s"),
    Row(id="T17", what="visibility timeout shorter than the work"),
    Row(id="T18", what="items that kill, crash or swell their worker"),
    Row(id="T19", what="items that hang, in Python and in C with the interpreter's lock"),
    Row(
        id="T20",
        what="SIGKILL of a sweeper that reads an archive",
        tests=("tests/unit/orchestrator/runtime/test_reading.py",),
    ),
    Row(
        id="T21",
        what="SIGKILL of the Prefect server during a batch",
        tests=("tests/integration/embedded/test_archivists_evening.py",),
    ),
    Row(
        id="T22",
        what="one idempotency key, twenty submits at once",
        tests=(f"{LEDGER}/test_races.py",),
    ),
    Row(id="T23", what="PostgreSQL killed, sessions ended, connections cut inside commits"),
    Row(id="T24", what="contention on SQLite", tests=(f"{LEDGER}/test_claims.py",), note="four processes, not eight"),
    Row(
        id="T25",
        what="migrations up, down and up on both databases",
        tests=(f"{LEDGER}/test_migrations.py",),
        note="on empty tables; not killed in the middle",
    ),
    Row(
        id="T26",
        what="workers of two versions on one queue",
        tests=(f"{LEDGER}/test_claims.py",),
        note="the earlier version is the commit before the newest migration",
    ),
    Row(id="T27", what="disk full, then room again", tests=(f"{STORAGE}/test_kill.py",)),
    Row(
        id="T28",
        what="power cut between write and rename",
        tests=(f"{STORAGE}/test_local.py",),
        note="shows the order of the syncs; no block device that forgets",
    ),
    Row(
        id="T29",
        what="a fifth of all store requests fail in five ways; bytes spoiled on the way up",
        tests=(f"{STORAGE}/test_s3.py",),
        note="the second on Swift, in a slow test",
    ),
    Row(id="T30", what="SIGKILL during an upload in parts", tests=(f"{STORAGE}/test_kill.py",)),
    Row(
        id="T31",
        what="cleaner against writers of the same bytes",
        note="T01 lets both interleave; no race in real time",
    ),
    Row(id="T32", what="SIGTERM drain while busy"),
    Row(id="T33", what="cancel raced with claim and publish", tests=(f"{LEDGER}/test_races.py",)),
    Row(id="T34", what="clock jumps by an hour and a day", note="T01 jumps its clock; no real clock is turned"),
    Row(
        id="T35",
        what="a slow and lossy network for five minutes",
        note="a proxy delays and cuts connections; no packets are dropped",
    ),
    Row(
        id="T36",
        what="bad pictures",
        tests=("tests/integration/archive/test_fuzz.py", "tests/unit/workers/photo/test_decode.py"),
    ),
    Row(id="T37", what="bad archives", tests=(f"{UNIT}/archive/test_source.py",)),
    Row(id="T38", what="pickles, damaged weights", tests=("tests/fuzz/test_readers.py", f"{UNIT}/models/test_pull.py")),
    Row(
        id="T39",
        what="requests to private addresses",
        tests=(f"{UNIT}/test_webhooks.py",),
        note="no input by URL exists",
    ),
    Row(id="T40", what="other people's things over HTTP", tests=(f"{UNIT}/api/test_access.py",)),
    Row(id="T41", what="presigned links bent to another use", tests=(f"{STORAGE}/test_s3.py",)),
    Row(id="T42", what="erase while items run", tests=(f"{WORKERS}/test_erase.py",)),
    Row(id="T43", what="secrets and plain embeddings", tests=("tests/integration/operations/test_secrets.py",)),
    Row(id="T44", what="tampering with the audit log", tests=(f"{LEDGER}/test_audit.py",)),
    Row(id="T45", what="webhook receivers that are down", tests=(f"{UNIT}/test_webhooks.py",)),
    Row(
        id="T46",
        what="overload by one owner",
        tests=(f"{UNIT}/api/test_batches.py",),
        note="quota and 429; no load run",
    ),
    Row(id="T47", what="soak with random faults"),
    Row(id="T48", what="device faults", note="not run: needs a GPU"),
)
