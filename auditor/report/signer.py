"""Signs the PDF: PAdES baseline B-B, or B-T where a time authority is named, with a certification against changes.

RSA-3072 with SHA-256, because common PDF readers do not accept Ed25519.

Without a certificate of their own, examiners sign with one that is made on first use. It shows that a file was not
altered since the holder of that key signed it, and says in its own subject that nobody verified the holder's identity.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import pkcs12
from cryptography.x509.oid import NameOID

from auditor.canonical import sha256_hex
from auditor.errors import MissingPartError, UsageError

if TYPE_CHECKING:
    from pyhanko.sign.signers import SimpleSigner
    from pyhanko.sign.timestamps import TimeStamper

Exchange = Callable[[bytes], bytes]
"""Sends a time-stamp query (DER) to an authority and returns its reply."""

KEY_NAME = "report.key.pem"
CERTIFICATE_NAME = "report.crt.pem"
SUBJECT = "self-made certificate, identity not verified"
PASSPHRASE_VARIABLE = "AUDITOR_P12_PASSPHRASE"
KEY_BITS = 3072
VALID_DAYS = 3650
FIELD_NAME = "AuditorReport"
MAX_PKCS12_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportSigner:
    """A certificate with its private key; the key never appears in ``repr``."""

    certificate: x509.Certificate
    key: rsa.RSAPrivateKey = field(repr=False)
    chain: tuple[x509.Certificate, ...] = ()

    @property
    def certificate_pem(self) -> bytes:
        """The certificate for ``certs/report.crt.pem``."""
        return self.certificate.public_bytes(serialization.Encoding.PEM)

    @property
    def certificate_sha256(self) -> str:
        """SHA-256 of the certificate, hex; what the report prints."""
        return sha256_hex(self.certificate.public_bytes(serialization.Encoding.DER))


def self_made_signer(folder: Path, *, now: datetime) -> ReportSigner:
    """Return the self-made signer kept in ``folder``, made there on first use with files of mode 0600.

    Args:
        folder: such as :func:`auditor.report.home.home`.
        now: aware present time, the start of a new certificate's validity.

    Raises:
        UsageError: the folder holds only one of the two files, or something else under their names.
    """
    key_path, certificate_path = folder / KEY_NAME, folder / CERTIFICATE_NAME
    present = (key_path.exists(), certificate_path.exists())
    if present == (False, False):
        made = make_signer(now=now)
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        key_pem = made.key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        _write_private(key_path, key_pem)
        _write_private(certificate_path, made.certificate_pem)
        return made
    if present != (True, True):
        raise UsageError(f"{folder.name}: {KEY_NAME} and {CERTIFICATE_NAME} belong together; one of them is missing")
    try:
        key = serialization.load_pem_private_key(key_path.read_bytes(), password=None)
        certificate = x509.load_pem_x509_certificate(certificate_path.read_bytes())
    except (ValueError, TypeError) as error:
        raise UsageError(f"{KEY_NAME} or {CERTIFICATE_NAME} cannot be read as PEM") from error
    return _signer(key, certificate, (), what=KEY_NAME)


def pkcs12_signer(path: Path, *, passphrase_variable: str = PASSPHRASE_VARIABLE) -> ReportSigner:
    """Return a signer from a PKCS#12 file whose passphrase stands in an environment variable.

    Raises:
        UsageError: the file is missing, the passphrase does not open it, or it holds no RSA key of at least 3072 bits.
    """
    passphrase = os.environ.get(passphrase_variable, "")
    try:
        data = path.read_bytes()
        if len(data) > MAX_PKCS12_BYTES:
            raise UsageError(f"{path.name}: larger than {MAX_PKCS12_BYTES} bytes")
        key, certificate, chain = pkcs12.load_key_and_certificates(data, passphrase.encode() or None)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read") from error
    except ValueError as error:
        raise UsageError(f"{path.name}: not a PKCS#12 file under the passphrase in {passphrase_variable}") from error
    if certificate is None:
        raise UsageError(f"{path.name}: holds no certificate")
    return _signer(key, certificate, tuple(chain), what=path.name)


def make_signer(*, now: datetime) -> ReportSigner:
    """Make a new RSA key with a certificate that says itself that nobody verified the holder's identity."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, SUBJECT),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Ownership auditor, key holder's own assertion"),
        ]
    )
    usage = x509.KeyUsage(
        digital_signature=True, content_commitment=True, key_encipherment=False, data_encipherment=False,
        key_agreement=False, key_cert_sign=False, crl_sign=False, encipher_only=False, decipher_only=False,
    )  # fmt: skip
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=VALID_DAYS))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return ReportSigner(certificate=certificate, key=key)


def sign_pdf(pdf: bytes, signer: ReportSigner, *, exchange: Exchange | None = None) -> bytes:
    """Return ``pdf`` with an invisible certification signature that permits no later change.

    Args:
        pdf: the unsigned file.
        signer: who signs.
        exchange: sends a time-stamp query and returns the reply, which makes the signature PAdES B-T; None for B-B.

    Raises:
        MissingPartError: no time stamp could be had; signing without one still works.
    """
    from pyhanko.pdf_utils.incremental_writer import IncrementalPdfFileWriter
    from pyhanko.sign import fields, signers

    meta = signers.PdfSignatureMetadata(
        field_name=FIELD_NAME,
        md_algorithm="sha256",
        certify=True,
        docmdp_permissions=fields.MDPPerm.NO_CHANGES,
        subfilter=fields.SigSeedSubFilter.PADES,
        reason="Report of an ownership examination, as generated",
    )
    stamper = None if exchange is None else _stamper(exchange)
    out = BytesIO()
    made = signers.PdfSigner(meta, _simple_signer(signer), timestamper=stamper)
    made.sign_pdf(IncrementalPdfFileWriter(BytesIO(pdf)), output=out)
    return out.getvalue()


def _stamper(exchange: Exchange) -> "TimeStamper":
    from asn1crypto import tsp  # type: ignore[import-untyped]
    from pyhanko.sign.timestamps import TimeStamper, TimestampRequestError

    class Authority(TimeStamper):
        """Sends pyHanko's queries through the caller's own connection, with its limits."""

        async def async_request_tsa_response(self, req: tsp.TimeStampReq) -> tsp.TimeStampResp:
            return tsp.TimeStampResp.load(exchange(req.dump()), strict=True)

        async def async_timestamp(self, message_digest: bytes, md_algorithm: str) -> object:
            try:
                return await super().async_timestamp(message_digest, md_algorithm)
            except (TimestampRequestError, ValueError, TypeError, KeyError) as error:
                raise MissingPartError(f"the authority's reply is no time stamp ({type(error).__name__})") from error

    return Authority()  # type: ignore[no-untyped-call]


def _simple_signer(signer: ReportSigner) -> "SimpleSigner":
    from asn1crypto import keys
    from asn1crypto import x509 as asn1_x509
    from pyhanko.sign.signers import SimpleSigner
    from pyhanko_certvalidator.registry import SimpleCertificateStore

    def convert(certificate: x509.Certificate) -> asn1_x509.Certificate:
        return asn1_x509.Certificate.load(certificate.public_bytes(serialization.Encoding.DER))

    key = signer.key.private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    store = SimpleCertificateStore()  # type: ignore[no-untyped-call]
    store.register_multiple([convert(certificate) for certificate in signer.chain])
    return SimpleSigner(
        signing_cert=convert(signer.certificate), signing_key=keys.PrivateKeyInfo.load(key), cert_registry=store
    )


def _signer(
    key: object, certificate: x509.Certificate, chain: tuple[x509.Certificate, ...], *, what: str
) -> ReportSigner:
    if not isinstance(key, rsa.RSAPrivateKey) or key.key_size < KEY_BITS:
        raise UsageError(f"{what}: the report needs an RSA key of at least {KEY_BITS} bits")
    if certificate.public_key() != key.public_key():
        raise UsageError(f"{what}: key and certificate do not belong together")
    return ReportSigner(certificate=certificate, key=key, chain=chain)


def _write_private(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
