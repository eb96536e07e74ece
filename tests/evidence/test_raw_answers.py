import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.evidence.raw_answers import read_raw_answers, same_answers
from auditor.records import Answer


def test_numbers_and_decimal_strings_are_read_alike():
    body = b'{"answers":[{"label":3},{"label":1,"scores":[0.25,"0.75"]},{"label":0,"top":[{"label":0,"score":0.9}]}]}'
    found = read_raw_answers(body)
    assert [answer.label for answer in found] == [3, 1, 0]
    assert found[1].scores == (0.25, 0.75)
    recorded = [Answer(label=3), Answer(label=1, scores=(0.25, 0.75)), Answer(label=0, top=((0, 0.9),))]
    assert same_answers(found, recorded)
    # Earlier versions left lists of some labels out of the record.
    assert not same_answers(found, [*recorded[:2], Answer(label=0)])
    assert same_answers(found, [*recorded[:2], Answer(label=0)], lists_kept=False)
    for changed in (((0, 0.8),), ((1, 0.9),), ((0, 0.9), (1, 0.1))):
        assert not same_answers(found, [*recorded[:2], Answer(label=0, top=changed)], lists_kept=False)


def test_a_list_that_names_every_label_is_the_same_as_scores():
    raw = read_raw_answers(b'{"answers":[{"label":1,"top":[{"label":1,"score":0.75},{"label":0,"score":0.25}]}]}')
    assert same_answers(raw, [Answer(label=1, scores=(0.25, 0.75))])
    assert not same_answers(raw, [Answer(label=1, scores=(0.75, 0.25))])
    assert not same_answers(read_raw_answers(b'{"answers":[{"label":1}]}'), [Answer(label=1, scores=(0.25, 0.75))])


@pytest.mark.parametrize(
    "recorded",
    [
        [Answer(label=2, scores=(0.25, 0.75))],
        [Answer(label=1, scores=(0.25, 0.5))],
        [Answer(label=1)],
        [],
        [Answer(label=1, scores=(0.25, 0.75))] * 2,
    ],
)
def test_differences_are_seen(recorded):
    raw = read_raw_answers(b'{"answers":[{"label":1,"scores":[0.25,0.75]}]}')
    assert not same_answers(raw, recorded)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"<html>",
        b"[]",
        b"{}",
        b'{"answers":3}',
        b'{"answers":[3]}',
        b'{"answers":[{}]}',
        b'{"answers":[{"label":true}]}',
        b'{"answers":[{"label":1.5}]}',
        b'{"answers":[{"label":1,"scores":3}]}',
        b'{"answers":[{"label":1,"scores":[null]}]}',
        b'{"answers":[{"label":1,"scores":["high"]}]}',
        b'{"answers":[{"label":1,"scores":[1' + b"0" * 400 + b"]}]}",
        b"9" * 5000,
        b"[" * 100_000,
    ],
)
def test_other_forms_are_not_guessed(body):
    assert read_raw_answers(body) is None


@given(st.binary(max_size=200))
def test_arbitrary_bytes_never_raise(body):
    read_raw_answers(body)
