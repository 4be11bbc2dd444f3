"""OpenStack Swift as an S3 store: proxy with s3api and tempauth, one account, container and object server, one device.

Its device is a folder of ours; Swift keeps metadata in extended attributes, which ext4, xfs, btrfs and recent tmpfs
have. It answers conditional puts with NotImplemented, as some stores do.
"""

from __future__ import annotations

import contextlib
import getpass
import http.client
import os

import boto3
from botocore.config import Config

from tests.services.server import Server, find_program, free_port

PYTHON = "/usr/bin/python3"
"""Swift is installed for Debian's own Python."""

RINGS = """
import sys
from swift.common.ring import RingBuilder
for name, port in zip(("account", "container", "object"), sys.argv[1:]):
    builder = RingBuilder(4, 1, 1)
    builder.add_dev(dict(id=0, region=1, zone=1, ip="127.0.0.1", port=int(port), device="d1", weight=1.0, meta=""))
    builder.rebalance()
    builder.get_ring().save(name + ".ring.gz")
"""

SERVER = """
import runpy, sys
from swift.common.utils import set_swift_dir
program, folder, configuration = sys.argv[1:]
set_swift_dir(folder)
sys.argv = [program, configuration]
runpy.run_path(program, run_name="__main__")
"""

COMMON = """
[DEFAULT]
bind_ip = 127.0.0.1
bind_port = {port}
user = {user}
swift_dir = {folder}
devices = {folder}/devices
mount_check = false
disable_fallocate = true
workers = 0
log_level = ERROR
"""

PROXY = """
[pipeline:main]
pipeline = catch_errors gatekeeper healthcheck cache s3api tempauth copy slo dlo proxy-server

[app:proxy-server]
use = egg:swift#proxy
account_autocreate = true

[filter:catch_errors]
use = egg:swift#catch_errors
[filter:gatekeeper]
use = egg:swift#gatekeeper
[filter:healthcheck]
use = egg:swift#healthcheck
# tempauth asks for a cache; one that nobody serves is as good as an empty one
[filter:cache]
use = egg:swift#memcache
memcache_servers = 127.0.0.1:1
[filter:s3api]
use = egg:swift#s3api
[filter:tempauth]
use = egg:swift#tempauth
user_test_tester = testing .admin
[filter:copy]
use = egg:swift#copy
[filter:slo]
use = egg:swift#slo
[filter:dlo]
use = egg:swift#dlo
"""

STORAGE = """
[pipeline:main]
pipeline = {kind}-server

[app:{kind}-server]
use = egg:swift#{kind}
"""


class Swift(Server):
    """A one-device Swift whose proxy speaks S3."""

    name = "swift"
    user = "swift"
    access_key = "test:tester"
    secret_key = "testing"

    def __init__(self) -> None:
        super().__init__()
        self.ports = {"account": free_port(), "container": free_port(), "object": free_port()}

    @property
    def url(self) -> str:
        """S3 endpoint."""
        return f"http://127.0.0.1:{self.port}"

    def environment_for_clients(self) -> dict[str, str]:
        """Return the AWS_* variables with which clients reach it."""
        return {
            "AWS_ENDPOINT_URL_S3": self.url,
            "AWS_ACCESS_KEY_ID": self.access_key,
            "AWS_SECRET_ACCESS_KEY": self.secret_key,
            "AWS_DEFAULT_REGION": "us-east-1",
        }

    def create_bucket(self, name: str) -> None:
        """Make a bucket; one that is there is fine."""
        client = boto3.Session(self.access_key, self.secret_key, region_name="us-east-1").client(
            "s3", endpoint_url=self.url, config=Config(s3={"addressing_style": "path"})
        )
        with contextlib.suppress(client.exceptions.BucketAlreadyOwnedByYou):
            client.create_bucket(Bucket=name)

    def prepare(self) -> None:
        """Write configuration and rings."""
        find_program("swift-proxy-server")
        user = self.user if os.geteuid() == 0 else getpass.getuser()
        (self.folder / "devices" / "d1").mkdir(parents=True)
        (self.folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = test\n")
        for kind, port in {"proxy": self.port, **self.ports}.items():
            body = PROXY if kind == "proxy" else STORAGE.format(kind=kind)
            common = COMMON.format(port=port, user=user, folder=self.folder)
            (self.folder / f"{kind}-server.conf").write_text(common + body)
        self.run([PYTHON, "-c", RINGS, *map(str, self.ports.values())])

    def commands(self) -> list[list[str]]:
        """Run the four servers."""
        return [
            [PYTHON, "-c", SERVER, find_program(f"swift-{kind}-server"), str(self.folder), f"{kind}-server.conf"]
            for kind in ("proxy", *self.ports)
        ]

    def ready(self) -> bool:
        """Say whether all four answer; a 404 of a storage server is an answer too."""
        return all(_answers(port) for port in (self.port, *self.ports.values()))


def _answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/healthcheck")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()
