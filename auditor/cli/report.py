"""``auditor report``: renders a bundle's report again, and issues its final form with a person's declarations."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.evidence.bundle import Bundle
    from auditor.evidence.declarations import Declarations
    from auditor.report.inputs import ReportInput


def _print_form(wanted: bool) -> None:
    """Print the form and stop, whatever else is on the command line."""
    if wanted:
        from auditor.evidence.declarations import form_text

        typer.echo(form_text(), nl=False)
        raise typer.Exit


def report(
    bundle: Annotated[Path, typer.Argument(help="Folder of the evidence bundle; nothing written in it is changed.")],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the copies.", show_default="<bundle>-report beside the bundle")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Make an unsigned report.pdf as well.")] = True,
    declarations: Annotated[
        Path | None,
        typer.Option(help="Your declarations, TOML. Complete ones issue a signed revision inside the bundle."),
    ] = None,
    declarations_template: Annotated[
        bool,
        typer.Option(
            "--declarations-template", callback=_print_form, is_eager=True, help="Print the form to fill and stop."
        ),
    ] = False,
    examiner_key: Annotated[
        Path | None,
        typer.Option(
            help="Examiner's key that signed the bundle, PEM or PKCS#12.", show_default="one made on first use"
        ),
    ] = None,
    report_identity: Annotated[
        Path | None, typer.Option(help="PKCS#12 file that signs an issued PDF.", show_default="a self-made certificate")
    ] = None,
    tsa: Annotated[
        list[str] | None, typer.Option("--tsa", help="Address of a time authority for an issued PDF; repeatable.")
    ] = None,
) -> None:
    """Render report.html and report.pdf again from a bundle; with complete declarations, issue the final report.

    Without declarations, or with incomplete ones, copies go into a new folder, marked DRAFT; the bundle is only read.
    Complete declarations name this report and add a revision, signed by the examiner, to the bundle's folder issued/.
    """
    from dataclasses import replace

    from auditor.cli import console
    from auditor.cli.declared import read_form
    from auditor.errors import UsageError
    from auditor.report.inputs import read_folder

    if not bundle.is_dir():
        raise UsageError(f"{bundle}: no such folder")
    given = read_folder(bundle)
    said = None if declarations is None else read_form(declarations)
    if said is None:
        newest = _newest(bundle, given)
        _copy(bundle, newest, out=out, pdf=pdf, as_stored=newest.revision == 1)
        return
    if said.report and said.report != given.report_id:
        raise UsageError(f"the declarations are about report {said.report}, this is {given.report_id}")
    missing = said.missing(given.report_id)
    if missing:
        _copy(bundle, replace(given, declarations=said), out=out, pdf=pdf, as_stored=False)
        console.say(f"DRAFT, still to be given: {', '.join(missing)}")
        return
    if out is not None or not pdf:
        raise UsageError("--out and --no-pdf are for copies; complete declarations issue a revision inside the bundle")
    _issue(bundle, said, examiner_key=examiner_key, report_identity=report_identity, authorities=tsa or [])


def _newest(bundle: Path, given: "ReportInput") -> "ReportInput":
    """Return what the newest issued revision is made from, or ``given`` where none was issued."""
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle import read_bundle
    from auditor.evidence.issue import verify_issues
    from auditor.evidence.signing import public_from_pem
    from auditor.report.declared import revised

    if not (bundle / paths.ISSUED_FOLDER).is_dir():
        return given
    found = read_bundle(bundle)
    public = public_from_pem(found.contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY)
    issues = verify_issues(
        found.later, manifest=found.manifest, examiner_public=public, report=given.report_id
    )  # fmt: skip
    return revised(given, issues[-1]) if issues else given


def _copy(bundle: Path, given: "ReportInput", *, out: Path | None, pdf: bool, as_stored: bool) -> None:
    """Write copies into a new folder; ``as_stored`` says that they should equal those in the bundle."""
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle_folder import read_file
    from auditor.report.html import render_html
    from auditor.report.pdf import make_pdf

    folder = out if out is not None else bundle.resolve().with_name(f"{bundle.resolve().name}-report")
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(f"{folder}: lies inside the bundle, where nothing may be added")
    html = render_html(given)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{folder}: exists already or cannot be made; reports are never written over") from error
    (folder / paths.REPORT_HTML).write_bytes(html)
    console.say(f"{folder / paths.REPORT_HTML}")
    stored = read_file(bundle, paths.REPORT_HTML) if as_stored and (bundle / paths.REPORT_HTML).exists() else None
    if stored is not None and stored != html:
        console.warn("report.html differs from the one in the bundle; `auditor check --render` says why")
    if pdf:
        results, seal = (read_file(bundle, name) for name in (paths.RESULTS, paths.SEAL))
        made = make_pdf(html, results=results, seal=seal, issued_at=given.issued_at or given.closed_at)
        (folder / paths.REPORT_PDF).write_bytes(made)
        console.say(f"{folder / paths.REPORT_PDF}")


def _issue(
    bundle: Path,
    said: "Declarations",
    *,
    examiner_key: Path | None,
    report_identity: Path | None,
    authorities: list[str],
) -> None:
    from auditor import casefile
    from auditor.cli import console
    from auditor.cli.signing_keys import read_key
    from auditor.errors import UsageError
    from auditor.evidence import manifest as paths
    from auditor.evidence.times import utc_text
    from auditor.report.home import home
    from auditor.report.issued import issue_report
    from auditor.report.signer import pkcs12_signer, self_made_signer
    from auditor.time_authority import TimeAuthorities

    key = casefile.examiner_key() if examiner_key is None else read_key(examiner_key)
    found = _intact(bundle)
    if found.contents[paths.EXAMINER_KEY] != key.public_pem():
        raise UsageError("the report is issued with the examiner's key that signed the bundle; name it: --examiner-key")
    now = casefile.utc_now()
    stamps = TimeAuthorities(authorities)
    try:
        issued = issue_report(
            found,
            declarations=said,
            examiner=key,
            signer=self_made_signer(home(), now=now) if report_identity is None else pkcs12_signer(report_identity),
            signed_at=utc_text(now),
            exchange=stamps.exchange if authorities else None,
        )
    except OSError as error:
        raise UsageError(f"{bundle}: cannot be written to ({type(error).__name__})") from error
    for path in issued.files:
        console.say(f"{path}")
    console.say(f"issued revision {issued.revision}; custody head: {issued.custody_head}")


def _intact(bundle: Path) -> "Bundle":
    """Return a bundle that checks out."""
    from auditor.errors import EvidenceError
    from auditor.evidence.bundle import read_bundle
    from auditor.evidence.check import CheckOutcome, check_bundle

    checked = check_bundle(
        bundle, owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None
    )  # fmt: skip
    if not checked.intact:
        failed = next(step for step in checked.steps if step.outcome is CheckOutcome.FAIL)
        raise EvidenceError(f"not issued, the bundle does not check out: {failed.title}: {failed.detail}")
    return read_bundle(bundle)
