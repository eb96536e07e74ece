"""The rank of a line-up against full enumeration: what exchangeability promises, and nothing more."""

import itertools
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.stats.lineup import lineup_rank

EVIDENCE = st.integers(-3, 3).map(float)


@pytest.mark.parametrize("values", [(0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 1.0, 1.0), (2.0, 2.0, 2.0), (5.0, 1.0)])
def test_over_all_orders_the_p_value_is_never_too_small(values):
    orders = list(itertools.permutations(values))
    found = [lineup_rank(order[0], order[1:]).p_value for order in orders]
    for level in sorted(set(found)):
        share = Fraction(sum(p <= level for p in found), len(orders))
        assert share <= Fraction(level).limit_denominator(1000)
    if len(set(values)) == len(values):
        # Without ties it is exact: every place is equally likely.
        assert sorted(found) == sorted(
            (1 + i) / len(values) for i in range(len(values)) for _ in range(len(orders) // len(values))
        )


@given(suspect=EVIDENCE, others=st.lists(st.one_of(st.none(), EVIDENCE), min_size=1, max_size=8))
def test_ties_and_missing_evidence_count_against_the_claim(suspect, others):
    rank = lineup_rank(suspect, others)
    below = sum(value is not None and value < suspect for value in others)
    assert rank.at_least_as_high == 1 + len(others) - below
    assert rank.p_value >= rank.smallest == 1 / (1 + len(others))


def test_a_line_up_of_one_or_of_no_numbers_is_refused():
    with pytest.raises(ValueError, match="beside the suspect"):
        lineup_rank(1.0, [])
    with pytest.raises(ValueError, match="number"):
        lineup_rank(float("nan"), [1.0])
