"""Plays the parts around the services: a worker without networks, pictures of one colour, short manifests."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
from PIL import Image
from sqlalchemy import select, update
from sqlalchemy.orm import Session

from orchestrator.contracts.people import GivenConsent, picture_place
from orchestrator.contracts.photos import Ingested, PhotoOptions, PhotoParams
from orchestrator.errors import StageError
from orchestrator.ledger import artifacts, identities, photos
from orchestrator.ledger.engine.base import new_id
from orchestrator.ledger.engine.session import Ledger
from orchestrator.ledger.queue import batches, claims, outcomes, outputs, sweeper
from orchestrator.ledger.queue.batches import NewBatch, NewItem
from orchestrator.ledger.queue.outcomes import Outcome
from orchestrator.ledger.tables.rows import Identity, Item, Output, Stage
from orchestrator.models import registry
from orchestrator.secrets.vault import Envelope, Vault
from orchestrator.settings import Settings
from orchestrator.storage import ByteStore, content_key

AddPerson = Callable[..., str]


def lines(*rows: dict[str, Any]) -> bytes:
    """Return rows as a JSONL manifest."""
    return "\n".join(json.dumps(row) for row in rows).encode()


def picture(colour: tuple[int, int, int] = (200, 120, 90), size: int = 32, form: str = "PNG") -> bytes:
    """Return a small picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(file, form)
    return file.getvalue()


def add_person(
    ledger: Ledger, handle: str, *scopes: str, expires_at: datetime | None = None, owner: str = "local"
) -> str:
    """Write a person with consents and without pictures and return the id."""
    with ledger.write() as session:
        moment = datetime.now(UTC)
        row = Identity(id=new_id("idn"), owner=owner, handle=handle, name=None, created_at=moment)
        session.add(row)
        session.flush()
        for scope in scopes:
            identities.grant(
                session,
                owner,
                row.id,
                scope=scope,
                granted_by="test",
                text_sha256=None,
                expires_at=expires_at,
                moment=moment,
            )
        return row.id


@dataclass(frozen=True, kw_only=True)
class Played:
    """Plays a worker against the ledger: real claims and publishes, pictures of one colour instead of networks."""

    ledger: Ledger
    store: ByteStore
    settings: Settings

    def work(
        self,
        *,
        failing: Sequence[str] = (),
        verdict: str = "accepted",
        similarity: float = 0.8,
        queues: Sequence[str] = ("cpu.io", "gpu.generate", "cpu.io"),
    ) -> int:
        """Do everything that is due in all queues and return how many stages ended; `failing` are custom_ids."""
        version = registry.ensure_registered(self.ledger, self.settings)
        ended = 0
        for queue in queues:
            while held := self._claim(queue):
                for c in held:
                    ended += 1
                    if c.custom_id in failing:
                        error = StageError("the pipe broke", code="pipe_broken")
                        outcomes.fail(self.ledger, c, error, max_failures=1, backoff_seconds=0)
                    elif c.name == "generate":
                        self._generate(c, version)
                    elif c.name == "score":
                        self._score(c, verdict, similarity)
                    else:
                        self._enrol(c)
        return ended

    def hold(self) -> None:
        """Die of everything that is due for drawing, one by one, so often that all of it is held."""
        settings = self.settings.model_copy(update={"max_crashes": 1})
        while claims.start(
            self.ledger,
            claims.claim(self.ledger, worker_id="wrk_test", queues=["gpu.generate"], limit=1, lease_seconds=60),
        ):
            with self.ledger.write() as session:
                past = datetime.now(UTC) - timedelta(seconds=1)
                session.execute(update(Stage).where(Stage.state == "running").values(lease_until=past))
            sweeper.sweep(self.ledger, settings)

    def draw(self, c: claims.Claim) -> bytes:
        """Return the picture that a stage makes."""
        return picture((c.seed % 256, c.stage_id % 256, 90))

    def _claim(self, queue: str) -> list[claims.Claim]:
        held = claims.claim(self.ledger, worker_id="wrk_test", queues=[queue], limit=8, lease_seconds=60)
        return claims.start(self.ledger, held)

    def _generate(self, c: claims.Claim, version: str) -> None:
        data = self.draw(c)
        width, height = Image.open(io.BytesIO(data)).size
        sha256 = hashlib.sha256(data).hexdigest()
        key = content_key(c.owner, sha256, ".png")
        artifact = artifacts.reserve(
            self.ledger, owner=c.owner, sha256=sha256, key=key, size=len(data), media_type="image/png"
        )
        self.store.put(key, data, media_type="image/png")
        output = Output(
            id=new_id("out"),
            item_id=c.item_id,
            batch_id=c.batch_id,
            owner=c.owner,
            round=c.round,
            artifact_id=artifact,
            token=c.token,
            width=width,
            height=height,
            seed=c.seed,
            model_version_id=version,
            record={"seed": c.seed, "params": c.params, "small_faces": small_faces(len(c.params["people"]))},
            created_at=datetime.now(UTC),
        )

        def write(session: Session, _: datetime) -> None:
            artifacts.confirm(session, artifact)
            session.add(output)
            session.flush()
            outputs.show(session, c, output.id)

        outcomes.publish(self.ledger, c, Outcome(result={"sha256": sha256}, write=write))

    def _score(self, c: claims.Claim, verdict: str, similarity: float) -> None:
        def write(session: Session, _: datetime) -> None:
            (output,) = session.scalars(select(Output).where(Output.item_id == c.item_id))
            output.verdict, output.similarity = verdict, similarity
            output.scores = scores(len(c.params["people"]), similarity, output.width, output.height)
            session.execute(
                update(Item)
                .where(Item.id == c.item_id)
                .values(output_id=output.id, verdict=verdict, similarity=similarity)
            )

        outcomes.publish(self.ledger, c, Outcome(result={"verdict": verdict}, write=write))

    def _enrol(self, c: claims.Claim) -> None:
        vault = Vault.of(self.settings)
        embedding = np.zeros(512, np.float32)
        embedding[0] = 1.0
        found = []
        for reference in c.params["references"]:
            envelope = Envelope(key=reference["data_key"], place=picture_place(reference["picture_sha256"]))
            found.append(
                identities.NewReference(
                    artifact_id=reference["artifact_id"],
                    encoder="e" * 64,
                    envelope=envelope,
                    picture_sha256=reference["picture_sha256"],
                    crop=vault.seal(envelope, picture()),
                    embedding=vault.seal(envelope, embedding.tobytes()),
                    face={"box": [4.0, 4.0, 28.0, 28.0], "score": 0.9},
                )
            )

        def write(session: Session, moment: datetime) -> None:
            p = c.params
            identities.enrol(
                session,
                c.owner,
                handle=p["handle"],
                name=p["name"],
                found=found,
                consent=GivenConsent.load(p["consent"]),
                moment=moment,
                rewrap=vault.rewrap,
            )

        outcomes.publish(self.ledger, c, Outcome(result={"references": len(found)}, write=write))


def small_faces(people: int) -> list[dict[str, Any]]:
    """Return what a generate stage says of a group's faces: of those drawn again the first stayed as it was."""
    if people == 1:
        return []
    outcomes = ["similarity_did_not_rise", *["changed"] * (people - 1)]
    return [{"person": n, "outcome": outcome, "before": 0.41, "after": 0.72} for n, outcome in enumerate(outcomes)]


def scores(people: int, similarity: float, width: int, height: int) -> dict[str, Any]:
    """Return what a score stage says where everybody stands at their place, side by side."""
    matrix = [[similarity if face == person else 0.12 for person in range(people)] for face in range(people)]
    return {
        "people": [{"face": n, "similarity": similarity, "nearest": n} for n in range(people)],
        "matrix": matrix,
        "faces": [
            {
                "box": [width * (n + 0.25) / people, height * 0.2, width * (n + 0.75) / people, height * 0.85],
                "score": 0.9,
            }
            for n in range(people)
        ],
        "thresholds": {"accept": 0.55, "review": 0.4},
    }


def restored_photo(
    ledger: Ledger, store: ByteStore, settings: Settings, name: str, before: bytes, after: bytes, identity: str
) -> str:
    """Write a photo (PNG) as if workers had restored it in a batch of its own, and return its item's id."""
    version = registry.ensure_registered(ledger, settings)
    kept = {which: _stored(ledger, store, data) for which, data in (("before", before), ("after", after))}
    width, height = Image.open(io.BytesIO(after)).size
    options = PhotoOptions().dump()
    ingested = Ingested(width=width, height=height, pixels_sha256="p" * 64, phash="0" * 16, faces_key="k", faces=1)
    params = PhotoParams(path=name, ingested=ingested).dump()
    batch_id = batches.submit(
        ledger,
        NewBatch(
            owner="local",
            kind=photos.KIND,
            name="Attic",
            preset=settings.preset,
            items=[NewItem(custom_id=name, params=params, params_sha256="b" * 64, seed=7, identities=(identity,))],
            model_version_id=version,
            options=options,
            flow=False,
        ),
    ).batch_id
    faces = [{"person": {"identity": identity}, "outcome": "restored", "before": 0.31, "after": 0.74}]
    previews = {which: {"key": key, "sha256": sha256} for which, (_, key, sha256) in kept.items()}
    scores = {"reason": None, "faces": faces, "notes": ["positions were kept"], "previews": previews}
    with ledger.write() as session:
        item = session.scalars(select(Item).where(Item.batch_id == batch_id)).one()
        for artifact_id, _, _ in kept.values():
            artifacts.confirm(session, artifact_id)
        output = Output(
            id=new_id("out"),
            item_id=item.id,
            batch_id=batch_id,
            owner="local",
            round=0,
            artifact_id=kept["after"][0],
            token=1,
            width=width,
            height=height,
            seed=7,
            model_version_id=version,
            record={"schema": "fpga/restored/1"},
            verdict="accepted",
            similarity=0.74,
            scores=scores,
            created_at=datetime.now(UTC),
        )
        session.add(output)
        session.flush()
        item.state, item.verdict, item.similarity, item.output_id = "completed", "accepted", 0.74, output.id
        return item.id


def _stored(ledger: Ledger, store: ByteStore, data: bytes) -> tuple[str, str, str]:
    """Store a PNG and return (artifact id, key, sha256); the caller confirms the artifact."""
    sha256 = hashlib.sha256(data).hexdigest()
    key = content_key("local", sha256, ".png")
    artifact_id = artifacts.reserve(
        ledger, owner="local", sha256=sha256, key=key, size=len(data), media_type="image/png"
    )
    store.put(key, data, media_type="image/png")
    return artifact_id, key, sha256
