"""``auditor keys``: what is left of a key set."""

from pathlib import Path
from typing import Annotated

import typer

keys = typer.Typer(no_args_is_help=True, help="Show which keys of a key set were used, and what is left of it.")


@keys.callback()
def _group() -> None:
    """Keep ``status`` a command of its own, although it is the only one."""


@keys.command("status")
def status(
    keyset: Annotated[Path, typer.Argument(help="Sealed key set, k.npz; it is not decrypted.")],
    ledger: Annotated[
        Path | None, typer.Option(help="Ledger of the key set.", show_default="k.ledger.jsonl beside it")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Show which keys were shown to whom and when, and what the others could still decide."""
    from auditor.analysis import basis_of
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence.keyset import read_sealed
    from auditor.evidence.ledger import ledger_path, read_ledger, shown_keys
    from auditor.evidence.seal import open_seal

    if not keyset.is_file():
        raise UsageError(f"{keyset.name}: no such file")
    seal = open_seal(read_sealed(keyset).envelope)
    showings = read_ledger(ledger or ledger_path(keyset), seal=seal)
    protocol = seal.protocol
    left = protocol.n_keys - len(shown_keys(showings))
    basis = basis_of(protocol, seal.spec)
    levels = basis.levels(protocol.alpha)
    null_rate = basis.forecast_null(levels)
    power = 0.0
    if left and basis.has_power(null_rate) and null_rate < protocol.forecast_rate:
        power = basis.operating(rate=protocol.forecast_rate, null_rate=null_rate, levels=levels, cap=left).reject
    if as_json:
        console.print_json(
            {
                "schema": "mlaudit.keys/1",
                "keyset_id": seal.keyset_id,
                "n_keys": protocol.n_keys,
                "never_shown": left,
                "power_left": f"{power:.4f}",
                "showings": [{"at": s.at, "suspect": s.suspect, "by": s.by, "keys": list(s.keys)} for s in showings],
            }
        )
        return
    rows = [(s.at, s.suspect, s.by or "–", str(len(s.keys))) for s in showings]
    console.table("keys shown", ("when", "suspect", "by", "keys"), rows)
    console.say(f"never shown: {left} of {protocol.n_keys} keys")
    console.say(
        f"chance that they alone show the mark on an unchanged copy, without sham hits: {power:.3f} "
        f"(hit rate {protocol.forecast_rate:.3f}, level {levels.claim:.2g})"
    )
