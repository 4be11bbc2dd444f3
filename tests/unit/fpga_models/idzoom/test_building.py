"""A chunk of rendered pictures with the shipped networks, and the folder that training reads."""

from __future__ import annotations

from collections import deque
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fpga_models.core.presets import SHIPPED
from fpga_models.core.weights import file_sha256
from fpga_models.faces.errors import FacePackError
from fpga_models.faces.pack import FacePack
from fpga_models.faces.pose import PoseNetwork
from fpga_models.idzoom.annotate import AnnotateOptions, RawPicture
from fpga_models.idzoom.arrange import ArrangeOptions, arrange, index_tables
from fpga_models.idzoom.chunk import ChunkResult, build_chunk
from fpga_models.idzoom.errors import ShardError
from fpga_models.idzoom.materialise import ShardFile, materialise
from fpga_models.idzoom.scenes import open_scenes
from fpga_models.lab.mini.faces.pose import held_out_people, pose_figures
from fpga_models.lab.rendered import rendered
from fpga_models.lab.synthetic.dataset import TEST_IDENTITIES, render_scenes, scene_of
from fpga_models.lab.synthetic.render import render

MINI = SHIPPED / "mini"
OPTIONS = AnnotateOptions(side=128, max_people=4)


@pytest.fixture(scope="module")
def networks() -> tuple[FacePack, PoseNetwork]:
    return FacePack.load(MINI / "faces"), PoseNetwork.load(MINI / "pose")


@pytest.fixture(scope="module")
def chunk(networks: tuple[FacePack, PoseNetwork], tmp_path_factory: pytest.TempPathFactory) -> ChunkResult:
    folder = tmp_path_factory.mktemp("chunk")
    wall = np.full((128, 128, 3), 90, np.uint8)
    empty = RawPicture(name="wall.png", sha256="f" * 64, data=b"", suffix="png", image=wall)
    pictures = [*rendered(5, range(12)), empty]
    return deque(build_chunk(pictures, folder, *networks, OPTIONS), maxlen=1).pop()


@pytest.fixture(scope="module")
def index(chunk: ChunkResult) -> Path:
    tables = [pq.read_table(chunk.facts)]
    made = arrange(lambda: tables, ArrangeOptions(min_pictures=1, split=0.6))
    path = chunk.facts.with_name("index.parquet")
    pq.write_table(pa.concat_tables(index_tables(tables, made)), path)
    return path


def test_rendered_people_are_found_where_the_renderer_put_them(chunk: ChunkResult) -> None:
    table = pq.read_table(chunk.facts)
    truth = [f"render-{person.identity}" for i in range(12) for person in render(scene_of(5, i, range(8000))).people]

    assert [(r.name, r.code) for r in chunk.refused] == [("wall.png", "no_face")]
    assert chunk.records == 12
    assert set(table["label"].to_pylist()) <= set(truth)
    assert len(table) >= 0.9 * len(truth)


def test_the_pose_network_finds_the_joints_of_people_it_never_saw(
    networks: tuple[FacePack, PoseNetwork], tmp_path: Path
) -> None:
    render_scenes(tmp_path, 24, 11, TEST_IDENTITIES, 1)

    figures = pose_figures(networks[1], held_out_people(open_scenes(tmp_path), 24))

    assert figures["pck@0.2"] > 0.93
    assert figures["seen"] > 0.93


def test_a_pose_network_that_was_altered_is_refused(tmp_path: Path) -> None:
    for name in ("pose.json", "pose.onnx"):
        (tmp_path / name).write_bytes((MINI / "pose" / name).read_bytes())
    with (tmp_path / "pose.onnx").open("ab") as file:
        file.write(b"x")

    with pytest.raises(FacePackError, match="sha256"):
        PoseNetwork.load(tmp_path)
    with pytest.raises(FacePackError, match=r"pose\.json"):
        PoseNetwork.load(tmp_path / "nowhere")


def test_the_training_folder_holds_the_views_of_each_side(
    chunk: ChunkResult, index: Path, networks: tuple[FacePack, PoseNetwork], tmp_path: Path
) -> None:
    shard = ShardFile(path=chunk.shard, sha256=file_sha256(chunk.shard))
    rows = [row for row in pq.read_table(index).to_pylist() if row["place"] == 0]

    out = materialise(index, [shard], MINI / "vae", 128, tmp_path / "data")

    embeddings = np.load(out / "embeddings.npy")
    for side, part in (("train", "scenes"), ("val", "scenes_test")):
        scenes = open_scenes(out / part)
        assert len(scenes) == sum(row["views"] for row in rows if row["split"] == side) > 0
        assert np.load(out / "latents" / f"{part}.npy").shape == (len(scenes), 16, 16, 16)
        assert (scenes.count == (scenes.identity >= 0).sum(1)).all()
        assert scenes.identity.max() < len(embeddings)
    train, val = open_scenes(out / "scenes"), open_scenes(out / "scenes_test")
    assert not set(np.unique(train.identity)) & set(np.unique(val.identity)) - {-1}
    crops = np.load(out / "crops" / "crops.npy")
    own = (networks[0].embed_crops(list(crops[::8])) * embeddings[:, 0]).sum(1)
    assert own.min() > 0.99, "each crop is the picture that its embedding is of"


def test_a_shard_that_was_laid_out_before_costs_nothing_and_an_altered_one_is_refused(
    chunk: ChunkResult, index: Path, tmp_path: Path
) -> None:
    shard = ShardFile(path=chunk.shard, sha256=file_sha256(chunk.shard))
    materialise(index, [shard], MINI / "vae", 128, tmp_path / "one", cache=tmp_path / "pieces")
    altered = tmp_path / "shard.tar"
    altered.write_bytes(chunk.shard.read_bytes()[:-2000] + b"\1" * 2000)

    gone = ShardFile(path=tmp_path / "gone", sha256=shard.sha256)
    again = materialise(index, [gone], MINI / "vae", 128, tmp_path / "two", cache=tmp_path / "pieces")

    assert (again / "materialised.json").is_file()
    with pytest.raises(ShardError, match="the version says"):
        materialise(index, [ShardFile(path=altered, sha256=shard.sha256)], MINI / "vae", 128, tmp_path / "three")
    assert not (tmp_path / "three" / "materialised.json").exists()
