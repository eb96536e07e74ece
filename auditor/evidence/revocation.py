"""Whether certificates were revoked, by lists (CRLs) that the caller got from the authorities; nothing is fetched.

A list counts only under the signature of the certificate's own issuer. Lists with critical extensions - indirect,
partial or delta ones - are left aside, because an entry that is missing there means nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING

from auditor.errors import MalformedError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate, CertificateRevocationList, RevokedCertificate

MAX_CRL_BYTES = 64 * 1024 * 1024
MAX_CRLS = 64
MAX_CHAIN = 8
_PEM_END = b"-----END X509 CRL-----"


class Revocation(StrEnum):
    """What the lists say about a certificate at a moment."""

    GOOD = "not revoked"
    REVOKED = "revoked"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class RevocationFinding:
    """What was found about one certificate."""

    state: Revocation
    reason: str
    """Which list says so, or why none does."""


def read_crls(data: bytes, *, what: str) -> tuple["CertificateRevocationList", ...]:
    """Read revocation lists: one in DER form, or one or more in PEM form.

    Raises:
        MalformedError: no such lists, or too many.
    """
    from cryptography.x509 import load_der_x509_crl, load_pem_x509_crl

    if len(data) > MAX_CRL_BYTES:
        raise MalformedError(f"{what}: larger than {MAX_CRL_BYTES} bytes")
    try:
        if b"-----BEGIN" not in data[:8192]:
            return (load_der_x509_crl(data),)
        blocks = [block + _PEM_END for block in data.split(_PEM_END)[:-1]]
        if not 1 <= len(blocks) <= MAX_CRLS:
            raise MalformedError(f"{what}: holds no revocation list, or more than {MAX_CRLS}")
        return tuple(load_pem_x509_crl(block) for block in blocks)
    except (ValueError, TypeError) as error:
        raise MalformedError(f"{what}: holds no revocation list in PEM or DER form") from error


def look_up_chain(
    certificate: "Certificate",
    *,
    others: Sequence["Certificate"],
    roots: Sequence["Certificate"],
    crls: Sequence["CertificateRevocationList"],
    at: datetime,
) -> RevocationFinding:
    """Look up a certificate and every issuer of it below a root; the worst finding counts.

    Args:
        certificate: one whose chain to a root was verified already.
        others: further certificates that the chain may pass through.
        roots: where the chain ends; a root is not looked up, its holder vouches for it elsewhere.
        crls: the caller's lists.
        at: aware time of what the certificate signed.
    """
    findings: list[RevocationFinding] = []
    current = certificate
    for _ in range(MAX_CHAIN):
        if current in roots:
            break
        issuer = _issuer(current, [*roots, *others])
        if issuer is None:
            findings.append(RevocationFinding(state=Revocation.UNKNOWN, reason="its issuer is not at hand"))
            break
        findings.append(_look_up(current, issuer=issuer, crls=crls, at=at))
        current = issuer
    for state in (Revocation.REVOKED, Revocation.UNKNOWN):
        for finding in findings:
            if finding.state is state:
                return finding
    return findings[0] if findings else RevocationFinding(state=Revocation.GOOD, reason="is a given root itself")


def _issuer(certificate: "Certificate", candidates: Sequence["Certificate"]) -> "Certificate | None":
    from cryptography.exceptions import InvalidSignature

    for candidate in candidates:
        try:
            certificate.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return candidate
    return None


def _look_up(
    certificate: "Certificate",
    *,
    issuer: "Certificate",
    crls: Sequence["CertificateRevocationList"],
    at: datetime,
) -> RevocationFinding:
    usable = [crl for crl in crls if crl.issuer == certificate.issuer and _signed_by(crl, issuer)]
    if not usable:
        return RevocationFinding(state=Revocation.UNKNOWN, reason="no given list is by its issuer")
    for crl in usable:
        entry = crl.get_revoked_certificate_by_serial_number(certificate.serial_number)
        if entry is not None and _counts(entry, at=at):
            day = f"{entry.revocation_date_utc:%Y-%m-%d}"
            return RevocationFinding(state=Revocation.REVOKED, reason=f"revoked on {day} by its issuer's list")
    newest = max(crl.last_update_utc for crl in usable)
    told = f"{newest:%Y-%m-%d %H:%M:%S} UTC"
    if newest < at:
        return RevocationFinding(state=Revocation.UNKNOWN, reason=f"the list of {told} is older than the signature")
    return RevocationFinding(state=Revocation.GOOD, reason=f"not revoked by the list of {told}")


def _signed_by(crl: "CertificateRevocationList", issuer: "Certificate") -> bool:
    from cryptography.x509 import ExtensionNotFound, KeyUsage

    try:
        if any(extension.critical for extension in crl.extensions):
            return False
        usage = issuer.extensions.get_extension_for_class(KeyUsage).value
        if not usage.crl_sign:
            return False
    except ExtensionNotFound:
        pass
    except ValueError:
        return False
    try:
        # The library accepts only the key types that sign certificates; any other is no issuer's.
        return crl.is_signature_valid(issuer.public_key())  # type: ignore[arg-type]
    except (ValueError, TypeError):
        return False


def _counts(entry: "RevokedCertificate", *, at: datetime) -> bool:
    """Return whether a revocation takes effect on what was signed at a moment (RFC 3161, section 4)."""
    from cryptography.x509 import CRLReason, ExtensionNotFound, ReasonFlags

    harmless = {
        ReasonFlags.unspecified,
        ReasonFlags.affiliation_changed,
        ReasonFlags.superseded,
        ReasonFlags.cessation_of_operation,
    }
    try:
        reason = entry.extensions.get_extension_for_class(CRLReason).value.reason
    except (ExtensionNotFound, ValueError):
        # Without a reason the key may have been lost long before, so that nothing it signed can be relied on.
        return True
    return reason not in harmless or at >= entry.revocation_date_utc
