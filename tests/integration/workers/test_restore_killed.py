"""Archives through killed workers, and through readers whose memory is watched."""

from __future__ import annotations

import io
import json
import os
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fpga_models.lab.synthetic.archive import write_archive
from orchestrator.contracts.photos import RestoreOptions
from orchestrator.ledger.queue import batches
from orchestrator.photos import feeding, restore
from tests.integration.workers.rig import OWNER, ROOT, Rig
from tests.integration.workers.test_restore import (
    KNOWN,
    assert_every_photo_ended_as_it_should,
    assert_nothing_is_there_twice_and_nothing_is_left_over,
    picture,
)
from tests.memory import run_measured

GIB = 2**30
SMALL_PHOTOS = 20_000


@pytest.mark.slow
def test_a_worker_killed_again_and_again_loses_and_doubles_no_photo(tmp_path: Path) -> None:
    truths = write_archive(tmp_path / "album.zip", count=24, seed=12, damaged=0.2)
    with Rig(tmp_path / "killed") as rig:
        worker = rig.start_worker()
        rig.add({f"p{who}": [picture(who, 0)] for who in KNOWN}, scopes=("restore",))
        made = restore.submit(
            rig.ledger,
            rig.settings,
            source=str(tmp_path / "album.zip"),
            options=RestoreOptions(),
            owner=OWNER,
            fed=False,
        )
        feeding.feed(rig.ledger, rig.store, rig.settings, OWNER, made.batch_id, lambda _: None)
        for kills in (1, 2, 3):
            rig.wait(lambda: rig.counts(made.batch_id)["completed"] >= 3 * kills, "some are done", 300)  # noqa: B023 waited for within this turn
            os.killpg(worker.pid, signal.SIGKILL)
            worker.wait()
            worker = rig.start_worker()

        rig.wait_ended(made.batch_id, 600)

        assert_every_photo_ended_as_it_should(rig, made.batch_id, truths)
        assert_nothing_is_there_twice_and_nothing_is_left_over(rig, made.batch_id)
        with rig.ledger.read() as session:
            found = list(batches.details(session, batches.items(session, made.batch_id)))
        assert any(attempt.outcome == "lost" for one in found for attempt in one.attempts), "the kills hit work"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_reading_twenty_thousand_photos_takes_under_a_gibibyte(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "many.zip", "w") as archive:
        for number in range(SMALL_PHOTOS):
            out = io.BytesIO()
            Image.fromarray(np.full((4, 4, 3), number % 256, np.uint8)).save(out, "PNG")
            # a comment makes each of them other bytes
            archive.writestr(f"{number // 1000}/{number}.png", out.getvalue() + str(number).encode())
    command = ["restore", str(tmp_path / "many.zip"), "--feed", "here", "--unknown", "cluster", "--attest", "rendered"]

    ran, peak = run_measured(
        [sys.executable, "-m", "orchestrator.cli.app", *command, "--json"],
        seconds=1500,
        cwd=ROOT,
        environment={"FPGA_STATE_DIR": str(tmp_path / "state")},
    )

    assert ran.returncode == 0, ran.stderr
    assert json.loads(ran.stdout)["request_counts"]["total"] == SMALL_PHOTOS
    print(f"fpga restore of {SMALL_PHOTOS} photos: peak {peak / 2**20:.0f} MiB")  # noqa: T201 what the test is for
    assert peak < GIB
