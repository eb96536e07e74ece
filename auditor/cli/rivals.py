"""``auditor rivals``: two claims on one model, compared alike."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.canonical import JsonValue


def rivals(
    bundle_a: Annotated[Path, typer.Argument(help="Bundle of the suspect under claim A's keys.")],
    bundle_b: Annotated[Path, typer.Argument(help="Bundle of the suspect under claim B's keys.")],
    a_on_b: Annotated[
        Path | None, typer.Option("--a-on-b", help="Cross-test: bundle of B's sealed model file under A's keys.")
    ] = None,
    b_on_a: Annotated[
        Path | None, typer.Option("--b-on-a", help="Cross-test: bundle of A's sealed model file under B's keys.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="New folder for the signed comparison with its report.")] = None,
    owner_key: Annotated[
        list[str] | None,
        typer.Option("--owner-key", help="Fingerprint that an owner's key may have; repeat for the other owner."),
    ] = None,
    examiner_key: Annotated[
        list[str] | None,
        typer.Option("--examiner-key", help="Fingerprint that an examiner's key may have; may be repeated."),
    ] = None,
    tsa_root: Annotated[
        list[Path] | None,
        typer.Option("--tsa-root", help="Root certificates of time authorities you trust, PEM; may be repeated."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 key that signs the comparison.", show_default="this machine's examiner's"),
    ] = None,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="Address of a time authority for the comparison; repeatable.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print finding.json on stdout and nothing else.")] = False,
) -> None:
    """Compare two claims on one suspect: cross-tests, and priority by trusted time alone; alike for both sides.

    Exit code: 0 one claim is preferred, 3 neither is supported, 4 undecided, 5 a bundle does not check out.
    """
    from auditor.cli import console
    from auditor.cli.check_inputs import fingerprints, roots
    from auditor.errors import UsageError
    from auditor.evidence.rivals import Ruling, Side, read_rivals, rivals_object
    from auditor.report.rivals import told

    crosses = {side: path for side, path in ((Side.A, a_on_b), (Side.B, b_on_a)) if path is not None}
    for path in (bundle_a, bundle_b, *crosses.values()):
        if not path.is_dir():
            raise UsageError(f"{path}: no such folder")
    found = read_rivals(
        {Side.A: bundle_a, Side.B: bundle_b},
        crosses=crosses,
        owner_fingerprints=fingerprints(owner_key, option="--owner-key"),
        examiner_fingerprints=fingerprints(examiner_key, option="--examiner-key"),
        tsa_roots=roots(tsa_root),
    )
    numbers = rivals_object(found)
    report = None if out is None else _issue(out, numbers, key=key, tsa=tsa)
    decision = found.decision
    if as_json:
        console.print_json(numbers)
    else:
        headline, explanation = told(decision.ruling.value, decision.favoured)
        console.say(headline)
        console.say(explanation)
        if report is not None:
            console.say(f"comparison: {report}")
    if not decision.decided:
        raise typer.Exit(3 if decision.ruling is Ruling.NEITHER else 4)


def _issue(out: Path, numbers: "dict[str, JsonValue]", *, key: Path | None, tsa: list[str] | None) -> Path:
    from auditor import casefile, findings
    from auditor.cli.signing_keys import read_key
    from auditor.report.rivals import render_rivals
    from auditor.time_authority import TimeAuthorities

    issued = findings.issue(
        out,
        numbers=numbers,
        render=lambda at: render_rivals(numbers, issued_at=at),
        key=casefile.examiner_key() if key is None else read_key(key),
        clock=casefile.utc_now,
        authorities=TimeAuthorities(tsa or ()),
    )
    return issued.folder / issued.report_name
