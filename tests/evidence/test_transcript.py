import hashlib
import json
from datetime import timedelta

import bundles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import EvidenceError, MalformedError, TranscriptError
from auditor.evidence import chain
from auditor.evidence.custody import CustodyAct, CustodyEvent, read_custody, write_custody
from auditor.evidence.transcript import (
    FailedAttempt,
    TranscriptWriter,
    read_transcript,
    recoverable_prefix,
)
from auditor.records import Answer

BODY = "ab" * 32
RAW = "cd" * 32


def write_example(path, *, close: str | None = "decided") -> str:
    writer = TranscriptWriter(path, bundles.Clock())
    writer.opened({"schema": "mlaudit.transcript/1", "note": "é"})
    writer.request(0, (0, 1), BODY)
    writer.attempt_failed(0, "503 Service Unavailable", 250)
    answers = [Answer(label=3), Answer(label=10, scores=(0.1, 1e-20, 1.0))]
    writer.response(0, status=200, elapsed_ms=12, body_sha256=RAW, server_date="", answers=answers)
    writer.request(1, (2,), BODY)
    writer.batch_failed(1, "timeout")
    writer.request(2, (3, 4), BODY)
    if close is None:
        writer.abandon()
        return ""
    return writer.closed(close)


@pytest.fixture(scope="module")
def example(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("t") / "transcript.jsonl"
    write_example(path)
    return path.read_bytes()


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "transcript.jsonl"
    head = write_example(path)
    found = read_transcript(path.read_bytes())
    assert found.preamble == {"schema": "mlaudit.transcript/1", "note": "é"}
    assert found.closed_reason == "decided"
    assert found.head == head
    assert found.n_lines == 8
    answered, failed, silent = found.batches
    assert answered.positions == (0, 1)
    assert answered.answers == (Answer(label=3), Answer(label=10, scores=(0.1, 1e-20, 1.0)))
    assert (answered.status, answered.elapsed_ms, answered.response_sha256) == (200, 12, RAW)
    assert answered.failed_attempts == (FailedAttempt(error="503 Service Unavailable", waited_ms=250),)
    assert (failed.answers, failed.error) == (None, "timeout")
    assert (silent.answers, silent.error, silent.positions) == (None, None, (3, 4))
    assert found.opened_at == "2026-11-22T10:00:01.000Z"
    assert found.closed_at == "2026-11-22T10:00:08.000Z"


def test_the_chain_is_the_documented_hash(example):
    previous = b""
    for number, line in enumerate(example.decode().splitlines()):
        value = json.loads(line)
        assert value["seq"] == number
        assert value["prev"] == hashlib.sha256(b"auditor/1 transcript line\0" + previous).hexdigest()
        previous = line.encode()
    assert read_transcript(example).head == hashlib.sha256(b"auditor/1 transcript line\0" + previous).hexdigest()


def test_the_request_is_on_disk_before_the_call_returns(tmp_path):
    path = tmp_path / "transcript.jsonl"
    writer = TranscriptWriter(path, bundles.Clock())
    writer.opened({})
    before = path.read_bytes()
    writer.request(0, (0,), BODY)
    after = path.read_bytes()
    writer.abandon()
    assert after.startswith(before)
    assert json.loads(after[len(before) :])["entry"] == "request"


def test_a_transcript_is_never_written_over(tmp_path):
    path = tmp_path / "transcript.jsonl"
    path.write_bytes(b"paid for")
    with pytest.raises(FileExistsError):
        TranscriptWriter(path, bundles.Clock())
    assert path.read_bytes() == b"paid for"


def test_an_unclosed_transcript_is_readable_and_says_so(tmp_path):
    path = tmp_path / "transcript.jsonl"
    write_example(path, close=None)
    found = read_transcript(path.read_bytes())
    assert found.closed_reason is None
    assert len(found.batches) == 3


def test_a_crash_inside_a_line_leaves_a_recoverable_prefix(example):
    cut = example[:-17]
    with pytest.raises(TranscriptError, match="cut"):
        read_transcript(cut)
    assert read_transcript(recoverable_prefix(cut)).n_lines == 7
    assert recoverable_prefix(b"half a line") == b""


def test_an_interruption_right_after_a_write_is_noticed(tmp_path, monkeypatch):
    path = tmp_path / "transcript.jsonl"
    writer = TranscriptWriter(path, bundles.Clock())
    writer.opened({})
    writer.request(0, (0,), BODY)

    def interrupt(_):
        raise KeyboardInterrupt

    monkeypatch.setattr("os.fsync", interrupt)
    answers = [Answer(label=0)]
    with pytest.raises(KeyboardInterrupt):
        writer.response(0, status=200, elapsed_ms=1, body_sha256=RAW, server_date="", answers=answers)
    monkeypatch.undo()
    writer.closed("interrupted")
    found = read_transcript(path.read_bytes())
    assert found.closed_reason == "interrupted"
    assert found.batches[0].answers == (Answer(label=0),)


def test_an_interruption_before_a_write_loses_only_that_line(tmp_path):
    path = tmp_path / "transcript.jsonl"
    clock = bundles.Clock()
    interrupted = []

    def interrupting():
        if interrupted == ["now"]:
            interrupted.append("done")
            raise KeyboardInterrupt
        return clock()

    writer = TranscriptWriter(path, interrupting)
    writer.opened({})
    interrupted.append("now")
    with pytest.raises(KeyboardInterrupt):
        writer.request(0, (0,), BODY)
    writer.closed("interrupted")
    assert read_transcript(path.read_bytes()).batches == ()


def test_a_clock_that_steps_back_does_not_break_the_record(tmp_path):
    path = tmp_path / "transcript.jsonl"
    clock = bundles.Clock()
    writer = TranscriptWriter(path, clock)
    writer.opened({})
    clock.now -= timedelta(hours=1)
    writer.closed("decided")
    found = read_transcript(path.read_bytes())
    assert found.opened_at == found.closed_at


def test_hostile_text_is_recorded_and_never_stops_the_record(tmp_path):
    path = tmp_path / "transcript.jsonl"
    writer = TranscriptWriter(path, bundles.Clock())
    writer.opened({})
    writer.request(0, (0,), BODY)
    writer.attempt_failed(0, "\ud800\n\x00" + "x" * 10_000, 1)
    writer.batch_failed(0, "")
    writer.closed("failed")
    found = read_transcript(path.read_bytes()).batches[0]
    assert found.error == "unspecified"
    assert found.failed_attempts[0].error.startswith("?\n\x00xxx")


# --- forgeries: every line is chained correctly, the content is impossible ---


def insert(lines, place, **line):
    lines.insert(place, {"at": lines[place]["at"], **line})


FORGERIES = {
    "no opening line": lambda v: v.pop(0),
    "two opening lines": lambda v: v.insert(1, v[0]),
    "unknown schema": lambda v: v[0].update(schema="mlaudit.transcript/9"),
    "preamble is text": lambda v: v[0].update(preamble="x"),
    "response without request": lambda v: v.pop(1),
    "answered twice": lambda v: v.insert(4, v[3]),
    "answered after it failed": lambda v: v.insert(
        6, {**v[3], "batch": 1, "answers": [{"label": 0}], "at": v[6]["at"]}
    ),
    "attempt after the answer": lambda v: v.insert(4, {**v[2], "at": v[4]["at"]}),
    "response dropped": lambda v: v.pop(3),
    "failure dropped": lambda v: v.pop(5),
    "request dropped": lambda v: v.pop(6),
    "attempt dropped": lambda v: v.pop(2),
    "counts changed": lambda v: v[-1]["counts"].update(answers=3),
    "counts missing": lambda v: v[-1].update(counts={}),
    "line after the close": lambda v: v.append(v[-1]),
    "empty reason": lambda v: v[-1].update(reason=""),
    "position asked twice": lambda v: v[4].update(positions=[1]),
    "position twice in a batch": lambda v: v[6].update(positions=[3, 3]),
    "negative position": lambda v: v[6].update(positions=[-1, 4]),
    "position is true": lambda v: v[6].update(positions=[True, 4]),
    "no positions": lambda v: v[6].update(positions=[]),
    "batches out of order": lambda v: v[4].update(batch=2),
    "one answer too few": lambda v: v[3]["answers"].pop(),
    "one answer too many": lambda v: v[3]["answers"].append({"label": 1}),
    "negative label": lambda v: v[3]["answers"][0].update(label=-1),
    "label is text": lambda v: v[3]["answers"][0].update(label="3"),
    "unknown field in an answer": lambda v: v[3]["answers"][0].update(sure=True),
    "score is not a number": lambda v: v[3]["answers"][1].update(scores=["nan"]),
    "score is infinite": lambda v: v[3]["answers"][1].update(scores=["inf"]),
    "score in another spelling": lambda v: v[3]["answers"][1].update(scores=["0.10"]),
    "score is text": lambda v: v[3]["answers"][1].update(scores=["high"]),
    "score is long": lambda v: v[3]["answers"][1].update(scores=["1" * 400]),
    "status out of range": lambda v: v[3].update(status=1000),
    "digest of another length": lambda v: v[3].update(body_sha256="ab"),
    "unknown entry": lambda v: v[2].update(entry="gossip"),
    "unknown field": lambda v: v[2].update(more=1),
    "time goes back": lambda v: v[3].update(at="2026-11-22T09:00:00.000Z"),
    "time in another zone": lambda v: v[3].update(at="2026-11-22T10:00:04.000+00:00"),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_forged_but_correctly_chained_transcripts_are_refused(example, name):
    lines = bundles.content(example)
    FORGERIES[name](lines)
    with pytest.raises((TranscriptError, MalformedError)):
        read_transcript(bundles.rechained(lines))


def test_rechaining_alone_changes_nothing(example):
    assert bundles.rechained(bundles.content(example)) == example


def test_flipping_any_bit_is_noticed(example):
    for place in range(len(example)):
        broken = bytearray(example)
        broken[place] ^= 1 << (place % 8)
        try:
            found = read_transcript(bytes(broken))
        except EvidenceError:
            continue
        # Only the last line is followed by none that quotes it; its bytes are bound by the signed head.
        assert found.head != read_transcript(example).head


@given(st.data())
@settings(max_examples=100, deadline=None)
def test_cut_transcripts_raise_only_evidence_errors_or_lose_whole_lines(example, data):
    cut = data.draw(st.integers(0, len(example) - 1))
    try:
        found = read_transcript(example[:cut])
    except EvidenceError:
        return
    assert found.closed_reason is None


@pytest.mark.parametrize("data", [b"", b"\n", b"\n\n", b"[]\n", b"{}\n", b"null\n", b"\xff\n"])
def test_hostile_bytes(data):
    with pytest.raises(EvidenceError):
        read_transcript(data)
    with pytest.raises(EvidenceError):
        read_custody(data)


@pytest.mark.parametrize("limit", ["MAX_CHAIN_BYTES", "MAX_LINE_BYTES", "MAX_LINES"])
def test_limits(example, monkeypatch, limit):
    monkeypatch.setattr(chain, limit, 5)
    with pytest.raises(TranscriptError, match=r"larger|longer|more than"):
        read_transcript(example)


EVENTS = (
    CustodyEvent(at="2026-11-01T08:00:00.000Z", act=CustodyAct.SEALED, actor="owner", path="seal", sha256=BODY),
    CustodyEvent(at="2026-11-22T08:00:00.000Z", act=CustodyAct.ANALYSED, actor="é", path="results.json", sha256=RAW),
)


def test_custody_round_trip():
    assert read_custody(write_custody(EVENTS)) == EVENTS


def test_custody_defects():
    good = write_custody(EVENTS)
    with pytest.raises(TranscriptError, match="earlier"):
        read_custody(write_custody(EVENTS[::-1]))
    lines = good.splitlines(keepends=True)
    with pytest.raises(TranscriptError, match="follow"):
        read_custody(lines[1])
    with pytest.raises(EvidenceError):
        read_custody(good.replace(b"sealed", b"lost"))
    for place in range(len(lines[0])):
        broken = bytearray(good)
        broken[place] ^= 1 << (place % 8)
        with pytest.raises(EvidenceError):
            read_custody(bytes(broken))
