"""How answers arrived: written once, read back the same, refused where it does not fit."""

import json
from dataclasses import replace

import pytest
from cases import TickingClock
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import Attempt, MalformedError, TranscriptError, Wire
from auditor.evidence.chain import link_hash
from auditor.evidence.transcript import DOMAIN, Loss, TranscriptWriter, read_transcript
from auditor.evidence.transport import transport_of
from auditor.evidence.wires import WireLog
from auditor.records import Answer

HERE = Wire(
    address="127.0.0.1",
    certificates=("ab" * 32, "cd" * 32),
    headers=(("content-length", "20"), ("server", "uvicorn"), ("x-request-id", "1")),
)
texts = st.text(st.characters(codec="utf-8"), max_size=8)
names = st.sampled_from(("date", "server", "via", "x-request-id", "x-ratelimit-remaining"))
wires = st.builds(
    Wire,
    address=st.sampled_from(("", "127.0.0.1", "::1")),
    certificates=st.sampled_from(((), ("ab" * 32,), ("ab" * 32, "cd" * 32))),
    redirects=st.lists(st.just("307 http://h/a"), max_size=1).map(tuple),
    headers=st.dictionaries(names, texts, max_size=5).map(lambda found: tuple(sorted(found.items()))),
)


def written(path, answers, *, reopen_at=None):
    """Write one answered batch per (wire, date) and return the file's bytes."""
    clock = TickingClock()
    writer = TranscriptWriter(path, clock)
    writer.opened({})
    for number, (wire, date) in enumerate(answers):
        if number == reopen_at:
            writer.abandon()
            writer = TranscriptWriter.reopen(path, clock)
        writer.request(number, (number,), "00" * 32)
        writer.response(
            number, status=200, elapsed_ms=1, server_date=date, answers=[Answer(label=1)], body="{}", wire=wire
        )
    writer.closed("decided")
    return path.read_bytes()


@settings(max_examples=25)
@given(
    st.lists(st.tuples(wires, st.sampled_from(("", "today", "tomorrow"))), min_size=1, max_size=8), st.integers(0, 7)
)
def test_what_was_written_is_read_back(tmp_path_factory, answers, reopen_at):
    path = tmp_path_factory.mktemp("t") / "transcript.jsonl"
    transcript = read_transcript(written(path, answers, reopen_at=reopen_at))
    for (wire, date), batch in zip(answers, transcript.batches, strict=True):
        # A date that the answer's line states anyway is not stated twice.
        assert batch.wire == replace(wire, headers=tuple(h for h in wire.headers if h != ("date", date)))
        assert batch.server_date == date


def test_what_does_not_change_is_written_once(tmp_path):
    answers = [(replace(HERE, headers=(*HERE.headers[:2], ("x-request-id", str(n)))), "") for n in range(200)]
    data = written(tmp_path / "t", answers)
    assert data.count(b"uvicorn") == data.count(b"ab" * 32) == data.count(b"127.0.0.1") == 1
    transcript = read_transcript(data)
    assert [dict(batch.wire.headers)["x-request-id"] for batch in transcript.batches] == [str(n) for n in range(200)]
    assert transcript.wires == (replace(HERE, headers=(*HERE.headers[:2], ("x-request-id", "0"))),)
    # Answers share in memory what they share on the wire.
    assert len({id(pair) for batch in transcript.batches for pair in batch.wire.headers if pair[0] == "server"}) == 1


def test_every_attempt_and_every_unusable_answer_tells_how_it_arrived(tmp_path):
    writer = TranscriptWriter(tmp_path / "t", TickingClock())
    writer.opened({})
    patience = replace(HERE, headers=(("retry-after", "7"), ("server", "gateway")))
    attempt = Attempt(error="HTTP 429", waited_ms=7000, status=429, wire=patience)
    writer.request(0, (0,), "00" * 32)
    writer.response(
        0,
        status=200,
        elapsed_ms=1,
        server_date="",
        answers=[Answer(label=1)],
        body="{}",
        attempts=(attempt,),
        wire=HERE,
    )
    writer.request(1, (1,), "00" * 32)
    refused = replace(HERE, address="10.0.0.9", redirects=("307 http://h/elsewhere",))
    writer.batch_failed(1, "HTTP 403", loss=Loss.REFUSED, wire=refused)
    writer.closed("failed")
    transcript = read_transcript((tmp_path / "t").read_bytes())
    assert transcript.batches[0].failed_attempts == (attempt,)
    assert transcript.batches[0].wire == HERE
    assert transcript.batches[1].wire == refused
    told = transport_of(transcript)
    assert (told.addresses, told.redirects) == (("127.0.0.1", "10.0.0.9"), ("307 http://h/elsewhere",))
    assert told.certificates == ("ab" * 32,)
    assert told.failed_attempts == {"HTTP 429": 1}
    assert told.waited_ms == 7000


def test_a_transcript_without_any_network_is_as_before(tmp_path):
    data = written(tmp_path / "t", [(None, "")])
    assert b"wire" not in data
    assert read_transcript(data).batches[0].wire is None
    assert transport_of(read_transcript(data)).as_text() == "no address or header is on record"


def forged(data, change):
    """Chain a transcript again after its lines were changed, as a forger without the signing key could."""
    lines, head = [], link_hash(DOMAIN, b"")
    for number, line in enumerate(map(json.loads, data.splitlines())):
        change(number, line)
        made = json.dumps({**line, "prev": head}, sort_keys=True, separators=(",", ":")).encode()
        lines.append(made + b"\n")
        head = link_hash(DOMAIN, made)
    return b"".join(lines)


@pytest.mark.parametrize(
    ("entry", "changes", "error", "words"),
    [
        ("wire", {"wire": 1}, TranscriptError, "numbered in order"),
        ("wire", {"certificates": ["AB" * 32]}, MalformedError, "64 hex digits"),
        ("wire", {"certificates": ["ab" * 32] * 40}, MalformedError, "at most 32"),
        ("wire", {"headers": [["a"]]}, MalformedError, "a name and a value"),
        ("wire", {"headers": [["a", "b"], ["a", "c"]]}, MalformedError, "stated twice"),
        ("wire", {"more": 1}, MalformedError, "unknown field"),
        ("response", {"wire": 7}, TranscriptError, "not on record"),
        ("response", {"without": ["x-other"]}, TranscriptError, "never stated"),
        ("response", {"headers": "x"}, MalformedError, "array"),
        ("response", {"body_sha256": "00" * 32}, MalformedError, "unknown field"),
        ("response", {"body": "x" * 20_000}, MalformedError, "at most"),
        ("close", {"counts": {}}, TranscriptError, "closing counts"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, entry, changes, error, words):
    data = written(tmp_path / "t", [(HERE, ""), (HERE, "")])
    assert read_transcript(forged(data, lambda number, line: None)).n_lines == 7

    def change(number, line):
        if line["entry"] == entry:
            line.update(changes)

    with pytest.raises(error, match=words):
        read_transcript(forged(data, change))


def test_outside_text_of_any_length_can_be_written():
    long = Wire(address="a" * 9000, redirects=("r" * 9000,) * 90, headers=((("n" * 9000, "\ud800"),) * 3))
    noted = WireLog().note(long)
    assert len(json.dumps(noted.line)) < 20_000


def test_the_servers_clock_is_compared_with_the_examiners(tmp_path):
    # The ticking clock starts on 2026-02-01.
    data = written(tmp_path / "t", [(HERE, "Sun, 01 Feb 2026 00:00:05 GMT"), (HERE, "no date"), (HERE, "")])
    low, high = transport_of(read_transcript(data)).clock_ms
    assert low == high
    assert 4900 < low < 5000
