"""Photo archives through the real stages: every photo ends in one state, what was computed serves again."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import pytest
from PIL import Image
from skimage import data as photographs
from sqlalchemy import delete, select

from fpga_models.lab.synthetic import random_scene, reference_crop, render
from fpga_models.lab.synthetic.archive import PEOPLE, Truth, worn, write_archive
from orchestrator.archive.reach import Reach
from orchestrator.contracts.photos import RedoOptions, Restored, RestoreOptions
from orchestrator.errors import ConsentError, InputError, StoreUnavailableError
from orchestrator.ledger import photos
from orchestrator.ledger.engine.states import BATCH_ENDED
from orchestrator.ledger.queue import batches
from orchestrator.ledger.tables.rows import Artifact, Item, Leader, Output
from orchestrator.ledger.tables.rows_photos import StageResult
from orchestrator.people import identities
from orchestrator.people.identities import ConsentGiven, NewPerson, Picture
from orchestrator.photos import feeding, restore
from orchestrator.planning.swaps import Rule
from orchestrator.results.delivery import Delivery
from orchestrator.results.export import write_contact_sheet
from orchestrator.secrets import credentials
from orchestrator.storage import Listed
from orchestrator.storage.local import LocalStore
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, Rig
from workers.runtime.process import Process

KNOWN = list(PEOPLE)[:6]
VERDICTS = {"accepted", "needs_review", "rejected", "unchanged"}
AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
GENTLE = 1.0
"""Half the steps, no guidance: for tests that ask what is done with a result, not how good it is."""
LOSSLESS = ("image/png", "image/tiff", "image/bmp")


def picture(identity: int, number: int) -> bytes:
    out = BytesIO()
    Image.fromarray(reference_crop(identity, np.random.default_rng([identity, number]), 256).image).save(out, "PNG")
    return out.getvalue()


@dataclass(frozen=True, kw_only=True)
class Shop:
    """One deployment with one worker inside the test's process."""

    rig: Rig
    process: Process

    def run(self, source: Path, **options: Any) -> str:
        """Restore a source from submit to its end and return the batch."""
        batch_id = self.open(source, **options)
        feeding.feed(self.rig.ledger, self.rig.store, self.rig.settings, OWNER, batch_id, lambda _: None)
        return self.finish(batch_id)

    def open(self, source: Path, **options: Any) -> str:
        return restore.submit(
            self.rig.ledger,
            self.rig.settings,
            source=str(source),
            options=RestoreOptions(**options),
            owner=OWNER,
            fed=False,
        ).batch_id

    def finish(self, batch_id: str) -> str:
        work(self.process, lambda: self.rig.state(batch_id) in BATCH_ENDED)
        return batch_id

    def enrol(self, people: dict[str, int], scopes: tuple[str, ...] = ("restore", "swap")) -> dict[int, str]:
        new = [
            NewPerson(
                handle=handle,
                pictures=tuple(Picture(name=f"{n}.png", data=picture(who, n)) for n in range(2)),
                consent=ConsentGiven(scopes=scopes, granted_by="test"),
            )
            for handle, who in people.items()
        ]
        rig = self.rig
        self.finish(identities.add(rig.ledger, rig.store, rig.settings, new, owner=OWNER))
        listed = {one["handle"]: one["id"] for one in identities.list_people(rig.ledger, OWNER)}
        return {who: listed[handle] for handle, who in people.items()}

    def result(self, batch_id: str, path: str) -> tuple[Item, list[Output], dict[str, dict[str, Any]]]:
        """Return the item of a path, its outputs, and what its stages said."""
        item = next(item for item in self.rig.items(batch_id) if item.params["path"] == path)
        with self.rig.ledger.read() as session:
            [detail] = batches.details(session, [item])
        said = {stage.name: stage.result or {} for stage in detail.stages}
        return item, [output for output, _ in detail.outputs], said


class WorkersStore(LocalStore):
    """What an account of a worker may do at the store, by docs/scale-out.md: read and write, not list or delete."""

    def list(self, prefix: str = "") -> Iterator[Listed]:
        raise AssertionError("a worker lists nothing")

    def delete(self, key: str) -> None:
        raise AssertionError("a worker deletes nothing")


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    with Rig(tmp_path_factory.mktemp("restore"), lease_seconds=60) as rig:
        yield Shop(rig=rig, process=Process(rig.settings, store=WorkersStore(rig.settings.state_dir / "store")))


@pytest.fixture(scope="module")
def library(shop: Shop) -> dict[int, str]:
    return shop.enrol({f"p{who}": who for who in KNOWN})


def small_faces(folder: Path, people: list[int], *, count: int = 1, kind: str = "portrait", wear: int = 2) -> Path:
    """Write photos of worn faces, one PNG for each scene."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        rng = np.random.default_rng([number, *people])
        shown = worn(rng, render(random_scene(rng, people, kind, 192)).image)
        low = Image.fromarray(shown).resize((192 // wear, 192 // wear), Image.Resampling.BOX)
        low.resize((192, 192), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    return folder


def test_an_archive_comes_back_with_its_good_photos_judged_and_its_bad_ones_typed(
    shop: Shop, library: dict[int, str], tmp_path: Path, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    truths = write_archive(tmp_path / "album.zip", count=10, seed=4, damaged=0.4)

    batch_id = shop.run(tmp_path / "album.zip", fidelity=GENTLE)

    assert shop.rig.state(batch_id) == "completed_with_errors"
    signed = assert_every_photo_ended_as_it_should(shop.rig, batch_id, truths)
    assert signed == {(True, "valid"), (False, "none")}, "some were changed, some not"
    assert_nothing_is_there_twice_and_nothing_is_left_over(shop.rig, batch_id)
    assert_the_tree_is_the_same(shop, batch_id, truths, tmp_path)
    for name, value in {**AWS, "AWS_ENDPOINT_URL_S3": moto_url}.items():
        monkeypatch.setenv(name, value)
    assert_a_bucket_gets_the_same_tree(shop, batch_id, tmp_path / "out")


def assert_every_photo_ended_as_it_should(rig: Rig, batch_id: str, truths: list[Truth]) -> set[tuple[bool, str]]:
    """Return (changed, its credential) as they came."""
    items = {item.params["path"]: item for item in rig.items(batch_id)}
    wanted = {truth.path: truth for truth in truths if truth.expected != "skipped"}
    assert items.keys() == wanted.keys()
    wrong = {
        path: (truth.kind, truth.expected, items[path].state, items[path].error_code)
        for path, truth in wanted.items()
        if (items[path].error_code or "photo") != truth.expected
        or (items[path].state == "completed") != (truth.expected == "photo")
    }
    assert wrong == {}
    assert {item.verdict for item in items.values() if item.state == "completed"} <= VERDICTS
    with rig.ledger.read() as session:
        made = [pair for detail in batches.details(session, list(items.values())) for pair in detail.outputs]
    signed = {(bool(output.scores and output.scores["changed"]), _credential(rig, stored)) for output, stored in made}
    assert signed <= {(True, "valid"), (False, "none")}, "what was changed is signed, and nothing else"
    assert all(item.error_stage and item.error_message for item in items.values() if item.state == "failed")
    return signed


def _credential(rig: Rig, stored: Artifact) -> str:
    return credentials.read(rig.store.get(stored.key), stored.media_type, rig.settings).state


def assert_nothing_is_there_twice_and_nothing_is_left_over(rig: Rig, batch_id: str) -> None:
    outputs = rig.outputs(batch_id)
    assert len({output.item_id for output in outputs}) == len(outputs) == rig.counts(batch_id)["completed"]
    with rig.ledger.read() as session:
        details = list(batches.details(session, batches.items(session, batch_id)))
        known = set(session.scalars(select(Artifact.key).where(Artifact.state.in_(("live", "pending")))))
    assert {listed.key for listed in rig.store.list()} <= known, "no orphan in the store"
    for detail in details:
        for output, artifact in detail.outputs:
            assert output.scores is not None
            if artifact.media_type in LOSSLESS:
                assert output.scores["outside"]["max"] == 0


def assert_a_bucket_gets_the_same_tree(shop: Shop, batch_id: str, folder: Path) -> None:
    client = boto3.client("s3")
    client.create_bucket(Bucket="restored")
    for _ in range(2):  # the second finds everything there
        reach = Reach(settings=shop.rig.settings, owner=OWNER, operator=True)
        Delivery(shop.rig.ledger, shop.rig.store, OWNER, batch_id, "s3://restored/autumn", reach).finish()
    found = {
        entry["Key"].removeprefix("autumn/"): client.get_object(Bucket="restored", Key=entry["Key"])["Body"].read()
        for entry in client.list_objects_v2(Bucket="restored")["Contents"]
    }
    assert found == {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}


def assert_the_tree_is_the_same(shop: Shop, batch_id: str, truths: list[Truth], tmp_path: Path) -> None:
    out = tmp_path / "out"
    delivery = Delivery(shop.rig.ledger, shop.rig.store, OWNER, batch_id, str(out))
    delivery.step()
    delivery.finish()
    Delivery(shop.rig.ledger, shop.rig.store, OWNER, batch_id, str(out)).finish()  # again: nothing is in the way

    written = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert written == {t.path for t in truths if t.expected == "photo"} | {
        "results.jsonl",
        "errors.jsonl",
        "files.jsonl",
    }
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert {line["path"]: line["error"]["code"] for line in errors} == {
        t.path: t.expected for t in truths if t.expected not in ("photo", "skipped")
    }
    sheet = write_contact_sheet(
        shop.rig.ledger, shop.rig.store, shop.process.context.vault, OWNER, batch_id, tmp_path / "sheet.html"
    )
    page = sheet.read_text()
    assert all(truth.path in page for truth in truths if truth.expected == "skipped")
    assert page.count('class="pair"') == shop.rig.counts(batch_id)["completed"]
    assert len(list((tmp_path / "sheet_files").iterdir())) == 2 * page.count('class="pair"')


def test_a_worn_face_of_a_known_person_is_restored_and_the_record_says_how(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    source = small_faces(tmp_path / "worn", [KNOWN[0]], count=3, kind="full_body", wear=5)

    batch_id = shop.run(source, everyone=f"p{KNOWN[0]}")

    outputs = [output for output in shop.rig.outputs(batch_id) if output.scores and output.scores["changed"]]
    assert outputs, [output.scores for output in shop.rig.outputs(batch_id)]
    for output in outputs:
        [face] = [face for face in output.record["faces"] if face["outcome"] == "changed"]
        assert face["person"] == {"identity": library[KNOWN[0]], "references": "library"}
        assert face["after"] > face["before"]
        assert output.scores is not None
        assert output.scores["outside"]["max"] == 0
        with shop.rig.ledger.read() as session:
            made = photos.said(session, output.item_id, Restored)
        assert made is not None
        assert made.preview is not None, "it can be looked at before it is scored"
        with Image.open(BytesIO(shop.rig.store.get(made.preview.key, sha256=made.preview.sha256))) as shown:
            assert shown.format == "JPEG"
        assert "worn" not in json.dumps(output.record), "a record holds no path"


def test_the_same_photos_in_another_archive_are_not_worked_on_again(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    source = small_faces(tmp_path / "first", [KNOWN[1]], kind="half_body")
    shutil.copytree(source, tmp_path / "second" / "moved")
    first = shop.run(source, fidelity=GENTLE)

    second = shop.run(tmp_path / "second", fidelity=GENTLE)
    forced = shop.run(tmp_path / "second", fidelity=GENTLE, force=True)

    old, _, _ = shop.result(first, "0.png")
    _, [output], said = shop.result(second, "moved/0.png")
    assert said["ingest_photo"]["reused_from"] == old.id
    assert said["restore"]["reused_from"]["result"] == old.id
    assert said["restore"]["inversions"] == {"reused": 0, "made": 0}
    assert output.record["reused_from"]["result"] == old.id
    _, [anew], said = shop.result(forced, "moved/0.png")
    assert said["restore"]["reused_from"] == {"faces": None, "inversion": None, "result": None}
    assert [face["after"] for face in anew.record["faces"]] == [face["after"] for face in output.record["faces"]]


@pytest.mark.slow
def test_the_same_picture_in_two_files_is_restored_once(shop: Shop, library: dict[int, str], tmp_path: Path) -> None:
    source = small_faces(tmp_path / "twins", [KNOWN[2]], kind="half_body")
    Image.open(source / "0.png").save(source / "same.tif")

    batch_id = shop.run(source)

    made = [shop.result(batch_id, name)[2]["restore"] for name in ("0.png", "same.tif")]
    assert [said["reused_from"]["result"] is None for said in made] == [True, False]


def test_a_photo_done_again_starts_from_its_inversion_and_says_so(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    batch_id = shop.run(small_faces(tmp_path / "again", [KNOWN[3]], kind="half_body"))
    item, _, before = shop.result(batch_id, "0.png")

    again = shop.finish(
        restore.redo(shop.rig.ledger, shop.rig.settings, OWNER, item.id, RedoOptions(fidelity=0.7, candidates=2))
    )

    _, outputs, said = shop.result(again, "0.png")
    assert before["restore"]["inversions"]["made"] > 0
    assert said["restore"]["inversions"]["made"] == 0
    assert said["restore"]["inversions"]["reused"] > 0
    assert said["restore"]["reused_from"]["inversion"] == item.id
    assert len(outputs) == 2
    assert {output.record["params"]["fidelity"] for output in outputs} == {0.7}
    assert all(output.record["reused_from"]["inversion"] == item.id for output in outputs)


def test_an_erased_person_takes_cached_results_and_copies_of_photos_along(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    rig, who = shop.rig, PEOPLE[8]
    added = shop.enrol({"passing": who})
    batch_id = shop.run(small_faces(tmp_path / "erased", [who], kind="half_body"), only=("passing",), fidelity=GENTLE)
    item, [output], said = shop.result(batch_id, "0.png")
    with rig.ledger.read() as session:
        keys = set(session.scalars(select(StageResult.key).where(StageResult.item_id == item.id)))
        taken = photos.artifacts_of(session, [item.id])
        objects = set(session.scalars(select(Artifact.key).where(Artifact.id.in_(taken | {output.artifact_id}))))
    assert len(keys) >= 3, "faces, inversion and result are kept"

    identities.erase(rig.ledger, rig.store, rig.settings, OWNER, added[who])

    with rig.ledger.read() as session:
        assert not set(session.scalars(select(StageResult.key).where(StageResult.key.in_(keys))))
    assert {listed.key for listed in rig.store.list()}.isdisjoint(objects)
    assert said["ingest_photo"]["faces_key"] in keys


@pytest.mark.slow
def test_unknown_people_are_restored_by_their_best_faces_and_only_where_somebody_answers_for_it(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    stranger = PEOPLE[10]
    source = tmp_path / "strangers"
    source.mkdir()
    for number in range(4):
        rng = np.random.default_rng([stranger, number])
        Image.fromarray(reference_crop(stranger, rng, 192).image).save(source / f"sharp-{number}.png")
    small_faces(source, [stranger], kind="half_body")

    with pytest.raises(ConsentError, match="--attest"):
        shop.open(source, unknown="cluster")
    batch_id = shop.run(source, unknown="cluster", attested="these are my grandparents")

    _, [output], _ = shop.result(batch_id, "0.png")
    people = [face["person"] for face in output.record["faces"] if face["person"]]
    assert people == [{"archive_person": 1, "references": "best faces of this archive"}]
    with shop.rig.ledger.read() as session:
        assert len(photos.people(session, batch_id)) == 1


def test_a_person_who_withdrew_is_not_restored_any_more(shop: Shop, library: dict[int, str], tmp_path: Path) -> None:
    who = PEOPLE[9]
    shop.enrol({"wavering": who})
    source = small_faces(tmp_path / "withdrawn", [who], kind="half_body")
    batch_id = shop.open(source, everyone="wavering")
    feeding.feed(shop.rig.ledger, shop.rig.store, shop.rig.settings, OWNER, batch_id, lambda _: None)

    identities.revoke(shop.rig.ledger, OWNER, "wavering", ["restore"])
    shop.finish(batch_id)

    item, outputs, _ = shop.result(batch_id, "0.png")
    assert (item.state, item.error_code, outputs) == ("failed", "consent_missing", [])
    with pytest.raises(ConsentError):
        shop.open(source, everyone="wavering")


def test_a_withdrawal_takes_its_person_out_and_not_the_archive(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    shop.enrol({"leaving": PEOPLE[8]})
    source = small_faces(tmp_path / "others", [KNOWN[0]], kind="half_body")
    batch_id = shop.open(source)
    feeding.feed(shop.rig.ledger, shop.rig.store, shop.rig.settings, OWNER, batch_id, lambda _: None)

    identities.revoke(shop.rig.ledger, OWNER, "leaving", ["restore"])
    shop.finish(batch_id)

    item, outputs, _ = shop.result(batch_id, "0.png")
    assert (item.state, len(outputs)) == ("completed", 1), item.error_message


@pytest.mark.slow
def test_faces_are_swapped_by_pairs_and_by_a_map(shop: Shop, library: dict[int, str], tmp_path: Path) -> None:
    source = small_faces(tmp_path / "swap", [KNOWN[0]], count=2, kind="half_body", wear=1)
    first, second = (f"p{who}" for who in KNOWN[4:6])

    product = shop.run(source, task="swap", to=(first, second))
    mapped = shop.run(source, task="swap", rules=(Rule(photo="1.png", of=f"p{KNOWN[0]}", to=first),))

    assert {item.params["path"] for item in shop.rig.items(product)} == {
        f"{number}.{handle}.png" for number in (0, 1) for handle in (first, second)
    }
    for output in shop.rig.outputs(product):
        [face] = output.record["faces"]
        assert face["person"]["identity"] in (library[KNOWN[4]], library[KNOWN[5]])
    other, _, _ = shop.result(mapped, "0.png")
    assert (other.state, other.error_code) == ("failed", "not_in_map")
    _, [output], _ = shop.result(mapped, "1.png")
    assert output.record["task"] == "swap"


def test_an_unreadable_archive_is_refused_before_anything_is_queued(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(b"PK\3\4 and then nothing")
    with shop.rig.ledger.read() as session:
        before = len(batches.listing(session, OWNER, limit=1000))

    with pytest.raises(InputError) as refused:
        shop.open(tmp_path / "cut.zip", unknown="keep")

    assert refused.value.code == "archive_unreadable"
    with shop.rig.ledger.read() as session:
        assert len(batches.listing(session, OWNER, limit=1000)) == before


@pytest.mark.slow
def test_a_feeder_that_dies_is_followed_by_one_that_reads_on(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    truths = write_archive(tmp_path / "album.tar", count=12, seed=9, damaged=0.25)
    batch_id = shop.open(tmp_path / "album.tar", only=(f"p{KNOWN[0]}",), fidelity=GENTLE)

    class KilledError(Exception):
        pass

    def die(fed: feeding.Fed) -> None:
        if fed.new >= 4:
            raise KilledError

    with pytest.raises(KilledError):
        feeding.feed(shop.rig.ledger, shop.rig.store, shop.rig.settings, OWNER, batch_id, die)
    work(shop.process, lambda: shop.rig.counts(batch_id)["completed"] > 0)
    assert shop.rig.state(batch_id) == "in_progress", "an open batch does not end"
    with shop.rig.ledger.write() as session:
        # the lease of a dead feeder lapses after a minute
        session.execute(delete(Leader).where(Leader.name == f"feed:{batch_id}"))

    feeding.feed(shop.rig.ledger, shop.rig.store, shop.rig.settings, OWNER, batch_id, lambda _: None)
    shop.finish(batch_id)

    assert_every_photo_ended_as_it_should(shop.rig, batch_id, truths)
    assert_nothing_is_there_twice_and_nothing_is_left_over(shop.rig, batch_id)


class FullStore:
    """The byte store with no room left, as long as somebody says so."""

    def __init__(self, store: Any) -> None:
        self.store = store
        self.full = False

    def put(self, key: str, data: Any, **facts: Any) -> Any:
        if self.full:
            raise StoreUnavailableError("no space left in the store", code="store_full")
        return self.store.put(key, data, **facts)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.store, name)


def test_a_full_store_pauses_the_batch_and_a_resume_goes_on(
    shop: Shop, library: dict[int, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = shop.rig
    batch_id = shop.open(small_faces(tmp_path / "full", [KNOWN[0]], count=2, kind="half_body"), fidelity=GENTLE)
    feeding.feed(rig.ledger, rig.store, rig.settings, OWNER, batch_id, lambda _: None)
    store = FullStore(rig.store)
    store.full = True
    monkeypatch.setattr(shop.process, "context", replace(shop.process.context, store=store))

    work(shop.process, lambda: rig.state(batch_id) == "paused")
    with rig.ledger.read() as session:
        paused = batches.get(session, OWNER, batch_id)
    assert paused.reason == "no space left in the store [store_full]"
    assert all(item.error_code is None for item in rig.items(batch_id)), "no item is to blame"

    store.full = False
    batches.resume(rig.ledger, OWNER, batch_id)
    shop.finish(batch_id)
    assert rig.state(batch_id) == "completed"


def test_a_real_photograph_comes_back_unharmed_with_the_reason(
    shop: Shop, library: dict[int, str], tmp_path: Path
) -> None:
    source = tmp_path / "real" / "astronaut.png"
    source.parent.mkdir()
    Image.fromarray(photographs.astronaut()).save(source)  # NASA, public domain

    batch_id = shop.run(source.parent)

    item, [output], _ = shop.result(batch_id, "astronaut.png")
    assert (item.state, item.verdict) == ("completed", "unchanged")
    assert output.scores is not None
    assert output.scores["reason"]["code"] in ("no_face", "outside_domain")
    with shop.rig.ledger.read() as session:
        [detail] = batches.details(session, [item])
    assert shop.rig.store.get(detail.outputs[0][1].key) == source.read_bytes()
