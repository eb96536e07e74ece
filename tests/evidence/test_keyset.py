import dataclasses
import hashlib
import io
import json
import stat
import zipfile

import bundles
import numpy as np
import protocols
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import EvidenceError, MalformedError, SealError
from auditor.evidence import keyset as keyset_module
from auditor.evidence import merkle
from auditor.evidence.keyset import (
    INNER_RULES,
    OUTER_RULES,
    check_sealed,
    open_sealed,
    pack,
    parse_sealed,
    sealed_bytes,
    unpack,
    write_sealed,
)
from auditor.evidence.openings import read_openings, verify_opening, write_openings
from auditor.evidence.safe_npz import read_npz, write_npz
from auditor.evidence.seal import sign_seal
from auditor.evidence.signing import SigningKey
from auditor.records import SampleKind

OWNER = SigningKey.generate()
KEYS = bundles.a_keyset()
SEAL = bundles.a_seal(KEYS, OWNER)
ENVELOPE = sign_seal(SEAL, OWNER)
FILE = sealed_bytes(KEYS, seal_envelope=ENVELOPE)
INNER = pack(KEYS)


def same(a, b) -> bool:
    fields = ("keyset_id", "spec", "samples", "salt_seed", "secret_seed", "generator")
    return all(getattr(a, f) == getattr(b, f) for f in fields) and np.array_equal(a.inputs, b.inputs)


def test_inner_file_round_trips_and_is_deterministic():
    again = unpack(INNER)
    assert same(again, KEYS)
    assert pack(again) == INNER
    with np.load(io.BytesIO(INNER), allow_pickle=False) as loaded:
        assert set(loaded.files) == set(INNER_RULES)


def test_write_then_open_is_identity(tmp_path):
    path = tmp_path / "k.npz"
    write_sealed(path, keys=KEYS, seal_envelope=ENVELOPE)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    for published in (None, ENVELOPE):
        opened = open_sealed(path, seal_envelope=published)
        assert same(opened.keys, KEYS)
        assert opened.seal == SEAL
        assert opened.envelope == ENVELOPE
    with pytest.raises(FileExistsError):
        write_sealed(path, keys=KEYS, seal_envelope=ENVELOPE)


def test_the_root_is_that_of_the_documented_leaves():
    leaves = []
    for sample, pixels in zip(KEYS.samples, KEYS.inputs, strict=True):
        header = json.dumps(
            {
                "encoding": "mlaudit.leaf/1",
                "dtype": "|u1",
                "shape": [1, 2, 2],
                "index": sample.index,
                "kind": sample.kind.value,
                "natural": sample.natural,
                "expected": sample.expected,
                "pattern": sample.pattern,
                "code": sample.code,
            },
            sort_keys=True,
            separators=(",", ":"),
        ).encode()
        salt = merkle.leaf_salt(KEYS.salt_seed, sample.index)
        leaves.append(
            hashlib.sha256(b"\0" + salt + len(header).to_bytes(4, "big") + header + pixels.tobytes()).digest()
        )
    assert merkle.tree_root(leaves) == KEYS.root()
    assert KEYS.leaf(3) == leaves[3]


def test_flipping_any_byte_of_a_sealed_file_is_noticed(tmp_path):
    for place in range(len(FILE)):
        broken = bytearray(FILE)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(EvidenceError):
            check_sealed(parse_sealed(bytes(broken)))


@given(st.integers(0, len(FILE) - 1))
@settings(max_examples=80, deadline=None)
def test_truncated_sealed_files_raise_only_evidence_errors(length):
    with pytest.raises(EvidenceError):
        check_sealed(parse_sealed(FILE[:length]))


@given(st.integers(0, len(INNER) - 1))
@settings(max_examples=80, deadline=None)
def test_truncated_inner_files_raise_only_evidence_errors(length):
    with pytest.raises(EvidenceError):
        unpack(INNER[:length])


def changed_inner(**arrays) -> bytes:
    content = read_npz(INNER, rules=INNER_RULES, what="t")
    return write_npz({**content, **arrays})


def gen(**changes):
    content = json.loads(read_npz(INNER, rules=INNER_RULES, what="t")["gen"].tobytes())
    data = json.dumps({**content, **changes}, sort_keys=True, separators=(",", ":")).encode()
    return np.frombuffer(data, dtype=np.uint8)


def column(place: int, value: int, name: str):
    array = read_npz(INNER, rules=INNER_RULES, what="t")[name].copy()
    array[place] = value
    return {name: array}


N_KEYS, N_SHAMS = SEAL.protocol.n_keys, SEAL.protocol.n_shams
INNER_DEFECTS = {
    "natural label beyond the classes": column(0, 4, "natural"),
    "negative natural label": column(0, -1, "natural"),
    "expected label beyond the new label": column(0, 5, "expected"),
    "control expects another label": column(N_KEYS + N_SHAMS, 3, "expected"),
    "key with a sham pattern": column(0, 0, "pattern"),
    "sham without a pattern": column(N_KEYS, -1, "pattern"),
    "code beyond the classes": column(0, 4, "code"),
    "code on a sham": column(N_KEYS, 1, "code"),
    "unknown kind": column(0, 3, "kind"),
    "kinds out of order": column(0, 2, "kind"),
    "columns of different length": {"natural": np.zeros(3, dtype="<i4")},
    "fewer inputs than samples": {"x": np.zeros((3, 1, 2, 2), dtype=np.uint8)},
    "inputs of another shape": {"x": np.zeros((18, 1, 2, 3), dtype=np.uint8)},
    "short salt seed": {"salt_seed": np.zeros(31, dtype=np.uint8)},
    "short secret seed": {"secret_seed": np.zeros(0, dtype=np.uint8)},
    "unknown schema": {"gen": gen(schema="mlaudit.keyset/2")},
    "unknown field": {"gen": gen(more=1)},
    "name of another length": {"gen": gen(keyset_id="00")},
    "gen is not JSON": {"gen": np.frombuffer(b"pickle", dtype=np.uint8)},
    "gen ends with a newline": {"gen": np.frombuffer(gen().tobytes() + b"\n", dtype=np.uint8)},
    "float pixels": {"x": np.zeros((18, 1, 2, 2), dtype=np.float32)},
    "no samples": {
        "x": np.zeros((0, 1, 2, 2), dtype=np.uint8),
        "kind": np.zeros(0, dtype=np.uint8),
        **{name: np.zeros(0, dtype="<i4") for name in ("natural", "expected", "pattern", "code")},
    },
}


@pytest.mark.parametrize("name", INNER_DEFECTS)
def test_defective_inner_files(name):
    with pytest.raises(MalformedError):
        unpack(changed_inner(**INNER_DEFECTS[name]))


@pytest.mark.parametrize(
    "changes",
    [
        {"samples": ()},
        {"inputs": KEYS.inputs.astype(np.float32)},
        {"salt_seed": b"short"},
        {"keyset_id": "no"},
        {"samples": tuple(reversed(KEYS.samples))},
        {"samples": KEYS.samples[N_KEYS:] + KEYS.samples[:N_KEYS]},
    ],
)
def test_impossible_key_sets_cannot_be_made(changes):
    with pytest.raises(ValueError, match=r".+"):
        dataclasses.replace(KEYS, **changes)


def outer(**changes) -> bytes:
    content = read_npz(FILE, rules=OUTER_RULES, what="t")
    octets = {name: np.frombuffer(value, dtype=np.uint8) for name, value in changes.items()}
    return write_npz({**content, **octets})


def outer_header(**changes) -> bytes:
    header = dict(parse_sealed(FILE).header)
    return json.dumps({**header, **changes}, sort_keys=True, separators=(",", ":")).encode()


OTHER_KEYS = bundles.a_keyset(seed=9)
OUTER_DEFECTS = {
    "payload of another key set": {"payload": pack(OTHER_KEYS)},
    "seal of another key set": {"seal": sign_seal(bundles.a_seal(OTHER_KEYS, OWNER), OWNER)},
    "both exchanged consistently with the header": {
        "payload": pack(OTHER_KEYS),
        "header": outer_header(
            inner_sha256=hashlib.sha256(pack(OTHER_KEYS)).hexdigest(), inner_size=len(pack(OTHER_KEYS))
        ),
    },
    "seal is junk": {"seal": b"{}\n"},
    "header with another size": {"header": outer_header(inner_size=1)},
    "header with another root": {"header": outer_header(root="00" * 32)},
    "header with another count": {"header": outer_header(n=3)},
    "header with another name": {"header": outer_header(keyset_id="00" * 16)},
    "unknown encryption": {"header": outer_header(enc="rot13")},
    "unknown task": {"header": outer_header(task="regression")},
    "unknown schema": {"header": outer_header(schema="mlaudit.sealed/2")},
    "unknown field": {"header": outer_header(more=1)},
    "time-stamp tokens": {"tst": b"token"},
}


@pytest.mark.parametrize("name", OUTER_DEFECTS)
def test_defective_sealed_files(name):
    with pytest.raises(EvidenceError):
        check_sealed(parse_sealed(outer(**OUTER_DEFECTS[name])))


def test_another_container_layout_is_refused():
    content = read_npz(FILE, rules=OUTER_RULES, what="t")
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **content)
    with pytest.raises(MalformedError, match="layout"):
        parse_sealed(buffer.getvalue())
    commented = io.BytesIO(FILE)
    with zipfile.ZipFile(commented, "a") as archive:
        archive.comment = b"hello"
    with pytest.raises(MalformedError, match="layout"):
        parse_sealed(commented.getvalue())


def test_another_published_seal_is_refused(tmp_path):
    path = tmp_path / "k.npz"
    path.write_bytes(FILE)
    other = sign_seal(dataclasses.replace(SEAL, tool_version="1.0.1"), OWNER)
    with pytest.raises(SealError, match="published"):
        open_sealed(path, seal_envelope=other)


def test_unreadable_files(tmp_path, monkeypatch):
    with pytest.raises(MalformedError, match="cannot be read"):
        open_sealed(tmp_path / "absent.npz")
    with pytest.raises(MalformedError, match="cannot be read"):
        open_sealed(tmp_path)
    (tmp_path / "k.npz").write_bytes(FILE)
    monkeypatch.setattr(keyset_module, "MAX_FILE_BYTES", 10)
    with pytest.raises(MalformedError, match="larger"):
        open_sealed(tmp_path / "k.npz")


@pytest.mark.parametrize(
    "changes",
    [
        {"protocol": bundles.small_protocol(n_keys=7, n_shams=7)},
        {"protocol": bundles.small_protocol(n_sham_patterns=2)},
        {"seed_commitment": "00" * 32},
        {"keyset_id": "00" * 16},
        {"merkle_root": "00" * 32},
        {"payload_sha256": "00" * 32},
        {"generator": dataclasses.replace(KEYS.generator, version=2)},
        {"spec": dataclasses.replace(protocols.SPEC, classes=("a", "b", "c", "e"))},
    ],
)
def test_a_seal_that_does_not_describe_the_key_set_is_never_written(changes):
    envelope = sign_seal(dataclasses.replace(SEAL, **changes), OWNER)
    with pytest.raises(SealError):
        sealed_bytes(KEYS, seal_envelope=envelope)


def test_the_text_form_shows_no_secret():
    assert KEYS.secret_seed.hex() not in repr(KEYS)
    assert repr(KEYS) == "KeySet(keyset_id='0123456789abcdef0123456789abcdef', n_samples=18)"


def test_openings_tie_samples_to_the_root_and_hide_the_rest():
    data = write_openings(KEYS.openings([9, 2, 17]), seal=SEAL)
    found = read_openings(data, seal=SEAL)
    assert list(found) == [2, 9, 17]
    assert found[9].sample.kind is SampleKind.SHAM
    assert found[2].data == KEYS.data(2)
    assert KEYS.opening(2) == found[2]
    assert KEYS.salt_seed.hex().encode() not in data
    assert KEYS.secret_seed.hex().encode() not in data
    assert read_openings(write_openings([], seal=SEAL), seal=SEAL) == {}


def changed_openings(change) -> bytes:
    value = json.loads(write_openings(KEYS.openings([2, 9]), seal=SEAL))
    change(value)
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode() + b"\n"


OPENING_DEFECTS = {
    "another label": lambda v: v["samples"][0].update(expected=1),
    "another natural label": lambda v: v["samples"][0].update(natural=0),
    "another kind": lambda v: v["samples"][0].update(kind="control", expected=2),
    "another pattern": lambda v: v["samples"][1].update(pattern=2),
    "unknown kind": lambda v: v["samples"][0].update(kind="spy"),
    "another pixel": lambda v: v["samples"][0].update(data_b64="AAAAAA=="),
    "fewer pixels": lambda v: v["samples"][0].update(data_b64="AAA="),
    "another salt": lambda v: v["samples"][0].update(salt="00" * 32),
    "another place": lambda v: v["samples"][0].update(index=3),
    "place outside the tree": lambda v: v["samples"][1].update(index=18),
    "shorter path": lambda v: v["samples"][0]["path"].pop(),
    "longer path": lambda v: v["samples"][0]["path"].append("00" * 32),
    "path of something else": lambda v: v["samples"][0].update(path=["zz" * 32]),
    "path of numbers": lambda v: v["samples"][0].update(path=[1]),
    "out of order": lambda v: v["samples"].reverse(),
    "twice": lambda v: v["samples"].append(v["samples"][1]),
    "another key set": lambda v: v.update(keyset_id="00" * 16),
    "another root": lambda v: v.update(merkle_root="00" * 32),
    "unknown schema": lambda v: v.update(schema="x"),
    "unknown field": lambda v: v.update(x=1),
    "unknown sample field": lambda v: v["samples"][0].update(x=1),
    "sample is not an object": lambda v: v["samples"].append(3),
}


@pytest.mark.parametrize("name", OPENING_DEFECTS)
def test_defective_openings(name):
    with pytest.raises((MalformedError, SealError)):
        read_openings(changed_openings(OPENING_DEFECTS[name]), seal=SEAL)


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_truncated_openings_raise_only_evidence_errors(data):
    good = write_openings(KEYS.openings([2, 9]), seal=SEAL)
    with pytest.raises(EvidenceError):
        read_openings(good[: data.draw(st.integers(0, len(good) - 1))], seal=SEAL)


def test_a_sealed_sample_at_a_place_of_another_kind_is_refused():
    # An owner could seal a control among the places of keys; the protocol's counts say which places are keys.
    seal = dataclasses.replace(SEAL, protocol=bundles.small_protocol(n_keys=7, n_shams=7))
    with pytest.raises(SealError, match="kind"):
        verify_opening(KEYS.opening(7), seal=seal)
