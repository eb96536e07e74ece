"""A finding over several bundles, on disk: its numbers, a page, a signed PDF, and one signature over all of them."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from auditor import __version__
from auditor.canonical import JsonValue, canonical_bytes, sha256_hex
from auditor.errors import MalformedError, MissingPartError, SealError
from auditor.evidence.signing import SigningKey, envelope, public_from_pem, public_pem, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.storage import own_folder, storing, write_new
from auditor.evidence.times import check_utc, utc_text
from auditor.evidence.token_files import add_beside
from auditor.report.home import home
from auditor.time_authority import TimeAuthorities

logger = logging.getLogger(__name__)

NUMBERS = "finding.json"
PAGE = "report.html"
PDF = "report.pdf"
SIGNED = "finding.dsse.json"
SIGNER = "signer.pub.pem"
CERTIFICATE = "report.crt.pem"
PREDICATE_TYPE = "https://model-ownership-auditor.example/finding/v1"
COVERED = (PAGE, PDF, CERTIFICATE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Issued:
    """A finding that was written."""

    folder: Path
    report_name: str
    """``report.pdf``, or what could be made of it: ``report.html`` or ``finding.json``."""


def issue(
    folder: Path,
    *,
    numbers: Mapping[str, JsonValue],
    render: Callable[[str], bytes],
    key: SigningKey,
    clock: Callable[[], datetime],
    signer_file: Path | None = None,
    authorities: TimeAuthorities | None = None,
) -> Issued:
    """Write a finding into a new folder and sign it; a page or PDF that cannot be made never costs the numbers.

    Args:
        folder: a new or empty folder.
        numbers: content of ``finding.json``; the same evidence gives the same bytes.
        render: makes the page, given the time of issue.
        key: signs numbers and report.
        clock: the present time.
        signer_file: PKCS#12 file that signs the PDF; None takes the self-made certificate.
        authorities: who time-stamps the signature; None leaves it to the clock.

    Raises:
        UsageError: the folder is in use.
        StorageError: it cannot be written.
    """
    with storing(folder), own_folder(folder, resume=False):
        data = canonical_bytes(numbers) + b"\n"
        write_new(folder / NUMBERS, data)
        write_new(folder / SIGNER, public_pem(key.public))
        report_name = _report(folder, data, render, now=clock(), signer_file=signer_file)
        predicate: dict[str, JsonValue] = {
            "files": {name: sha256_hex((folder / name).read_bytes()) for name in COVERED if (folder / name).exists()},
            "signed_at": utc_text(clock()),
            "tool_version": __version__,
        }
        payload = statement_bytes(
            subject_name=NUMBERS,
            subject_sha256=sha256_hex(data),
            predicate_type=PREDICATE_TYPE,
            predicate=predicate,
        )
        signed = envelope(payload, payload_type=PAYLOAD_TYPE, keys=[key])
        write_new(folder / SIGNED, signed)
        if authorities is not None:
            add_beside(folder / SIGNED, authorities.stamp(signed))
    return Issued(folder=folder, report_name=report_name)


def _report(
    folder: Path,
    data: bytes,
    render: Callable[[str], bytes],
    *,
    now: datetime,
    signer_file: Path | None,
) -> str:
    from auditor.report.pdf import make_attached_pdf

    issued_at = utc_text(now)
    try:
        page = render(issued_at)
        write_new(folder / PAGE, page)
    except (MissingPartError, ModuleNotFoundError) as error:
        logger.warning("no report was made: %s", error)
        return NUMBERS
    try:
        from auditor.report.signer import pkcs12_signer, self_made_signer, sign_pdf

        signer = self_made_signer(home(), now=now) if signer_file is None else pkcs12_signer(signer_file)
        attached = [(NUMBERS, data, "All numbers of the finding")]
        pdf = sign_pdf(make_attached_pdf(page, attached=attached, issued_at=issued_at), signer)
    except (MissingPartError, ModuleNotFoundError) as error:
        logger.warning("%s", error)
        return PAGE
    write_new(folder / CERTIFICATE, signer.certificate_pem)
    write_new(folder / PDF, pdf)
    return PDF


def verify_finding(folder: Path, *, fingerprint: str | None = None) -> bytes:
    """Verify the signature over a finding and every file it covers, and return the bytes of ``finding.json``.

    The numbers themselves are re-derived by drawing the finding again from the same bundles.

    Raises:
        MalformedError: a file is missing or malformed.
        SignatureError: the signature does not verify.
        SealError: a file is not the signed one, or the signer is not the expected one.
    """
    from auditor.evidence.signing import fingerprint as fingerprint_of

    try:
        data, public = (folder / NUMBERS).read_bytes(), (folder / SIGNER).read_bytes()
        signed = (folder / SIGNED).read_bytes()
    except OSError as error:
        raise MalformedError(f"{folder}: no finding ({type(error).__name__})") from error
    key = public_from_pem(public, what=SIGNER)
    if fingerprint is not None and fingerprint_of(key) != fingerprint:
        raise SealError(f"{SIGNED}: signed by {fingerprint_of(key)[:16]}…, not by the expected key")
    payload = verify_envelope(signed, payload_type=PAYLOAD_TYPE, public_keys=[key], what=SIGNED)
    found = read_statement(payload, predicate_type=PREDICATE_TYPE, what=SIGNED)
    files = found.predicate.object("files")
    digests = {name: files.hex(name, n_bytes=32) for name in COVERED if files.has(name)}
    files.finish()
    check_utc(found.predicate.text("signed_at"), what=SIGNED)
    found.predicate.text("tool_version", max_length=100)
    found.predicate.finish()
    if found.subject_name != NUMBERS or found.subject_sha256 != sha256_hex(data):
        raise SealError(f"{NUMBERS} is not the signed one")
    for name in COVERED:
        path = folder / name
        if path.exists() != (name in digests) or (name in digests and sha256_hex(path.read_bytes()) != digests[name]):
            raise SealError(f"{name} is not the signed one")
    return data
