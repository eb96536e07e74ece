"""The stopping rule, looked at once per answer, against the whole test run again each time."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from protocols import SPEC, a_protocol, samples_of

from auditor.analysis import basis_of, count_hits, decide_keys, measure_null, sort_replies, spend
from auditor.evidence.schedule import draw_schedule, opening_length
from auditor.issued import Issued
from auditor.records import Answer, Design, Reply, SampleKind
from auditor.watching import Watch


def replies_of(protocol, samples, hit_of):
    replies = []
    for probe in draw_schedule(protocol):
        sample = samples[probe.index]
        hit = sample.kind is not SampleKind.SHAM and hit_of(probe)
        answer = None if hit is None else Answer(label=sample.expected if hit else sample.natural)
        replies.append(Reply(probe=probe, answer=answer))
    return replies


def a_watch(protocol, samples, replies):
    basis = basis_of(protocol, SPEC)
    opening = sort_replies(replies[: opening_length(protocol)])
    null = basis.measure_null(opening, samples, basis.levels(protocol.alpha))
    return Watch(basis, samples, protocol.alpha, null=null, planned=draw_schedule(protocol))


def issued_of(replies):
    issued = Issued([reply.probe for reply in replies])
    issued.issue(len(replies))
    for reply in replies:
        if reply.answer is not None:
            issued.answered(reply.probe.position, reply.answer)
    return issued


@given(
    hits=st.lists(st.sampled_from([True, False, None]), min_size=30, max_size=30),
    design=st.sampled_from(Design),
    batch=st.integers(1, 7),
)
def test_watching_decides_when_running_the_whole_test_again_would(hits, design, batch):
    protocol = replace(
        a_protocol(**{"n_keys": 30, "opening_keys": 3, "n_shams": 80, "n_sham_patterns": 16}), design=design
    )
    samples = samples_of(protocol)
    replies = replies_of(protocol, samples, lambda probe: hits[probe.index] if probe.index < 30 else True)
    watch, levels = a_watch(protocol, samples, replies), spend(protocol.alpha, protocol, SPEC)
    for n in range(opening_length(protocol), len(replies) + 1, batch):
        grouped = sort_replies(replies[:n])
        null = measure_null(grouped, samples, levels, protocol, SPEC)
        whole = decide_keys(grouped, samples, null, levels, protocol, SPEC)
        assert watch.decided(issued_of(replies[:n])) == (whole.rejected or whole.futile)


@given(hits=st.lists(st.sampled_from([True, False, None]), min_size=30, max_size=30), batch=st.integers(1, 7))
def test_a_hit_is_found_once_it_is_there(hits, batch):
    protocol = a_protocol(**{"n_keys": 30, "opening_keys": 3, "n_shams": 80, "n_sham_patterns": 16})
    samples = samples_of(protocol)
    replies = replies_of(protocol, samples, lambda probe: hits[probe.index] if probe.index < 30 else True)
    watch = a_watch(protocol, samples, replies)
    for n in range(0, len(replies) + 1, batch):
        assert watch.any_hit(issued_of(replies[:n])) == (count_hits(sort_replies(replies[:n]).keys, samples) > 0)


def test_an_answer_is_looked_at_once_however_long_the_audit(monkeypatch):
    protocol = a_protocol(n_keys=10_000)
    samples = samples_of(protocol)
    # A hit rate between the null rate and the smallest rate of interest keeps the test undecided for long.
    replies = replies_of(protocol, samples, lambda probe: probe.index % 6 == 0)
    looked = []
    labels = Issued.labels
    monkeypatch.setattr(
        Issued, "labels", lambda issued, start: looked.append(len(issued) - start) or labels(issued, start)
    )
    watch, issued = a_watch(protocol, samples, replies), issued_of(replies)
    for n in range(opening_length(protocol), len(replies) + 1, 16):
        watch.decided(issued.until(n))
    assert sum(looked) <= len(replies)
