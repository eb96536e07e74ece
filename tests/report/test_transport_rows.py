"""What the report tells about addresses, certificates, clocks and attempts."""

from auditor.errors import Attempt, Wire
from auditor.evidence.transcript_records import BatchRecord, Transcript
from auditor.evidence.transport import transport_of
from auditor.records import Answer
from auditor.report.transport import MAX_SHOWN, transport_rows


def transcript(wires, **changes):
    batches = tuple(
        BatchRecord(
            batch=number,
            positions=(number,),
            body_sha256="00" * 32,
            asked_at="2026-02-01T00:00:00.000Z",
            answered_at="2026-02-01T00:00:01.000Z",
            answers=(Answer(label=1),),
            wire=wire,
            **changes,
        )
        for number, wire in enumerate(wires)
    )
    return Transcript(
        preamble={}, batches=batches, closed_reason="decided", n_lines=9, head="", opened_at="", closed_at="",
        wires=tuple(dict.fromkeys(wire for wire in wires if wire)), most_in_flight=4,
    )  # fmt: skip


def told(wires, **changes):
    return {row.label: row.value for row in transport_rows(transport_of(transcript(wires, **changes)))}


def test_a_record_without_a_network_adds_nothing_to_the_report():
    assert told([None, None]) == {}


def test_everything_on_record_is_told_once():
    wire = Wire(
        address="10.0.0.7",
        certificates=("ab" * 32, "cd" * 32),
        redirects=("307 https://h/a",),
        headers=(("server", "gate\x1bway <b>"), ("x-request-id", "1")),
    )
    attempts = (Attempt(error="HTTP 429", waited_ms=2500, status=429), Attempt(error="connection reset", waited_ms=500))
    rows = told([wire, None], server_date="Sun, 01 Feb 2026 00:00:03 GMT", failed_attempts=attempts)
    assert rows["Answers whose way is on record"] == "1 of 2"
    assert rows["Network addresses that answered"] == "10.0.0.7"
    assert rows["TLS certificates shown, SHA-256"] == "ab" * 32
    assert rows["Redirects that were followed"] == "307 https://h/a"
    assert "gate" in rows["What the service calls itself"]
    assert "\x1b" not in rows["What the service calls itself"]
    assert rows["Why attempts brought no answer"] == (
        "2 × HTTP 429, 2 × connection reset; waits of 6.0 s between attempts"
    )
    assert rows["Server's stated time against the examiner's clock"] == "+2.0 s to +2.0 s"
    assert rows["Most requests on their way at a time"] == "4"


def test_a_suspect_with_a_thousand_addresses_does_not_fill_the_report():
    rows = told([Wire(address=f"10.0.{n // 256}.{n % 256}") for n in range(1000)])
    assert rows["Network addresses that answered"].endswith(f"and {1000 - MAX_SHOWN} more")
    assert len(rows["Network addresses that answered"]) < 200
