import base64
import dataclasses
import json

import bundles
import protocols
import pytest
from google.protobuf import json_format
from hypothesis import given, settings
from hypothesis import strategies as st
from in_toto_attestation.v1.statement import Statement as TheirStatement
from in_toto_attestation.v1.statement_pb2 import Statement as StatementPb

from auditor.canonical import Fields, canonical_bytes
from auditor.errors import EvidenceError, MalformedError, SealError, SignatureError
from auditor.evidence import signing
from auditor.evidence.seal import (
    PREDICATE_TYPE,
    open_seal,
    protocol_from_fields,
    protocol_object,
    seal_from_statement,
    seed_commitment,
    sign_seal,
    statement,
)
from auditor.evidence.signing import SigningKey
from auditor.evidence.statements import PAYLOAD_TYPE
from auditor.records import Design, InputSpec

OWNER = SigningKey.generate()
KEYS = bundles.a_keyset()
SEAL = bundles.a_seal(KEYS, OWNER)


def test_a_seal_survives_signing_and_opening():
    assert open_seal(sign_seal(SEAL, OWNER)) == SEAL
    assert seal_from_statement(statement(SEAL)) == SEAL


def test_in_toto_attestation_accepts_the_statement():
    message = json_format.Parse(statement(SEAL), StatementPb())
    theirs = TheirStatement.copy_from_pb(message)
    theirs.validate()
    assert message.predicate_type == PREDICATE_TYPE
    assert message.subject[0].digest["sha256"] == SEAL.payload_sha256


@given(
    alpha=st.floats(1e-12, 1e-3),
    p_min=st.floats(0.01, 0.99),
    design=st.sampled_from(Design),
    h1=st.text(max_size=50),
    grinding=st.integers(0, 64),
    rate=st.floats(0, 1),
)
@settings(max_examples=80)
def test_protocols_round_trip(alpha, p_min, design, h1, grinding, rate):
    protocol = protocols.a_protocol(
        alpha=alpha, p_min=p_min, design=design, h1=h1, grinding_log2=grinding, forecast_rate=rate
    )
    data = canonical_bytes(protocol_object(protocol))
    assert protocol_from_fields(Fields(json.loads(data), what="t")) == protocol


def test_every_protocol_field_is_part_of_the_statement():
    told = json.loads(statement(SEAL))["predicate"]["protocol"]
    assert set(told) == {field.name for field in dataclasses.fields(SEAL.protocol)}
    assert told["alpha"] == "1e-06"


def forged(**changes) -> bytes:
    """A correctly signed envelope whose predicate was changed by its own signer."""
    value = json.loads(statement(SEAL))
    value["predicate"].update(changes)
    return signing.envelope(canonical_bytes(value), payload_type=PAYLOAD_TYPE, keys=[OWNER])


def forged_protocol(**changes) -> bytes:
    value = json.loads(statement(SEAL))
    value["predicate"]["protocol"].update(changes)
    return signing.envelope(canonical_bytes(value), payload_type=PAYLOAD_TYPE, keys=[OWNER])


@pytest.mark.parametrize(
    "changes",
    [
        {"keyset_id": "00"},
        {"keyset_id": "ZZ" * 16},
        {"leaf_encoding": "mlaudit.leaf/2"},
        {"merkle_root": "00" * 31},
        {"n_samples": 0},
        {"n_samples": 19},
        {"n_samples": True},
        {"n_samples": "18"},
        {"spec": {"shape": [1, 2], "classes": ["a", "b"]}},
        {"spec": {"shape": [1, 2, 0], "classes": ["a", "b"]}},
        {"spec": {"shape": [1, 2, True], "classes": ["a", "b"]}},
        {"spec": {"shape": [1, 2, 2], "classes": ["a"]}},
        {"spec": {"shape": [1, 2, 2], "classes": ["a", 1]}},
        {"generator": {"name": "table", "version": 1, "settings": []}},
        {"generator": {"name": "table", "version": 1}},
        {"serial": 0},
        {"serial": 2},
        {"previous_seal_sha256": "00" * 32},
        {"sealed_at": "2026-11-01"},
        {"sealed_at": "2026-13-01T08:00:00.000Z"},
        {"owner_public_key": "00" * 31},
        {"extra": 1},
    ],
)
def test_a_signed_seal_with_impossible_content_is_refused(changes):
    with pytest.raises((MalformedError, SealError)):
        open_seal(forged(**changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha": "0.0"},
        {"alpha": "1.0"},
        {"alpha": "2.0"},
        {"alpha": "0.0011"},
        {"alpha": "nan"},
        {"alpha": "1E-6"},
        {"alpha": "0.000001"},
        {"alpha": 1},
        {"null_share": "1.0"},
        {"null_floor": "0.0"},
        {"p_min": "-0.5"},
        {"design": "whatever"},
        {"null_basis": "my own word"},
        {"n_keys": -1},
        {"n_keys": 10**9},
        {"opening_keys": 0},
        {"opening_keys": 9},
        {"n_sham_patterns": 7},
        {"n_sham_patterns": 0},
        {"n_repeats": 15},
        {"order_seed": "00"},
        {"order_seed": "xx" * 32},
        {"randomness": "0"},
        {"grinding_log2": 1000},
        {"forecast_rate": "1.5"},
        {"unknown": "1"},
        {"alpha": "1e-300"},
    ],
)
def test_a_signed_protocol_out_of_range_is_refused(changes):
    with pytest.raises((MalformedError, SealError)):
        open_seal(forged_protocol(**changes))


def test_a_later_seal_names_the_one_before():
    seal = bundles.a_seal(KEYS, OWNER, serial=2, previous_seal_sha256="cd" * 32)
    assert open_seal(sign_seal(seal, OWNER)).previous_seal_sha256 == "cd" * 32


def test_a_seal_signed_by_somebody_else_than_it_names_is_refused():
    other = SigningKey.generate()
    with pytest.raises(ValueError, match="key it names"):
        sign_seal(SEAL, other)
    swapped = signing.envelope(statement(SEAL), payload_type=PAYLOAD_TYPE, keys=[other])
    with pytest.raises(SignatureError):
        open_seal(swapped)


def test_a_small_order_owner_key_is_refused():
    # With this key OpenSSL would accept the trivial signature under any statement.
    identity = (bytes([1]) + bytes(31)).hex()
    payload = statement(dataclasses.replace(SEAL, owner_public_key=identity))
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [
            {
                "keyid": signing.fingerprint(bytes.fromhex(identity)),
                "sig": base64.b64encode(bytes([1]) + bytes(63)).decode(),
            }
        ],
    }
    with pytest.raises(SignatureError, match="small order"):
        open_seal(canonical_bytes(envelope) + b"\n")


def test_a_statement_of_another_kind_is_refused():
    for old, new in ((PREDICATE_TYPE, "https://example.com/other"), ("Statement/v1", "Statement/v2")):
        payload = statement(SEAL).replace(old.encode(), new.encode())
        with pytest.raises(MalformedError):
            open_seal(signing.envelope(payload, payload_type=PAYLOAD_TYPE, keys=[OWNER]))
    with pytest.raises(SignatureError, match="type"):
        open_seal(signing.envelope(statement(SEAL), payload_type="text/plain", keys=[OWNER]))


def test_impossible_seals_are_not_signed():
    with pytest.raises(EvidenceError):
        sign_seal(dataclasses.replace(SEAL, spec=InputSpec(shape=(1, 2, 2), classes=("a",))), OWNER)


@given(st.data())
@settings(max_examples=80)
def test_cut_seals_raise_only_evidence_errors(data):
    good = sign_seal(SEAL, OWNER)
    cut = data.draw(st.integers(0, len(good) - 1))
    for broken in (good[:cut], good[cut + 1 :]):
        with pytest.raises(EvidenceError):
            open_seal(broken)


def test_the_seed_commitment_hides_and_binds():
    assert seed_commitment(bytes(32)) != seed_commitment(bytes(31) + b"\x01")
    assert bytes(32).hex() not in seed_commitment(bytes(32))
