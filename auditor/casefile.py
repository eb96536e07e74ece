"""A whole case: audit one suspect, render the reports, sign the bundle, and check the own output."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.audit import Audit, Request, run_audit
from auditor.canonical import JsonValue, parse_canonical_object
from auditor.errors import (
    EvidenceError,
    InterruptedAuditError,
    MissingPartError,
    SignatureError,
    UsageError,
)
from auditor.evidence import bundle as bundle_files
from auditor.evidence import bundle_folder
from auditor.evidence import manifest as paths
from auditor.evidence.check import check_bundle
from auditor.evidence.encryption import Locks, Unlocks, identities_from_text
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import OpenedKeySet, open_sealed
from auditor.evidence.schedule import MAX_NONCE_BYTES, MIN_NONCE_BYTES
from auditor.evidence.seal import claim_problem
from auditor.evidence.signing import SigningKey, fingerprint
from auditor.evidence.storage import own_folder, put, storing, write_new
from auditor.evidence.storage import refuse_used_folder as refuse_used_folder
from auditor.evidence.superseded import set_aside
from auditor.evidence.token_files import read_beside
from auditor.records import Progress, Silent, Status
from auditor.report.home import home
from auditor.results import Headline, headline
from auditor.resumption import Stopped, check_same_examiner, check_same_keys, read_stopped
from auditor.showings import Ledger as Ledger
from auditor.suspects.base import Suspect
from auditor.terms import request as request
from auditor.terms import request_again as request_again
from auditor.time_authority import TimeAuthorities

if TYPE_CHECKING:
    from auditor.report.signer import ReportSigner

logger = logging.getLogger(__name__)

PASSPHRASE_VARIABLE = "AUDITOR_PASSPHRASE"
"""Environment variable that holds the passphrase of an encrypted key set; a command line would show it to others."""
SEAL_NAME = "k.seal.json"
EXAMINER_KEY_NAME = "examiner.ed25519.pem"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A finished case on disk."""

    folder: Path
    results: dict[str, JsonValue]
    report_name: str
    """``report.pdf``, or ``report.html`` where the PDF could not be made."""

    @property
    def headline(self) -> Headline:
        """The figures that fit on one line."""
        return headline(self.results)

    @property
    def exit_code(self) -> int:
        """Exit code of ``verify`` for this outcome."""
        match self.headline.status:
            case Status.SUPPORTED:
                return 0
            case Status.NOT_SUPPORTED:
                return 3
            case Status.INCONCLUSIVE:
                return 4

    @property
    def summary_line(self) -> str:
        """The one line that matters."""
        line = self.headline
        return (
            f"{line.status.value} ({line.reason.value}): {line.hits} hits of {line.trials} keys, "
            f"p ≤ {line.p_value}, {line.total_queries} queries"
        )

    @property
    def limits(self) -> str:
        """What such answers can show of a guard's table, in one line; empty where they show all that is tested."""
        table = self.results.get("table")
        if not isinstance(table, Mapping) or table.get("channel") == "scores":
            return ""
        return f"{table.get('channel')}: {table.get('channel_note')}"


def utc_now() -> datetime:
    """Return the present time in UTC; the one clock that is passed down."""
    return datetime.now(UTC)


def default_folder() -> Path:
    """Return the folder an audit writes to when none is named: ``audit-<UTC time>``."""
    return Path(f"audit-{utc_now():%Y%m%dT%H%M%SZ}")


def open_keyset(
    path: Path, *, seal: Path | None, owner_fingerprint: str | None, unlocks: Unlocks | None = None
) -> OpenedKeySet:
    """Open a sealed key set: bytes are checked first and parsed after, then its generation is repeated.

    Raises:
        UsageError: a file is missing.
        EvidenceError: the key set or its seal is not what it says it is.
    """
    for file in (path, seal):
        if file is not None and not file.is_file():
            raise UsageError(f"{file.name}: no such file")
    opened = open_sealed(path, seal_envelope=None if seal is None else seal.read_bytes(), unlocks=unlocks)
    found = fingerprint(bytes.fromhex(opened.seal.owner_public_key))
    if owner_fingerprint is not None and owner_fingerprint.lower() != found:
        raise SignatureError(f"the seal is signed by {found[:16]}…, not by the expected owner")
    problem = claim_problem(opened.seal)
    if problem:
        logger.warning("%s: the outcome can at most be 'contestable'", problem)
    else:
        logger.info("%s", rederive(opened.keys, opened.seal).summary)
    return opened


def seal_tokens(keyset: Path, *, seal: Path | None) -> tuple[bytes, ...]:
    """Return the time stamps over the seal: those beside ``seal``, or beside the ``k.seal.json`` next to the key set.

    Raises:
        EvidenceError: one of them is not over this seal.
    """
    file = keyset.with_name(SEAL_NAME) if seal is None else seal
    return read_beside(file) if file.is_file() else ()


def unlocks(identity: Path | None) -> Unlocks:
    """Return what opens an encrypted key set: an identity file, and the passphrase of the environment.

    Raises:
        UsageError: the identity file cannot be read or holds none.
    """
    passphrase = os.environ.get(PASSPHRASE_VARIABLE, "")
    if identity is None:
        return Unlocks(passphrase=passphrase)
    try:
        text = identity.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{identity.name}: the identity cannot be read ({type(error).__name__})") from error
    return Unlocks(identities=identities_from_text(text, what=identity.name), passphrase=passphrase)


def locks(recipients: Sequence[str]) -> Locks:
    """Return whom a key set is encrypted to: recipients, or else the passphrase of the environment, or nobody."""
    return Locks(recipients=tuple(recipients), passphrase="" if recipients else os.environ.get(PASSPHRASE_VARIABLE, ""))


def nonce_bytes(text: str | None, *, option: str) -> bytes:
    """Return a nonce or beacon value given as hex; empty when None.

    Raises:
        UsageError: not 16 to 64 bytes in hex.
    """
    if text is None:
        return b""
    try:
        value = bytes.fromhex(text.strip())
    except ValueError as error:
        raise UsageError(f"{option} takes 16 to 64 bytes in hex") from error
    if not MIN_NONCE_BYTES <= len(value) <= MAX_NONCE_BYTES:
        raise UsageError(f"{option} takes 16 to 64 bytes in hex")
    return value


def examiner_key() -> SigningKey:
    """Return the examiner's signing key, made on first use and kept with mode 0600."""
    path = home() / EXAMINER_KEY_NAME
    if not path.exists():
        logger.info("making an examiner's key on first use: %s", path.name)
        key = SigningKey.generate()
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        key.write_pem(path)
        return key
    return SigningKey.from_pem(path.read_bytes())


def verify(
    *,
    opened: OpenedKeySet,
    suspect: Suspect,
    folder: Path,
    request: Request,
    signer_file: Path | None = None,
    examiner: SigningKey | None = None,
    seal_tokens: Sequence[bytes] = (),
    authorities: TimeAuthorities | None = None,
    progress: Progress | None = None,
    resume: bool = False,
    additions: Mapping[str, bytes] | None = None,
) -> Case:
    """Audit, render, sign, and re-read what was written.

    The order makes every digest cover what precedes it: results, HTML, signed PDF, manifest, signature, check. Each
    step can be taken again: with ``resume`` an audit that was killed after any of them goes on with the next.

    Args:
        opened: the sealed key set.
        suspect: what is under test.
        folder: a new or empty folder; with ``resume`` that of an audit that had stopped.
        request: tightenings of the sealed plan; with ``resume`` from :func:`request_again`.
        signer_file: PKCS#12 file that signs the PDF; None takes the self-made certificate.
        examiner: the key that signs the evidence; None takes the one made on first use.
        seal_tokens: time stamps over the seal, for the bundle.
        authorities: who time-stamps transcript head, manifest and PDF; None leaves them to the examiner's clock.
        progress: where to report how far it is.
        resume: go on with the audit in ``folder``; one that is finished is checked and left as it is.
        additions: what the examiner brings along, by its path in the bundle: custody log of the key set, declarations.

    Raises:
        UsageError: the folder is not empty or in use, the request does not fit the seal, or key set, suspect or
            examiner are not those of the audit that goes on.
        SuspectError: the suspect gave no answer at all.
        StorageError: the disk is full, read-only or gone; what was written stays, and the audit can be resumed.
        InterruptedAuditError: the user stopped the audit; the bundle so far is complete and signed.
    """
    progress = progress or Silent()
    examiner = examiner or examiner_key()
    authorities = authorities or TimeAuthorities(())
    with storing(folder, advice=f"; verify --resume {folder} goes on"), own_folder(folder, resume=resume):
        stopped = _stopped(folder, opened, examiner) if resume else None
        if stopped is not None and stopped.over and stopped.signed:
            return _finished(folder, opened, examiner, authorities)
        audit = run_audit(
            opened=opened,
            suspect=suspect,
            folder=folder,
            examiner=examiner,
            request=request,
            clock=utc_now,
            progress=progress,
            seal_tokens=seal_tokens,
            stamp=authorities.stamp,
            stopped=stopped,
        )
        report_name = _issue(
            folder, opened, examiner=examiner, signer_file=signer_file, authorities=authorities, progress=progress,
            additions=additions or {},
        )  # fmt: skip
    _tell_how_it_ended(audit)
    return Case(folder=folder, results=audit.results, report_name=report_name)


def _issue(
    folder: Path,
    opened: OpenedKeySet,
    *,
    examiner: SigningKey,
    signer_file: Path | None,
    authorities: TimeAuthorities,
    progress: Progress,
    additions: Mapping[str, bytes],
) -> str:
    """Render, sign and re-read what an audit found; return the report's name."""
    progress.begin("writing and signing the report", 3)
    for path, data in additions.items():
        bundle_files.put_file(folder, path, data)
    report_name = _render(folder, signer_file=signer_file, authorities=authorities, progress=progress)
    bundle_files.write_manifest(folder, examiner=examiner, clock=utc_now, stamp=authorities.stamp)
    progress.advance()
    _check_own_output(folder, opened, examiner)
    progress.advance()
    progress.end()
    return report_name


def _tell_how_it_ended(audit: Audit) -> None:
    if audit.closed_reason == "interrupted":
        raise InterruptedAuditError(
            f"interrupted; the transcript is closed and kept in {audit.folder}; verify --resume {audit.folder} goes on"
        )
    if audit.closed_reason == "failed":
        logger.warning("the suspect stopped answering; verify --resume %s goes on once it answers again", audit.folder)


def _stopped(folder: Path, opened: OpenedKeySet, examiner: SigningKey) -> Stopped:
    bundle_folder.clear_parts(folder)
    stopped = read_stopped(folder)
    check_same_keys(stopped, opened)
    check_same_examiner(folder, examiner)
    return stopped


def _finished(folder: Path, opened: OpenedKeySet, examiner: SigningKey, authorities: TimeAuthorities) -> Case:
    """Return a case whose process was killed after it was signed; only time stamps that are missing are added."""
    signed = folder / paths.MANIFEST_ENVELOPE
    if not read_beside(signed):
        bundle_files.stamp_manifest(folder, examiner=examiner, clock=utc_now, stamp=authorities.stamp)
    _check_own_output(folder, opened, examiner)
    logger.warning("%s: the audit is finished and signed; nothing was asked", folder)
    results = parse_canonical_object(bundle_folder.read_file(folder, paths.RESULTS), what=paths.RESULTS)
    pdf = (folder / paths.REPORT_PDF).exists()
    return Case(folder=folder, results=dict(results), report_name=paths.REPORT_PDF if pdf else paths.REPORT_HTML)


def _check_own_output(folder: Path, opened: OpenedKeySet, examiner: SigningKey) -> None:
    report = check_bundle(
        folder,
        owner_fingerprint=fingerprint(bytes.fromhex(opened.seal.owner_public_key)),
        examiner_fingerprint=examiner.fingerprint,
        render_html=None,
        check_pdf=None,
    )
    if not report.intact:
        failed = next(step for step in report.steps if step.outcome.value == "FAIL")
        raise EvidenceError(f"the bundle just written does not check out: {failed.title}: {failed.detail}")


def _render(folder: Path, *, signer_file: Path | None, authorities: TimeAuthorities, progress: Progress) -> str:
    """Write the report beside the evidence and return its name; a PDF that cannot be made never costs the evidence."""
    from auditor.report.annexes import render_annexes
    from auditor.report.html import render_html
    from auditor.report.inputs import read_folder
    from auditor.report.pdf import make_pdf
    from auditor.report.signer import pkcs12_signer, self_made_signer

    signer = self_made_signer(home(), now=utc_now()) if signer_file is None else pkcs12_signer(signer_file)
    # The certificate exists before the report, so that the report can name it. A signed PDF that a killed process left
    # behind stays where it is about this very report, and is set aside where it is not.
    certificate, pdf_file = folder / paths.REPORT_CERTIFICATE, folder / paths.REPORT_PDF
    if pdf_file.exists() and certificate.read_bytes() != signer.certificate_pem:
        set_aside(folder, (paths.REPORT_PDF, paths.REPORT_CERTIFICATE), number=1)
    put(certificate, signer.certificate_pem)
    try:
        for path, data in render_annexes(read_folder(folder)).items():
            bundle_files.put_file(folder, path, data)
        given = read_folder(folder)
        html = render_html(given)
    except MissingPartError as error:
        logger.warning("no report was made: %s", error)
        return paths.RESULTS
    if put(folder / paths.REPORT_HTML, html):
        set_aside(folder, (paths.REPORT_PDF,), number=1)
    progress.advance()
    if pdf_file.exists():
        return paths.REPORT_PDF
    try:
        pdf = make_pdf(
            html,
            results=(folder / paths.RESULTS).read_bytes(),
            seal=(folder / paths.SEAL).read_bytes(),
            issued_at=given.closed_at,
        )
    except MissingPartError as error:
        logger.warning("%s", error)
        return paths.REPORT_HTML
    write_new(pdf_file, _sign(pdf, signer, authorities))
    return paths.REPORT_PDF


def _sign(pdf: bytes, signer: "ReportSigner", authorities: TimeAuthorities) -> bytes:
    from auditor.report.signer import sign_pdf

    if authorities:
        try:
            return sign_pdf(pdf, signer, exchange=authorities.exchange)
        except MissingPartError as error:
            logger.warning("the report's signature is not time-stamped: %s", error)
    return sign_pdf(pdf, signer)
