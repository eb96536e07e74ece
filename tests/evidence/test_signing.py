import base64
import json
import stat
import subprocess

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import pkcs12
from hypothesis import given, settings
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

from auditor.errors import EvidenceError, MalformedError, SignatureError
from auditor.evidence import signing
from auditor.evidence.signing import SigningKey, envelope, fingerprint, pae, public_from_pem, verify_envelope

TYPE = "application/vnd.in-toto+json"
P = 2**255 - 19
D = -121665 * pow(121666, P - 2, P) % P
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
OTHER = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))


# --- an independent twelve-line Edwards curve, to derive which points have small order ---


def decode(encoded: bytes):
    y = int.from_bytes(encoded, "little") & (2**255 - 1)
    sign = encoded[31] >> 7
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    if (x * x - x2) % P:
        return None
    return (P - x if x & 1 != sign else x) % P, y % P


def add(a, b):
    (x1, y1), (x2, y2) = a, b
    k = D * x1 * x2 * y1 * y2 % P
    return (
        (x1 * y2 + x2 * y1) * pow(1 + k, P - 2, P) % P,
        (y1 * y2 + x1 * x2) * pow(1 - k, P - 2, P) % P,
    )


def times_eight(point):
    for _ in range(3):
        point = add(point, point)
    return point


def small_order_encodings() -> list[bytes]:
    signs = [0, 0x80]
    return [y[:-1] + bytes([y[-1] | sign]) for y in sorted(signing.SMALL_ORDER_Y) for sign in signs]


@pytest.mark.parametrize("encoded", small_order_encodings(), ids=lambda e: e.hex()[:8] + e.hex()[-2:])
def test_the_table_holds_points_whose_order_divides_eight(encoded):
    point = decode(encoded)
    assert point is not None
    assert times_eight(point) == (0, 1)
    with pytest.raises(SignatureError, match="small order"):
        signing.check_public_key(encoded)


def test_the_table_is_complete():
    # The torsion subgroup has exactly eight points; multiples of one of order eight reach all of them.
    generator = decode(bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"))
    point, ys = (0, 1), set()
    points = set()
    for _ in range(8):
        points.add(point)
        ys.add(point[1].to_bytes(32, "little"))
        point = add(point, generator)
    assert len(points) == 8
    assert ys == set(signing.SMALL_ORDER_Y)


def test_openssl_alone_would_accept_one_trivial_signature_for_every_message():
    identity = bytes([1]) + bytes(31)
    trivial = identity + bytes(32)
    for message in (b"key set one", b"key set two"):
        Ed25519PublicKey.from_public_bytes(identity).verify(trivial, message)
        with pytest.raises(SignatureError, match="small order"):
            signing.verify(identity, trivial, message)


@pytest.mark.parametrize("y", [P, P + 1, P + 18, 2**255 - 1])
def test_non_canonical_points_are_refused(y):
    with pytest.raises(SignatureError, match="canonical"):
        signing.check_public_key(y.to_bytes(32, "little"))


@pytest.mark.parametrize("public", [b"", bytes(31), bytes(33)])
def test_a_public_key_has_32_bytes(public):
    with pytest.raises(SignatureError, match="32 bytes"):
        signing.check_public_key(public)


def test_rfc_8032_vector():
    # RFC 8032, 7.1, TEST 2.
    secret = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    key = SigningKey(Ed25519PrivateKey.from_private_bytes(secret))
    assert key.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert key.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


def test_pae_is_the_specified_encoding_and_counts_bytes():
    # The example of the DSSE protocol page.
    assert pae("http://example.com/HelloWorld", b"hello world") == (
        b"DSSEv1 29 http://example.com/HelloWorld 11 hello world"
    )
    assert pae("é", "é".encode()) == b"DSSEv1 2 \xc3\xa9 2 \xc3\xa9"


def test_securesystemslib_reads_and_verifies_the_envelope():
    data = envelope(b'{"a":1}', payload_type=TYPE, keys=[KEY, OTHER])
    theirs = Envelope.from_dict(json.loads(data))
    keys = [SSlibKey(key.fingerprint, "ed25519", "ed25519", {"public": key.public.hex()}) for key in (KEY, OTHER)]
    assert set(theirs.verify(keys, threshold=2)) == {KEY.fingerprint, OTHER.fingerprint}
    assert theirs.payload == b'{"a":1}'


def test_openssl_verifies_the_signature(tmp_path):
    found = signing.read_envelope(envelope(b"payload", payload_type=TYPE, keys=[KEY]), what="t")
    (tmp_path / "pub").write_bytes(KEY.public_pem())
    (tmp_path / "sig").write_bytes(found.signatures[0][1])
    (tmp_path / "pae").write_bytes(pae(TYPE, b"payload"))
    command = "openssl pkeyutl -verify -rawin -pubin -inkey pub -sigfile sig -in pae"
    done = subprocess.run(command.split(), cwd=tmp_path, capture_output=True, text=True, check=True)
    assert "Verified Successfully" in done.stdout


def test_envelope_round_trip_with_several_keys():
    data = envelope(b"payload", payload_type=TYPE, keys=[KEY, OTHER])
    assert verify_envelope(data, payload_type=TYPE, public_keys=[OTHER.public, KEY.public]) == b"payload"


def test_flipping_any_bit_of_any_byte_is_noticed():
    data = envelope(b'{"a":1}', payload_type=TYPE, keys=[KEY])
    for place in range(len(data)):
        for bit in range(8):
            broken = bytearray(data)
            broken[place] ^= 1 << bit
            with pytest.raises(EvidenceError):
                verify_envelope(bytes(broken), payload_type=TYPE, public_keys=[KEY.public])


@given(st.data())
@settings(max_examples=60)
def test_cut_and_hostile_envelopes_raise_only_evidence_errors(data):
    good = envelope(b'{"a":1}', payload_type=TYPE, keys=[KEY])
    cut = data.draw(st.integers(0, len(good) - 1))
    for broken in (good[:cut], good[cut + 1 :], good[:cut] + data.draw(st.binary(max_size=8)) + good[cut + 1 :]):
        if broken != good:
            with pytest.raises(EvidenceError):
                verify_envelope(broken, payload_type=TYPE, public_keys=[KEY.public])


def rewritten(change) -> bytes:
    value = json.loads(envelope(b"payload", payload_type=TYPE, keys=[KEY]))
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


DEFECTS = {
    "no signature": lambda v: v.update(signatures=[]),
    "same key twice": lambda v: v.update(signatures=v["signatures"] * 2),
    "too many signatures": lambda v: v.update(
        signatures=[{"keyid": f"{i:064x}", "sig": v["signatures"][0]["sig"]} for i in range(33)]
    ),
    "unknown field": lambda v: v.update(extra=1),
    "missing payload": lambda v: v.pop("payload"),
    "loose base64": lambda v: v.update(payload=v["payload"].rstrip("=")),
    "stray base64 bits": lambda v: v.update(payload=v["payload"][:-3] + "B=="),
    "short signature": lambda v: v["signatures"][0].update(sig=base64.b64encode(bytes(63)).decode()),
    "key id is not the fingerprint": lambda v: v["signatures"][0].update(keyid="00" * 32),
    "upper-case key id": lambda v: v["signatures"][0].update(keyid=v["signatures"][0]["keyid"].upper()),
    "wrong type": lambda v: v.update(payloadType="text/plain"),
    "signature of zeros": lambda v: v["signatures"][0].update(sig=base64.b64encode(bytes(64)).decode()),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_defective_envelopes(name):
    with pytest.raises((MalformedError, SignatureError)):
        verify_envelope(rewritten(DEFECTS[name]), payload_type=TYPE, public_keys=[KEY.public])


def test_an_unexpected_signer_is_refused_even_beside_a_valid_one():
    data = envelope(b"payload", payload_type=TYPE, keys=[KEY, OTHER])
    with pytest.raises(SignatureError, match="not expected"):
        verify_envelope(data, payload_type=TYPE, public_keys=[KEY.public])
    with pytest.raises(SignatureError, match="not expected"):
        verify_envelope(data, payload_type=TYPE, public_keys=[])


@pytest.mark.parametrize("keys", [[], [KEY, KEY]])
def test_signing_with_no_key_or_one_twice_is_a_bug(keys):
    with pytest.raises(ValueError, match="at least one key"):
        envelope(b"", payload_type=TYPE, keys=keys)


def test_pem_round_trip_and_file_mode(tmp_path):
    path = tmp_path / "key"
    KEY.write_pem(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert SigningKey.from_pem(path.read_bytes()).public == KEY.public
    with pytest.raises(FileExistsError):
        OTHER.write_pem(path)
    assert SigningKey.from_pem(path.read_bytes()).public == KEY.public
    assert public_from_pem(KEY.public_pem(), what="t") == KEY.public


def test_openssl_reads_the_private_key_and_agrees_on_the_fingerprint(tmp_path):
    KEY.write_pem(tmp_path / "key")
    command = "openssl pkey -in key -pubout -outform DER | tail -c 32 | sha256sum"
    done = subprocess.run(["bash", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == KEY.fingerprint == fingerprint(KEY.public)


def pem_of(key, *, password=None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)


def pkcs12_of(key, password: bytes | None) -> bytes:
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    return pkcs12.serialize_key_and_certificates(b"owner", key, None, None, encryption)


def test_encrypted_keys_open_with_their_passphrase_only():
    key = Ed25519PrivateKey.generate()
    expected = SigningKey(key).fingerprint
    pem, p12 = pem_of(key, password=b"sesame"), pkcs12_of(key, b"sesame")
    assert SigningKey.from_pem(pem, passphrase=b"sesame").fingerprint == expected
    assert SigningKey.from_pkcs12(p12, passphrase=b"sesame").fingerprint == expected
    # A passphrase in the environment does not stand in the way of a key that needs none.
    assert SigningKey.from_pem(pem_of(key), passphrase=b"sesame").fingerprint == expected
    for passphrase in (None, b"", b"wrong"):
        with pytest.raises(MalformedError) as caught:
            SigningKey.from_pem(pem, passphrase=passphrase)
        assert "wrong" not in str(caught.value)
        with pytest.raises(MalformedError):
            SigningKey.from_pkcs12(p12, passphrase=passphrase)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        bytes(70_000),
        pkcs12_of(rsa.generate_private_key(65537, 2048), b"sesame"),
        pkcs12_of(Ed25519PrivateKey.generate(), b"sesame")[:-30],
    ],
    ids=["empty", "junk", "large", "RSA", "cut"],
)
def test_unusable_pkcs12_files(data):
    with pytest.raises(MalformedError):
        SigningKey.from_pkcs12(data, passphrase=b"sesame")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"junk",
        bytes(5000),
        pem_of(ec.generate_private_key(ec.SECP256R1())),
        pem_of(rsa.generate_private_key(65537, 2048)),
        pem_of(Ed25519PrivateKey.generate(), password=b"secret"),
        KEY.public_pem(),
        KEY.to_pem()[:-30],
    ],
    ids=["empty", "junk", "large", "P-256", "RSA", "encrypted", "public", "cut"],
)
def test_unusable_private_keys(data):
    with pytest.raises(MalformedError):
        SigningKey.from_pem(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        bytes(5000),
        KEY.public_pem() + b"\n",
        KEY.public_pem().replace(b"\n", b"\r\n"),
        KEY.to_pem(),
        ec.generate_private_key(ec.SECP256R1())
        .public_key()
        .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    ],
    ids=["empty", "large", "extra newline", "CRLF", "private", "P-256"],
)
def test_unusable_public_keys(data):
    with pytest.raises(MalformedError):
        public_from_pem(data, what="t")


def test_a_small_order_key_is_refused_in_pem_form():
    pem = signing.public_pem(bytes([1]) + bytes(31))
    with pytest.raises(SignatureError, match="small order"):
        public_from_pem(pem, what="t")


def test_the_text_form_shows_no_secret():
    assert repr(KEY) == f"SigningKey(fingerprint='{KEY.fingerprint}')"
