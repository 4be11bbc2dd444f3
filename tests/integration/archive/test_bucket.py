"""A prefix of a bucket is a source like any other, whatever its keys are called and whoever breaks the line."""

from __future__ import annotations

import io
import os
import tarfile
import uuid
import zipfile
from pathlib import Path

import boto3
import pytest
from PIL import Image

from orchestrator.archive import Photo, Refused, open_source
from orchestrator.archive.bucket import Place
from orchestrator.errors import NotFoundError, StoreUnavailableError
from tests.services.fault_proxy import fault_proxy

AWS = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "testing", "AWS_DEFAULT_REGION": "us-east-1"}
OUT = io.BytesIO()
Image.effect_noise((64, 64), 90).save(OUT, "PNG")
PNG = OUT.getvalue()


@pytest.fixture
def bucket(moto_url: str, monkeypatch: pytest.MonkeyPatch) -> str:
    for name, value in {**AWS, "AWS_ENDPOINT_URL_S3": moto_url}.items():
        monkeypatch.setenv(name, value)
    name = f"photos-{uuid.uuid4().hex[:8]}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def fill(bucket: str, objects: dict[str, bytes]) -> None:
    client = boto3.client("s3")
    for key, data in objects.items():
        client.put_object(Bucket=bucket, Key=key, Body=data)


def test_objects_below_a_prefix_come_out_in_order(bucket: str) -> None:
    fill(
        bucket,
        {
            "trip/b ü.png": PNG,
            "trip/a/../x.png": PNG,
            "trip/a/1.png": PNG,
            "trip/a/": b"",
            "trip/a/note.txt": b"hello",
            "trip/empty.jpg": b"",
            "other/c.png": PNG,
        },
    )

    with open_source(Place.of(f"s3://{bucket}/trip/")) as source:
        found = {}
        for member in source.members():
            if isinstance(member, Photo):
                assert member.stream.read() == PNG
                assert member.modified is not None
                found[member.path] = "photo"
            else:
                found[member.path] = member.error.code if isinstance(member, Refused) else "skipped"

    assert found == {
        "a/../x.png": "path_unsafe",
        "a/1.png": "photo",
        "a/note.txt": "skipped",
        "b ü.png": "photo",
        "empty.jpg": "image_empty",
    }


@pytest.mark.slow
def test_more_objects_than_one_page_are_all_found(bucket: str) -> None:
    fill(bucket, {f"many/{i:04}.txt": b"x" for i in range(1005)})

    with open_source(Place.of(f"s3://{bucket}/many/")) as source:
        assert sum(1 for _ in source.members()) == 1005


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_an_archive_in_a_bucket_is_read_where_it_lies(kind: str, bucket: str, tmp_path: Path) -> None:
    members = {f"{i}.png": PNG + os.urandom(700_000) for i in range(30)}
    path = tmp_path / f"a.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in members.items():
                archive.writestr(name, data)
    else:
        with tarfile.open(path, "w:gz") as tar:
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    fill(bucket, {f"up/{path.name}": path.read_bytes(), "up/other.txt": b"x"})

    with open_source(Place.of(f"s3://{bucket}/up/{path.name}")) as source:
        found = {m.path: m.stream.read() for m in source.members() if isinstance(m, Photo)}

    assert found == members


def test_an_empty_prefix_or_a_missing_bucket_is_said_before_anything_is_read(bucket: str) -> None:
    with pytest.raises(NotFoundError):
        open_source(Place.of(f"s3://{bucket}/nothing/"))
    with pytest.raises(StoreUnavailableError):
        open_source(Place.of("s3://no-such-bucket-anywhere/x"))


def test_an_object_that_vanishes_is_refused_alone(bucket: str) -> None:
    fill(bucket, {"a.png": PNG, "b.png": PNG, "c.png": PNG})

    codes = []
    with open_source(Place.of(f"s3://{bucket}/")) as source:
        for number, member in enumerate(source.members()):
            if number == 0:
                boto3.client("s3").delete_object(Bucket=bucket, Key="b.png")
            codes.append(member.error.code if isinstance(member, Refused) else "photo")

    assert codes == ["photo", "member_unreadable", "photo"]


def test_a_line_that_breaks_is_the_stores_fault_and_not_the_photos(
    bucket: str, moto_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(bucket, {"a.png": PNG + bytes(5_000_000)})

    with fault_proxy(moto_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        with open_source(Place.of(f"s3://{bucket}/")) as source:
            proxy.rule = lambda request: "cut" if "a.png" in request else "pass"
            for member in source.members():
                assert isinstance(member, Photo)
                with pytest.raises(StoreUnavailableError):
                    member.stream.read()
