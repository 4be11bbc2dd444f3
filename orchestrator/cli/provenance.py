"""`fpga reproduce` and `fpga verify`: make a picture again and compare; say what a file tells of itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.common import FinishError, JsonOption, print_facts, print_json, read_input, say, services

if TYPE_CHECKING:
    from orchestrator.secrets.credentials import Credential


def reproduce(
    item: Annotated[str, typer.Argument(metavar="ITEM", help="Id of a portrait, from `fpga batch results`.")],
    as_json: JsonOption = False,
) -> None:
    """Make a portrait a second time and compare: bit_equal, within_tolerance or different (exit code 2)."""
    from orchestrator.cli.watch import follow
    from orchestrator.results import provenance

    with services() as s:
        batch_id = provenance.reproduce(s.ledger, s.owner, item)
        follow(s, batch_id)
        found = provenance.judge(s.ledger, s.store, s.owner, batch_id)
    if as_json:
        print_json(found.as_json())
    else:
        changes = ", ".join(f"{name} {then} -> {now}" for name, (then, now) in found.profile.items())
        print_facts(
            {
                "outcome": found.outcome,
                "largest difference": f"{found.max_difference} of 255",
                "first stage that differs": found.differs_at or "none",
                "machine since then": changes or "the same",
                "batch": found.batch_id,
            }
        )
    if found.outcome == "different":
        raise FinishError(2)


def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A picture; - reads standard input.")],
    ledger: Annotated[bool, typer.Option("--ledger", help="Also ask this deployment whether it stored it.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Say how a picture claims to be made, what of that can be proved, and what cannot; needs no database.

    Exit code 2 where its content credential was tampered with.
    """
    from orchestrator.results import provenance
    from orchestrator.settings import get_settings

    data = read_input(file)
    if ledger:
        with services() as s:
            found = provenance.verify(data, s.settings, s.ledger)
    else:
        found = provenance.verify(data, get_settings())
    if as_json:
        print_json(found.as_json())
        return
    record = found.record or {}
    wanted = ("software", "preset", "model_version", "model_sha256", "seed", "item", "custom_id")
    size = f" {found.width}x{found.height}" if found.width else ""
    credential = found.credential
    print_facts(
        {
            "file": f"{found.format}{size}, sha256 {found.sha256}",
            "credential": _credential(credential),
            **{
                one["action"]: f"{one['source_type']}: {one['description']}"
                for one in credential.actions
                if one["description"]
            },
            "made with": credential.model and "{preset} {version} ({licence})".format_map(credential.model),
            **{name: record.get(name) for name in wanted},
        }
    )
    say(credential.says)
    say(found.says)
    if credential.state == "tampered":
        raise FinishError(2)


def _credential(found: Credential) -> str:
    """Return the state in a line: what holds, who signed, and what is known of the picture before."""
    parts = [
        found.state,
        f"{found.issuer} issuer" if found.issuer else "",
        f"signed by {found.signer}" if found.signer else "",
    ]
    before = ", ".join(found.ingredients)
    faults = ", ".join(found.faults)
    return "; ".join(filter(None, [*parts, before and f"credential of the source: {before}", faults]))
