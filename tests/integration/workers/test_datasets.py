"""Data sets built by real workers: from the renderer and from a folder of files, twice, and after an erase."""

from __future__ import annotations

import errno
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from datasets import load_dataset
from PIL import Image

from fpga_models.idzoom.shards import Sample, ShardWriter, read_samples
from fpga_models.lab.synthetic import reference_crop
from orchestrator.datasets import datasets
from orchestrator.datasets.datasets import BuildRequest
from orchestrator.errors import ConsentError, StageError, UsageError
from orchestrator.ledger.datasets import resolve, shards
from orchestrator.ledger.queue import batches
from orchestrator.people.identities import ConsentGiven, erase, grant
from tests.integration.workers.inline import work
from tests.integration.workers.rig import OWNER, Rig
from workers.runtime.process import Process

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[3]
SUFFIXES = ("png", "tif", "bmp")


@pytest.fixture(scope="module")
def rig(tmp_path_factory: pytest.TempPathFactory) -> object:
    with Rig(tmp_path_factory.mktemp("rig")) as running:
        running.start_worker()
        yield running


def write_person(folder: Path, person: int, pictures: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(pictures):
        image = reference_crop(person, np.random.default_rng([person, number]), 160).image
        Image.fromarray(image).save(folder / f"{number}.{SUFFIXES[number]}")
        (folder / f"{number}.txt").write_text(f"portrait number {number}")


def request(source: Path | str, name: str, **changes: object) -> BuildRequest:
    values = {"people": "folder", "licence": "CC0-1.0", "attestation": "signed forms", "chunk_pictures": 4}
    return BuildRequest(source=str(source), name=name, preset="mini", **{**values, **changes})  # type: ignore[arg-type]  # fields by name


def run(rig: Rig, wanted: BuildRequest) -> tuple[datasets.Build, str]:
    begun = datasets.build(rig.ledger, rig.store, rig.settings, wanted, owner=OWNER)
    return begun, datasets.wait(rig.ledger, OWNER, begun.batch_id)


def test_a_recipe_becomes_a_version_and_a_longer_one_reuses_its_chunks(rig: Rig) -> None:
    options = {"arrange": {"min_pictures": 1, "split": 0.7}, "chunk_pictures": 8}

    first, version = run(rig, request("render:3:24", "small", **options))
    again, same = run(rig, request("render:3:24", "small", **options))
    longer, other = run(rig, request("render:3:32", "small", **options))

    assert (first.chunks, first.reused) == (3, 0)
    assert again.repeated
    assert same == version
    assert (longer.chunks, longer.reused) == (4, 3)
    assert other != version
    with rig.ledger.read() as session:
        row = resolve(session, OWNER, "small@1")
        found = [artifact for _, artifact in shards(session, version)]
    assert row.id == version
    records = [
        sample.record
        for artifact in found
        for sample in read_samples(rig.store.open(artifact.key, sha256=artifact.sha256))
    ]
    assert len(records) == row.facts["pictures"] == 24
    assert all(person.skeleton[1, 2] or person.share > 0.3 for record in records for person in record.people)


def test_pictures_of_people_get_captions_sides_and_reasons(rig: Rig, tmp_path: Path) -> None:
    for person in range(6):
        write_person(tmp_path / f"person{person}", 100 + person, 3)
    write_person(tmp_path / "lonely", 300, 1)
    Image.new("RGB", (200, 200), "grey").save(tmp_path / "person0" / "wall.png")
    (tmp_path / "person1" / "cut.png").write_bytes((tmp_path / "person1" / "0.png").read_bytes()[:900])
    (tmp_path / "person2" / "twin.png").write_bytes((tmp_path / "person2" / "0.png").read_bytes())

    begun, version = run(rig, request(tmp_path, "people", arrange={"split": 0.5, "seed": 1}))

    with rig.ledger.read() as session:
        row = resolve(session, OWNER, version)
        index = pq.read_table(io.BytesIO(datasets.read_index(session, rig.store, row)))
    assert begun.pictures == 22
    assert row.facts["refused"] == {"image_truncated": 1, "no_face": 1}
    assert row.facts["left_out"] == {"duplicate": 1, "single_picture": 1}
    table = index.to_pylist()
    sides = {(line["person"], line["split"]) for line in table if line["split"]}
    assert len(sides) == 6, "every person is on one side only"
    assert {side for _, side in sides} == {"train", "val"}
    assert all(not line["person"].startswith("person") for line in table), "folder names stay outside"


def test_who_is_in_the_library_must_allow_training_and_an_erase_taints(rig: Rig, tmp_path: Path) -> None:
    (enrolled,) = rig.enrol("ada")
    for person in range(3):
        write_person(tmp_path / f"someone{person}", 500 + person, 2)
    for path in (ROOT / "examples" / "people" / "ada").glob("*.png"):
        (tmp_path / "ada").mkdir(exist_ok=True)
        (tmp_path / "ada" / path.name).write_bytes(path.read_bytes())
    wanted = request(tmp_path, "with-ada", arrange={"split": 1.0})

    with pytest.raises(ConsentError):
        run(rig, wanted)
    grant(rig.ledger, OWNER, "ada", ConsentGiven(scopes=("train",), granted_by="test"))
    _, version = run(rig, wanted)
    with rig.ledger.read() as session:
        keys = [artifact.key for _, artifact in shards(session, version)]
    receipt = erase(rig.ledger, rig.store, rig.settings, OWNER, "ada")

    assert receipt["tainted"] == {"data_sets": [version], "models": []}
    with rig.ledger.read() as session:
        assert resolve(session, OWNER, version).tainted_at is not None
    assert any(rig.store.head(key) is None for key in keys), "shards that show the person are gone"
    assert receipt["identity_id"] == enrolled.identity_id
    report = json.loads(rig.fpga("model", "taint-report", "--json").stdout)
    assert [found["id"] for found in report["datasets"]] == [version]
    assert report["retrain"] == []


def test_builds_that_cannot_be_published_say_why_and_publish_nothing(rig: Rig, tmp_path: Path) -> None:
    write_person(tmp_path / "one", 700, 2)

    with pytest.raises(UsageError, match="--attest"):
        run(rig, request(tmp_path, "alone", attestation=None))
    with pytest.raises(StageError) as empty_side:
        run(rig, request(tmp_path, "alone"))

    assert empty_side.value.code == "split_empty"
    ran = rig.fpga("dataset", "list", "--json")
    assert "alone" not in {entry["name"] for entry in json.loads(ran.stdout)}


def test_a_disk_that_fills_up_pauses_the_build_and_resume_publishes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Rig(tmp_path / "state") as rig:
        process = Process(rig.settings)
        wanted = request("render:3:16", "full", arrange={"min_pictures": 1, "split": 0.7}, chunk_pictures=8)
        begun = datasets.build(rig.ledger, rig.store, rig.settings, wanted, owner=OWNER)
        real, written = ShardWriter.write, []

        def write(writer: ShardWriter, sample: Sample) -> None:
            if len(written) == 10:
                raise OSError(errno.ENOSPC, "No space left on device")
            written.append(sample.record.key)
            real(writer, sample)

        monkeypatch.setattr(ShardWriter, "write", write)
        work(process, lambda: rig.state(begun.batch_id) == "paused")
        told = datasets.progress(rig.ledger, OWNER, begun.batch_id).paused
        assert rig.counts(begun.batch_id)["completed"] == 1
        monkeypatch.setattr(ShardWriter, "write", real)
        batches.resume(rig.ledger, OWNER, begun.batch_id)
        work(process, lambda: datasets.progress(rig.ledger, OWNER, begun.batch_id).ended)

        assert told is not None
        assert "[disk_full]" in told
        assert datasets.progress(rig.ledger, OWNER, begun.batch_id).version_id is not None


def test_versions_are_compared_and_exported_for_other_tools_and_a_damaged_shard_is_noticed(
    rig: Rig, tmp_path: Path
) -> None:
    options = {"arrange": {"min_pictures": 1, "split": 0.7}, "chunk_pictures": 8}
    _, one = run(rig, request("render:3:24", "compared", **options))
    _, two = run(rig, request("render:3:32", "compared", **options))

    found = json.loads(rig.fpga("dataset", "diff", one, "compared", "--json").stdout)
    exported = rig.fpga("dataset", "export", "compared@1", str(tmp_path / "out"), "--json")
    again = rig.fpga("dataset", "export", "compared@1", str(tmp_path / "out"))

    assert found["to"] == two
    assert found["shards"] == {"shared": 3, "from": 3, "to": 4}
    assert found["pictures"]["added"]["count"] > 0 == found["pictures"]["removed"]["count"]
    assert exported.returncode == 0, exported.stderr
    assert again.returncode == 1
    rows = list(load_dataset("webdataset", data_files=str(tmp_path / "out" / "*.tar"), split="train", streaming=True))
    index = pq.read_table(tmp_path / "out" / "index.parquet").to_pylist()
    kept = {row["key"]: row["split"] for row in index if row["split"]}
    assert {row["json"]["key"]: row["json"]["split"] for row in rows} == kept
    assert all(person["person"].startswith("render-") for row in rows for person in row["json"]["people"])
    with rig.ledger.read() as session:
        _, artifact = shards(session, one)[0]
    path = Path(rig.settings.state_dir) / "store" / artifact.key
    path.write_bytes(path.read_bytes()[:-600] + b"\1" * 600)
    broken = rig.fpga("dataset", "export", "compared@1", str(tmp_path / "broken"), "--json")
    assert broken.returncode == 1
    assert "object_damaged" in broken.stderr
    assert not (tmp_path / "broken").exists()
