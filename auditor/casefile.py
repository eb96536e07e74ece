"""A whole case: audit one suspect, render the reports, sign the bundle, and check the own output."""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.audit import Audit, Request, run_audit
from auditor.canonical import JsonValue
from auditor.environment import environment
from auditor.errors import (
    EvidenceError,
    InterruptedAuditError,
    MissingPartError,
    SignatureError,
    UsageError,
)
from auditor.evidence import bundle as bundle_files
from auditor.evidence.check import check_bundle
from auditor.evidence.encryption import Locks, Unlocks, identities_from_text
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import OpenedKeySet, open_sealed
from auditor.evidence.ledger import Showing, append_showing, keys_asked, read_ledger, shown_keys
from auditor.evidence.schedule import MAX_NONCE_BYTES, MIN_NONCE_BYTES, draw_schedule, judge_seed, opening_length
from auditor.evidence.seal import generation_problem
from auditor.evidence.signing import SigningKey, fingerprint
from auditor.evidence.times import utc_text
from auditor.evidence.token_files import read_beside
from auditor.evidence.transcript import Transcript, read_transcript
from auditor.records import Progress, SampleKind, Silent, Status
from auditor.report.home import home
from auditor.results import Headline, headline
from auditor.suspects.base import Suspect
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
    problem = generation_problem(opened.seal)
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


def request(
    opened: OpenedKeySet,
    *,
    alpha: float | None,
    max_queries: int | None,
    operator: str,
    judge_nonce: bytes = b"",
) -> Request:
    """Return the request for a limit on all questions; stage 1 is always asked whole.

    Raises:
        UsageError: the limit does not suffice for stage 1.
    """
    protocol = opened.seal.protocol
    max_keys = None
    if max_queries is not None:
        spare = max_queries - opening_length(protocol)
        if spare < 0:
            raise UsageError(
                f"the first stage asks {opening_length(protocol)} questions; --max-queries {max_queries} is too few"
            )
        max_keys = min(protocol.n_keys, protocol.opening_keys + spare)
    return Request(
        alpha=alpha, max_keys=max_keys, judge_nonce=judge_nonce, operator=operator, environment=environment()
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger of shown keys around one audit."""

    path: Path
    opened: OpenedKeySet

    def admit(self, request: Request, *, reuse: bool) -> Request:
        """Return the request, with a deviation where keys of the first stage were shown before.

        Raises:
            UsageError: such keys would be asked and ``reuse`` is False.
            EvidenceError: the ledger is broken.
        """
        seal = self.opened.seal
        judge = judge_seed(request.judge_nonce, seal.merkle_root) if request.judge_nonce else None
        first = draw_schedule(seal.protocol, judge=judge)[: opening_length(seal.protocol)]
        planned = {probe.index for probe in first if probe.kind is SampleKind.KEY}
        burned = len(planned & shown_keys(read_ledger(self.path, seal=seal)))
        if not burned:
            return request
        if not reuse:
            raise UsageError(
                f"{burned} of the {len(planned)} keys of the first stage were shown to a suspect before "
                f"({self.path.name}); --reuse-keys asks them all the same and records it"
            )
        told = f"{burned} of the {len(planned)} keys of the first stage had been shown to a suspect before"
        return replace(request, deviations=(*request.deviations, told))

    @contextmanager
    def recording(self, folder: Path) -> Iterator[None]:
        """Write down what was shown, however the audit in ``folder`` ends."""
        file = folder / "transcript.jsonl"
        was_there = file.exists()
        try:
            yield
        finally:
            try:
                transcript = read_transcript(file.read_bytes()) if file.is_file() and not was_there else None
                if transcript is not None and keys_asked(self.opened.seal, transcript):
                    self._write(transcript)
            except EvidenceError as error:
                logger.warning("the ledger of shown keys was not extended: %s", error)

    def _write(self, transcript: Transcript) -> None:
        suspect = transcript.preamble.get("suspect")
        showing = Showing(
            at=utc_text(utc_now()),
            keyset_id=self.opened.seal.keyset_id,
            suspect=str(suspect.get("uri", "")) if isinstance(suspect, dict) else "",
            by=str(transcript.preamble.get("operator", "")),
            transcript_head=transcript.head,
            keys=keys_asked(self.opened.seal, transcript),
        )
        append_showing(self.path, showing, seal=self.opened.seal)


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
) -> Case:
    """Audit, render, sign, and re-read what was written.

    The order makes every digest cover what precedes it: results, HTML, signed PDF, manifest, signature, check.

    Args:
        opened: the sealed key set.
        suspect: what is under test.
        folder: a new or empty folder.
        request: tightenings of the sealed plan.
        signer_file: PKCS#12 file that signs the PDF; None takes the self-made certificate.
        examiner: the key that signs the evidence; None takes the one made on first use.
        seal_tokens: time stamps over the seal, for the bundle.
        authorities: who time-stamps transcript head, manifest and PDF; None leaves them to the examiner's clock.
        progress: where to report how far it is.

    Raises:
        UsageError: the folder is not empty, or the request does not fit the seal.
        SuspectError: the suspect gave no answer at all.
        InterruptedAuditError: the user stopped the audit; the bundle so far is complete and signed.
    """
    progress = progress or Silent()
    refuse_used_folder(folder)
    examiner = examiner or examiner_key()
    authorities = authorities or TimeAuthorities(())
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
    )
    interrupted = audit.closed_reason == "interrupted"
    progress.begin("writing and signing the report", 3)
    report_name = _render(folder, signer_file=signer_file, authorities=authorities, progress=progress)
    bundle_files.write_manifest(folder, examiner=examiner, clock=utc_now, stamp=authorities.stamp)
    progress.advance()
    _check_own_output(audit, opened, examiner)
    progress.advance()
    progress.end()
    if interrupted:
        raise InterruptedAuditError(f"interrupted; the transcript is closed and kept in {folder}")
    return Case(folder=folder, results=audit.results, report_name=report_name)


def refuse_used_folder(folder: Path) -> None:
    """Raise UsageError when ``folder`` exists and holds anything: evidence is never written over."""
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(f"{folder}: exists already and is not empty; evidence is never written over")
    parent = folder if folder.exists() else next(p for p in folder.absolute().parents if p.exists())
    if not os.access(parent, os.W_OK):
        raise UsageError(f"{folder}: cannot be written to")


def _check_own_output(audit: Audit, opened: OpenedKeySet, examiner: SigningKey) -> None:
    report = check_bundle(
        audit.folder,
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
    from auditor.evidence.manifest import REPORT_CERTIFICATE, REPORT_HTML, REPORT_PDF, RESULTS, SEAL
    from auditor.report.html import render_html
    from auditor.report.inputs import read_folder
    from auditor.report.pdf import make_pdf
    from auditor.report.signer import pkcs12_signer, self_made_signer

    signer = self_made_signer(home(), now=utc_now()) if signer_file is None else pkcs12_signer(signer_file)
    # The certificate exists before the report, so that the report can name it.
    (folder / REPORT_CERTIFICATE).write_bytes(signer.certificate_pem)
    given = read_folder(folder)
    try:
        html = render_html(given)
    except MissingPartError as error:
        logger.warning("no report was made: %s", error)
        return RESULTS
    (folder / REPORT_HTML).write_bytes(html)
    progress.advance()
    try:
        pdf = make_pdf(
            html,
            results=(folder / RESULTS).read_bytes(),
            seal=(folder / SEAL).read_bytes(),
            issued_at=given.closed_at,
        )
    except MissingPartError as error:
        logger.warning("%s", error)
        return REPORT_HTML
    (folder / REPORT_PDF).write_bytes(_sign(pdf, signer, authorities))
    return REPORT_PDF


def _sign(pdf: bytes, signer: "ReportSigner", authorities: TimeAuthorities) -> bytes:
    from auditor.report.signer import sign_pdf

    if authorities:
        try:
            return sign_pdf(pdf, signer, exchange=authorities.exchange)
        except MissingPartError as error:
            logger.warning("the report's signature is not time-stamped: %s", error)
    return sign_pdf(pdf, signer)
