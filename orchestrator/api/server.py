"""Serves the application: `python -m orchestrator.api.server`, or `fpga serve`."""

from __future__ import annotations

import uvicorn

from orchestrator import logs, tracing
from orchestrator.api.app import create_app
from orchestrator.api.connections import Connection, allow_files
from orchestrator.runtime.running import listen
from orchestrator.settings import Settings, get_settings

DRAIN_SECONDS = 5
KEEP_ALIVE_SECONDS = 30


def serve(settings: Settings) -> None:
    """Answer requests until SIGINT or SIGTERM.

    Raises:
        SettingsError: a URL in the settings is wrong.
        UsageError: `port_taken`, the port is not free.
    """
    tracing.setup(settings, "server")
    allow_files()
    config = uvicorn.Config(
        create_app(settings),
        http=Connection,
        log_config=None,
        access_log=False,  # addresses hold tokens of links
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        h11_max_incomplete_event_size=32_768,
    )
    with listen(settings.api_host, settings.api_port) as socket:
        uvicorn.Server(config).run([socket])


def main() -> None:
    """Serve with the settings of this process."""
    settings = get_settings()
    logs.setup(settings)
    serve(settings)


if __name__ == "__main__":
    main()
