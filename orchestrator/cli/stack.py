"""`fpga up`: the embedded system in this terminal until Ctrl-C."""

from __future__ import annotations

from orchestrator.cli.common import StateDirOption, use_state_dir


def up(state_dir: StateDirOption = None) -> None:
    """Start everything on this machine, state in one directory; Ctrl-C drains, and the next start goes on."""
    use_state_dir(state_dir)
