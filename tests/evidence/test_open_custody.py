"""Custody logs that stay open: what tampering shows, and what it cannot."""

import hashlib
import json

import pytest

from auditor.canonical import canonical_bytes
from auditor.errors import EvidenceError, MalformedError, SignatureError, TranscriptError, UsageError
from auditor.evidence.acts import CommandAct, HandAct
from auditor.evidence.open_custody import (
    DOMAIN,
    OpenLog,
    copied_log,
    describe,
    keyset_log_path,
    new_event,
    object_event,
    read_log,
)
from auditor.evidence.signing import SigningKey

ANCHOR = hashlib.sha256(b"what the log belongs to").hexdigest()
KEY = SigningKey.generate()


def at(second):
    return f"2026-11-22T10:00:{second:02d}.000Z"


@pytest.fixture
def path(tmp_path):
    log = OpenLog(tmp_path / "k.custody.jsonl", anchor=ANCHOR)
    log.add(new_event(HandAct.HANDED_OVER, by="A. Owner", note="to B", at=at(1)), key=None)
    log.add(new_event(HandAct.RECEIVED, by="B. Examiner", note="", at=at(2)), key=KEY)
    log.add(new_event(HandAct.STORED, by="B. Examiner", note="safe 3", at=at(3)), key=None)
    return tmp_path / "k.custody.jsonl"


def read(data, anchor=ANCHOR):
    return read_log(data, anchor=anchor, what="log")


def chained_again(lines):
    """Chain lines as somebody would who knows the format, with nothing but the standard library."""
    domain, out, previous = DOMAIN + bytes.fromhex(ANCHOR), b"", b""
    for number, line in enumerate(lines):
        prev = hashlib.sha256(domain + previous).hexdigest()
        previous = json.dumps({**line, "seq": number, "prev": prev}, sort_keys=True, separators=(",", ":")).encode()
        out += previous + b"\n"
    return out


def test_the_chain_is_the_documented_one(path):
    data = path.read_bytes()
    assert chained_again([json.loads(line) for line in data.splitlines()]) == data
    found = read(data)
    assert [event.act for event in found.events] == [HandAct.HANDED_OVER, HandAct.RECEIVED, HandAct.STORED]
    assert [event.signer for event in found.events] == ["", KEY.fingerprint, ""]
    assert found.head == hashlib.sha256(DOMAIN + bytes.fromhex(ANCHOR) + data.splitlines()[-1]).hexdigest()
    assert found.heads[:2] == tuple(json.loads(line)["prev"] for line in data.splitlines()[1:])


def test_every_prefix_stays_as_it_was_and_add_returns_the_head(path):
    before = path.read_bytes()
    head = OpenLog(path, anchor=ANCHOR).add(new_event(HandAct.NOTED, by="C", note="", at=at(9)), key=KEY)
    assert path.read_bytes().startswith(before)
    assert read(path.read_bytes()).head == head


def test_a_clock_that_was_set_back_does_not_break_the_log(path):
    OpenLog(path, anchor=ANCHOR).add(new_event(HandAct.NOTED, by="C", note="", at=at(0)), key=None)
    assert read(path.read_bytes()).events[-1].at == at(3)


def test_a_log_of_something_else_is_refused(path):
    with pytest.raises(TranscriptError):
        read(path.read_bytes(), anchor=hashlib.sha256(b"another").hexdigest())


def test_flipping_any_byte_before_the_last_line_or_in_a_signed_one_fails(path):
    data = path.read_bytes()
    for place in range(len(data.rsplit(b"\n", 2)[0])):
        broken = bytearray(data)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(EvidenceError):
            read(bytes(broken))
    signed = b"\n".join(data.splitlines()[:2]) + b"\n"
    for place in range(len(signed)):
        broken = bytearray(signed)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(EvidenceError):
            read(bytes(broken))


@pytest.mark.parametrize("order", [(1, 0, 2), (0, 2), (1, 2), (0, 2, 1), (0, 1, 1, 2)])
def test_reordered_dropped_or_repeated_lines_fail_even_when_chained_again(path, order):
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    picked = [lines[number] for number in order]
    with pytest.raises(EvidenceError):
        read(b"".join(canonical_bytes(line) + b"\n" for line in picked))
    if order != (0, 2):
        # Without the signed line in the middle nothing contradicts the rest; its absence is what the head is for.
        with pytest.raises(EvidenceError):
            read(chained_again(picked))


def test_dropping_the_latest_entries_shows_only_against_a_noted_head(path):
    whole = read(path.read_bytes())
    cut = read(b"\n".join(path.read_bytes().splitlines()[:2]) + b"\n")
    assert cut.head in whole.heads
    assert whole.head not in cut.heads


@pytest.mark.parametrize(
    "change",
    [
        {"act": "lost"},
        {"act": "signed"},
        {"path": "x"},
        {"sha256": "00" * 32},
        {"public_key": "00" * 32},
        {"signature": "00" * 64},
        {"public_key": "01" + "00" * 31, "signature": "01" + "00" * 63},
        {"by": "x" * 201},
        {"note": "x" * 2001},
        {"more": 1},
        {"at": "yesterday"},
        {"at": at(1)},
    ],
)
def test_entries_that_are_none_are_refused(path, change):
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[2].update(change)
    with pytest.raises(EvidenceError):
        read(chained_again(lines))


def test_a_signature_by_another_key_is_refused(path):
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    lines[1]["public_key"] = SigningKey.generate().public.hex()
    with pytest.raises(SignatureError):
        read(chained_again(lines))


def test_nothing_is_added_to_a_broken_log(path):
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(TranscriptError):
        OpenLog(path, anchor=ANCHOR).add(new_event(HandAct.NOTED, by="C", note="", at=at(9)), key=None)


def test_a_place_that_cannot_be_written_to_is_usage(tmp_path):
    with pytest.raises(UsageError, match="cannot be written"):
        OpenLog(tmp_path / "no" / "log", anchor=ANCHOR).add(
            new_event(HandAct.NOTED, by="C", note="", at=at(9)), key=None
        )
    with pytest.raises(MalformedError, match="cannot be read"):
        OpenLog(tmp_path, anchor=ANCHOR).read()


@pytest.mark.parametrize(
    ("by", "note"), [("", ""), (" ", ""), ("x" * 201, ""), ("a", "x" * 2001), ("a\nb", ""), ("a", "\x1b[2J")]
)
def test_names_and_notes_are_one_printable_line(by, note):
    with pytest.raises(UsageError):
        new_event(HandAct.NOTED, by=by, note=note, at=at(1))


def test_a_description_counts_and_names(path):
    told = describe(read(path.read_bytes()), known=[(KEY.fingerprint, "the examiner")])
    assert told.startswith("3 entries (1 signed by the examiner, 2 unsigned), head ")
    assert "unknown key" in describe(read(path.read_bytes()), known=[])


def test_the_log_lies_beside_the_key_set(tmp_path):
    assert (
        keyset_log_path(tmp_path / "k.npz") == keyset_log_path(tmp_path / "k.seal.json") == tmp_path / "k.custody.jsonl"
    )


def test_copying_verifies(path, tmp_path):
    assert copied_log(path, seal_envelope=b"what the log belongs to") == path.read_bytes()
    assert copied_log(tmp_path / "none", seal_envelope=b"x") == b""
    with pytest.raises(TranscriptError, match="key set's custody log"):
        copied_log(path, seal_envelope=b"another seal")


def test_events_of_commands_name_their_file():
    event = object_event(CommandAct.COSIGNED, path="a", data=b"x", at=at(1))
    assert event.sha256 == hashlib.sha256(b"x").hexdigest()
