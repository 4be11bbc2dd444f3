"""Rows of docs/reliability.md as scenarios: what is done to a deployment while it works, where, and how much of it.

A scenario submits probes, disturbs, and returns when all of them have ended; the runner audits what is left. Every
choice is drawn from the seed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tests.chaos import messages, processes, surroundings
from tests.chaos.deployment import celery_changes
from tests.chaos.ground import PAIRS
from tests.chaos.run import Run, Size

SMALL = Size(items=120, milliseconds=100, faults=4)
FULL = Size(items=1000, milliseconds=400, faults=10, workers=4)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """What is done, which rows it shows, where, and how much of it CI does."""

    do: Callable[[Run], None]
    rows: tuple[str, ...]
    pairs: tuple[str, ...] = PAIRS
    small: Size = SMALL
    full: Size = FULL
    sweepers: int = 1
    s3: bool = False
    lines: bool = False
    """All ways to servers go through proxies, not only the one to PostgreSQL."""
    rabbitmq: dict[str, int] = field(default_factory=dict)
    """Limits of RabbitMQ that are lower than usual, in milliseconds."""
    worker_app: str = "workers"
    options: tuple[str, ...] = ()
    prefix: tuple[str, ...] = ()
    """A command that runs the workers."""
    store_bytes: int = 0
    """Size of a file system for the byte store alone."""
    settings: dict[str, str] = field(default_factory=dict)


SCENARIOS = {
    "kills": Scenario(do=processes.kills, rows=("T04", "T05")),
    "frozen": Scenario(
        do=processes.frozen,
        rows=("T07",),
        pairs=PAIRS[:2],
        small=Size(items=100, milliseconds=200, faults=2),
        full=Size(items=300, milliseconds=400, faults=9),
    ),
    "power cuts": Scenario(
        do=processes.power_cuts,
        rows=("T06",),
        small=Size(items=100, milliseconds=100, faults=2),
        full=Size(items=300, milliseconds=200, faults=10),
        pairs=PAIRS[:2],
    ),
    "sweepers": Scenario(
        do=processes.sweepers,
        rows=("T08", "T09"),
        pairs=PAIRS[:2],
        sweepers=2,
        full=Size(items=500, milliseconds=100, faults=25),
    ),
    "wiped broker": Scenario(
        do=messages.wiped,
        rows=("T12",),
        small=Size(items=100, milliseconds=100, faults=2),
        full=Size(items=1000, milliseconds=200, faults=2, workers=4),
    ),
    "broker restarts": Scenario(
        do=messages.broker_restarts,
        rows=("T11", "T13", "T15"),
        pairs=PAIRS[1:],
        small=Size(items=100, milliseconds=100, faults=1),
        full=Size(items=300, milliseconds=200, faults=4),
    ),
    "database restarts": Scenario(
        do=surroundings.database_restarts,
        rows=("T23",),
        pairs=PAIRS[1:2],
        small=Size(items=100, milliseconds=100, faults=3),
        full=Size(items=300, milliseconds=200, faults=12),
    ),
    "store faults": Scenario(
        do=surroundings.store_faults,
        rows=("T29",),
        pairs=PAIRS[1:2],
        s3=True,
        full=Size(items=500, milliseconds=20, faults=0),
    ),
    "rolling update": Scenario(
        do=processes.rolling_update,
        rows=("T26",),
        pairs=PAIRS[1:],
        sweepers=0,
        small=Size(items=120, milliseconds=200, faults=2, workers=0),
        full=Size(items=400, milliseconds=400, faults=3, workers=0),
    ),
    "newer stage": Scenario(
        do=processes.newer_stage,
        rows=("T26",),
        pairs=PAIRS[:2],
        small=Size(items=40, milliseconds=50, faults=0, workers=0),
        full=Size(items=200, milliseconds=50, faults=0, workers=0),
        settings={"FPGA_TEST_STAGE": processes.NEWER},
    ),
    "bad network": Scenario(
        do=surroundings.bad_network,
        rows=("T35",),
        pairs=PAIRS[1:],
        s3=True,
        lines=True,
        small=Size(items=10, milliseconds=50, faults=0),
        full=Size(items=240, milliseconds=50, faults=0, workers=6),
        settings={"FPGA_LEASE_SECONDS": "10", "FPGA_HEARTBEAT_SECONDS": "1"},
    ),
    "poison": Scenario(
        do=processes.poison,
        rows=("T18", "T19"),
        pairs=PAIRS[:2],
        small=Size(items=60, milliseconds=20, faults=1),
        full=Size(items=215, milliseconds=50, faults=3, workers=4),
        prefix=("prlimit", "--as=1073741824"),
        settings={"FPGA_MAX_CRASHES": "3", "FPGA_STALL_SECONDS": "8"},
    ),
    "wedge": Scenario(
        do=messages.wedge,
        rows=("T14",),
        pairs=PAIRS[1:2],
        small=Size(items=20, milliseconds=500, faults=0, workers=2),
        full=Size(items=20, milliseconds=2000, faults=0, workers=2),
        worker_app="tests.chaos.changed_app",
        options=("--without-gossip", "--without-mingle"),
        settings=celery_changes(worker_enable_remote_control=False),
    ),
    "redelivered": Scenario(
        do=messages.redelivered,
        rows=("T17",),
        pairs=PAIRS[1:2],
        small=Size(items=4, milliseconds=9000, faults=0, workers=2),
        full=Size(items=8, milliseconds=14000, faults=0, workers=2),
        worker_app="tests.chaos.changed_app",
        settings={"FPGA_GROUP_SIZE": "1"}
        | celery_changes(
            broker_transport_options={
                "visibility_timeout": 4,
                "unacked_restore_interval": 1,
                "unacked_restore_throttle": 1,
            }
        ),
    ),
    "consumer timeout": Scenario(
        do=messages.consumer_timeout,
        rows=("T16",),
        pairs=PAIRS[2:],
        rabbitmq={"consumer_timeout": 30_000, "channel_tick_interval": 5_000},
        small=Size(items=4, milliseconds=40_000, faults=0, workers=2),
        full=Size(items=8, milliseconds=40_000, faults=0, workers=2),
        settings={"FPGA_GROUP_SIZE": "1"},
    ),
    "messages": Scenario(
        do=messages.messages,
        rows=("T12",),
        small=Size(items=100, milliseconds=50, faults=2),
        full=Size(items=500, milliseconds=100, faults=10),
    ),
    "full disk": Scenario(
        do=surroundings.full_disk,
        rows=("T27",),
        pairs=PAIRS[:1],
        store_bytes=4 << 20,
        full=Size(items=300, milliseconds=50, faults=0),
    ),
    "drained": Scenario(
        do=processes.drained,
        rows=("T32",),
        pairs=PAIRS[:2],
        small=Size(items=100, milliseconds=150, faults=2),
        full=Size(items=200, milliseconds=500, faults=6),
        settings={"FPGA_DRAIN_SECONDS": "2"},
    ),
    "soak": Scenario(
        do=processes.soak,
        rows=("T47",),
        pairs=PAIRS[1:2],
        small=Size(items=400, milliseconds=20, faults=3),
        full=Size(items=20_000, milliseconds=20, faults=40, workers=4),
    ),
}
