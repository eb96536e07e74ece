"""RFC 3161 time-stamp tokens: that certain bytes existed at a time which an authority states.

Pure: tokens in, findings out. A token is the whole ``TimeStampResp`` as the authority sent it, so that
``openssl ts -verify`` takes it as it is; what is stamped is a whole file, signatures included.

Nothing inside a token is trusted. Its certificates are material to build a chain from; the chain must end at a root
that the caller got elsewhere, and every certificate on it must have been valid at the stated time - not today, so
that a token outlives its authority's certificate.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from auditor.errors import MalformedError, TimestampError
from auditor.evidence.times import utc_text

if TYPE_CHECKING:
    from cryptography.x509 import Certificate
    from rfc3161_client import TimeStampResponse

MAX_TOKENS = 32
"""Tokens over one file; more would only make checking slow."""
MAX_TOKEN_BYTES = 64 * 1024
MAX_ROOTS = 64
MAX_ROOTS_BYTES = 1024 * 1024
GRANTED = 0

_HASHES = {"2.16.840.1.101.3.4.2.1": "sha256", "2.16.840.1.101.3.4.2.2": "sha384", "2.16.840.1.101.3.4.2.3": "sha512"}


class TokenState(StrEnum):
    """How far a token was verified."""

    VERIFIED = "verified"
    """Signed by an authority under one of the caller's roots, whose certificates were valid at the stated time."""
    UNTRUSTED = "untrusted"
    """Over these bytes, but not verifiable under the caller's roots."""
    UNREADABLE = "unreadable"
    """Over these bytes, in an encoding that only other tools can verify."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Token:
    """What a token says; a claim until :func:`verify_tokens` has verified it."""

    stamped_at: str
    """RFC 3339 UTC with milliseconds, as the authority states it."""
    accuracy_ms: int
    """How far the stated time may be off by the authority's own account; 0 where it does not say."""
    serial: int
    policy: str
    """Dotted identifier of the policy the authority claims to follow."""
    nonce: int | None
    response: "TimeStampResponse | None"
    """The decoded response; None when only a lenient parser can read it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenFinding:
    """What became of one token."""

    path: str
    token: Token
    state: TokenState
    reason: str
    """Why the token is not verified; empty when it is."""


def read_roots(data: bytes, *, what: str) -> tuple["Certificate", ...]:
    """Read a PEM file of root certificates that a caller trusts.

    Raises:
        MalformedError: no certificates in PEM form, or too many.
    """
    from cryptography.x509 import load_pem_x509_certificates

    if len(data) > MAX_ROOTS_BYTES:
        raise MalformedError(f"{what}: too large for a file of root certificates")
    try:
        roots = load_pem_x509_certificates(data)
    except ValueError as error:
        raise MalformedError(f"{what}: holds no certificates in PEM form") from error
    if len(roots) > MAX_ROOTS:
        raise MalformedError(f"{what}: holds more than {MAX_ROOTS} certificates")
    return tuple(roots)


def read_token(raw: bytes, *, data: bytes, what: str, nonce: int | None = None) -> Token:
    """Read a token and compare its imprint with ``data``; its signature is not verified here.

    Args:
        raw: the ``TimeStampResp`` as it was received.
        data: the whole file that was stamped.
        what: a name for error messages.
        nonce: the number sent with the request, which the token must repeat; None compares nothing.

    Raises:
        TimestampError: not a granted response, over other bytes, by a weak hash, or without the nonce.
    """
    token, algorithm, imprint = _read(raw, what=what)
    if hashlib.new(_HASHES[algorithm], data).digest() != imprint:
        raise TimestampError(f"{what}: is a time stamp over other bytes")
    if nonce is not None and token.nonce != nonce:
        raise TimestampError(f"{what}: does not answer this request, its nonce differs")
    return token


def read_tokens(tokens: Mapping[str, bytes], *, data: bytes) -> dict[str, Token]:
    """Read all tokens over one file, in the given order.

    Raises:
        TimestampError: more than 32 tokens, the same token twice, or one that :func:`read_token` refuses.
    """
    if len(tokens) > MAX_TOKENS:
        raise TimestampError(f"more than {MAX_TOKENS} time stamps over one file")
    found: dict[str, Token] = {}
    for path, raw in tokens.items():
        token = read_token(raw, data=data, what=path)
        if any(_same(token, other) for other in found.values()):
            raise TimestampError(f"{path}: the same time stamp twice")
        found[path] = token
    return found


def verify_tokens(
    tokens: Mapping[str, bytes], *, data: bytes, roots: Sequence["Certificate"]
) -> tuple[TokenFinding, ...]:
    """Verify all tokens over one file against the caller's roots.

    The authority's certificate must be marked critically for time stamping and nothing is fetched. Revocation is not
    checked: that needs the authority's lists.

    Raises:
        TimestampError: what :func:`read_tokens` refuses.
    """
    findings = []
    for path, token in read_tokens(tokens, data=data).items():
        reason, state = "", TokenState.VERIFIED
        if token.response is None:
            reason, state = "in an encoding this version cannot verify", TokenState.UNREADABLE
        elif not roots:
            reason, state = "no root of a time authority was given", TokenState.UNTRUSTED
        else:
            reason = _distrust(token.response, data=data, roots=roots)
            state = TokenState.UNTRUSTED if reason else TokenState.VERIFIED
        findings.append(TokenFinding(path=path, token=token, state=state, reason=reason))
    return tuple(findings)


def verify_digest_token(raw: bytes, *, sha256: str, what: str, roots: Sequence["Certificate"]) -> TokenFinding:
    """Verify one token over a file that is known by its SHA-256 alone, against the caller's roots.

    Raises:
        TimestampError: not a granted response, by another hash than SHA-256, or over another file.
    """
    token, algorithm, imprint = _read(raw, what=what)
    if _HASHES[algorithm] != "sha256" or imprint != bytes.fromhex(sha256):
        raise TimestampError(f"{what}: is not a time stamp over this file by SHA-256")
    reason = "in an encoding this version cannot verify"
    if token.response is None:
        return TokenFinding(path=what, token=token, state=TokenState.UNREADABLE, reason=reason)
    reason = "no root of a time authority was given"
    if roots:
        reason = _distrust(token.response, hashed=imprint, roots=roots)
    state = TokenState.UNTRUSTED if reason else TokenState.VERIFIED
    return TokenFinding(path=what, token=token, state=state, reason=reason)


def response_of_token(token: bytes) -> bytes:
    """Wrap a bare ``TimeStampToken``, as a PDF signature carries it, into a granted ``TimeStampResp``."""
    return _wrapped(0x30, [bytes.fromhex("3003020100"), token])


def _read(raw: bytes, *, what: str) -> tuple[Token, str, bytes]:
    """Return what a granted response says, the identifier of its hash, and its imprint."""
    if len(raw) > MAX_TOKEN_BYTES:
        raise TimestampError(f"{what}: larger than {MAX_TOKEN_BYTES} bytes")
    response = _decode(raw)
    if response is None:
        token, algorithm, imprint = _read_leniently(raw, what=what)
    else:
        if response.status != GRANTED:
            raise TimestampError(f"{what}: the authority did not grant a time stamp")
        token, algorithm, imprint = _read_strictly(response, what=what)
    if algorithm not in _HASHES:
        raise TimestampError(f"{what}: stamped with a hash that is not accepted here")
    return token, algorithm, imprint


def _distrust(
    response: "TimeStampResponse", *, roots: Sequence["Certificate"], data: bytes = b"", hashed: bytes | None = None
) -> str:
    """Return why a token over ``data``, or over the file with digest ``hashed``, does not verify; or an empty text."""
    from rfc3161_client import VerificationError, VerifierBuilder

    # The token's own certificates are not handed over as intermediates: the library would trust those like roots.
    # OpenSSL takes them from the token itself, as material only.
    builder = VerifierBuilder()
    for root in dict.fromkeys(roots):
        builder = builder.add_root_certificate(root)
    try:
        if hashed is None:
            builder.build().verify_message(response, data)
        else:
            builder.build().verify(response, hashed)
    except (VerificationError, ValueError, TypeError) as error:
        told = " ".join(str(error).partition("ErrorStack")[0].split()).rstrip(": ")[:120]
        return f"signature, purpose or chain does not verify at the stated time under the given roots ({told})"
    return ""


def _same(one: Token, other: Token) -> bool:
    if one.response is not None and other.response is not None:
        # Certificates around a token are not signed; the same stamp may come with others.
        return _stated(one.response) == _stated(other.response) and _signers(one.response) == _signers(other.response)
    return (one.serial, one.stamped_at, one.nonce) == (other.serial, other.stamped_at, other.nonce)


def _stated(response: "TimeStampResponse") -> tuple[object, ...]:
    info = response.tst_info
    return info.serial_number, info.gen_time, info.nonce, info.policy, info.message_imprint.message


def _signers(response: "TimeStampResponse") -> frozenset[tuple[str, int]]:
    infos = response.signed_data.signer_infos
    return frozenset((signer.issuer.rfc4514_string(), signer.serial_number) for signer in infos)


def _decode(raw: bytes) -> "TimeStampResponse | None":
    """Decode strict DER, or DER once the unsigned set of certificates is put in order; None when neither works."""
    from rfc3161_client import decode_timestamp_response

    try:
        return decode_timestamp_response(raw)
    except ValueError:
        pass
    try:
        # OpenSSL 3.0 leaves the certificates in the order of its configuration, which strict DER forbids.
        return decode_timestamp_response(_with_sorted_certificates(raw))
    except ValueError:
        return None


def _read_strictly(response: "TimeStampResponse", *, what: str) -> tuple[Token, str, bytes]:
    try:
        info = response.tst_info
        accuracy = info.accuracy
        span = timedelta() if accuracy is None else timedelta(
            seconds=accuracy.seconds or 0, milliseconds=accuracy.millis or 0, microseconds=accuracy.micros or 0
        )  # fmt: skip
        token = Token(
            stamped_at=utc_text(info.gen_time),
            accuracy_ms=-(-span // timedelta(milliseconds=1)),
            serial=info.serial_number,
            policy=info.policy.dotted_string,
            nonce=info.nonce,
            response=response,
        )
        imprint = info.message_imprint
        return token, imprint.hash_algorithm.dotted_string, bytes(imprint.message)
    except (ValueError, TypeError, OverflowError) as error:
        raise TimestampError(f"{what}: not a time stamp ({type(error).__name__})") from error


def _read_leniently(raw: bytes, *, what: str) -> tuple[Token, str, bytes]:
    """Read what a token says where strict DER fails; enough to compare imprints, never to verify."""
    try:
        response = _lenient(raw)
        if response["status"]["status"].native != "granted":
            raise TimestampError(f"{what}: the authority did not grant a time stamp")
        info = response["time_stamp_token"]["content"]["encap_content_info"]["content"].parsed
        imprint = info["message_imprint"]
        nonce = info["nonce"].native
        token = Token(
            stamped_at=utc_text(info["gen_time"].native),
            accuracy_ms=0,
            serial=int(info["serial_number"].native),
            policy=str(info["policy"].dotted),
            nonce=None if nonce is None else int(nonce),
            response=None,
        )
        return token, str(imprint["hash_algorithm"]["algorithm"].dotted), bytes(imprint["hashed_message"].native)
    except TimestampError:
        raise
    # A lenient parser of hostile bytes may fail in any way; whatever it is, there is no time stamp to read.
    except Exception as error:
        raise TimestampError(f"{what}: not a time stamp") from error


def _with_sorted_certificates(raw: bytes) -> bytes:
    """Return a response whose unsigned set of certificates stands in DER's order; every other byte stays.

    Raises:
        ValueError: the bytes are not nested like a response.
    """
    status, token = _children(raw, tag=0x30)
    content_type, explicit = _children(token, tag=0x30)
    (signed,) = _children(explicit, tag=0xA0)
    parts = _children(signed, tag=0x30)
    parts = [
        _wrapped(0xA0, sorted(_children(part, tag=0xA0))) if part[:1] == b"\xa0" else part
        for part in parts
    ]  # fmt: skip
    return _wrapped(0x30, [status, _wrapped(0x30, [content_type, _wrapped(0xA0, [_wrapped(0x30, parts)])])])


def _children(der: bytes, *, tag: int) -> list[bytes]:
    """Split the content of one element into its elements, each with its own tag and length."""
    start, end = _content(der, 0)
    if der[0] != tag or end != len(der):
        raise ValueError("not the expected element")
    parts = []
    while start < end:
        _, stop = _content(der, start)
        parts.append(der[start:stop])
        start = stop
    return parts


def _content(der: bytes, start: int) -> tuple[int, int]:
    """Return where the content of the element at ``start`` begins and ends."""
    if start + 2 > len(der):
        raise ValueError("cut short")
    first, begin = der[start + 1], start + 2
    if first < 0x80:
        size = first
    else:
        begin += first - 0x80
        size = int.from_bytes(der[start + 2 : begin], "big") if 0x80 < first <= 0x84 else len(der)
    if begin + size > len(der):
        raise ValueError("cut short, or of indefinite length")
    return begin, begin + size


def _wrapped(tag: int, parts: Sequence[bytes]) -> bytes:
    content = b"".join(parts)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def _lenient(raw: bytes) -> Any:
    from asn1crypto import tsp  # type: ignore[import-untyped]

    return tsp.TimeStampResp.load(raw, strict=True)
