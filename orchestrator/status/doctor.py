"""Looks at everything a deployment stands on and says in one sentence each how it is, and what to do where it is not.

Prints no secret: URLs lose their passwords, and nothing of people is read.
"""

from __future__ import annotations

import hashlib
import math
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import islice
from typing import Any, Literal

from celery import Celery
from kombu import Connection
from kombu.exceptions import OperationalError
from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from orchestrator.errors import FpgaError, NotFoundError
from orchestrator.ledger import artifacts, audit, models
from orchestrator.ledger.engine import schema
from orchestrator.ledger.engine.session import Ledger, now
from orchestrator.ledger.queue import schedules, workers
from orchestrator.ledger.views import health
from orchestrator.models import registry
from orchestrator.pipelines import QUEUES
from orchestrator.planning.presets import preset_names
from orchestrator.runtime import parts
from orchestrator.runtime import schedules as clocks
from orchestrator.runtime.broker import HARD_LIMIT_SECONDS, celery_config
from orchestrator.runtime.prefect.client import connect, locate
from orchestrator.runtime.running import find_running, open_state_dir
from orchestrator.secrets.credentials import SELF_MADE, Signer
from orchestrator.settings import Settings
from orchestrator.storage import open_store

Status = Literal["ok", "warn", "fail"]
LIBRARIES = ("celery", "diffusers", "insightface", "numpy", "onnxruntime", "prefect", "sqlalchemy", "torch")
NETWORKS = {"diffusers", "insightface", "onnxruntime", "torch"}
"""What the extra `worker` brings."""
FREE_WARN_BYTES, FREE_FAIL_BYTES = 2 * 2**30, 200 * 2**20
SKEW_WARN_SECONDS, SKEW_FAIL_SECONDS = 2.0, 30.0
GRACE_SECONDS = 60.0
DEPTH_WARN = 1000
OBJECTS_LOOKED_AT = 20_000
DEVICE_SECONDS = 300.0


@dataclass(frozen=True, kw_only=True)
class Check:
    """What was looked at, how it is, and the remedy where it is not well."""

    name: str
    status: Status
    sentence: str
    fix: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the object that `fpga doctor --json` prints."""
        return asdict(self)


def examine(settings: Settings, *, device: bool = True) -> list[Check]:
    """Run every check, that of the device on request only; one that breaks is a failed check and stops no other."""
    checks = [_python(), _times(settings), *_guarded("state directory", lambda: _state_dir(settings))]
    checks += _guarded("database", lambda: _stored(settings))
    checks += _guarded("broker", lambda: _broker(settings))
    checks += _guarded("byte store", lambda: _store(settings))
    checks += _guarded("objects", lambda: _objects(settings))
    checks += _guarded("credentials", lambda: _credentials(settings))
    checks += _guarded("prefect", lambda: _prefect(settings))
    checks += _guarded("weights", lambda: _weights(settings))
    if device:
        checks.append(_device(settings))
    return checks


def _guarded(name: str, look: Callable[[], Iterator[Check]]) -> list[Check]:
    """Collect checks; an error on the way is the last of them."""
    found: list[Check] = []
    try:
        found.extend(look())
    except FpgaError as error:
        found.append(Check(name=name, status="fail", sentence=error.message, fix=FIXES.get(name)))
    except (OSError, SQLAlchemyError, OperationalError) as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0][:200]
        found.append(Check(name=name, status="fail", sentence=f"{name} failed: {reason}", fix=FIXES.get(name)))
    return found


FIXES = {
    "state directory": "choose another FPGA_STATE_DIR, or `chmod 700` this one",
    "database": "check DATABASE_URL and that the server runs",
    "broker": "check CELERY_BROKER_URL and that the server runs; work goes on slowly without it",
    "byte store": "check FPGA_STORE_URL, AWS_* and that the store runs; see also free space",
    "credentials": "install the extra `c2pa` and set FPGA_CREDENTIALS_FILE; see docs/credentials.md",
    "prefect": "check PREFECT_API_URL; batches and schedules run without it",
    "weights": "install the weights again; see `fpga model list`",
}


def _python() -> Check:
    found = []
    missing = []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            missing.append(name)
    sentence = f"Python {platform.python_version()}, {', '.join(found)}"
    if set(missing) == NETWORKS:
        sentence = f"{sentence}; client and control plane only, computing needs the extra `worker`"
        return Check(name="python", status="ok", sentence=sentence)
    if missing or sys.version_info < (3, 11):
        return Check(
            name="python", status="fail", sentence=f"{sentence}; missing: {', '.join(missing)}", fix="run `make setup`"
        )
    return Check(name="python", status="ok", sentence=sentence)


def _times(settings: Settings) -> Check:
    """Check the lengths of time that only make sense together."""
    s = settings
    wrong = []
    if s.lease_seconds < 3 * s.heartbeat_seconds:
        wrong.append(f"a lease of {s.lease_seconds:g} s outlives no three heartbeats of {s.heartbeat_seconds:g} s")
    if s.stall_seconds < s.lease_seconds:
        wrong.append(f"work is given up after {s.stall_seconds:g} s, before its lease of {s.lease_seconds:g} s is over")
    longest = max(s.stall_seconds, s.train_turn_seconds)
    visible = celery_config(s)["broker_transport_options"].get("visibility_timeout", math.inf)
    if visible < longest:
        wrong.append(f"the broker gives a message out again after {visible:g} s, a stage may take {longest:g} s")
    if longest > HARD_LIMIT_SECONDS:
        wrong.append(f"Celery ends a group after {HARD_LIMIT_SECONDS:g} s, a stage may take {longest:g} s")
    if wrong:
        return Check(name="times", status="fail", sentence="; ".join(wrong), fix="see docs/settings.md")
    sentence = (
        f"lease {s.lease_seconds:g} s, heartbeat {s.heartbeat_seconds:g} s, stall {s.stall_seconds:g} s fit together"
    )
    return Check(name="times", status="ok", sentence=sentence)


def _state_dir(settings: Settings) -> Iterator[Check]:
    open_state_dir(settings)
    folder = settings.state_dir
    yield Check(name="state directory", status="ok", sentence=f"{folder} is closed to other users")
    free = shutil.disk_usage(folder).free
    status: Status = "fail" if free < FREE_FAIL_BYTES else "warn" if free < FREE_WARN_BYTES else "ok"
    fix = "make room: everything written here is about to fail" if status != "ok" else None
    yield Check(name="disk", status=status, sentence=f"{free / 2**30:.1f} GiB free", fix=fix)
    running = find_running(settings)
    if running:
        yield Check(name="stack", status="ok", sentence=f"a stack runs here as process {running.pid}")
    else:
        yield Check(name="stack", status="ok", sentence="no embedded stack runs here; `fpga up` starts one")


def _credentials(settings: Settings) -> Iterator[Check]:
    """Say who signs what is made here; nothing where nobody is to."""
    if settings.credentials == "off":
        return
    signer = Signer.of(settings)
    if signer.why_not:
        sentence = f"pictures made here carry no content credential: {signer.why_not}"
        yield Check(name="credentials", status="warn", sentence=sentence, fix=FIXES["credentials"])
    else:
        who = f"{signer.name!r}" + (": a test chain" if signer.name == SELF_MADE else "")
        yield Check(name="credentials", status="ok", sentence=f"pictures made here are signed by {who}")


def _stored(settings: Settings) -> Iterator[Check]:
    ledger = Ledger.of(settings)
    try:
        if (yield from _database(ledger)):
            yield from _ledger(ledger, settings)
            yield from _registered(ledger, settings)
            yield from _parts(ledger, settings)
            yield from _schedules(ledger)
    finally:
        ledger.dispose()


def _database(ledger: Ledger) -> Generator[Check, None, bool]:
    """Yield the checks of the database and return whether its tables can be read."""
    shown = make_url(ledger.url).render_as_string(hide_password=True)
    current, newest = schema.revisions(ledger)
    if current != newest:
        sentence = f"{shown} is at revision {current or 'nothing'}, this code wants {newest}"
        fix = "run `fpga migrate`; `fpga up` does it by itself"
        yield Check(name="database", status="fail", sentence=sentence, fix=fix)
        return False
    if ledger.is_sqlite:
        with ledger.read() as session:
            journal, level = health.sqlite_modes(session)
        if (journal, level) != ("wal", 2):
            sentence = f"SQLite runs with journal_mode={journal}, synchronous={level}; wanted wal and 2"
            fix = "keep the database on a local file system: WAL needs shared memory"
            yield Check(name="sqlite", status="fail", sentence=sentence, fix=fix)
        else:
            yield Check(name="sqlite", status="ok", sentence="SQLite journals in WAL mode and syncs every commit")
    else:
        with ledger.read() as session:
            skew = abs((now(session) - datetime.now(UTC)).total_seconds())
        status: Status = "fail" if skew > SKEW_FAIL_SECONDS else "warn" if skew > SKEW_WARN_SECONDS else "ok"
        sentence = f"this host's clock differs from the database's by {skew:.1f} s"
        yield Check(name="clock", status=status, sentence=sentence, fix="run NTP" if status != "ok" else None)
    yield Check(name="database", status="ok", sentence=f"{shown} is at the newest revision {newest}")
    return True


def _ledger(ledger: Ledger, settings: Settings) -> Iterator[Check]:
    with ledger.read() as session:
        moment = now(session)
        living = workers.living(session, moment)
        ages = [(moment - worker.heartbeat_at).total_seconds() for worker in living]
        late = health.backlog(session, moment, grace_seconds=GRACE_SECONDS)
        broken = audit.verify(session).broken
    if living:
        old = max(ages) > 3 * settings.heartbeat_seconds
        sentence = f"{len(living)} living, the oldest sign of life {max(ages):.0f} s ago"
        yield Check(
            name="workers",
            status="warn" if old else "ok",
            sentence=sentence,
            fix="look at the silent worker's log" if old else None,
        )
    else:
        fix = "start one with `fpga up` or `fpga worker run`"
        yield Check(name="workers", status="warn", sentence="no worker reports; what is submitted waits", fix=fix)
    yield from _backlog(late)
    if broken is not None:
        sentence = f"audit row {broken} does not follow from the row before it: the history was changed"
        yield Check(name="audit", status="fail", sentence=sentence, fix="restore the database from a backup")
    else:
        yield Check(name="audit", status="ok", sentence="the audit chain is whole")


def _backlog(late: health.Backlog) -> Iterator[Check]:
    counts = {
        "leases past their time": late.overdue_leases,
        "expired objects not removed": late.expired_artifacts,
        "effects not delivered": late.late_effects,
    }
    wrong = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if wrong:
        fix = "a sweeper removes these within seconds: `fpga up` or `fpga sweeper run`"
        yield Check(name="sweeper", status="warn", sentence=wrong, fix=fix)
    else:
        yield Check(name="sweeper", status="ok", sentence="nothing is overdue")
    if late.held_items:
        sentence = f"{late.held_items} items are held after they killed their worker again and again"
        yield Check(name="held items", status="warn", sentence=sentence, fix="see `fpga batch results ID --errors`")


def _parts(ledger: Ledger, settings: Settings) -> Iterator[Check]:
    """Say which parts are down."""
    for one in parts.down(ledger, settings):
        yield Check(name=one.part, status="warn", sentence=one.sentence, fix=one.fix)


def _schedules(ledger: Ledger) -> Iterator[Check]:
    """Say which schedules are late, and which failed at their newest time."""
    wrong = 0
    for name, due_at in clocks.late(ledger):
        wrong += 1
        sentence = f"schedule {name!r} should have run at {due_at.isoformat(timespec='minutes')} and nobody looked"
        fix = "a sweeper looks: `fpga up` or `fpga sweeper run`"
        yield Check(name="schedules", status="warn", sentence=sentence, fix=fix)
    with ledger.read() as session:
        rows = [(row, schedules.last_run(session, row.id)) for row in schedules.listing(session)]
    for row, last in rows:
        if last is not None and last.outcome == "failed":
            wrong += 1
            sentence = f"schedule {row.name!r} failed at {last.due_at.isoformat(timespec='minutes')}: {last.message}"
            fix = "mend what the sentence says, then `fpga schedule run`; see `fpga schedule list`"
            yield Check(name="schedules", status="warn", sentence=sentence, fix=fix)
    if rows and not wrong:
        yield Check(name="schedules", status="ok", sentence=f"{len(rows)} schedules, none is late and none failed last")


def _registered(ledger: Ledger, settings: Settings) -> Iterator[Check]:
    for name in preset_names(settings.models_dir):
        shipped = registry.weights_manifest(settings, name)["model_sha256"]
        try:
            with ledger.read() as session:
                champion = models.resolve(session, name)
        except NotFoundError:
            sentence = f"preset {name} is installed and not registered yet; the first batch does it"
            yield Check(name="models", status="ok", sentence=sentence)
            continue
        same = champion.tensor_sha256 == shipped
        sentence = f"preset {name}: champion is version {champion.number} ({champion.tensor_sha256[:12]})"
        if same:
            yield Check(name="models", status="ok", sentence=sentence)
        else:
            fix = "see `fpga model list`, then `fpga model promote`"
            sentence = f"{sentence}, installed is {shipped[:12]}"
            yield Check(name="models", status="warn", sentence=sentence, fix=fix)


def _broker(settings: Settings) -> Iterator[Check]:
    app = Celery("fpga-doctor", set_as_current=False)
    app.conf.update(celery_config(settings))
    with app.connection_for_write() as connection:
        shown = connection.as_uri()
        connection.ensure_connection(max_retries=1, interval_start=0, timeout=5)
        yield Check(name="broker", status="ok", sentence=f"{shown} answers")
        yield _depth({queue: _messages(connection, queue) for queue in QUEUES})


def _messages(connection: Connection, queue: str) -> int:
    """Return how many messages wait in a queue; one that nobody declared yet holds none."""
    with connection.channel() as channel:
        try:
            return int(channel.queue_declare(queue=queue, passive=True).message_count)
        except connection.channel_errors:
            return 0


def _depth(waiting: dict[str, int]) -> Check:
    """Hints are bounded by the living workers, so a heap of them means that nobody listens."""
    shown = ", ".join(f"{queue} {count}" for queue, count in waiting.items())
    if max(waiting.values()) > DEPTH_WARN:
        fix = "see that a worker serves the queue and is connected to this broker"
        return Check(name="queues", status="warn", sentence=f"messages pile up: {shown}", fix=fix)
    return Check(name="queues", status="ok", sentence=f"messages waiting: {shown}")


def _store(settings: Settings) -> Iterator[Check]:
    open_store(settings).check()
    yield Check(name="byte store", status="ok", sentence="a probe was written, read and deleted")


def _objects(settings: Settings) -> Iterator[Check]:
    """Compare the byte store with the ledger, object by object up to a bound."""
    listed = [one.key for one in islice(open_store(settings).list(), OBJECTS_LOOKED_AT)]
    ledger = Ledger.of(settings)
    try:
        if schema.revisions(ledger)[0] is None:
            return
        with ledger.read() as session:
            kept = schedules.keys(session)
            unknown = set(listed) - artifacts.known(session, listed) - kept.keys()
            stands = {key: name for key, name in kept.items() if key not in listed}
            gone = (
                artifacts.live(session, OBJECTS_LOOKED_AT) - set(listed) if len(listed) < OBJECTS_LOOKED_AT else set()
            )
    finally:
        ledger.dispose()
    if stands and len(listed) < OBJECTS_LOOKED_AT:
        sentence = f"schedule {min(stands.values())!r} stands on a manifest that is not in the store any more"
        fix = "add the schedule again with its manifest"
        yield Check(name="objects", status="fail", sentence=sentence, fix=fix)
    if gone:
        sentence = f"{len(gone)} objects that the ledger refers to are not in the store, such as {min(gone)}"
        fix = "restore the store from a backup, or see FPGA_STORE_URL"
        yield Check(name="objects", status="fail", sentence=sentence, fix=fix)
    elif unknown:
        sentence = f"the ledger knows nothing of {len(unknown)} of {len(listed)} objects, such as {min(unknown)}"
        fix = "they may belong to another deployment on the same store; remove them by hand if not"
        yield Check(name="objects", status="warn", sentence=sentence, fix=fix)
    else:
        yield Check(name="objects", status="ok", sentence=f"the ledger knows all of {len(listed)} objects")


def _prefect(settings: Settings) -> Iterator[Check]:
    if locate(settings) is None:
        sentence = "no Prefect server is configured and none runs here; batches and schedules run without"
        yield Check(name="prefect", status="ok", sentence=sentence)
        return
    with connect(settings) as api:
        if api.healthy():
            yield Check(name="prefect", status="ok", sentence="the Prefect server answers")
        else:
            yield Check(
                name="prefect", status="warn", sentence="the Prefect server does not answer", fix=FIXES["prefect"]
            )


def _weights(settings: Settings) -> Iterator[Check]:
    names = preset_names(settings.models_dir)
    if not names:
        sentence = f"no preset in {settings.models_dir}"
        yield Check(name="weights", status="fail", sentence=sentence, fix="check FPGA_MODELS_DIR")
    for name in names:
        files = registry.weights_manifest(settings, name)["files"]
        wrong = [path for path, entry in files.items() if _sha256(settings, name, path) != entry["sha256"]]
        if wrong:
            sentence = f"preset {name}: {len(wrong)} of {len(files)} files are missing or altered, such as {wrong[0]}"
            yield Check(name="weights", status="fail", sentence=sentence, fix=FIXES["weights"])
        else:
            sentence = f"preset {name}: {len(files)} files have the sha256 that weights.json pins"
            yield Check(name="weights", status="ok", sentence=sentence)


def _sha256(settings: Settings, preset: str, path: str) -> str | None:
    try:
        with (settings.models_dir / preset / path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _device(settings: Settings) -> Check:
    """Let a process of its own compute on the device, look at a face and draw: torch is not loaded here."""
    if find_spec("torch") is None:
        return Check(name="device", status="ok", sentence="nothing computes in this installation")
    command = [
        sys.executable, "-m", "workers.runtime.selftest", settings.device, str(settings.models_dir), settings.preset
    ]  # fmt: skip
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=DEVICE_SECONDS, check=False)
        said = (ran.stdout or ran.stderr).strip().splitlines()[-1:]
        sentence, well = said[0] if said else f"it ended with status {ran.returncode}", ran.returncode == 0
    except subprocess.TimeoutExpired:
        sentence, well = f"device {settings.device} did not answer within {DEVICE_SECONDS:.0f} s", False
    fix = None if well else "check FPGA_DEVICE and the driver"
    return Check(name="device", status="ok" if well else "fail", sentence=sentence, fix=fix)
