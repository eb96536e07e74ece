import json

import pytest
from cases import TableSuspect, TickingClock, fails_at, innocent, marked, seal_keys, small_protocol
from protocols import SPEC

from auditor.audit import MAX_FAILED_BATCHES, Request, forecast_power, run_audit, tighten
from auditor.errors import SuspectError, SuspectUnavailableError, UsageError
from auditor.evidence.keyset import open_sealed
from auditor.evidence.schedule import draw_schedule
from auditor.evidence.signing import SigningKey
from auditor.evidence.transcript import read_transcript
from auditor.records import Design, InputSpec
from auditor.suspects.base import Description

EXAMINER = SigningKey.generate()


def audit(tmp_path, suspect, *, protocol=None, request=None):
    opened = seal_keys(tmp_path / "k.npz", protocol or small_protocol())
    return run_audit(
        opened=opened,
        suspect=suspect,
        folder=tmp_path / "audit",
        examiner=EXAMINER,
        request=request or Request(),
        clock=TickingClock(),
    )


def reason(found):
    return found.results["verdict"]["reason"]


def test_marked_supported_innocent_not(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    guilty = audit(tmp_path / "a", TableSuspect(marked))
    assert guilty.results["verdict"]["status"] == "supported"
    clean = audit(tmp_path / "b", TableSuspect(innocent))
    assert clean.results["verdict"]["status"] == "not supported"
    assert clean.closed_reason == guilty.closed_reason == "decided"


def test_questions_follow_the_drawn_order_and_stop_early(tmp_path):
    suspect = TableSuspect(marked)
    found = audit(tmp_path, suspect)
    planned = [probe.index for probe in draw_schedule(open_sealed(tmp_path / "k.npz").seal.protocol)]
    asked = [index for _, index in suspect.asked]
    assert asked == planned[: len(asked)]
    assert len(asked) < len(planned)
    assert found.results["queries"]["total"] == len(asked)


def test_transcript_is_written_ahead(tmp_path):
    seen = []

    def look(number):
        seen.append((tmp_path / "audit" / "transcript.jsonl").read_bytes())

    audit(tmp_path, TableSuspect(marked, trouble=look))
    for number, data in enumerate(seen):
        last = json.loads(data.splitlines()[-1])
        assert last["entry"] == "request"
        assert last["batch"] == number


def test_failed_attempts_are_on_record(tmp_path):
    audit(tmp_path, TableSuspect(marked))
    lines = [json.loads(line) for line in (tmp_path / "audit" / "transcript.jsonl").read_bytes().splitlines()]
    assert [line["error"] for line in lines if line["entry"] == "attempt-failed"] == ["connection reset"]


def test_one_lost_batch_counts_as_asked_and_unanswered(tmp_path):
    found = audit(tmp_path, TableSuspect(marked, trouble=fails_at(3), batch_size=4))
    assert found.results["queries"]["failed"] == 4
    assert found.results["verdict"]["status"] == "supported"


def test_a_suspect_that_withdraws_is_inconclusive(tmp_path):
    suspect = TableSuspect(marked, trouble=fails_at(*range(3, 99)))
    found = audit(tmp_path, suspect)
    assert found.closed_reason == "failed"
    assert reason(found) == "too-few-answers"
    assert suspect.n_batches == 3 + MAX_FAILED_BATCHES


def test_a_suspect_that_never_answers_is_an_error_with_the_transcript_kept(tmp_path):
    trouble = fails_at(*range(99), error=SuspectUnavailableError("down"))
    with pytest.raises(SuspectUnavailableError, match="down"):
        audit(tmp_path, TableSuspect(marked, trouble=trouble))
    kept = read_transcript((tmp_path / "audit" / "transcript.jsonl").read_bytes())
    assert kept.closed_reason == "failed"


def test_ctrl_c_closes_the_transcript_and_keeps_the_answers(tmp_path):
    found = audit(tmp_path, TableSuspect(marked, trouble=fails_at(4, error=KeyboardInterrupt())))
    assert found.closed_reason == "interrupted"
    assert reason(found) == "interrupted"
    kept = read_transcript((tmp_path / "audit" / "transcript.jsonl").read_bytes())
    assert kept.closed_reason == "interrupted"
    assert sum(batch.answers is not None for batch in kept.batches) == 4


def test_an_unexpected_exception_inside_an_adapter_is_our_error(tmp_path):
    found = audit(tmp_path, TableSuspect(marked, trouble=fails_at(2, error=RuntimeError("boom"))))
    assert found.results["queries"]["failed"] == 16


def test_a_plan_that_cannot_decide_asks_nothing(tmp_path):
    suspect = TableSuspect(marked)
    found = audit(tmp_path, suspect, protocol=small_protocol(forecast_rate=0.2))
    assert suspect.n_batches == 0
    assert reason(found) == "plan-underpowered"
    assert found.results["detection"]["rate"] is None


def test_forecast_power_of_the_fixed_design_is_the_binomial_tail():
    protocol = small_protocol(design=Design.FIXED, forecast_rate=0.9)
    power = forecast_power(protocol, tighten(protocol, Request()), SPEC)
    assert 0.999 < power <= 1


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        (Request(alpha=1e-3), "loosened"),
        (Request(alpha=0.0), "loosened"),
        (Request(max_keys=31), "permits"),
        (Request(max_keys=5), "first stage"),
    ],
)
def test_a_request_may_tighten_the_seal_only(request_, message):
    with pytest.raises(UsageError, match=message):
        tighten(small_protocol(), request_)


def test_tightening_is_recorded_as_a_deviation(tmp_path):
    found = audit(tmp_path, TableSuspect(marked), request=Request(alpha=1e-7, max_keys=20))
    assert len(found.results["deviations"]) == 2
    assert found.results["test"]["alpha"] == "1e-07"


class OtherShape(TableSuspect):
    def describe(self):
        return Description(suspect=super().describe().suspect, input_shape=(3, 32, 32), n_labels=11)


class FewLabels(TableSuspect):
    def describe(self):
        return Description(suspect=super().describe().suspect, n_labels=3)


@pytest.mark.parametrize(("suspect", "message"), [(OtherShape, "shape"), (FewLabels, "labels")])
def test_a_suspect_for_another_task_is_refused_before_any_question(tmp_path, suspect, message):
    asked = suspect(marked)
    with pytest.raises(UsageError, match=message):
        audit(tmp_path, asked)
    assert asked.n_batches == 0
    assert not (tmp_path / "audit").exists()


def test_answers_of_wrong_number_are_refused(tmp_path):
    class Short(TableSuspect):
        def _predict(self, inputs):
            return super()._predict(inputs[:-1]) if len(inputs) > 1 else super()._predict(inputs)

    with pytest.raises(SuspectError, match="answers to"):
        audit(tmp_path, Short(marked))


def test_input_spec_is_frozen():
    with pytest.raises(AttributeError):
        InputSpec(shape=(1, 1, 1), classes=("a",)).shape = (2, 2, 2)
