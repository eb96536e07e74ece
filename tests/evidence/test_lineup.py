"""Commitment, opening and relay record of a line-up: what was fixed stays fixed."""

import dataclasses
import json
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.canonical import canonical_bytes, sha256_hex
from auditor.errors import EvidenceError, MalformedError, SealError, SignatureError, TranscriptError, UsageError
from auditor.evidence import lineup as lists
from auditor.evidence.lineup import Candidate, CandidateRole, LineUp, OpenedLineUp, Revealed
from auditor.evidence.relay_record import RecordWriter, Relayed, read_record
from auditor.evidence.signing import SigningKey, envelope
from auditor.evidence.statements import PAYLOAD_TYPE

KEY = SigningKey.generate()
FIELD_NAMES = (
    "_type", "subject", "predicateType", "predicate", "label", "place", "name", "role", "seq", "prev", "at", "answers",
)  # fmt: skip
AT = "2026-03-01T00:00:00.000Z"


def a_candidate(number: int, role=CandidateRole.INDEPENDENT, **changes) -> Candidate:
    values = {
        "label": lists.label_of(number),
        "place": f"{number:032x}",
        "name": f"model {number}",
        "role": role,
        "artefact_sha256": sha256_hex(bytes([number])),
        "address": "",
        "tokens": (),
        "salt": sha256_hex(bytes([200, number])),
    }
    return Candidate(**(values | changes))


CANDIDATES = (a_candidate(0), a_candidate(1, CandidateRole.SUSPECT), a_candidate(2, CandidateRole.PUBLIC))


def committed(candidates=CANDIDATES) -> bytes:
    lineup = LineUp(
        seal_sha256="ab" * 32,
        placed=lists.placed_of(candidates),
        revealed=Revealed.LABELS,
        n_outputs=11,
        custodian_public_key=KEY.public.hex(),
        committed_at=AT,
        tool_version="test",
    )
    return lists.sign_lineup(lineup, key=KEY)


def opening(candidates, *, commitment: bytes, key=KEY) -> bytes:
    opened = OpenedLineUp(
        commitment_sha256=sha256_hex(commitment),
        candidates=tuple(candidates),
        record_sha256="",
        custodian_public_key=key.public.hex(),
        opened_at=AT,
        tool_version="test",
    )
    return lists.sign_opening(opened, key=key)


def read(data: bytes, commitment: bytes):
    return lists.read_opening(data, commitment=commitment, lineup=lists.open_lineup(commitment))


def test_an_honest_opening_is_read_back():
    commitment = committed()
    assert read(opening(CANDIDATES, commitment=commitment), commitment).candidates == CANDIDATES


def test_the_commitment_tells_nothing_of_a_candidate():
    payload = lists.read_envelope(committed(), what="x").payload.decode()
    assert "model" not in payload.replace("model-ownership-auditor", "")
    assert all(each.artefact_sha256 not in payload and each.salt not in payload for each in CANDIDATES)
    # The same list under another salt looks altogether different.
    again = dataclasses.replace(CANDIDATES[0], salt="00" * 32)
    assert again.leaf != CANDIDATES[0].leaf


def exchanged(label_a, label_b):
    """Return the list with two candidates' identities exchanged, each keeping letter and place."""
    a, b = CANDIDATES[label_a], CANDIDATES[label_b]
    keep = ("label", "place")
    new = list(CANDIDATES)
    new[label_a] = dataclasses.replace(b, **{name: getattr(a, name) for name in keep})
    new[label_b] = dataclasses.replace(a, **{name: getattr(b, name) for name in keep})
    return new


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        (exchanged(0, 1), "candidate A is not the one"),
        (CANDIDATES[:2], "candidate C was committed to and is not opened"),
        ((*CANDIDATES, a_candidate(3)), "candidate D was added"),
        ((*CANDIDATES, CANDIDATES[0]), "opened twice"),
        ((dataclasses.replace(CANDIDATES[0], name="another"), *CANDIDATES[1:]), "candidate A is not the one"),
        ((dataclasses.replace(CANDIDATES[0], artefact_sha256="11" * 32), *CANDIDATES[1:]), "candidate A is not"),
        ((dataclasses.replace(CANDIDATES[0], place="ff" * 16), *CANDIDATES[1:]), "candidate A is not the one"),
        ((dataclasses.replace(CANDIDATES[0], role=CandidateRole.EARLIER), *CANDIDATES[1:]), "candidate A is not"),
        ((dataclasses.replace(CANDIDATES[0], tokens=(b"late",)), *CANDIDATES[1:]), "candidate A is not the one"),
    ],
)
def test_a_custodian_who_changes_the_list_is_found_out(changed, told):
    commitment = committed()
    with pytest.raises(SealError, match=told):
        read(opening(changed, commitment=commitment), commitment)


def test_nobody_else_opens_it_and_no_other_commitment_is_opened():
    commitment = committed()
    with pytest.raises(SignatureError):
        read(opening(CANDIDATES, commitment=commitment, key=SigningKey.generate()), commitment)
    other = committed((a_candidate(0, salt="01" * 32), *CANDIDATES[1:]))
    with pytest.raises(SealError, match="another commitment"):
        read(opening(CANDIDATES, commitment=commitment), other)


@pytest.mark.parametrize("role", [CandidateRole.INDEPENDENT, CandidateRole.SUSPECT])
def test_exactly_one_candidate_is_the_suspect(role):
    candidates = [a_candidate(0, role), a_candidate(1, role)]
    assert "exactly one" in lists.candidates_problem(candidates)


def test_equal_weights_are_one_candidate():
    twin = a_candidate(1, CandidateRole.SUSPECT, artefact_sha256=a_candidate(0).artefact_sha256)
    assert "twice" in lists.candidates_problem([a_candidate(0), twin])


def test_no_byte_of_a_commitment_or_opening_can_change():
    commitment = committed()
    opened = opening(CANDIDATES, commitment=commitment)
    for data, reader in ((commitment, lists.open_lineup), (opened, lambda each: read(each, commitment))):
        for place in range(0, len(data), max(1, len(data) // 60)):
            damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
            with pytest.raises(EvidenceError):
                reader(damaged)


def test_labels_go_on_after_z():
    assert [lists.label_of(i) for i in (0, 25, 26, 27, 99)] == ["A", "Z", "AA", "AB", "CV"]


def clock():
    return datetime(2026, 3, 1, tzinfo=UTC)


DIGEST = "cd" * 32
LINES = [Relayed(label="A", inputs_sha256=f"{i:064x}", answers=(1, 2, i)) for i in range(4)]


def write_record(path, lines, *, digest=DIGEST):
    writer = RecordWriter(path, commitment_sha256=digest, clock=clock)
    for line in lines:
        writer.add(line)
    writer.close()


def test_a_record_goes_on_and_is_read_back(tmp_path):
    path = tmp_path / "relay.jsonl"
    write_record(path, LINES[:2])
    write_record(path, LINES[2:])
    assert list(read_record(path.read_bytes(), commitment_sha256=DIGEST)) == LINES


def test_a_record_with_a_line_changed_or_dropped_is_refused(tmp_path):
    path = tmp_path / "relay.jsonl"
    write_record(path, LINES)
    lines = path.read_bytes().splitlines(keepends=True)
    changed = json.loads(lines[1]) | {"answers": [9]}
    for damaged in (
        b"".join([lines[0], *lines[2:]]),
        b"".join([lines[0], json.dumps(changed, sort_keys=True, separators=(",", ":")).encode() + b"\n", *lines[2:]]),
        path.read_bytes()[:-1],
    ):
        with pytest.raises(EvidenceError):
            read_record(damaged, commitment_sha256=DIGEST)
    with pytest.raises(TranscriptError, match="another line-up"):
        read_record(path.read_bytes(), commitment_sha256="00" * 32)


def test_a_line_that_a_killed_relay_left_unfinished_is_dropped(tmp_path):
    path = tmp_path / "relay.jsonl"
    write_record(path, LINES[:2])
    with path.open("ab") as file:
        file.write(b'{"answers":[1,')
    write_record(path, LINES[2:])
    assert list(read_record(path.read_bytes(), commitment_sha256=DIGEST)) == LINES


LEAVES = st.none() | st.booleans() | st.integers(0, 9) | st.text(max_size=5)
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(FIELD_NAMES), inner, max_size=8),
)


@given(data=st.binary(max_size=200), value=VALUES)
def test_hostile_bytes_raise_evidence_errors_only(data, value):
    commitment = committed()
    signed = envelope(canonical_bytes(value), payload_type=PAYLOAD_TYPE, keys=[KEY])
    for hostile in (data, canonical_bytes(value), canonical_bytes(value) + b"\n", signed):
        for reader in (
            lists.open_lineup,
            lambda each: read(each, commitment),
            lambda each: read_record(each, commitment_sha256=DIGEST),
        ):
            with pytest.raises(EvidenceError):
                reader(hostile)
    with pytest.raises(EvidenceError):
        lists.candidate_from(value, what="x")


def test_one_relay_writes_at_a_time(tmp_path):
    writer = RecordWriter(tmp_path / "relay.jsonl", commitment_sha256=DIGEST, clock=clock)
    with pytest.raises(UsageError, match="another relay"):
        RecordWriter(tmp_path / "relay.jsonl", commitment_sha256=DIGEST, clock=clock)
    writer.close()


def test_a_candidate_is_a_file_or_a_service():
    value = lists.candidate_object(a_candidate(0)) | {"address": "http://127.0.0.1"}
    with pytest.raises(MalformedError, match="a file with its digest or a service"):
        lists.candidate_from(value, what="x")
