"""Rules of asking and asking again, against replies and suspects that follow a table."""

import json
from dataclasses import replace
from datetime import UTC, datetime

import authorities
import pytest
from cases import TableSuspect, TickingClock, fails_at, marked, seal_keys, small_protocol

from auditor import asking
from auditor.audit import Request, run_audit
from auditor.errors import (
    Attempt,
    SuspectAnswerError,
    SuspectError,
    SuspectRefusedError,
    SuspectThrottledError,
    SuspectUnavailableError,
    UsageError,
)
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import FailedAttempt, Loss, read_transcript
from auditor.evidence.transcript_records import MAX_RETRIES
from auditor.resumption import read_stopped

EXAMINER = SigningKey.generate()
OPENED = None
CLOCK = TickingClock()


@pytest.fixture(scope="module", autouse=True)
def _keys(tmp_path_factory):
    global OPENED
    OPENED = seal_keys(tmp_path_factory.mktemp("keys") / "k.npz", small_protocol())


def audit(folder, suspect, *, resume=False):
    return run_audit(
        opened=OPENED,
        suspect=suspect,
        folder=folder / "audit",
        examiner=EXAMINER,
        request=Request(),
        clock=CLOCK,
        stopped=read_stopped(folder / "audit") if resume else None,
    )


def kept(folder):
    return read_transcript((folder / "audit" / "transcript.jsonl").read_bytes())


# --- what was lost, and what may be asked again ---

FAILED = (Attempt(error="HTTP 503", waited_ms=500, status=503), Attempt(error="connection reset", waited_ms=0))


@pytest.mark.parametrize(
    ("error", "loss", "again"),
    [
        (SuspectUnavailableError("down", attempts=FAILED), Loss.NO_ANSWER, True),
        (SuspectThrottledError("slow down", attempts=FAILED), Loss.NO_ANSWER, True),
        (SuspectRefusedError("policy", attempts=FAILED), Loss.REFUSED, False),
        (SuspectAnswerError("a page", attempts=FAILED, body=b"<html>"), Loss.UNUSABLE, False),
        (SuspectError("something"), None, False),
        (RuntimeError("bug of an adapter"), Loss.UNUSABLE, False),
    ],
)
def test_only_what_never_got_a_complete_answer_is_asked_again(tmp_path, error, loss, again):
    def trouble(number):
        if number == 3:
            raise error
        if number == 4:
            raise KeyboardInterrupt

    audit(tmp_path, TableSuspect(marked, trouble=trouble))
    batch = kept(tmp_path).batches[3]
    assert (batch.loss, batch.answers) == (loss, None)
    attempts = tuple(FailedAttempt(error=a.error, waited_ms=a.waited_ms, status=a.status) for a in FAILED)
    assert batch.failed_attempts == (attempts if isinstance(error, SuspectError) and loss else ())
    if loss is Loss.UNUSABLE and batch.response_sha256:
        assert (tmp_path / "audit" / "raw" / batch.response_sha256).read_bytes() == b"<html>"
    # Batch 4 was in flight when the user stopped.
    assert kept(tmp_path).lost == ((3, 4) if again else (4,))
    suspect = TableSuspect(marked)
    found = audit(tmp_path, suspect, resume=True)
    assert [len(b.retried_at) for b in kept(tmp_path).batches[:5]] == [0, 0, 0, int(again), 1]
    assert (kept(tmp_path).batches[3].answers is not None) == again
    # A lost batch holds so many shams, each of which counts as a hit, that the null rate cannot be bounded.
    assert found.closed_reason == ("decided" if again else "invalid")


def test_an_unusable_answer_of_the_wrong_length_is_kept(tmp_path):
    class Short(TableSuspect):
        def _predict(self, inputs):
            return super()._predict(inputs[:-1] if self.n_batches == 2 else inputs)

    audit(tmp_path, Short(marked))
    batch = kept(tmp_path).batches[2]
    assert batch.loss is Loss.UNUSABLE
    assert (
        len(json.loads(batch.body or (tmp_path / "audit" / "raw" / batch.response_sha256).read_bytes())["answers"])
        == 15
    )


def test_a_loss_that_later_answers_followed_stays_lost(tmp_path):
    trouble = fails_at(2, error=SuspectUnavailableError("down"))

    def stop_later(number):
        trouble(number)
        if number == 5:
            raise KeyboardInterrupt

    audit(tmp_path, TableSuspect(marked, trouble=stop_later))
    assert kept(tmp_path).lost == (5,)


def test_a_batch_is_asked_again_three_times_at_most(tmp_path):
    for attempt in range(MAX_RETRIES + 1):
        audit(tmp_path, TableSuspect(marked, trouble=fails_at(2 if not attempt else 0, error=KeyboardInterrupt())),
              resume=bool(attempt))  # fmt: skip
    stopped = kept(tmp_path)
    assert len(stopped.resumptions) == len(stopped.batches[2].retried_at) == MAX_RETRIES
    assert stopped.lost == ()
    found = audit(tmp_path, TableSuspect(marked), resume=True)
    assert kept(tmp_path).batches[2].answers is None
    assert found.results["queries"]["failed"] == 16


def test_the_answer_is_stored_before_the_line_and_attempts_stand_in_the_same_write(tmp_path, monkeypatch):
    seen = []
    store = asking.store_raw

    def looking(folder, body):
        before = (folder / "transcript.jsonl").read_bytes()
        digest = store(folder, body)
        assert (folder / "raw" / digest).read_bytes() == body
        seen.append(before)
        return digest

    monkeypatch.setattr(asking, "store_raw", looking)
    monkeypatch.setattr(asking, "MAX_INLINE_BODY", 0)
    audit(tmp_path, TableSuspect(marked))
    whole = (tmp_path / "audit" / "transcript.jsonl").read_bytes()
    for number, before in enumerate(seen):
        assert json.loads(before.splitlines()[-1])["entry"] == "request"
        following = [json.loads(line)["entry"] for line in whole[len(before) :].splitlines()[:2]]
        assert following[0] == ("attempt-failed" if number == 1 else "response")


def test_another_suspect_is_refused_before_anything_is_asked(tmp_path):
    audit(tmp_path, TableSuspect(marked, trouble=fails_at(2, error=KeyboardInterrupt())))
    before = (tmp_path / "audit" / "transcript.jsonl").read_bytes()

    class Other(TableSuspect):
        def describe(self):
            found = super().describe()
            return replace(found, suspect=replace(found.suspect, declared_name="other"))

    class Moved(TableSuspect):
        def describe(self):
            found = super().describe()
            return replace(found, suspect=replace(found.suspect, address="127.0.0.9"))

    other = Other(marked)
    with pytest.raises(UsageError, match="differs in: declared_name"):
        audit(tmp_path, other, resume=True)
    assert not other.n_batches
    assert (tmp_path / "audit" / "transcript.jsonl").read_bytes() == before
    # A service may have moved to another network address; the record says so.
    audit(tmp_path, Moved(marked), resume=True)
    assert kept(tmp_path).resumptions[0].suspect["address"] == "127.0.0.9"


def test_a_head_that_was_signed_but_not_stamped_is_stamped_later_and_never_signed_again(tmp_path):
    authority = authorities.Authority(tmp_path / "tsa")

    def killed(_):
        raise KeyboardInterrupt

    def stamp(data):
        return [authority.stamp(data, datetime.now(UTC))]

    def go(stamp, stopped=None):
        return run_audit(
            opened=OPENED,
            suspect=suspect,
            folder=tmp_path / "audit",
            examiner=EXAMINER,
            request=Request(),
            clock=lambda: datetime.now(UTC),
            stamp=stamp,
            stopped=stopped,
        )

    suspect = TableSuspect(marked)
    with pytest.raises(KeyboardInterrupt):
        go(killed)
    head = tmp_path / "audit" / "transcript.head.dsse.json"
    signed, asked = head.read_bytes(), suspect.n_batches
    for _ in range(2):
        go(stamp, read_stopped(tmp_path / "audit"))
    assert head.read_bytes() == signed
    assert suspect.n_batches == asked
    assert [path.name for path in sorted(tmp_path.glob("audit/*.tsr"))] == ["transcript.head.1.tsr"]
