"""`fpga identity receipt`: check what an erase signed, and the keys that do it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from orchestrator.cli.common import JsonOption, print_json, read_input, say, services

if TYPE_CHECKING:
    from orchestrator.cli.common import Services

app = typer.Typer(name="receipt", help="Signed receipts of erases.", no_args_is_help=True)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A receipt, or - for standard input.")],
    public_key: Annotated[
        list[str] | None, typer.Option(help="Trust this key alone, and ask no database; may be repeated.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Check signature, audit row and that nothing of the person is left; exit 1 and a sentence where one is wrong."""
    from orchestrator.people import receipts

    receipt = read_receipt(file)
    if public_key:
        found = {"signed_by": receipts.verify(receipt, public_key), "audit": None, "rows_left": None}
    else:
        with services() as s:
            found = _verify_here(s, receipt)
    if as_json:
        print_json({"object": "identity.receipt_check", "identity_id": receipt.get("identity_id"), **found})
    else:
        more = "" if public_key else "; the audit chain holds it and no row tells of the person"
        say(f"signed by {found['signed_by']}{more}")


@app.command()
def key(as_json: JsonOption = False) -> None:
    """Print the public keys of this library, the one that signs first; give them to whoever shall check receipts."""
    from orchestrator.people.receipts import Signer
    from orchestrator.settings import get_settings

    signer = Signer.of(get_settings())
    if as_json:
        print_json({"object": "identity.receipt_keys", "public_keys": signer.public_keys, **signer.jwks()})
    else:
        typer.echo("\n".join(signer.public_keys))


@app.command()
def newkey() -> None:
    """Print a new private key for FPGA_SIGNING_KEYS. It is shown once."""
    from orchestrator.people import receipts

    typer.echo(receipts.new_key())


def read_receipt(file: Path) -> dict[str, Any]:
    """Return a receipt from a file.

    Raises:
        InputError: it is no JSON object.
    """
    from orchestrator.errors import InputError

    try:
        found = json.loads(read_input(file))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{file} is not JSON", code="receipt_unreadable") from error
    if not isinstance(found, dict):
        raise InputError(f"{file} holds no receipt", code="receipt_unreadable")
    return found


def _verify_here(s: Services, receipt: dict[str, Any]) -> dict[str, Any]:
    """Check a receipt against this library.

    Raises:
        InputError: the signature is wrong, the audit chain does not hold the row, or rows of the person are left.
    """
    from orchestrator.errors import InputError
    from orchestrator.ledger import audit
    from orchestrator.ledger.privacy import erasure
    from orchestrator.people import receipts

    signed_by = receipts.verify(receipt, receipts.Signer.of(s.settings).public_keys)
    row = (int(receipt["audit"]["id"]), str(receipt["audit"]["hash"]))
    with s.ledger.read() as session:
        chain = audit.verify(session, anchor=row)
        left = erasure.remaining(session, str(receipt["identity_id"]))
    if chain.broken is not None:
        raise InputError(f"audit row {chain.broken} does not follow from the row before it", code="audit_broken")
    if any(left.values()):
        raise InputError(f"rows of {receipt['identity_id']} are left: {left}", code="erase_incomplete")
    return {"signed_by": signed_by, "audit": {"rows": chain.rows, "head": chain.head}, "rows_left": left}
