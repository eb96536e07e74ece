"""Compact replies, against a list of the records themselves."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.issued import Issued
from auditor.records import Answer, Probe, Reply, SampleKind

ANSWERS = st.one_of(
    st.none(),
    st.builds(Answer, label=st.integers(0, 999_999)),
    st.builds(Answer, label=st.integers(0, 2), scores=st.just((0.5, 0.25, 0.25))),
    st.builds(Answer, label=st.just(7), top=st.just(((7, 0.75), (1, 0.125)))),
)


def probes(n):
    return tuple(
        Probe(position=position, index=n - position, kind=SampleKind.KEY, repeat=position % 3 == 0)
        for position in range(n)
    )


@given(
    answers=st.lists(ANSWERS, max_size=12),
    order=st.randoms(use_true_random=False),
    part=st.slices(12),
    end=st.integers(0, 12),
)
def test_replies_read_as_the_records_would(answers, order, part, end):
    planned = probes(len(answers))
    expected = [Reply(probe=probe, answer=answer) for probe, answer in zip(planned, answers, strict=True)]
    issued = Issued(planned)
    # Asked in three goes, answered in any order, as several lanes do.
    for n in (len(answers) // 2, len(answers) - len(answers) // 2, 0):
        issued.issue(n)
    given_answers = [(position, answer) for position, answer in enumerate(answers) if answer is not None]
    order.shuffle(given_answers)
    for position, answer in given_answers:
        issued.answered(position, answer)
    assert list(issued) == list(issued[:]) == expected
    assert len(issued) == len(expected)
    assert issued.any_answer == any(answer is not None for answer in answers)
    assert issued[part] == tuple(expected[part])
    beginning = issued.until(end)
    assert (list(beginning), len(beginning)) == (expected[:end], min(end, len(expected)))
    assert beginning[-3:] == tuple(expected[:end][-3:])


def test_a_place_that_was_not_issued_has_no_reply():
    issued = Issued(probes(3))
    issued.issue(2)
    issued.answered(1, Answer(label=0))
    assert issued[-1].answer == Answer(label=0)
    for place in (2, -3):
        with pytest.raises(IndexError):
            issued[place]
    with pytest.raises(IndexError):
        issued.answered(2, Answer(label=0))
    with pytest.raises(IndexError):
        issued.until(1)[1]


def test_a_beginning_does_not_grow_with_what_is_issued_later():
    issued = Issued(probes(4))
    issued.issue(2)
    beginning = issued.until(9)
    issued.issue(2)
    assert (len(beginning), len(issued)) == (2, 4)


def test_a_label_takes_few_bytes():
    planned = probes(50_000)
    tracemalloc.start()
    try:
        issued = Issued(planned)
        for position in range(0, len(planned), 50):
            issued.issue(50)
            for each in range(50):
                issued.answered(position + each, Answer(label=each))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(planned) < 8
