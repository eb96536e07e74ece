"""Time-stamp tokens by openssl and pyHanko, verified here; every way in which one must not verify."""

import subprocess
from datetime import UTC, datetime, timedelta

import authorities
import pytest
from rfc3161_client import decode_timestamp_response

from auditor.errors import MalformedError, TimestampError
from auditor.evidence.timestamps import (
    MAX_TOKEN_BYTES,
    MAX_TOKENS,
    TokenState,
    read_roots,
    read_token,
    response_of_token,
    verify_tokens,
)

DATA = b"a sealed file\n"
NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return authorities.Authority(tmp_path_factory.mktemp("tsa"))


@pytest.fixture(scope="module")
def chained(tmp_path_factory):
    """An authority below an intermediate, which sends its chain in the order of its configuration."""
    return authorities.Authority(tmp_path_factory.mktemp("chained"), name="C", with_chain=True, direct=False)


@pytest.fixture(scope="module")
def token(authority):
    return authority.stamp(DATA)


def verify(raw, roots, data=DATA):
    (finding,) = verify_tokens({"a.1.tsr": raw}, data=data, roots=roots)
    return finding


def test_a_token_by_openssl_verifies(authority, token):
    found = verify(token, authority.roots)
    assert (found.state, found.reason) == (TokenState.VERIFIED, "")
    assert found.token.accuracy_ms == 1000
    assert found.token.policy == "1.2.3.4.1"
    stated = datetime.fromisoformat(found.token.stamped_at)
    assert abs(stated - datetime.now(UTC)) < timedelta(minutes=10)


def test_openssl_verifies_the_same_files(authority, token, tmp_path):
    (tmp_path / "data").write_bytes(DATA)
    (tmp_path / "token.tsr").write_bytes(token)
    command = ["openssl", "ts", "-verify", "-data", "data", "-in", "token.tsr", "-CAfile", authority.root_path]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "Verification: OK" in done.stdout + done.stderr


def test_certificates_out_of_order_are_put_in_order_and_verified(chained):
    raw = chained.stamp(DATA)
    assert verify(raw, chained.roots).state is TokenState.VERIFIED
    with pytest.raises(ValueError, match="InvalidSetOrdering"):
        decode_timestamp_response(raw)


def test_intermediates_in_the_token_are_material_and_no_roots(chained):
    other = authorities.Authority(chained.folder / "other")
    assert verify(chained.stamp(DATA), other.roots).state is TokenState.UNTRUSTED


def test_a_foreign_root_does_not_verify(authority, chained, token):
    found = verify(token, chained.roots)
    assert found.state is TokenState.UNTRUSTED
    assert "under the given roots" in found.reason
    assert verify(token, (*chained.roots, *authority.roots)).state is TokenState.VERIFIED


def test_without_roots_nothing_is_verified(token):
    assert verify(token, ()).state is TokenState.UNTRUSTED


@pytest.mark.parametrize(
    "options",
    [{"eku": authorities.SERVING}, {"eku": None}, {"eku_critical": False}],
    ids=["another purpose", "no purpose", "purpose not critical"],
)
def test_a_certificate_that_is_not_for_time_stamping_does_not_verify(tmp_path, options):
    wrong = authorities.Authority(tmp_path, **options)
    assert verify(wrong.stamp(DATA, NOW), wrong.roots).state is TokenState.UNTRUSTED


def test_a_token_outlives_its_authoritys_certificate(tmp_path):
    expired = authorities.Authority(tmp_path, start=NOW - timedelta(days=100), days=50)
    valid = verify(expired.stamp(DATA, NOW - timedelta(days=80)), expired.roots)
    assert valid.state is TokenState.VERIFIED
    assert verify(expired.stamp(DATA, NOW - timedelta(days=10)), expired.roots).state is TokenState.UNTRUSTED


def test_a_token_before_its_authoritys_certificate_does_not_verify(authority):
    assert verify(authority.stamp(DATA, NOW - timedelta(days=400)), authority.roots).state is TokenState.UNTRUSTED


@pytest.mark.parametrize("data", [DATA + b" ", b"", b"another sealed file\n"])
def test_other_bytes_are_refused_with_or_without_roots(authority, token, data):
    for roots in ((), authority.roots):
        with pytest.raises(TimestampError, match="over other bytes"):
            verify(token, roots, data=data)


def test_the_same_token_twice_is_refused(authority, token):
    with pytest.raises(TimestampError, match="twice"):
        verify_tokens({"a.1.tsr": token, "a.2.tsr": token}, data=DATA, roots=authority.roots)
    again = authority.stamp(DATA)
    assert len(verify_tokens({"a.1.tsr": token, "a.2.tsr": again}, data=DATA, roots=authority.roots)) == 2


def test_more_than_32_tokens_are_refused(token):
    with pytest.raises(TimestampError, match="more than 32"):
        verify_tokens({f"a.{n}.tsr": token for n in range(MAX_TOKENS + 1)}, data=DATA, roots=())


def test_garbage_truncated_extended_and_huge_tokens_are_refused(token):
    broken = [b"", b"garbage", b"\x30\x80", b"\x30\x03\x02\x01\x00", token + b"\0", b"\0" * (MAX_TOKEN_BYTES + 1)]
    for raw in [*broken, *(token[:n] for n in range(1, len(token), 97))]:
        with pytest.raises(TimestampError):
            verify(raw, ())


def test_a_refusal_of_the_authority_is_no_token(authority):
    refused = authority.reply(b"\x30\x03\x02\x01\x01")
    with pytest.raises(TimestampError):
        verify(refused, authority.roots)


def test_the_nonce_must_be_repeated(authority):
    request = decode_request()
    raw = authority.reply(request.as_bytes())
    assert read_token(raw, data=DATA, what="x", nonce=request.nonce).nonce == request.nonce
    with pytest.raises(TimestampError, match="nonce"):
        read_token(raw, data=DATA, what="x", nonce=request.nonce + 1)


def decode_request():
    from rfc3161_client import HashAlgorithm, TimestampRequestBuilder

    return TimestampRequestBuilder(data=DATA, hash_algorithm=HashAlgorithm.SHA256).build()


def test_no_changed_byte_of_what_is_signed_verifies(authority, token):
    """Flip single bits; only framing that no signature covers may change without notice."""
    info = decode_timestamp_response(token)
    signed = info.time_stamp_token()
    start = token.index(b"\x30", len(token) - len(signed))
    survived = []
    for position in range(start, len(token), 11):
        changed = bytearray(token)
        changed[position] ^= 1 << (position % 8)
        try:
            if verify(bytes(changed), authority.roots).state is TokenState.VERIFIED:
                survived.append(position)
        except TimestampError:
            continue
    assert len(survived) <= 3, survived


def test_a_token_out_of_a_pdf_is_wrapped_into_a_response(token):
    bare = decode_timestamp_response(token).time_stamp_token()
    assert decode_timestamp_response(response_of_token(bare)).time_stamp_token() == bare


def test_roots_are_read_from_pem_only(authority):
    both = authority.root.pem + authority.between.pem
    assert len(read_roots(both, what="roots.pem")) == 2
    for data in (b"", b"nothing", b"x" * (1024 * 1024 + 1)):
        with pytest.raises(MalformedError, match=r"roots\.pem"):
            read_roots(data, what="roots.pem")


def test_a_token_only_other_tools_can_read_is_never_passed(authority, token):
    raw = authorities.loosely_encoded(token)
    with pytest.raises(ValueError, match="InvalidLength"):
        decode_timestamp_response(raw)
    found = verify(raw, authority.roots)
    assert found.state is TokenState.UNREADABLE
    assert found.token.stamped_at == verify(token, authority.roots).token.stamped_at
    with pytest.raises(TimestampError, match="over other bytes"):
        verify(raw, authority.roots, data=b"other")
    with pytest.raises(TimestampError, match="twice"):
        verify_tokens({"a.1.tsr": token, "a.2.tsr": raw}, data=DATA, roots=authority.roots)
