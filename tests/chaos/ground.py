"""Where a chaos run takes place: private servers, and the settings that lead to them.

Three pairs of database and broker, and on request an S3 store behind a proxy that spoils requests.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import boto3

from tests.services.fault_proxy import FaultProxy, fault_proxy
from tests.services.moto import moto_endpoint
from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.tcp_proxy import TcpProxy, tcp_proxy

PAIRS = ("sqlite+filesystem", "postgres+redis", "postgres+rabbitmq")
ACCESS = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "us-east-1"}


@dataclass(kw_only=True)
class Ground:
    """The servers of one run, None where a pair does without."""

    pair: str
    environment: dict[str, str]
    postgres: Postgres | None = None
    line: TcpProxy | None = None
    """The way to PostgreSQL."""
    broker: Redis | RabbitMQ | None = None
    store: FaultProxy | None = None
    lines: list[TcpProxy] = field(default_factory=list)
    """Every way to a server, where it was asked for."""


@contextlib.contextmanager
def ground(
    pair: str, *, seed: int, s3: bool = False, lines: bool = False, rabbitmq: Mapping[str, int] = {}
) -> Iterator[Ground]:
    """Start what a pair needs, all of it private to this run.

    Args:
        lines: broker and store are behind proxies too.
        rabbitmq: limits of its own.
    """
    with contextlib.ExitStack() as stack:
        made = Ground(pair=pair, environment={})
        database, broker = pair.split("+")
        if database == "postgres":
            made.postgres = stack.enter_context(Postgres())
            url = stack.enter_context(made.postgres.database())
            made.line = stack.enter_context(tcp_proxy(made.postgres.port, seed=seed))
            made.environment["DATABASE_URL"] = url.replace(f":{made.postgres.port}/", f":{made.line.port}/")
        if broker != "filesystem":
            made.broker = stack.enter_context(Redis() if broker == "redis" else RabbitMQ(**rabbitmq))
            made.environment["CELERY_BROKER_URL"] = made.broker.url
            if lines:
                way = stack.enter_context(tcp_proxy(made.broker.port, seed=seed + 1))
                made.environment["CELERY_BROKER_URL"] = made.broker.url.replace(
                    f":{made.broker.port}/", f":{way.port}/"
                )
                made.lines.append(way)
        if s3:
            endpoint = stack.enter_context(moto_endpoint())
            keys = {"aws_access_key_id": "a", "aws_secret_access_key": "b", "region_name": "us-east-1"}
            boto3.client("s3", endpoint_url=endpoint, **keys).create_bucket(Bucket="chaos")
            made.store = stack.enter_context(fault_proxy(endpoint))
            made.environment |= {
                **ACCESS,
                "AWS_ENDPOINT_URL_S3": made.store.url,
                "FPGA_STORE_URL": "s3://chaos",
                "FPGA_S3_ADDRESSING_STYLE": "path",
            }
            if lines:
                way = stack.enter_context(tcp_proxy(made.store.server_port, seed=seed + 2))
                made.environment["AWS_ENDPOINT_URL_S3"] = f"http://127.0.0.1:{way.port}"
                made.lines.append(way)
        if lines and made.line is not None:
            made.lines.append(made.line)
        yield made
