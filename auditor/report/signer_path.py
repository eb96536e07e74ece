"""Builds the chain from a PDF's certificate to a root that the caller trusts; nothing in the file is trusted itself.

Certificates that the signature carries are material to build the chain from. Nothing is fetched, and revocation is
left to the lists that a caller brings.
"""

import importlib.util
from collections.abc import Sequence
from datetime import datetime
from io import BytesIO
from typing import TYPE_CHECKING

from auditor.errors import AuditorError, MalformedError, MissingPartError, SignatureError

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

MAX_CARRIED = 32
"""Certificates that one signature may carry; more would only make checking slow."""


def signer_path(
    pdf: bytes, certificate: "Certificate", moment: datetime, roots: Sequence["Certificate"]
) -> tuple["Certificate", ...]:
    """Return the verified chain of a PDF's certificate: itself first, then its issuers, one of ``roots`` last.

    Args:
        pdf: the signed file, whose signature may carry certificates between the two ends.
        certificate: the one that signs the file.
        moment: aware time at which every certificate below the root must have been valid.
        roots: what the caller trusts.

    Raises:
        SignatureError: no chain leads to a root, or it does not verify at that time.
        MalformedError: the file cannot be read as a signed PDF.
        MissingPartError: pyHanko is not installed.
    """
    if importlib.util.find_spec("pyhanko") is None:
        raise MissingPartError("the PDF's certificates cannot be read without pyhanko: install the extra [report]")
    try:
        return _path(pdf, certificate, moment, roots)
    except AuditorError:
        raise
    # A parser of hostile PDF and certificates may fail in any way; whatever it is, there is no chain.
    except Exception as error:
        raise MalformedError(f"the PDF's certificates cannot be read ({type(error).__name__})") from error


def _path(
    pdf: bytes, certificate: "Certificate", moment: datetime, roots: Sequence["Certificate"]
) -> tuple["Certificate", ...]:
    import asyncio

    from asn1crypto import x509 as asn1_x509  # type: ignore[import-untyped]
    from cryptography.hazmat.primitives.serialization import Encoding
    from cryptography.x509 import load_der_x509_certificate
    from pyhanko.pdf_utils.reader import PdfFileReader
    from pyhanko_certvalidator import CertificateValidator, ValidationContext
    from pyhanko_certvalidator.errors import PathError, ValidationError

    def convert(own: "Certificate") -> object:
        return asn1_x509.Certificate.load(own.public_bytes(Encoding.DER))

    signatures = list(PdfFileReader(BytesIO(pdf)).embedded_signatures)
    if len(signatures) != 1 or len(signatures[0].other_embedded_certs) > MAX_CARRIED:
        raise MalformedError("the PDF does not hold one signature with a few certificates")
    context = ValidationContext(
        trust_roots=[convert(root) for root in roots], moment=moment, allow_fetching=False, revocation_mode="soft-fail"
    )
    validator = CertificateValidator(
        convert(certificate),
        intermediate_certs=list(signatures[0].other_embedded_certs),
        validation_context=context,
    )
    try:
        found = asyncio.run(validator.async_validate_usage({"digital_signature"}))  # type: ignore[no-untyped-call]
    except (PathError, ValidationError) as error:
        raise SignatureError(_told(error)) from error
    return tuple(load_der_x509_certificate(own.dump()) for own in reversed(list(found.iter_certs(include_root=True))))


def _told(error: Exception) -> str:
    """Return why there is no chain, without any text of the certificates."""
    from pyhanko_certvalidator.errors import ExpiredError, NotYetValidError, PathError

    if isinstance(error, ExpiredError):
        return "a certificate of its chain had expired"
    if isinstance(error, NotYetValidError):
        return "a certificate of its chain was not valid yet"
    if isinstance(error, PathError):
        return "no chain leads from it to a given root"
    return f"its chain does not verify ({type(error).__name__})"
