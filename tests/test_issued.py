"""Compact replies, against a list of the records themselves."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.issued import SPOOL_BYTES, Issued
from auditor.records import Answer, Probe, Reply, SampleKind

ANSWERS = st.one_of(
    st.none(),
    st.builds(Answer, label=st.integers(0, 999_999)),
    st.builds(Answer, label=st.integers(0, 2), scores=st.just((0.5, 0.25, 0.25))),
    st.builds(Answer, label=st.just(7), top=st.sampled_from([((7, 0.75), (1, 0.125)), ()])),
    st.builds(Answer, label=st.just(1), scores=st.just((0.25,) * 5_000)),
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
    told = [-1 if answer is None else answer.label for answer in answers]
    assert [issued.labels(start).tolist() for start in range(len(told) + 1)] == [
        told[start:] for start in range(len(told) + 1)
    ]
    beginning = issued.until(end)
    assert beginning.labels(0).tolist() == told[:end]
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


@pytest.mark.parametrize(
    ("said", "n_bytes"),
    [({}, 8), ({"scores": tuple(j / 64 for j in range(100))}, 24), ({"top": ((1, 0.5), (2, 0.25))}, 24)],
)
def test_an_answer_takes_few_bytes_of_memory_whatever_it_says(tmp_path, said, n_bytes):
    planned = probes(50_000)
    tracemalloc.start()
    try:
        issued = Issued(planned, folder=tmp_path)
        for position in range(0, len(planned), 50):
            issued.issue(50)
            for each in range(50):
                issued.answered(position + each, Answer(label=each, **said))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert held / len(planned) < n_bytes
    assert issued[-1].answer == Answer(label=49, **said)
    # The file has no name, so that nothing of it is left whatever happens.
    assert list(tmp_path.iterdir()) == []


def test_scores_that_wait_on_disk_read_as_the_tuple_would(tmp_path):
    scores = (0.5, -0.0, 1e308, 5e-324, 0.1)
    issued = Issued(probes(2), folder=tmp_path)
    issued.issue(2)
    issued.answered(1, Answer(label=3, scores=scores))
    found = issued[1].answer.scores
    assert (len(found), list(found), found[3], found[-2:], found[1:2]) == (
        5,
        list(scores),
        5e-324,
        (5e-324, 0.1),
        (-0.0,),
    )
    assert found == scores
    assert found != scores[:4]
    assert hash(found) == hash(scores)
    assert np.asarray(found[:3]).tolist() == list(scores[:3])
    with pytest.raises(IndexError):
        found[5]


def test_a_disk_that_takes_no_scores_is_an_error_of_the_disk(tmp_path):
    issued = Issued(probes(2), folder=tmp_path / "gone")
    issued.issue(2)
    issued.answered(0, Answer(label=0, scores=(0.5, 0.5)))
    with pytest.raises(OSError, match="gone"):
        issued.answered(1, Answer(label=0, scores=(0.5,) * SPOOL_BYTES))
