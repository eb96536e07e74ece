"""Ed25519 signatures in DSSE envelopes, in the one spelling this package accepts.

An envelope is canonical JSON (RFC 8785) with one final newline, its base64 is strict and every ``keyid`` is the
fingerprint of the key, so that no byte of a stored envelope can change without :func:`verify_envelope` failing.

Public keys of small order are refused: with such a key OpenSSL accepts one trivial signature for every message,
and a dishonest owner could later claim that it covers another key set.
"""

import base64
import binascii
import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes
from cryptography.hazmat.primitives.serialization import pkcs12

from auditor.canonical import Fields, canonical_bytes, parse_canonical_object
from auditor.errors import MalformedError, SignatureError

MAX_SIGNATURES = 32
MAX_ENVELOPE_BYTES = 64 * 1024 * 1024
MAX_PEM_BYTES = 4096
MAX_PKCS12_BYTES = 64 * 1024
PUBLIC_KEY_BYTES = 32
SIGNATURE_BYTES = 64
FIELD_PRIME = 2**255 - 19

SMALL_ORDER_Y = frozenset(
    bytes.fromhex(text)
    for text in (
        # y = 1, the identity; y = -1, order 2; y = 0, order 4; the last two, order 8.
        "0100000000000000000000000000000000000000000000000000000000000000",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
    )
)
"""y coordinates, sign bit cleared, of the eight points whose order divides 8."""


class SigningKey:
    """An Ed25519 private key; its text form never shows the secret."""

    __slots__ = ("_key", "fingerprint", "public")

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public: bytes = key.public_key().public_bytes_raw()
        self.fingerprint: str = fingerprint(self.public)

    @classmethod
    def generate(cls) -> "SigningKey":
        """Return a new key from the operating system's random source."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> "SigningKey":
        """Return the key of 32 bytes, the same every time; for studies that can be repeated, never for a claim."""
        return cls(Ed25519PrivateKey.from_private_bytes(seed))

    @classmethod
    def from_pem(cls, data: bytes, *, passphrase: bytes | None = None) -> "SigningKey":
        """Read a PKCS#8 PEM; the passphrase is used where the file is encrypted and ignored where it is not.

        Raises:
            MalformedError: not an Ed25519 private key in PEM form, or not under this passphrase.
        """
        if len(data) > MAX_PEM_BYTES:
            raise MalformedError("the private key file is too large")
        try:
            key = _load_pem(data, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            what = "an unencrypted private key" if passphrase is None else "a private key under this passphrase"
            raise MalformedError(f"the file does not hold {what} in PEM form") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise MalformedError("the private key is not an Ed25519 key")
        return cls(key)

    @classmethod
    def from_pkcs12(cls, data: bytes, *, passphrase: bytes | None = None) -> "SigningKey":
        """Read the key of a PKCS#12 file; its certificates are not used.

        Raises:
            MalformedError: not a PKCS#12 file under this passphrase, or its key is not an Ed25519 key.
        """
        if len(data) > MAX_PKCS12_BYTES:
            raise MalformedError("the private key file is too large")
        try:
            with warnings.catch_warnings():
                # Old programs write BER, which the library reads with a warning about itself.
                warnings.simplefilter("ignore", UserWarning)
                key, _, _ = pkcs12.load_key_and_certificates(data, passphrase)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise MalformedError("the file holds no private key in PKCS#12 form under this passphrase") from error
        if not isinstance(key, Ed25519PrivateKey):
            raise MalformedError("the private key is not an Ed25519 key")
        return cls(key)

    def to_pem(self) -> bytes:
        """Return the private key as unencrypted PKCS#8 PEM."""
        return self._key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def public_pem(self) -> bytes:
        """Return the public key as PEM."""
        return public_pem(self.public)

    def write_pem(self, path: Path) -> None:
        """Write the private key to a new file of mode 0600; an existing file is never replaced.

        Raises:
            FileExistsError: the path is taken.
        """
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.to_pem())

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of ``message``."""
        return self._key.sign(message)

    def __repr__(self) -> str:
        return f"SigningKey(fingerprint={self.fingerprint!r})"


def _load_pem(data: bytes, passphrase: bytes | None) -> PrivateKeyTypes:
    if passphrase is not None:
        try:
            return serialization.load_pem_private_key(data, password=passphrase)
        except TypeError:
            # The library's way to say that the file is not encrypted.
            pass
    return serialization.load_pem_private_key(data, password=None)


def fingerprint(public: bytes) -> str:
    """Return the fingerprint of a raw 32-byte public key: its SHA-256 as lower-case hex."""
    return hashlib.sha256(public).hexdigest()


def public_pem(public: bytes) -> bytes:
    """Return a raw public key as PEM, for ``openssl``."""
    return Ed25519PublicKey.from_public_bytes(public).public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def public_from_pem(data: bytes, *, what: str) -> bytes:
    """Return the raw public key of a PEM file, which must be spelt exactly as :func:`public_pem` spells it.

    Raises:
        MalformedError: not an Ed25519 public key, or another spelling.
        SignatureError: a key of small order.
    """
    if len(data) > MAX_PEM_BYTES:
        raise MalformedError(f"{what}: too large for a public key")
    try:
        key = serialization.load_pem_public_key(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedError(f"{what}: not a public key in PEM form") from error
    if not isinstance(key, Ed25519PublicKey):
        raise MalformedError(f"{what}: not an Ed25519 public key")
    public = key.public_bytes_raw()
    if public_pem(public) != data:
        raise MalformedError(f"{what}: not in the expected PEM spelling")
    check_public_key(public)
    return public


def check_public_key(public: bytes) -> None:
    """Refuse public keys of small order and non-canonical encodings of a point.

    Raises:
        SignatureError: the key must not be used.
    """
    if len(public) != PUBLIC_KEY_BYTES:
        raise SignatureError("a public key must have 32 bytes")
    y = public[:-1] + bytes([public[-1] & 0x7F])
    if int.from_bytes(y, "little") >= FIELD_PRIME:
        raise SignatureError("the public key is not canonically encoded")
    if y in SMALL_ORDER_Y:
        raise SignatureError("the public key has small order: its signatures would fit every message")


def verify(public: bytes, signature: bytes, message: bytes) -> None:
    """Check one Ed25519 signature under a key that is not of small order.

    Raises:
        SignatureError: the key is refused or the signature does not verify.
    """
    check_public_key(public)
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise SignatureError("a signature does not verify") from error


def pae(payload_type: str, payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding; lengths count bytes, not characters."""
    kind = payload_type.encode("utf-8")
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def envelope(payload: bytes, *, payload_type: str, keys: Sequence[SigningKey]) -> bytes:
    """Sign a payload with one or more different keys and return the envelope's bytes, final newline included."""
    if not keys or len({key.fingerprint for key in keys}) != len(keys):
        raise ValueError("an envelope needs at least one key, each once")
    message = pae(payload_type, payload)
    signatures = [
        {"keyid": key.fingerprint, "sig": base64.b64encode(key.sign(message)).decode("ascii")} for key in keys
    ]
    encoded = base64.b64encode(payload).decode("ascii")
    return canonical_bytes({"payload": encoded, "payloadType": payload_type, "signatures": signatures}) + b"\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class UnverifiedEnvelope:
    """A parsed envelope; nothing in it has been checked against a key."""

    payload: bytes
    payload_type: str
    signatures: tuple[tuple[str, bytes], ...]
    """(key id, signature) in stored order."""


def read_envelope(data: bytes, *, what: str) -> UnverifiedEnvelope:
    """Parse an envelope without verifying it.

    Raises:
        MalformedError: not an envelope in the one accepted spelling.
    """
    if len(data) > MAX_ENVELOPE_BYTES or not data.endswith(b"\n"):
        raise MalformedError(f"{what}: too large, or without its final newline")
    fields = Fields(parse_canonical_object(data, what=what), what=what)
    payload = strict_base64(fields.text("payload", max_length=MAX_ENVELOPE_BYTES), what=what)
    payload_type = fields.text("payloadType", max_length=255)
    items = fields.items("signatures", max_items=MAX_SIGNATURES)
    fields.finish()
    signatures = []
    for item in items:
        entry = Fields(item, what=f"{what}.signatures")
        keyid = entry.hex("keyid", n_bytes=32)
        signature = strict_base64(entry.text("sig", max_length=256), what=what)
        entry.finish()
        if len(signature) != SIGNATURE_BYTES:
            raise MalformedError(f"{what}: a signature must have 64 bytes")
        signatures.append((keyid, signature))
    if not signatures or len({keyid for keyid, _ in signatures}) != len(signatures):
        raise MalformedError(f"{what}: needs at least one signature, each by another key")
    return UnverifiedEnvelope(payload=payload, payload_type=payload_type, signatures=tuple(signatures))


def verify_envelope(data: bytes, *, payload_type: str, public_keys: Sequence[bytes], what: str = "envelope") -> bytes:
    """Return the payload of an envelope whose every signature verifies under one of the given keys.

    It does not say who holds a key: the caller compares fingerprints it got from elsewhere.

    Args:
        data: the stored bytes, final newline included.
        payload_type: the only accepted type.
        public_keys: raw keys; no key verifies nothing.
        what: a name for error messages.

    Raises:
        MalformedError: not an envelope in the one accepted spelling.
        SignatureError: a signature is invalid or by a key that was not given, the type differs, or a key is refused.
    """
    found = read_envelope(data, what=what)
    if found.payload_type != payload_type:
        raise SignatureError(f"{what}: the signed type is not {payload_type}")
    known = {fingerprint(public): public for public in public_keys}
    message = pae(payload_type, found.payload)
    for keyid, signature in found.signatures:
        if keyid not in known:
            raise SignatureError(f"{what}: signed by a key that is not expected here")
        try:
            verify(known[keyid], signature, message)
        except SignatureError as error:
            raise SignatureError(f"{what}: {error}") from error
    return found.payload


def strict_base64(text: str, *, what: str) -> bytes:
    """Decode base64 in its one canonical spelling.

    Raises:
        MalformedError: characters outside the alphabet, wrong padding or stray bits.
    """
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedError(f"{what}: not base64") from error
    if base64.b64encode(data).decode("ascii") != text:
        raise MalformedError(f"{what}: base64 in another spelling than the canonical one")
    return data
