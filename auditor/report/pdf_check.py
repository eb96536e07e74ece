"""Checks a signed report: whole, unaltered, by the named certificate, with the bundle's own files attached.

Stricter than PDF readers, which call a file valid that was extended after signing: here the signature must cover the
entire file.
"""

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING, Any

from auditor.canonical import sha256_hex
from auditor.errors import (
    AuditorError,
    EvidenceError,
    MalformedError,
    MissingPartError,
    SealError,
    SignatureError,
    TimestampError,
)
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle
from auditor.evidence.timestamps import TokenState, response_of_token, verify_tokens
from auditor.report.pdf import RESULTS_NAME, SEAL_NAME, file_identifier

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from pyhanko.pdf_utils.reader import PdfFileReader

# It prints a stack trace for every time stamp whose root it was not given; those are verified below, by our rules.
logging.getLogger("pyhanko.sign.validation.generic_cms").setLevel(logging.CRITICAL)

WHAT = "report.pdf"
MAX_NAME_TREE_NODES = 1000
MAX_ATTACHMENTS = 16


def check_pdf(bundle: Bundle, *, tsa_roots: Sequence["Certificate"] = ()) -> str:
    """Check a bundle's ``report.pdf`` as :func:`check_pdf_bytes` does, against the bundle's own files.

    Raises:
        EvidenceError: the bundle lacks a file the check needs, or the PDF does not check out.
        MissingPartError: pyHanko is not installed.
    """
    names = (paths.REPORT_PDF, paths.REPORT_HTML, paths.RESULTS, paths.SEAL, paths.REPORT_CERTIFICATE)
    for name in names:
        if name not in bundle.contents:
            raise MalformedError(f"{name}: missing from the bundle, so report.pdf cannot be what it claims to be")
    pdf, html, results, seal, certificate_pem = (bundle.contents[name] for name in names)
    return check_pdf_bytes(
        pdf, html=html, results=results, seal=seal, certificate_pem=certificate_pem, tsa_roots=tsa_roots
    )


def check_pdf_bytes(
    pdf: bytes,
    *,
    html: bytes,
    results: bytes,
    seal: bytes,
    certificate_pem: bytes,
    tsa_roots: Sequence["Certificate"] = (),
) -> str:
    """Check a signed report against the files it was made from and return what was found, in one line.

    Checked: exactly one signature, intact and valid under the given certificate; it covers the entire file, with
    no later modification and none permitted; results.json and k.seal.json attached byte for byte and nothing else;
    the file identifier is that of report.html; a time stamp in the signature, if any, is over it and, where roots are
    given, verifies under them; the certificate was valid at the stated and at the stamped time. Not checked: who holds
    the certificate.

    Raises:
        EvidenceError: any of these fails, or the file is not such a PDF.
        MissingPartError: pyHanko is not installed.
    """
    if importlib.util.find_spec("pyhanko") is None:
        raise MissingPartError("the PDF's signature cannot be checked without pyhanko: install the extra [report]")
    from pyhanko.pdf_utils.reader import PdfFileReader

    try:
        found = _check(pdf, html=html, results=results, seal=seal, certificate_pem=certificate_pem)
        return f"{found}; {_check_time(PdfFileReader(BytesIO(pdf)), tsa_roots)}"
    except AuditorError:
        raise
    # A parser of hostile PDF may fail in any way; whatever it is, the file is not the report that was signed.
    except Exception as error:
        raise MalformedError(f"report.pdf: cannot be read as a signed report ({type(error).__name__})") from error


def _check(pdf: bytes, *, html: bytes, results: bytes, seal: bytes, certificate_pem: bytes) -> str:
    from pyhanko.pdf_utils.reader import PdfFileReader

    reader = PdfFileReader(BytesIO(pdf))
    digest = _check_signature(reader, certificate_pem)
    found = dict(_attachments(reader))
    for name, expected in ((RESULTS_NAME, results), (SEAL_NAME, seal)):
        if found.get(name) != expected:
            raise SealError(f"report.pdf: its attachment {name} differs from the bundle's file")
    if set(found) != {RESULTS_NAME, SEAL_NAME}:
        raise EvidenceError("report.pdf: holds an attachment that does not belong to it")
    identifier = bytes(reader.trailer["/ID"][0].original_bytes)
    if identifier != file_identifier(html):
        raise SealError("report.pdf: was not made from the bundle's report.html")
    return f"one signature over the entire file, certificate {digest[:16]}…; both attachments equal the bundle's files"


def _check_signature(reader: "PdfFileReader", certificate_pem: bytes) -> str:
    """Check the one signature and return the SHA-256 of its certificate."""
    from asn1crypto import pem  # type: ignore[import-untyped]
    from asn1crypto import x509 as asn1_x509
    from pyhanko.sign.diff_analysis import ModificationLevel
    from pyhanko.sign.fields import MDPPerm
    from pyhanko.sign.validation import validate_pdf_signature
    from pyhanko.sign.validation.settings import KeyUsageConstraints
    from pyhanko.sign.validation.status import SignatureCoverageLevel
    from pyhanko_certvalidator import ValidationContext

    signatures = list(reader.embedded_signatures)
    if len(signatures) != 1:
        raise SignatureError(f"report.pdf: holds {len(signatures)} signatures instead of one")
    signature = signatures[0]
    _, _, der = pem.unarmor(certificate_pem)
    expected = asn1_x509.Certificate.load(der)
    if signature.signer_cert.dump() != expected.dump():
        raise SignatureError("report.pdf: is not signed under the bundle's certificate")
    signed_at = signature.self_reported_timestamp
    if signed_at is None or not expected.not_valid_before <= signed_at <= expected.not_valid_after:
        raise SignatureError("report.pdf: states no time of signing at which its certificate was valid")
    status = validate_pdf_signature(
        signature,
        signer_validation_context=ValidationContext(trust_roots=[expected], allow_fetching=False),
        key_usage_settings=KeyUsageConstraints(key_usage={"digital_signature"}),
    )
    if not status.intact or not status.valid:
        raise SignatureError("report.pdf: the signature does not verify")
    if status.coverage != SignatureCoverageLevel.ENTIRE_FILE:
        raise SignatureError("report.pdf: the signature does not cover the entire file")
    if status.modification_level != ModificationLevel.NONE or not status.docmdp_ok:
        raise SignatureError("report.pdf: was modified after signing")
    if signature.docmdp_level != MDPPerm.NO_CHANGES:
        raise SignatureError("report.pdf: the signature permits later changes")
    return sha256_hex(der)


def _check_time(reader: "PdfFileReader", roots: Sequence["Certificate"]) -> str:
    """Check the time stamp inside the signature by the rules of all other time stamps."""
    signature = reader.embedded_signatures[0]
    tokens = [
        value.dump()
        for attribute in signature.signer_info["unsigned_attrs"]
        if attribute["type"].native == "signature_time_stamp_token"
        for value in attribute["values"]
    ]
    if not tokens:
        return "not independently time-stamped"
    if len(tokens) > 1:
        raise TimestampError(f"{WHAT}: its signature holds several time stamps")
    signed = bytes(signature.signer_info["signature"].native)
    (finding,) = verify_tokens({WHAT: response_of_token(tokens[0])}, data=signed, roots=roots)
    if not roots:
        return f"time stamp {finding.token.stamped_at} not verified, no root of a time authority was given"
    if finding.state is not TokenState.VERIFIED:
        raise TimestampError(f"{WHAT}: its time stamp {finding.reason}")
    certificate, stamped_at = signature.signer_cert, datetime.fromisoformat(finding.token.stamped_at)
    if not certificate.not_valid_before <= stamped_at <= certificate.not_valid_after:
        raise TimestampError(f"{WHAT}: was time-stamped when its certificate was not valid")
    return f"time-stamped {finding.token.stamped_at}"


def _attachments(reader: "PdfFileReader") -> Iterator[tuple[str, bytes]]:
    # Indexing resolves references, which get() does not.
    if "/Names" not in reader.root or "/EmbeddedFiles" not in reader.root["/Names"]:
        return
    waiting, seen = [reader.root["/Names"]["/EmbeddedFiles"]], 0
    while waiting:
        node = waiting.pop()
        seen += 1
        if seen > MAX_NAME_TREE_NODES or not isinstance(node, Mapping):
            raise MalformedError("report.pdf: its list of attachments is malformed")
        waiting += _resolved(node["/Kids"]) if "/Kids" in node else []
        pairs = _resolved(node["/Names"]) if "/Names" in node else []
        if len(pairs) > 2 * MAX_ATTACHMENTS:
            raise MalformedError("report.pdf: holds too many attachments")
        for specification in pairs[1::2]:
            yield (
                str(specification["/UF"] if "/UF" in specification else specification["/F"]),
                specification["/EF"]["/F"].data,
            )


def _resolved(array: Sequence[Any]) -> list[Any]:
    # Indexing resolves references; iterating does not.
    return [array[i] for i in range(len(array))]
