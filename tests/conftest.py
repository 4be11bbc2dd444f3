"""Fixtures for every test: native servers, started once per session when the first test asks for them.

A server that is not installed skips its tests here, with the reason, and fails them where CI=true.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import TypeVar

import pytest

from tests.services.postgres import Postgres
from tests.services.rabbitmq import RabbitMQ
from tests.services.redis import Redis
from tests.services.server import Server, ServiceMissingError
from tests.services.swift import Swift

os.environ.setdefault("FPGA_ALLOWED_HOSTS", "testserver")  # what Starlette's client calls the server

S = TypeVar("S", bound=Server)


def lend(kind: type[S]) -> Iterator[S]:
    """Start one server for the session, or skip, or fail in CI."""
    try:
        server = kind().__enter__()
    except ServiceMissingError as missing:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(str(missing))
        pytest.skip(str(missing))
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A PostgreSQL server; `database()` lends fresh databases, `kill()` and `start()` are for chaos."""
    yield from lend(Postgres)


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """SQLAlchemy URL of a fresh empty PostgreSQL database, for this test alone."""
    with postgres_server.database() as url:
        yield url


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Redis]:
    """A Redis server; `kill()` and `start()` are for chaos."""
    yield from lend(Redis)


@pytest.fixture
def redis_url(redis_server: Redis) -> str:
    """URL of an empty Redis database; what a test leaves is gone before the next one."""
    redis_server.empty()
    return redis_server.url


@pytest.fixture(scope="session")
def rabbitmq_server() -> Iterator[RabbitMQ]:
    """A RabbitMQ node; use queue names of your own."""
    yield from lend(RabbitMQ)


@pytest.fixture
def rabbitmq_url(rabbitmq_server: RabbitMQ) -> str:
    """Celery URL of the shared RabbitMQ node."""
    return rabbitmq_server.url


@pytest.fixture(scope="session")
def swift_server() -> Iterator[Swift]:
    """OpenStack Swift speaking S3; `environment_for_clients()` gives the AWS_* variables."""
    yield from lend(Swift)


@pytest.fixture(scope="session")
def moto_url() -> Iterator[str]:
    """S3 endpoint of moto's server in this process; any credentials will do, make buckets of your own."""
    from tests.services.moto import moto_endpoint  # here: the import takes a second that most sessions need not pay

    with moto_endpoint() as url:
        yield url
