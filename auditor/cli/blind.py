"""``auditor blind``: a line-up whose examiner does not know which model is the suspect."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.canonical import JsonValue
    from auditor.evidence.check import CheckReport
    from auditor.evidence.lineup_finding import LineUpFinding
    from auditor.evidence.signing import SigningKey

blind = typer.Typer(
    no_args_is_help=True,
    help="Audit the suspect blind, among other models that the accused or the court chose.",
)

LINEUP_HELP = "Folder of the line-up, as blind plan made it."


@blind.command("plan")
def plan(
    candidates: Annotated[
        Path, typer.Argument(help="TOML file: tables named candidate, each with name, role, model or endpoint.")
    ],
    seal: Annotated[Path, typer.Option(help="k.seal.json of the keys that will be asked, as published.")],
    out: Annotated[Path, typer.Option(help="New folder for the line-up.")] = Path("lineup"),
    scores: Annotated[
        bool, typer.Option("--scores", help="Pass scores on, not only labels; all must reveal equally many.")
    ] = False,
    key: Annotated[
        Path | None, typer.Option(help="Custodian's Ed25519 key, PEM or PKCS#12.", show_default="one made on first use")
    ] = None,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="Address of a time authority for the list; may be repeated.")
    ] = None,
) -> None:
    """Custodian: fix the candidates in secret order, before any key is asked.

    Hand lineup.commit.json to the examiner and keep lineup.secret.json.
    """
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence.lineup import COMMITMENT, Revealed
    from auditor.evidence.signing import fingerprint
    from auditor.lineups import custody, listing
    from auditor.time_authority import TimeAuthorities

    try:
        envelope = seal.read_bytes()
    except OSError as error:
        raise UsageError(f"{seal.name}: cannot be read ({type(error).__name__})") from error
    lineup = custody.plan(
        listing.read_list(candidates),
        seal_envelope=envelope,
        folder=out,
        key=_custodian(key),
        revealed=Revealed.SCORES if scores else Revealed.LABELS,
        authorities=TimeAuthorities(tsa or ()),
    )
    console.say(f"{len(lineup.placed)} candidates, {lineup.placed[0].label} to {lineup.placed[-1].label}: {out}")
    console.say(f"for the examiner: {out / COMMITMENT}")
    console.say(f"custodian's fingerprint: {fingerprint(bytes.fromhex(lineup.custodian_public_key))}")
    console.say(f"a rank p-value of this line-up is at best 1/{len(lineup.placed)}")


@blind.command("serve")
def serve(
    lineup: Annotated[Path, typer.Argument(help=LINEUP_HELP)],
    host: Annotated[str, typer.Option(help="Address to listen on; there is no authentication.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="TCP port; 0 takes a free one.")] = 8100,
    interval_ms: Annotated[
        int, typer.Option(min=0, max=60_000, help="Answers leave at whole multiples of this time, in milliseconds.")
    ] = 250,
) -> None:
    """Custodian: serve every candidate at an opaque place until Ctrl-C; prints one line when ready."""
    from auditor import serving
    from auditor.cli import console
    from auditor.lineups import custody

    held = custody.read_custody(lineup)
    with custody.relay(held, interval_s=interval_ms / 1000) as app:
        told = f"serving {len(held.candidates)} candidates at"
        serving.serve(app, host=host, port=port, ready=lambda url: console.say(f"{told} {url}"))


@blind.command("run")
def run(
    commitment: Annotated[Path, typer.Argument(help="lineup.commit.json, from the custodian.")],
    relay: Annotated[str, typer.Option(help="Base URL of the custodian's relay.")],
    keyset: Annotated[Path, typer.Option("--keyset", help="Sealed key set, k.npz.")],
    out: Annotated[Path, typer.Option(help="Folder for one bundle per candidate.")] = Path("audits"),
    seal: Annotated[Path | None, typer.Option(help="k.seal.json as published; compared with the key set.")] = None,
    owner_key: Annotated[str | None, typer.Option(help="Fingerprint the owner's key must have.")] = None,
    identity: Annotated[
        Path | None, typer.Option(help="age identity file for an encrypted key set, or AUDITOR_PASSPHRASE.")
    ] = None,
    ledger: Annotated[
        Path | None, typer.Option(help="Ledger of shown keys.", show_default="k.ledger.jsonl beside the key set")
    ] = None,
    examiner: Annotated[str, typer.Option(help="Name of the examiner, for the record.")] = "",
    examiner_key: Annotated[
        Path | None, typer.Option(help="Ed25519 key that signs the evidence.", show_default="one made on first use")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=3600, help="Seconds to wait for one answer.")] = 60.0,
    batch_size: Annotated[int, typer.Option(min=1, max=256, help="Questions per request.")] = 64,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="Address of a time authority for the bundles; may be repeated.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Examiner: audit every candidate by its letter, into one ordinary bundle each; finished ones are kept."""
    from auditor import casefile
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.errors import UsageError
    from auditor.evidence.ledger import ledger_path
    from auditor.lineups import audits
    from auditor.time_authority import TimeAuthorities

    if not commitment.is_file():
        raise UsageError(f"{commitment.name}: no such file")
    unlocks = casefile.unlocks(identity)
    opened = casefile.open_keyset(keyset, seal=seal, owner_fingerprint=owner_key, unlocks=unlocks)
    options = audits.RunOptions(
        examiner_name=examiner,
        examiner=None if examiner_key is None else read_key(examiner_key),
        authorities=TimeAuthorities(tsa or ()),
        seal_tokens=casefile.seal_tokens(keyset, seal=seal),
        timeout_s=timeout,
        batch_size=batch_size,
    )
    with console.progress() as progress:
        found = audits.run(
            commitment.read_bytes(),
            opened=opened,
            relay_url=relay,
            folder=out,
            ledger=ledger or ledger_path(keyset),
            options=options,
            progress=progress,
        )
    if as_json:
        console.print_json(
            {
                label: {"status": line.status.value, "reason": line.reason.value, "hits": line.hits}
                for label, line in found.items()
            }
        )
        return
    rows = [
        (label, line.status.value, line.reason.value, f"{line.hits}/{line.trials}", f"{line.log10_p:.1f}")
        for label, line in found.items()
    ]
    console.table("candidates", ("letter", "verdict", "reason", "hits", "log10 p"), rows)
    console.say(f"bundles: {out}; ask the custodian to open the list")


@blind.command("open")
def open_list(
    lineup: Annotated[Path, typer.Argument(help=LINEUP_HELP)],
    key: Annotated[
        Path | None, typer.Option(help="The key that committed.", show_default="the one made on first use")
    ] = None,
) -> None:
    """Custodian: sign who the letters were, once the examiner has handed the bundles over; nothing is asked after."""
    from auditor.cli import console
    from auditor.evidence.lineup import OPENING
    from auditor.lineups import custody

    opened = custody.open_list(custody.read_custody(lineup), key=_custodian(key))
    rows = [(each.label, each.role.value, each.name) for each in opened.candidates]
    console.table("line-up", ("letter", "role", "model"), rows)
    console.say(f"opened: {lineup / OPENING}")


@blind.command("check")
def check(
    lineup: Annotated[Path, typer.Argument(help="Folder with lineup.commit.json, lineup.open.json and relay.jsonl.")],
    audits: Annotated[Path, typer.Option(help="Folder with one bundle per letter.")],
    out: Annotated[Path | None, typer.Option(help="New folder for the signed finding with its report.")] = None,
    models: Annotated[
        Path | None, typer.Option(help="Folder with the opened models, which are asked the same questions again.")
    ] = None,
    custodian_key: Annotated[str | None, typer.Option(help="Fingerprint the custodian's key must have.")] = None,
    examiner_key: Annotated[str | None, typer.Option(help="Fingerprint the examiner's key must have.")] = None,
    owner_key: Annotated[str | None, typer.Option(help="Fingerprint the owner's key must have.")] = None,
    tsa_root: Annotated[
        list[Path] | None,
        typer.Option("--tsa-root", help="Root certificates of time authorities you trust, PEM; may be repeated."),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(help="Ed25519 key that signs the finding.", show_default="the examiner's of this machine"),
    ] = None,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="Address of a time authority for the finding; may be repeated.")
    ] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Treat steps that were not checked as failed.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Judge: check list, bundles and relay against one another, and draw the finding.

    Exit code: 0 intact (and, with --strict, every step checked), 5 otherwise; then nothing is written.
    """
    from auditor.casefile import refuse_used_folder
    from auditor.cli.check_inputs import fingerprint, roots
    from auditor.evidence.lineup_check import LineUpExpected, check_lineup
    from auditor.evidence.lineup_finding import draw_finding, finding_object
    from auditor.lineups.audits import Replayer, read_files

    if out is not None:
        refuse_used_folder(out)
    expected = LineUpExpected(
        custodian_fingerprint=fingerprint(custodian_key, option="--custodian-key"),
        examiner_fingerprint=fingerprint(examiner_key, option="--examiner-key"),
        owner_fingerprint=fingerprint(owner_key, option="--owner-key"),
        tsa_roots=roots(tsa_root),
        replay=None if models is None else Replayer(models),
    )
    done = check_lineup(read_files(lineup, audits), expected=expected)
    good = done.report.complete if strict else done.report.intact
    finding = None if done.verified is None else draw_finding(done.verified)
    if not good or finding is None or done.verified is None:
        _print_check(done.report, None, good=False, as_json=as_json)
        raise typer.Exit(5)
    _print_check(done.report, finding, good=True, as_json=as_json)
    if out is not None:
        numbers = finding_object(finding, done.verified, done.report)
        _issue(out, numbers, key=key, tsa=tsa, quiet=as_json)


def _issue(out: Path, numbers: "dict[str, JsonValue]", *, key: Path | None, tsa: list[str] | None, quiet: bool) -> None:
    from auditor import casefile, findings
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.report.lineup import render_lineup
    from auditor.time_authority import TimeAuthorities

    issued = findings.issue(
        out,
        numbers=numbers,
        render=lambda at: render_lineup(numbers, issued_at=at),
        key=casefile.examiner_key() if key is None else read_key(key),
        clock=casefile.utc_now,
        authorities=TimeAuthorities(tsa or ()),
    )
    if not quiet:
        console.say(f"finding: {issued.folder / issued.report_name}")


def _print_check(report: "CheckReport", finding: "LineUpFinding | None", *, good: bool, as_json: bool) -> None:
    from auditor.cli import console
    from auditor.evidence.lineup_finding import steps_object

    rank = None if finding is None else finding.rank
    if as_json:
        console.print_json(
            {
                "schema": "mlaudit.lineup-check/1",
                "intact": report.intact,
                "complete": report.complete,
                "accepted": good,
                "outcome": None if finding is None else finding.outcome.value,
                "refuted_by": [] if finding is None else list(finding.refuted_by),
                "rank": None if rank is None else f"{rank.at_least_as_high}/{rank.candidates}",
                "steps": steps_object(report),
            }
        )
        return
    rows = [(f"{step.number}", step.title, step.outcome.value, step.detail) for step in report.steps]
    console.table("line-up", ("step", "what", "outcome", "detail"), rows)
    if finding is None:
        console.say("BROKEN: no finding is drawn" if not report.intact else "not every step was checked (--strict)")
        return
    places = [
        (p.candidate.label, p.candidate.role.value, p.candidate.name, p.status.value, f"{p.audit.log10_e:.1f}")
        for p in finding.places
    ]
    console.table("opened", ("letter", "role", "model", "verdict", "log10 e"), places)
    told = "no rank" if rank is None else f"rank p = {rank.at_least_as_high}/{rank.candidates}"
    console.say(f"{finding.outcome.value}; {finding.false_claims} of {finding.n_innocents} others supported; {told}")
    if finding.refuted_by:
        console.say(f"supported although older than the seal: {', '.join(finding.refuted_by)}")


def _custodian(path: Path | None) -> "SigningKey":
    from auditor.cli.signing_keys import read_key
    from auditor.lineups.custody import custodian_key

    return custodian_key() if path is None else read_key(path)
