"""`fpga up`: the embedded system in this terminal until Ctrl-C."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import FinishError, StateDirOption, say, use_state_dir

if TYPE_CHECKING:
    from orchestrator.embedded.stack import Stack
    from orchestrator.settings import Settings

READY_SECONDS = 120.0


def up(
    state_dir: StateDirOption = None,
    workers: Annotated[int, typer.Option(min=0, help="How many workers compute on this machine.")] = 1,
    prefect: Annotated[bool, typer.Option(help="Show batches in a Prefect server, and run its flows.")] = True,
    api: Annotated[bool, typer.Option(help="Serve the pages and the HTTP API.")] = True,
) -> None:
    """Start everything on this machine, state in one directory; Ctrl-C drains, and the next start goes on."""
    use_state_dir(state_dir)
    from orchestrator import logs
    from orchestrator.embedded.stack import Stack
    from orchestrator.errors import FpgaError
    from orchestrator.settings import get_settings

    settings = get_settings()
    logs.setup(settings)
    hear_ctrl_c()
    stack = Stack(settings, prefect=prefect, workers=workers, api=api)
    stack.start()
    try:
        _welcome(settings)
        stack.wait_ready(READY_SECONDS, on_event=ready)
        if api:
            say(f"pages     {stack.login_link()}")
            say(f"key       {settings.state_dir / 'api-key'} (this link works once; `fpga key login` prints another)")
        if prefect:
            _wait_for_flows(stack, settings)
        stack.run_forever()
    except KeyboardInterrupt:
        pass  # as orderly an end as the one that run_forever returns from
    except FpgaError:
        stack.kill()
        raise
    say("draining: what is under way is finished or given back; Ctrl-C once more ends at once")
    if not stack.stop():
        say("something had to be killed; its work goes on at the next start")
        raise FinishError(1)
    say("stopped; the next start goes on from here")


def serve(state_dir: StateDirOption = None) -> None:
    """Serve the pages and the HTTP API alone, beside workers and a sweeper that run elsewhere."""
    use_state_dir(state_dir)
    from orchestrator import logs
    from orchestrator.api.server import serve as run
    from orchestrator.cli.common import services
    from orchestrator.runtime.running import web_url

    with services() as s:
        logs.setup(s.settings)
        say(f"serving {web_url(s.settings.api_host, s.settings.api_port)}; Ctrl-C ends")
        run(s.settings)


def _welcome(settings: Settings) -> None:
    from sqlalchemy import make_url

    say(f"state     {settings.state_dir}")
    say(f"database  {make_url(settings.database_url).render_as_string(hide_password=True)}")
    say(f"pictures  {settings.store_url}")
    say(f"logs      {settings.state_dir / 'logs'}")
    say("submit from another terminal: fpga batch submit MANIFEST --wait")


def _wait_for_flows(stack: Stack, settings: Settings) -> None:
    """Wait for Prefect, whose absence stops nothing."""
    from orchestrator.errors import TransientError
    from orchestrator.runtime.running import find_running

    try:
        stack.wait_ready(2 * READY_SECONDS, prefect=True)
    except TransientError as error:
        say(f"flows do not run yet: {error.message}")
        return
    running = find_running(settings)
    if running and running.prefect_api_url:
        dashboard = running.prefect_api_url.removesuffix("/api")
        say(f"flows     {dashboard} (user and password in {settings.state_dir / 'prefect-auth'})")


def ready(part: str, seconds: float) -> None:
    """Say that a part of the stack can be used now."""
    say(f"{part} ready after {seconds:.0f} s")


def hear_ctrl_c() -> None:
    """Make SIGINT a KeyboardInterrupt also where a shell that started us in the background has it ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
