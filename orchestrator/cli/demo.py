"""`fpga demo`: the whole chain once, from reference pictures to a contact sheet."""

from __future__ import annotations

from orchestrator.cli.common import StateDirOption, use_state_dir


def demo(state_dir: StateDirOption = None) -> None:
    """Make a dozen portraits of eight people on this machine and write a contact sheet."""
    use_state_dir(state_dir)
