"""Several questions on their way at a time: what is written when, what is looked at, what is never asked twice."""

import json
import os
import signal
import threading
import time
from collections import Counter

import pytest
from cases import TableSuspect, TickingClock, innocent, marked, seal_keys, small_protocol
from killing import Killer
from typer.testing import CliRunner
from watched import Service
from web import running, wait_until

from auditor import lanes
from auditor.asking import STAGE_2_BATCH
from auditor.audit import Request, run_audit
from auditor.cli.app import app
from auditor.cli.console import time_left
from auditor.errors import SuspectError, SuspectUnavailableError
from auditor.evidence.schedule import opening_length
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import TranscriptWriter, read_transcript
from auditor.resumption import read_stopped

EXAMINER = SigningKey.generate()
CLOCK = TickingClock()


class ManyLanes(TableSuspect):
    """A table that is asked by several threads; ``before`` runs in the thread that asks."""

    def __init__(self, table, *, concurrency, before=lambda number, suspect: None, batch_size=8):
        super().__init__(table, batch_size=batch_size)
        self._concurrency, self._before, self._lock = concurrency, before, threading.Lock()
        self.n_running = self.most_running = self.n_begun = 0
        self.cancelled = threading.Event()

    @property
    def concurrency(self):
        return self._concurrency

    def cancel(self):
        self.cancelled.set()

    def _predict(self, inputs):
        with self._lock:
            number, self.n_begun = self.n_begun, self.n_begun + 1
            self.n_running += 1
            self.most_running = max(self.most_running, self.n_running)
        try:
            self._before(number, self)
            with self._lock:
                return super()._predict(inputs)
        finally:
            with self._lock:
                self.n_running -= 1


@pytest.fixture(scope="module")
def opened(tmp_path_factory):
    return seal_keys(tmp_path_factory.mktemp("keys") / "k.npz", small_protocol(n_keys=120, opening_keys=8))


def audit(folder, opened, suspect, *, resume=False, max_keys=None):
    return run_audit(
        opened=opened,
        suspect=suspect,
        folder=folder,
        examiner=EXAMINER,
        request=Request(max_keys=max_keys),
        clock=CLOCK,
        stopped=read_stopped(folder) if resume else None,
    )


def kept(folder):
    return read_transcript((folder / "transcript.jsonl").read_bytes())


def entries(folder):
    return [json.loads(line) for line in (folder / "transcript.jsonl").read_bytes().splitlines()]


def late(number, suspect):
    time.sleep(0.02 if number % 3 == 0 else 0.0)


@pytest.mark.parametrize("concurrency", [2, 5])
def test_requests_stand_in_the_drawn_order_and_answers_as_they_came(tmp_path, opened, concurrency):
    suspect = ManyLanes(marked, concurrency=concurrency, before=late)
    audit(tmp_path / "a", opened, suspect)
    found = entries(tmp_path / "a")
    asked = [position for line in found if line["entry"] == "request" for position in line["positions"]]
    assert asked == list(range(len(asked)))
    arrived = [line["batch"] for line in found if line["entry"] == "response"]
    assert sorted(arrived) == list(range(len(arrived)))
    assert arrived != sorted(arrived)
    assert kept(tmp_path / "a").most_in_flight == concurrency
    assert 1 < suspect.most_running <= concurrency


@pytest.mark.parametrize("table", [marked, innocent])
def test_the_rule_sees_the_drawn_order_whatever_came_first(tmp_path, opened, table):
    alone = audit(tmp_path / "alone", opened, TableSuspect(table, batch_size=8))
    n_alone = sum(len(batch.positions) for batch in kept(tmp_path / "alone").batches)

    # The first key batch of stage 2 comes last of all that may be on their way with it.
    first_key_batch = -(-opening_length(opened.seal.protocol) // 8)

    def before(number, suspect):
        if number == first_key_batch:
            wait_until(lambda: suspect.n_begun >= first_key_batch + 4 and suspect.n_running == 1)

    suspect = ManyLanes(table, concurrency=4, before=before)
    found = audit(tmp_path / "a", opened, suspect)
    assert found.results["verdict"]["status"] == alone.results["verdict"]["status"]
    asked = sum(len(batch.positions) for batch in kept(tmp_path / "a").batches)
    assert n_alone <= asked <= n_alone + 3 * min(STAGE_2_BATCH, 8)


@pytest.mark.parametrize("max_keys", [8, 21, 50])
def test_the_budget_is_kept_with_requests_in_flight(tmp_path, opened, max_keys):
    # Half of the answers hit, so that nothing is decided and all that is permitted gets asked.
    calls = Counter()

    def half(kind, natural):
        calls[kind] += 1
        return marked(kind, natural) if calls[kind] % 3 == 0 else innocent(kind, natural)

    suspect = ManyLanes(half, concurrency=7)
    audit(tmp_path / "a", opened, suspect, max_keys=max_keys)
    permitted = opening_length(opened.seal.protocol) + max_keys - 8
    assert len(suspect.asked) <= permitted
    assert sum(len(batch.positions) for batch in kept(tmp_path / "a").batches) == len(suspect.asked)


def test_an_answer_is_on_disk_before_anything_else_is_sent(tmp_path, opened, monkeypatch):
    path = tmp_path / "a" / "transcript.jsonl"
    answered_at = {}

    def before(number, suspect):
        on_disk = path.read_bytes() if path.exists() else b""
        answered_at[number] = (on_disk.count(b'"entry":"response"'), on_disk.count(b'"entry":"request"'))

    audit(tmp_path / "a", opened, ManyLanes(marked, concurrency=3, before=before))
    for number, (n_answers, n_requests) in answered_at.items():
        # Its own request line is there, and at most two others are still on their way.
        assert n_requests >= number + 1
        assert n_answers >= number - 2


def test_one_write_holds_what_arrived_and_what_is_asked_next(tmp_path, opened, monkeypatch):
    writes = []
    original = TranscriptWriter._write
    monkeypatch.setattr(TranscriptWriter, "_write", lambda self, data: writes.append(data) or original(self, data))
    audit(tmp_path / "a", opened, TableSuspect(marked, batch_size=8))
    n_batches = len(kept(tmp_path / "a").batches)
    # One write for each answer with the question after it, and those for the first line, first question and last line.
    assert len(writes) <= n_batches + 4


def test_a_suspect_that_goes_down_costs_one_round_and_loses_no_answer(tmp_path, opened):
    def before(number, suspect):
        if number >= 6:
            raise SuspectUnavailableError("down")

    suspect = ManyLanes(marked, concurrency=4, before=before)
    audit(tmp_path / "a", opened, suspect)
    stopped = kept(tmp_path / "a")
    assert stopped.closed_reason == "failed"
    answered = {batch.batch for batch in stopped.batches if batch.answers is not None}
    # The first round of losses counts once, then one batch at a time goes ahead: 4 that were on their way and 4 more.
    assert len(stopped.batches) - len(answered) <= 4 + 4
    again = TableSuspect(marked, batch_size=8)
    found = audit(tmp_path / "a", opened, again, resume=True)
    assert found.results["verdict"]["status"] == "supported"
    assert found.results["queries"]["failed"] == 0
    resumed = kept(tmp_path / "a")
    assert all(not resumed.batches[number].retried_at for number in answered)


def test_a_loss_that_later_questions_followed_stays_lost(tmp_path, opened):
    def before(number, suspect):
        if number == 1:
            raise SuspectUnavailableError("a hiccup")
        if number == 20:
            raise KeyboardInterrupt

    suspect = ManyLanes(marked, concurrency=1, before=before)
    audit(tmp_path / "a", opened, suspect)
    stopped = kept(tmp_path / "a")
    assert stopped.batches[1].error == "a hiccup"
    assert 1 not in stopped.lost


def test_ctrl_c_keeps_what_is_on_its_way_and_paid_for(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(lanes, "GRACE_S", 60.0)
    pressed = threading.Event()

    def before(number, suspect):
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
            pressed.set()
        if number == 4:
            # Comes back after Ctrl-C was pressed.
            assert pressed.wait(60)

    suspect = ManyLanes(marked, concurrency=3, before=before)
    audit(tmp_path / "a", opened, suspect)
    stopped = kept(tmp_path / "a")
    assert stopped.closed_reason == "interrupted"
    # Every question that was sent has its answer on record.
    assert sum(batch.answers is not None for batch in stopped.batches) == suspect.n_begun


def test_what_ctrl_c_cuts_off_is_asked_again_and_told(tmp_path, opened, monkeypatch):
    monkeypatch.setattr(lanes, "GRACE_S", 0.0)

    def before(number, suspect):
        if number == 5:
            os.kill(os.getpid(), signal.SIGINT)
        if number >= 4:
            # Does not come back until the audit is called off.
            assert suspect.cancelled.wait(60)
            raise SuspectError("called off")

    audit(tmp_path / "a", opened, ManyLanes(marked, concurrency=3, before=before))
    stopped = kept(tmp_path / "a")
    assert stopped.closed_reason == "interrupted"
    assert 2 <= len(stopped.lost) <= 3
    # What was cut off is no loss, and may be asked again.
    assert all(batch.error is None for batch in stopped.batches)
    audit(tmp_path / "a", opened, TableSuspect(marked, batch_size=8), resume=True)
    resumed = kept(tmp_path / "a")
    assert sum(len(batch.retried_at) for batch in resumed.batches) == len(stopped.lost)
    assert all(batch.answers is not None for batch in resumed.batches)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """Yield a folder with a key set, and what runs commands that are killed on the way."""
    folder = tmp_path_factory.mktemp("site")
    seal_keys(folder / "k.npz", small_protocol(opening_keys=2))
    killer = Killer(folder / "home")
    try:
        yield folder, killer
    finally:
        killer.close()


@pytest.mark.parametrize("step", ["5 request written", "5 response torn", "5 response written", "5 answer received"])
def test_killed_with_several_on_their_way_and_resumed(site, tmp_path, step):
    folder, killer = site
    service = Service()
    fixed = ("verify", "--keyset", folder / "k.npz", "--batch-size", "8", "--concurrency", "4")
    with running(service.app) as url:
        own = ("--endpoint", url, "--ledger", tmp_path / "ledger")
        code, _, stderr = killer.run(*fixed, *own, "--out", tmp_path / "a", step=step)
        assert code == -signal.SIGKILL, stderr
        before = (tmp_path / "a" / "transcript.jsonl").read_bytes()
        code, _, stderr = killer.run(*fixed, *own, "--resume", tmp_path / "a")
        assert code == 0, stderr
    before = before[: before.rfind(b"\n") + 1]
    answered = {batch.batch for batch in read_transcript(before).batches if batch.answers is not None}
    after = kept(tmp_path / "a")
    assert (tmp_path / "a" / "transcript.jsonl").read_bytes().startswith(before)
    # Nothing answered was asked again; what was asked again is on record, and nothing else came twice.
    assert all(not after.batches[number].retried_at for number in answered)
    assert all(batch.answers is not None for batch in after.batches)
    retried = sum(len(batch.positions) for batch in after.batches if batch.retried_at)
    n_planned = sum(len(batch.positions) for batch in after.batches)
    assert n_planned <= len(service.asked) <= n_planned + retried
    done = CliRunner().invoke(app, ["check", str(tmp_path / "a"), "--json"])
    assert done.exit_code == 0, done.output
    assert "way of" in done.output


def test_the_time_left_is_told_in_words():
    assert time_left(0, 100, 5.0) == time_left(100, 100, 5.0) == ""
    assert time_left(50, 100, 10.0) == "about 10 s left"
    assert time_left(10, 100, 60.0) == "about 9 min left"
    assert time_left(1, 1000, 60.0) == "about 16.6 h left"
