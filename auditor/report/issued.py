"""Issuing a later revision of the report: declarations signed over the manifest, and the report made with them."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from auditor import __version__
from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, SealError, UsageError
from auditor.evidence import manifest as paths
from auditor.evidence.acts import CommandAct
from auditor.evidence.bundle import Bundle, add_file, certificate_digest, later_log
from auditor.evidence.checks.base import NotCheckedError
from auditor.evidence.declarations import DATE_FIELD, Declarations
from auditor.evidence.issue import FIRST, LAST, Issue, envelope_path, issued_path, sign_issue
from auditor.evidence.open_custody import object_event
from auditor.evidence.signing import SigningKey
from auditor.report.annexes import render_certificate
from auditor.report.declared import revised
from auditor.report.html import refuse_other_versions, render_html
from auditor.report.inputs import from_files
from auditor.report.pdf import make_pdf
from auditor.report.pdf_check import check_pdf_bytes
from auditor.report.signer import Exchange, ReportSigner, sign_pdf

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

logger = logging.getLogger(__name__)

HTML, PDF, CERTIFICATE = "report.html", "report.pdf", "report.crt.pem"
CERTIFICATE_902 = "certificate-902.draft.html"


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A revision that was issued."""

    revision: int
    files: tuple[Path, ...]
    custody_head: str


def issue_report(
    bundle: Bundle,
    *,
    declarations: Declarations,
    examiner: SigningKey,
    signer: ReportSigner,
    signed_at: str,
    exchange: Exchange | None = None,
) -> Issued:
    """Add the next revision of a bundle's report to it; nothing that exists is changed but the custody log, by lines.

    Everything is rendered and signed before the first file is written.

    Args:
        bundle: a bundle that checks out.
        declarations: complete ones, about this bundle's report.
        examiner: the key that signed the manifest.
        signer: signs the PDF.
        signed_at: present time, RFC 3339 UTC.
        exchange: sends a time-stamp query for the PDF's signature; None for none.

    Raises:
        UsageError: the declarations are incomplete or dated before the examination, or there is no number left.
    """
    given = from_files(bundle.contents)
    missing = declarations.missing(given.report_id)
    if missing:
        raise UsageError(f"the declarations lack {missing[0]!r}")
    # A day is a day of the examiner's calendar, which may be behind UTC or ahead of it.
    if not _day(given.closed_at, shift=-1) <= declarations.values[DATE_FIELD] <= _day(signed_at, shift=1):
        raise UsageError(
            f"{DATE_FIELD!r} must lie between the end of the examination, {given.closed_at[:10]}, and today"
        )
    revision = FIRST
    while envelope_path(revision) in bundle.later:
        revision += 1
    if revision > LAST:
        raise UsageError(f"a report has at most {LAST} revisions")
    before = bundle.later.get(envelope_path(revision - 1))
    issue = Issue(
        revision=revision,
        declarations=declarations,
        previous_sha256="" if before is None else sha256_hex(before),
        report_certificate_sha256=signer.certificate_sha256,
        signed_at=signed_at,
        tool_version=__version__,
    )
    made = _make(bundle, issue, examiner=examiner, signer=signer, exchange=exchange)
    log, head = later_log(bundle.folder), ""
    for name, data in made.items():
        path = issued_path(revision, name)
        add_file(bundle.folder, path, data)
        event = object_event(CommandAct.ISSUED, path=path, data=data, at=signed_at)
        head = log.add(event, key=examiner)
    files = tuple(bundle.folder / issued_path(revision, name) for name in made)
    return Issued(revision=revision, files=files, custody_head=head)


def _make(
    bundle: Bundle, issue: Issue, *, examiner: SigningKey, signer: ReportSigner, exchange: Exchange | None
) -> dict[str, bytes]:
    """Return a revision's files by name; a PDF that cannot be made costs only itself."""
    made = {"declarations.dsse.json": sign_issue(bundle.manifest, issue, examiner=examiner)}
    made |= _render(bundle, issue)
    made[CERTIFICATE] = signer.certificate_pem
    try:
        pdf = make_pdf(
            made[HTML],
            results=bundle.contents[paths.RESULTS],
            seal=bundle.contents[paths.SEAL],
            issued_at=issue.signed_at,
        )
        made[PDF] = sign_pdf(pdf, signer, exchange=exchange)
    except MissingPartError as error:
        logger.warning("%s", error)
    return made


def check_issued(bundle: Bundle, issue: Issue, *, tsa_roots: Sequence["Certificate"] = ()) -> str:
    """Render an issued revision again, compare it with its files, and check its PDF; return what was found.

    Args:
        bundle: a bundle whose manifest was verified.
        issue: one of its verified revisions.
        tsa_roots: trusted certificates of time authorities, for a time stamp in the PDF's signature.

    Raises:
        EvidenceError: a file differs, or the PDF does not check out.
        NotCheckedError: the revision's report is not here.
        MissingPartError: a renderer or other versions are needed.
    """
    stored = {name: bundle.later.get(issued_path(issue.revision, name)) for name in (HTML, PDF, CERTIFICATE)}
    html, pdf, certificate = stored[HTML], stored[PDF], stored[CERTIFICATE]
    if html is None or certificate is None:
        raise NotCheckedError(f"revision {issue.revision} holds no {HTML} or no {CERTIFICATE}")
    refuse_other_versions(html)
    for name, data in _render(bundle, issue).items():
        if bundle.later.get(issued_path(issue.revision, name)) != data:
            raise SealError(f"{issued_path(issue.revision, name)} differs from what this version renders")
    if certificate_digest(certificate) != issue.report_certificate_sha256:
        raise SealError(f"{issued_path(issue.revision, CERTIFICATE)} is not the certificate that was signed for")
    if pdf is None:
        raise NotCheckedError(f"revision {issue.revision} equals its rendering, but holds no {PDF}")
    results, seal = bundle.contents[paths.RESULTS], bundle.contents[paths.SEAL]
    found = check_pdf_bytes(
        pdf, html=html, results=results, seal=seal, certificate_pem=certificate, tsa_roots=tsa_roots
    )
    return f"revision {issue.revision} equal byte for byte; PDF: {found}"


def _render(bundle: Bundle, issue: Issue) -> dict[str, bytes]:
    given = revised(from_files(bundle.contents), issue)
    return {HTML: render_html(given), CERTIFICATE_902: render_certificate(given)}


def _day(moment: str, *, shift: int) -> str:
    return (datetime.fromisoformat(moment) + timedelta(days=shift)).date().isoformat()
