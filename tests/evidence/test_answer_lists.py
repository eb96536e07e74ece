"""Lists of some labels with their scores: on the record, read back, and checked like everything from outside."""

import json

import bundles
import pytest

from auditor.errors import MalformedError, SuspectAnswerError
from auditor.evidence import chain
from auditor.evidence.transcript import TranscriptWriter, read_transcript
from auditor.evidence.transcript_records import DOMAIN
from auditor.records import Answer
from auditor.suspects.base import check_answers

ANSWERS = (Answer(label=3, top=((3, 0.75), (0, 0.125))), Answer(label=1), Answer(label=0, top=((0, 1e-20),)))


def written(path, answers=ANSWERS):
    writer = TranscriptWriter(path, bundles.Clock())
    writer.opened({"note": "x"})
    writer.request(0, tuple(range(len(answers))), "ab" * 32)
    writer.response(0, status=200, elapsed_ms=1, body_sha256="cd" * 32, server_date="", answers=answers)
    writer.closed("decided")
    return path.read_bytes()


def test_lists_are_written_and_read(tmp_path):
    data = written(tmp_path / "transcript.jsonl")
    assert read_transcript(data).batches[0].answers == ANSWERS
    assert b'"top":[[3,"0.75"],[0,"0.125"]]' in data


def relinked(data: bytes, top: object) -> bytes:
    """Return the record with another list in its first answer and hashes that fit."""
    lines, head = [], None
    for line in data.splitlines():
        found = json.loads(line)
        if found["entry"] == "response":
            found["answers"][0]["top"] = top
        if head is not None:
            found["prev"] = head
        raw = json.dumps(found, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
        head = chain.link_hash(DOMAIN, raw)
        lines.append(raw)
    return b"\n".join(lines) + b"\n"


def test_the_forged_record_would_read_if_its_list_were_one(tmp_path):
    data = written(tmp_path / "transcript.jsonl")
    found = read_transcript(relinked(data, [[2, "0.5"]]))
    assert found.batches[0].answers[0].top == ((2, 0.5),)


@pytest.mark.parametrize(
    "top",
    [
        [], [[3]], [[3, "0.5", 1]], [[True, "0.5"]], [[-1, "0.5"]], [[3, 1]], [[3, "nan"]], [[3, "0.50"]],
        [[3, "0.5"], [3, "0.25"]], {"3": "0.5"}, "3", [["3", "0.5"]], [[2**31, "0.5"]],
    ],
)  # fmt: skip
def test_a_list_that_is_none_is_malformed(tmp_path, top):
    data = written(tmp_path / "transcript.jsonl")
    with pytest.raises(MalformedError):
        read_transcript(relinked(data, top))


@pytest.mark.parametrize(
    "top", [((1, 0.5), (1, 0.25)), ((-1, 0.5),), ((True, 0.5),), ((1, float("inf")),), ((10**6, 0.5),)]
)
def test_adapters_that_hand_over_no_list_are_refused(top):
    with pytest.raises(SuspectAnswerError):
        check_answers((Answer(label=1, top=top),), n_expected=1)
    check_answers(ANSWERS, n_expected=3)
