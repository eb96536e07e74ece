from collections import Counter

import protocols
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.errors import SealError
from auditor.evidence.schedule import draw_schedule, kind_at, opening_length
from auditor.records import SampleKind


def a_protocol(**changes):
    small = {"n_keys": 30, "opening_keys": 10, "n_shams": 20, "n_sham_patterns": 4, "n_controls": 8, "n_repeats": 5}
    return protocols.a_protocol(**(small | changes))


@settings(max_examples=60)
@given(st.binary(min_size=32, max_size=32), st.integers(1, 12), st.integers(0, 6))
def test_every_sample_is_asked_once_and_repeats_follow_their_first_asking(seed, opening_keys, n_repeats):
    protocol = a_protocol(order_seed=seed.hex(), opening_keys=opening_keys, n_repeats=n_repeats)
    schedule = draw_schedule(protocol)
    assert [p.position for p in schedule] == list(range(len(schedule)))
    firsts = [p for p in schedule if not p.repeat]
    assert sorted(p.index for p in firsts) == list(range(58))
    assert all(p.kind is kind_at(protocol, p.index) for p in schedule)
    place = {p.index: p.position for p in firsts}
    repeats = [p for p in schedule if p.repeat]
    assert len({p.index for p in repeats}) == n_repeats
    assert all(place[p.index] < p.position < opening_length(protocol) for p in repeats)


def test_keys_keep_their_sealed_order():
    keys = [p.index for p in draw_schedule(a_protocol()) if p.kind is SampleKind.KEY and not p.repeat]
    assert keys == list(range(30))


def test_positions_of_keys_look_like_positions_of_shams():
    # Over many seeds each place of stage 1 holds a key equally often: position tells a suspect nothing.
    counts = Counter()
    for number in range(600):
        protocol = a_protocol(order_seed=number.to_bytes(32, "big").hex(), n_repeats=0)
        counts.update(p.position for p in draw_schedule(protocol)[:38] if p.kind is SampleKind.KEY)
    expected = 600 * 10 / 38
    assert all(abs(counts[i] - expected) < 5 * expected**0.5 for i in range(38))


@pytest.mark.parametrize("change", [{"opening_keys": 31}, {"opening_keys": 0}, {"n_repeats": 39}])
def test_contradicting_numbers_are_refused(change):
    with pytest.raises(SealError):
        draw_schedule(a_protocol(**change))


def test_an_index_beyond_the_seal_is_refused():
    with pytest.raises(SealError):
        kind_at(a_protocol(), 58)
