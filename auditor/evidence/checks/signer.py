"""The step on whoever signed the PDF: a chain from its certificate to a root that the caller trusts."""

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from auditor.errors import MalformedError, SealError, SignatureError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import certificate_digest
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.issue import Issue, issued_path

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def chain(case: Verified) -> str:
    """Every certificate that signs a report leads to one of the caller's roots; nothing in the bundle is a root."""
    case.signer_paths = {}
    told: list[str] = []
    open_ones: list[str] = []
    for name, pdf, certificate, at in signed_pdfs(case):
        found, verified = _one(case, name, pdf, certificate, at)
        (told if verified else open_ones).append(f"{name}: {found}")
    if open_ones:
        raise NotCheckedError("; ".join([*open_ones, *told]))
    if not told:
        raise NotCheckedError(f"the bundle holds no signed {paths.REPORT_PDF}")
    return "; ".join(told)


def is_self_made(certificate: "Certificate") -> bool:
    """Return whether a certificate is signed with its own key, so that only its holder vouches for it."""
    from cryptography.exceptions import InvalidSignature

    try:
        certificate.verify_directly_issued_by(certificate)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def read_certificate(pem: bytes, *, what: str) -> "Certificate":
    """Read a certificate of a bundle.

    Raises:
        MalformedError: not a certificate in PEM form.
    """
    from cryptography.x509 import load_pem_x509_certificate

    try:
        return load_pem_x509_certificate(pem)
    except ValueError as error:
        raise MalformedError(f"{what}: not a certificate in PEM form") from error


def signed_pdfs(case: Verified) -> list[tuple[str, bytes, "Certificate", str]]:
    """Return (path, PDF, certificate, stated time of signing) of every signed report."""
    found = []
    pdf, pem = (case.bundle.contents.get(path) for path in (paths.REPORT_PDF, paths.REPORT_CERTIFICATE))
    if pdf is not None and pem is not None:
        certificate = read_certificate(pem, what=paths.REPORT_CERTIFICATE)
        found.append((paths.REPORT_PDF, pdf, certificate, case.endorsement.signed_at))
    for issue in case.issues:
        path = issued_path(issue.revision, "report.pdf")
        if path in case.bundle.later:
            found.append((path, case.bundle.later[path], _issued_certificate(case, issue), issue.signed_at))
    return found


def _issued_certificate(case: Verified, issue: Issue) -> "Certificate":
    path = issued_path(issue.revision, "report.crt.pem")
    pem = case.bundle.later.get(path, b"")
    if certificate_digest(pem) != issue.report_certificate_sha256:
        raise SealError(f"{path} is not the certificate that was signed for")
    return read_certificate(pem, what=path)


def _one(case: Verified, name: str, pdf: bytes, certificate: "Certificate", at: str) -> tuple[str, bool]:
    """Return what was found about one certificate, and whether it leads to a root."""
    roots: Sequence[Certificate] = case.expected.trust_roots
    moment = datetime.fromisoformat(at)
    if certificate in roots:
        if not certificate.not_valid_before_utc <= moment <= certificate.not_valid_after_utc:
            raise SignatureError(f"{name}: its certificate was not valid at {at}, when it was signed as stated")
        case.signer_paths[name] = (certificate,)
        return f"signed with a certificate that is itself a given root, valid at {at} as stated", True
    if is_self_made(certificate):
        return "its certificate is self-made: nobody but its holder vouches for the name in it", False
    if not roots or case.expected.signer_path is None:
        return "no root was given to which its certificate could lead (--trust-root)", False
    try:
        path = tuple(case.expected.signer_path(pdf, certificate, moment, roots))
    except SignatureError as error:
        raise SignatureError(f"{name}: {error}; its time of signing is {at} as stated") from error
    case.signer_paths[name] = path
    between = len(path) - 2
    over = f" over {between} {'certificate' if between == 1 else 'certificates'} between" if between > 0 else ""
    return f"its certificate leads to a given root{over}, all valid at {at}, the stated time of signing", True
