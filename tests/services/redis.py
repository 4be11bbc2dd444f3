"""Redis with an append-only file, as the product asks its operators to run it."""

from __future__ import annotations

import redis

from tests.services.server import Server, find_program


class Redis(Server):
    """One Redis server on loopback."""

    name = "redis"
    user = "redis"

    @property
    def url(self) -> str:
        """Celery and redis-py URL of database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def prepare(self) -> None:
        """Write the configuration."""
        (self.folder / "redis.conf").write_text(
            f"bind 127.0.0.1\nport {self.port}\ndir {self.folder}\nsave ''\n"
            "appendonly yes\nappendfsync everysec\nmaxmemory-policy noeviction\n"
        )

    def commands(self) -> list[list[str]]:
        """Run in the foreground."""
        return [[find_program("redis-server"), "redis.conf"]]

    def ready(self) -> bool:
        """Say whether it answers a ping."""
        try:
            with redis.Redis.from_url(self.url, socket_timeout=1) as client:
                return bool(client.ping())
        except redis.RedisError:
            return False

    def empty(self) -> None:
        """Forget every key."""
        with redis.Redis.from_url(self.url) as client:
            client.flushall()
