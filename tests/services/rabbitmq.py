"""RabbitMQ as a node of its own: own name, cookie, ports and port mapper, so that it meets no other on this host."""

from __future__ import annotations

import shutil
import socket

from tests.services.server import Server, find_program, free_port


class RabbitMQ(Server):
    """One RabbitMQ node on loopback with the guest account; `limits` are numbers of its application's environment."""

    name = "rabbitmq"
    user = "rabbitmq"
    start_seconds = 180.0

    def __init__(self, **limits: int) -> None:
        super().__init__()
        self.limits = limits
        self.mapper_port = free_port()
        self.node_port = free_port()

    @property
    def url(self) -> str:
        """Celery URL of the default virtual host."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def prepare(self) -> None:
        """Write configuration: no plugins, little logging."""
        (self.folder / "rabbitmq.conf").write_text(
            f"listeners.tcp.1 = 127.0.0.1:{self.port}\nlog.console = true\nlog.console.level = warning\n"
            "disk_free_limit.absolute = 50MB\n"
        )
        (self.folder / "plugins").write_text("[].\n")

    def environment(self) -> dict[str, str]:
        """Point every path of the node below our folder."""
        return super().environment() | {
            "RABBITMQ_NODENAME": f"fpga-{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self.node_port),
            "RABBITMQ_CONFIG_FILE": str(self.folder / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": "/dev/null",
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.folder / "plugins"),
            "RABBITMQ_MNESIA_BASE": str(self.folder / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.folder),
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": " ".join(
                ["-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none"]
                + [f"-rabbit {name} {value}" for name, value in self.limits.items()]
            ),
            "RUNNING_UNDER_SYSTEMD": "1",  # the script then becomes the node, so that signals reach it
            "ERL_EPMD_PORT": str(self.mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
        }

    def commands(self) -> list[list[str]]:
        """Run the node, and its port mapper, which would otherwise put itself out of our reach."""
        # Debian's wrapper on PATH insists on its own account and folders
        node = find_program("/usr/lib/rabbitmq/bin/rabbitmq-server")
        return [[node], [find_program("epmd")]]

    def ready(self) -> bool:
        """Say whether it starts the AMQP handshake."""
        try:
            with socket.create_connection(("127.0.0.1", self.port), timeout=2) as connection:
                connection.sendall(b"AMQP\x00\x00\x09\x01")
                return connection.recv(1) == b"\x01"
        except OSError:
            return False

    def forget(self) -> None:
        """Lose everything: kill the node and start it without its data."""
        self.kill()
        shutil.rmtree(self.folder / "mnesia")
        self.start()
