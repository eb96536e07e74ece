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
    assert same_answers(found, [Answer(label=3), Answer(label=1, scores=(0.25, 0.75)), Answer(label=0)])


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
