"""What S3 over a bad network, and S3 of many makers, must survive."""

from __future__ import annotations

import hashlib
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import EndpointConnectionError

from orchestrator.errors import SettingsError, StoreUnavailableError, TransientError
from orchestrator.storage import ByteStore, content_key
from orchestrator.storage.s3 import S3Store
from tests.integration.storage.conftest import Place, s3_place
from tests.services.fault_proxy import Fault, FaultProxy
from tests.services.server import free_port
from tests.services.swift import Swift

PNG = "image/png"


def patient_put(store: ByteStore, data: bytes) -> str:
    """Do what a worker does: try again while the error says that it is worth it."""
    sha256 = hashlib.sha256(data).hexdigest()
    for _ in range(10):
        try:
            return store.put(content_key("local", sha256, ".png"), data, media_type=PNG, sha256=sha256).key
        except TransientError:
            continue
    raise AssertionError("ten tries were not enough")


def quick_store(place: Place, **options: Any) -> S3Store:
    """Open the S3 place with short timeouts."""
    bucket = place.environment["FPGA_STORE_URL"].split("/")[2]
    chosen = {"connect_timeout": 1.0, "read_timeout": 0.25, "tries": 2} | options
    return S3Store(bucket=bucket, prefix="some/prefix", addressing_style="path", **chosen)


@pytest.mark.parametrize("fault", [500, 503, "lose", "hang"])
def test_a_passing_fault_is_not_noticed(proxied: Place, proxy: FaultProxy, fault: Fault) -> None:
    store = quick_store(proxied)
    proxy.plan(fault)
    stored = store.put("a/b", b"data", media_type=PNG)
    proxy.plan(fault)
    assert store.get("a/b") == b"data"
    proxy.plan(fault)
    assert store.head("a/b") == stored
    assert not proxy.faults


@pytest.mark.parametrize(("fault", "words"), [(500, "500"), (503, "503"), ("hang", "ReadTimeout")])
def test_a_lasting_fault_is_one_typed_error(proxied: Place, proxy: FaultProxy, fault: Fault, words: str) -> None:
    store = quick_store(proxied)
    calls: list[Callable[[], object]] = [
        lambda: store.put("a/b", b"data", media_type=PNG),
        lambda: store.get("a/b"),
        lambda: store.open("a/b"),
        lambda: store.head("a/b"),
        lambda: store.delete("a/b"),
        lambda: list(store.list()),
        lambda: store.sweep_stale(0),
    ]
    for call in calls:
        proxy.plan(fault, fault)
        with pytest.raises(StoreUnavailableError, match=words) as caught:
            call()
        assert caught.value.retryable
        assert caught.value.code == "store_unavailable"


@pytest.mark.parametrize("fault", ["cut", "flip"])
def test_a_body_spoiled_on_the_way_is_asked_for_again(proxied: Place, proxy: FaultProxy, fault: Fault) -> None:
    store = proxied.open()
    data = os.urandom(100_000)
    key = patient_put(store, data)
    proxy.plan(fault, fault)
    assert store.get(key) == data
    proxy.plan(fault)
    with pytest.raises(TransientError), store.open(key) as stream:
        stream.read()


def test_a_body_spoiled_three_times_is_an_error(proxied: Place, proxy: FaultProxy) -> None:
    store = proxied.open()
    key = patient_put(store, os.urandom(1000))
    proxy.plan("flip", "flip", "flip")
    with pytest.raises(TransientError) as caught:
        store.get(key)
    assert caught.value.code == "object_damaged"


def test_under_many_faults_every_object_is_stored_once_and_right(proxied: Place, proxy: FaultProxy) -> None:
    store = quick_store(proxied, read_timeout=0.2, tries=3)
    faults: list[Fault] = [500, 503, "lose", "cut", "flip", "hang"]
    chance = random.Random(7)
    proxy.plan(*(chance.choice(faults) if chance.random() < 0.2 else "pass" for _ in range(200)))
    pictures = [chance.randbytes(5000) for _ in range(15)]
    keys = [patient_put(store, data) for data in pictures]
    proxy.faults.clear()
    assert [store.get(key) for key in keys] == pictures
    assert sorted(listed.key for listed in store.list()) == sorted(keys)


def test_an_unreachable_endpoint_is_a_typed_error_within_seconds(
    proxied: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{free_port()}")
    store = proxied.open()
    start = time.monotonic()
    with pytest.raises(StoreUnavailableError, match="cannot be reached"):
        store.get("a/b")
    with pytest.raises(StoreUnavailableError, match="a probe could not be written"):
        store.check()
    assert time.monotonic() - start < 60


def test_a_bucket_that_does_not_exist_is_named(proxied: Place) -> None:
    store = S3Store(bucket="no-such-bucket", addressing_style="path")
    with pytest.raises(StoreUnavailableError, match=r"no-such-bucket.*create it first"):
        store.check()


def test_missing_credentials_are_named(proxied: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(SettingsError, match="AWS_ACCESS_KEY_ID") as caught:
        proxied.open().get("a/b")
    assert caught.value.code == "store_credentials_missing"


def test_a_malformed_endpoint_is_named(proxied: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "nonsense")
    with pytest.raises(SettingsError, match="nonsense"):
        proxied.open()


@pytest.mark.parametrize("status", [501, 409])
def test_a_store_without_conditional_puts_is_written_plainly(proxied: Place, proxy: FaultProxy, status: int) -> None:
    store = proxied.open()
    proxy.plan(status)
    assert store.put("a/b", b"data", media_type=PNG).size == 4
    assert store.get("a/b") == b"data"
    proxy.seen.clear()
    store.put("a/c", b"data", media_type=PNG)
    conditions = [headers.get("if-none-match") for request, headers in proxy.seen if request.startswith("PUT")]
    assert conditions == ([None] if status == 501 else ["*"]), "501 is remembered, a race is not"


def test_a_lost_answer_to_a_finished_put_is_no_conflict(proxied: Place, proxy: FaultProxy) -> None:
    store = proxied.open()
    proxy.plan("lose")
    assert store.put("a/b", b"data", media_type=PNG).size == 4
    assert [listed.size for listed in store.list()] == [4]


def test_every_put_carries_a_checksum_that_all_stores_know(proxied: Place, proxy: FaultProxy) -> None:
    proxied.open().put("a/b", b"data", media_type=PNG)
    (_, headers), *_ = [seen for seen in proxy.seen if seen[0].startswith("PUT")]
    assert headers["content-md5"] == "jXd/OF09/siBXSD3SWAm3A=="
    assert headers["x-amz-content-sha256"] == hashlib.sha256(b"data").hexdigest()
    assert headers["x-amz-meta-sha256"] == hashlib.sha256(b"data").hexdigest()
    assert "x-amz-checksum-crc32" not in headers, "some stores refuse it"


def test_on_aws_itself_the_store_checks_sha256(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    sent: list[AWSPreparedRequest] = []

    def look(request: AWSPreparedRequest, **_: Any) -> None:
        sent.append(request)
        raise EndpointConnectionError(endpoint_url=request.url)  # no test talks to the outside

    store = S3Store(bucket="bucket", tries=1)
    store._client.meta.events.register("before-send.s3.PutObject", look)
    with pytest.raises(StoreUnavailableError, match=r"amazonaws\.com"):
        store.put("a/b", b"data", media_type=PNG)
    headers: Any = sent[0].headers
    assert headers["x-amz-checksum-sha256"] == b"Om6weQ85rIfJTzhWst0sXREOaBFgImGpqSPTuyOtyLc="


def test_a_large_object_goes_up_in_parts_and_a_failed_one_is_aborted(proxied: Place, proxy: FaultProxy) -> None:
    store = quick_store(proxied, multipart_threshold=5 << 20, read_timeout=20.0)
    data = os.urandom(11 << 20)
    proxy.rule = lambda request: 500 if "partNumber=2" in request else "pass"
    with pytest.raises(StoreUnavailableError):
        store.put("a/b", data, media_type=PNG)
    proxy.rule = lambda request: "pass"
    assert store.head("a/b") is None
    assert store.sweep_stale(0) == 0, "the failed upload was aborted at once"
    proxy.seen.clear()
    stored = store.put("a/b", data, media_type=PNG)
    assert sum("partNumber=" in request for request, _ in proxy.seen) == 3
    assert store.head("a/b") == stored
    assert store.get("a/b") == data
    proxy.seen.clear()
    assert store.put("a/b", data, media_type=PNG) == stored
    assert [request.split()[0] for request, _ in proxy.seen] == ["HEAD"]


def test_links_are_signed_for_the_public_endpoint(proxied: Place, proxy: FaultProxy, moto_url: str) -> None:
    public = moto_url.replace("127.0.0.1", "localhost")
    bucket = proxied.environment["FPGA_STORE_URL"].split("/")[2]
    store = S3Store(bucket=bucket, addressing_style="path", public_endpoint_url=public)
    store.put("a/b.png", b"picture", media_type=PNG)
    asked = len(proxy.seen)
    link = store.url("a/b.png", expires_seconds=60, filename="portrait.png", media_type=PNG)
    assert link.startswith(f"{public}/{bucket}/a/b.png?")
    assert len(proxy.seen) == asked, "signing asks nobody"
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == b"picture"
        assert 'filename="portrait.png"' in answer.headers["Content-Disposition"]


@pytest.fixture
def swift_place(swift_server: Swift, monkeypatch: pytest.MonkeyPatch) -> Place:
    place = s3_place(swift_server.environment_for_clients())
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    return place


@pytest.mark.slow
def test_a_real_store_refuses_a_link_bent_to_another_use(swift_place: Place) -> None:
    store = swift_place.open()
    store.put("a/b", b"mine", media_type=PNG)
    store.put("a/c", b"other", media_type=PNG)
    short = store.url("a/b", expires_seconds=1)
    link = store.url("a/b", expires_seconds=60)
    with urllib.request.urlopen(link, timeout=10) as answer:
        assert answer.read() == b"mine"
    time.sleep(2.5)
    bent = [
        urllib.request.Request(link.replace("a/b?", "a/c?")),
        urllib.request.Request(link.replace("a/b?", "?")),
        urllib.request.Request(link, data=b"new", method="PUT"),
        urllib.request.Request(link, method="DELETE"),
        urllib.request.Request(short),
    ]
    for request in bent:
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(request, timeout=10)
        assert caught.value.code == 403
    assert store.get("a/b") == b"mine"


@pytest.mark.slow
def test_a_real_store_refuses_bytes_spoiled_on_the_way_up(
    swift_place: Place, swift_server: Swift, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tests.services.fault_proxy import fault_proxy

    with fault_proxy(swift_server.url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", proxy.url)
        store = swift_place.open()
        proxy.rule = lambda request: "flip_request" if request.startswith("PUT") else "pass"
        with pytest.raises(StoreUnavailableError, match="BadDigest"):
            store.put("a/b", b"data", media_type=PNG)
        proxy.rule = lambda request: "pass"
        assert store.head("a/b") is None
        assert store.put("a/b", b"data", media_type=PNG).size == 4


@pytest.mark.slow
def test_a_real_store_sweeps_old_uploads_and_leaves_young_ones(swift_place: Place) -> None:
    store = swift_place.open()
    assert isinstance(store, S3Store)
    store._client.create_multipart_upload(Bucket=store._bucket, Key="some/prefix/a/b")
    assert store.sweep_stale(3600) == 0, "a young upload may have a living writer"
    time.sleep(1.1)  # Swift rounds times up to the next second
    assert store.sweep_stale(0) == 1
    assert store.sweep_stale(0) == 0


@pytest.mark.slow
def test_a_real_store_takes_a_large_object_in_parts(swift_place: Place) -> None:
    store = quick_store(swift_place, multipart_threshold=5 << 20, read_timeout=20.0)
    data = os.urandom(11 << 20)
    stored = store.put("a/b", data, media_type=PNG)
    assert store.head("a/b") == stored
    assert store.get("a/b") == data
    assert [listed.key for listed in store.list()] == ["a/b"]


@pytest.mark.slow
def test_wrong_credentials_are_named(swift_place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "wrong")
    with pytest.raises(StoreUnavailableError, match="may not do that") as caught:
        swift_place.open().check()
    assert caught.value.code == "store_denied"
