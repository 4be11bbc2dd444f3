"""An erase while a person's items are queued, running and done: the raw files hold nothing of them (T42, T43)."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select

from orchestrator.errors import NotFoundError
from orchestrator.ledger import audit
from orchestrator.ledger.engine.states import LEASED
from orchestrator.ledger.tables.rows import Artifact, Output, Reference, Stage
from orchestrator.people import identities, receipts
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.people.receipts import Signer
from orchestrator.secrets.vault import Vault
from tests.integration.workers.rig import OWNER, ROOT, Rig

HANDLE, NAME, GRANTER = "zenobia-q", "Zenobia Quillfeather", "Mother Quillfeather"


def everything(folder: Path) -> dict[Path, bytes]:
    """Read every regular file of a deployment: database, its journal, store, broker folder, logs, keys."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def holding(files: dict[Path, bytes], marker: bytes) -> list[str]:
    return [path.name for path, data in files.items() if marker in data]


def enrol(rig: Rig, pictures: list[bytes]) -> str:
    person = NewPerson(
        handle=HANDLE,
        name=NAME,
        pictures=tuple(Picture(name=f"{HANDLE}-{n}.png", data=data) for n, data in enumerate(pictures)),
        consent=ConsentGiven(scopes=("generate",), granted_by=GRANTER),
    )
    batch_id = identities.add(rig.ledger, rig.store, rig.settings, [person], owner=OWNER)
    (ended,) = identities.wait_enrolled(rig.ledger, OWNER, batch_id, timeout_seconds=90)
    assert ended.identity_id is not None, ended.error
    return ended.identity_id


def markers(rig: Rig, pictures: list[bytes]) -> dict[str, bytes]:
    """Return bytes by which anything of the person would be known: words, pixels, the embedding open and sealed."""
    with rig.ledger.read() as session:
        reference = session.scalars(select(Reference)).first()
        assert reference is not None
        opened = Vault.of(rig.settings).open(reference.envelope, reference.embedding)
    assert np.frombuffer(opened, np.float32).shape == (512,)
    return {
        "handle": HANDLE.encode(),
        "name": b"Quillfeather",
        "picture": pictures[0][200:264],
        "embedding": opened[64:128],
        "sealed embedding": reference.embedding[100:200],
        "data key": str(reference.data_key).encode()[50:],
    }


def open_to_others(state: Path, files: dict[Path, bytes]) -> list[str]:
    """Return files that other users could read: neither they nor a folder above them is closed."""
    closed = {path for path in (*state.rglob("*"), *files) if not stat.S_IMODE(path.stat().st_mode) & 0o077}
    return [path.name for path in files if not {path, *path.parents} & closed]


def busy(rig: Rig, batch_id: str) -> bool:
    with rig.ledger.read() as session:
        return bool(
            session.scalars(select(Stage.id).where(Stage.batch_id == batch_id, Stage.state.in_(LEASED))).first()
        )


@pytest.mark.slow
def test_an_erase_under_load_leaves_nothing_in_the_raw_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FPGA_DATA_KEYS", "b25seS1mb3ItdGVzdHMtb25seS1mb3ItdGVzdHMtMzI=")
    pictures = [path.read_bytes() for path in sorted((ROOT / "examples" / "people" / "ada").glob("*.png"))]
    state = tmp_path / "state"
    with Rig(state, log_format="json", log_level="debug") as rig:
        rig.start_worker()
        identity_id = enrol(rig, pictures)
        known = markers(rig, pictures)
        before = everything(state)
        assert all(holding(before, known[it]) for it in ("handle", "name", "sealed embedding", "data key"))
        assert not any(holding(before, known[it]) for it in ("picture", "embedding")), "they are sealed at rest"
        assert open_to_others(state, before) == ["worker-0.log"], "only the log that the test itself opened"

        rows = [
            {"custom_id": f"p{n}", "people": [{"identity": HANDLE}], "steps": 12, "seed": n}
            | {"prompt": f"portrait of {NAME}", "layout": "portrait"}
            for n in range(12)
        ]
        batch_id = rig.submit([json.dumps(row) for row in rows])
        rig.wait(lambda: len(rig.outputs(batch_id)) >= 2 and busy(rig, batch_id), "some are done and some run", 120)
        with rig.ledger.read() as session:
            made = list(session.scalars(select(Artifact.key).join(Output, Output.artifact_id == Artifact.id)))

        receipt = identities.erase(rig.ledger, rig.store, rig.settings, OWNER, HANDLE)

        rig.wait(lambda: not busy(rig, batch_id), "nothing of the person runs any more", 30)
        rig.wait(lambda: not list(rig.store.list()), "no object of theirs is left in the store", 30)
        rig.ledger.settle()
        counts = rig.counts(batch_id)
        assert counts["completed"] + counts["cancelled"] == 12
        assert counts["cancelled"] >= 1
        after = everything(state)
        assert {what: holding(after, marker) for what, marker in known.items()} == {what: [] for what in known}
        for key in made:
            with pytest.raises(NotFoundError):
                rig.store.get(key)
        with pytest.raises(NotFoundError):
            identities.show(rig.ledger, OWNER, identity_id)
        receipts.verify(receipt, Signer.of(rig.settings).public_keys)
        with rig.ledger.read() as session:
            chain = audit.verify(session, anchor=(receipt["audit"]["id"], receipt["audit"]["hash"]))
        assert chain.broken is None
