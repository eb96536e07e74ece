"""Stops, resumptions and retries as the transcript tells them; every forgery is chained correctly."""

import json

import bundles
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import MalformedError, TranscriptError
from auditor.evidence.transcript import (
    FailedAttempt,
    Loss,
    Stop,
    TranscriptWriter,
    read_transcript,
    recoverable_prefix,
)
from auditor.records import Answer

BODY = "ab" * 32
RAW = "cd" * 32
SUSPECT = {"uri": "http://127.0.0.1:1", "address": "127.0.0.1"}


def write_resumed(path) -> None:
    """Write: batch 0 answered, 1 lost, 2 refused, 3 in flight at a crash; resumed; 1 and 3 asked again; 4 asked."""
    clock = bundles.Clock()
    writer = TranscriptWriter(path, clock)
    writer.opened({"suspect": SUSPECT})
    for batch in range(4):
        writer.request(batch, (batch,), BODY)
        if batch == 0:
            answer(writer, 0)
        if batch == 1:
            attempts = [
                FailedAttempt(error="HTTP 503", waited_ms=5, status=503),
                FailedAttempt(error="reset", waited_ms=0),
            ]
            writer.batch_failed(1, "down", loss=Loss.NO_ANSWER, attempts=attempts)
        if batch == 2:
            writer.batch_failed(2, "policy", loss=Loss.REFUSED)
    writer.abandon()
    assert read_transcript(path.read_bytes()).lost == (1, 3)
    writer = TranscriptWriter.reopen(path, clock)
    writer.resumed(Stop.UNCLOSED, suspect=SUSPECT, tool_version="1", torn_bytes=7, torn_sha256=RAW)
    writer.retry(1, BODY)
    writer.batch_failed(1, "a page", loss=Loss.UNUSABLE, body_sha256=RAW)
    writer.retry(3, BODY)
    answer(writer, 3)
    writer.request(4, (4,), BODY)
    answer(writer, 4)
    writer.closed("decided")


def answer(writer, batch):
    writer.response(batch, status=200, elapsed_ms=1, body_sha256=RAW, server_date="", answers=[Answer(label=0)])


@pytest.fixture(scope="module")
def resumed(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("t") / "transcript.jsonl"
    write_resumed(path)
    return path.read_bytes()


def test_a_resumed_transcript_is_read(resumed):
    found = read_transcript(resumed)
    assert found.closed_reason == "decided"
    assert found.lost == ()
    (stop,) = found.resumptions
    assert (stop.stop, stop.n_lines_before, stop.n_answered_before) == (Stop.UNCLOSED, 10, 1)
    assert (stop.n_batches_before, stop.n_retried, stop.torn_bytes, stop.torn_sha256) == (4, 2, 7, RAW)
    assert stop.head_before == read_transcript(b"".join(resumed.splitlines(keepends=True)[:10])).head
    assert [len(batch.retried_at) for batch in found.batches] == [0, 1, 0, 1, 0]
    assert found.batches[1].response_sha256 == RAW
    assert [attempt.status for attempt in found.batches[1].failed_attempts] == [503, None]
    assert json.loads(resumed.splitlines()[-1])["counts"] == {
        "answers": 3, "batches": 5, "failed_attempts": 2, "failed_batches": 3, "questions": 5, "responses": 3,
        "resumptions": 1, "retries": 2,
    }  # fmt: skip


def move(lines, place, to):
    lines.insert(to, lines.pop(place))
    for line in lines:
        line["at"] = lines[0]["at"]


RESUMED_FORGERIES = {
    "answer without asking again": lambda v: v.pop(13),
    "an answered batch asked again": lambda v: v[13].update(batch=0),
    "a refused batch asked again": lambda v: v[13].update(batch=2),
    "a batch that was never asked": lambda v: v[13].update(batch=9),
    "asked again with other inputs": lambda v: v[13].update(body_sha256="ef" * 32),
    "asked again without a stop": lambda v: v.pop(10),
    "asked again after something new": lambda v: (move(v, 13, 15), move(v, 13, 15)),
    "asked again out of order": lambda v: (move(v, 11, 14), move(v, 11, 14)),
    "asked again twice": lambda v: v.insert(15, {**v[13], "at": v[14]["at"]}),
    "another kind of stop": lambda v: v[10].update(stop="interrupted"),
    "an unknown kind of stop": lambda v: v[10].update(stop="coffee"),
    "torn bytes without a digest": lambda v: v[10].update(torn_sha256=""),
    "a digest without torn bytes": lambda v: v[10].update(torn_bytes=0),
    "a suspect that is text": lambda v: v[10].update(suspect="x"),
    "resumption dropped from the counts": lambda v: v[-1]["counts"].pop("resumptions"),
    "retries written as none": lambda v: v[-1]["counts"].update(retries=0),
    "resumed after a decision": lambda v: v.append({**v[10], "stop": "unclosed", "at": v[-1]["at"]}),
    "resumed after a decision that is named": lambda v: v.append({**v[10], "stop": "decided", "at": v[-1]["at"]}),
    "an unknown kind of loss": lambda v: v[6].update(loss="theft"),
    "a body of a refusal": lambda v: v[8].update(body_sha256=RAW),
    "a status that is none": lambda v: v[4].update(status=7),
}


@pytest.mark.parametrize("name", RESUMED_FORGERIES)
def test_forged_resumptions_are_refused(resumed, name):
    lines = bundles.content(resumed)
    RESUMED_FORGERIES[name](lines)
    words = "asks" if "asked again" in name else None
    with pytest.raises((TranscriptError, MalformedError), match=words):
        read_transcript(bundles.rechained(lines))


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_a_stop_at_any_byte_leaves_a_record_that_goes_on(tmp_path_factory, resumed, data):
    cut = data.draw(st.integers(resumed.index(b"\n") + 1, len(resumed)))
    path = tmp_path_factory.mktemp("cut") / "transcript.jsonl"
    whole = recoverable_prefix(resumed[:cut])
    path.write_bytes(whole)
    before = read_transcript(whole)
    answered = {batch.batch for batch in before.batches if batch.answers is not None}
    assert not answered & set(before.lost)
    if before.closed_reason is not None:
        return
    writer = TranscriptWriter.reopen(path, bundles.Clock())
    writer.resumed(Stop.UNCLOSED, suspect=SUSPECT, tool_version="1")
    for batch in before.lost:
        writer.retry(batch, BODY)
        answer(writer, batch)
    writer.closed("decided")
    after = read_transcript(path.read_bytes())
    assert path.read_bytes().startswith(whole)
    assert [b.answers for b in after.batches if b.batch in answered] == [
        b.answers for b in before.batches if b.batch in answered
    ]
    assert len(after.resumptions) == len(before.resumptions) + 1


def test_a_writer_never_goes_on_after_a_cut_or_altered_line(tmp_path, resumed):
    path = tmp_path / "transcript.jsonl"
    for damaged in (resumed[:-5], resumed.replace(b'"label":0', b'"label":1', 1)):
        path.write_bytes(damaged)
        with pytest.raises(TranscriptError):
            TranscriptWriter.reopen(path, bundles.Clock())
        assert path.read_bytes() == damaged
