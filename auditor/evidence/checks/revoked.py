"""The step on revocation: certificates behind verified time stamps, and the one that signs the PDF."""

from datetime import datetime
from typing import TYPE_CHECKING

from auditor.errors import SignatureError
from auditor.evidence import manifest as paths
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.checks.signer import is_self_made, signed_pdfs
from auditor.evidence.revocation import Revocation, RevocationFinding, look_up_chain
from auditor.evidence.timestamps import TokenFinding, TokenState, verify_tokens
from auditor.evidence.token_files import tokens_among
from auditor.evidence.trusted_time import STAMPED

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def revocation(case: Verified) -> str:
    """No certificate behind a verified time stamp, nor the report's, was revoked by the lists given."""
    if not case.expected.crls:
        raise NotCheckedError("no revocation list was given (--crl), and nothing is fetched")
    told: list[tuple[str, RevocationFinding]] = []
    files = {**case.bundle.contents, **case.bundle.later}
    data = {**case.bundle.contents, paths.MANIFEST_ENVELOPE: case.bundle.manifest_envelope}
    for _, path in STAMPED:
        for found in verify_tokens(tokens_among(files, path), data=data[path], roots=case.expected.tsa_roots):
            if found.state is TokenState.VERIFIED:
                told.append((found.path, _of_token(found, case)))
    told += _of_reports(case)
    detail = "; ".join(f"{name}: {finding.reason}" for name, finding in told)
    if any(finding.state is Revocation.REVOKED for _, finding in told):
        raise SignatureError(detail)
    if not told:
        raise NotCheckedError(
            "no certificate to look up: no verified time stamp, and the report's is self-made or absent"
        )
    if any(finding.state is Revocation.UNKNOWN for _, finding in told):
        raise NotCheckedError(detail)
    return detail


def _of_token(found: TokenFinding, case: Verified) -> RevocationFinding:
    from cryptography.x509 import load_der_x509_certificate

    response = found.token.response
    unknown = RevocationFinding(state=Revocation.UNKNOWN, reason="its certificate cannot be read from the token")
    if response is None:
        return unknown
    try:
        certificates = [load_der_x509_certificate(der) for der in sorted(response.signed_data.certificates)]
        wanted = {(info.issuer, info.serial_number) for info in response.signed_data.signer_infos}
    except ValueError:
        return unknown
    signers = [own for own in certificates if (own.issuer, own.serial_number) in wanted]
    if len(signers) != 1:
        return unknown
    return _look_up(signers[0], others=certificates, at=found.token.stamped_at, case=case)


def _of_reports(case: Verified) -> list[tuple[str, RevocationFinding]]:
    """Look up every certificate that signs a PDF, but one that only its holder vouches for."""
    told = []
    for name, _, certificate, at in signed_pdfs(case):
        if is_self_made(certificate):
            continue
        path = case.signer_paths.get(name, ())
        told.append((name, _look_up(certificate, others=list(path), at=at, case=case)))
    return told


def _look_up(certificate: "Certificate", *, others: "list[Certificate]", at: str, case: Verified) -> RevocationFinding:
    return look_up_chain(
        certificate,
        others=others,
        roots=[*case.expected.tsa_roots, *case.expected.trust_roots],
        crls=case.expected.crls,
        at=datetime.fromisoformat(at),
    )
