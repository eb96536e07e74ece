"""Anchor numbers computed for the comparison with other tools, by another program."""

import math

import pytest

from auditor.stats.exact import binomial_tail_log10


def fewest(trials: int, rate: float, level: float) -> int | None:
    return next(
        (k for k in range(trials + 1) if binomial_tail_log10(hits=k, trials=trials, rate=rate) <= math.log10(level)),
        None,
    )


def test_ten_keys_of_ten_classes_never_reach_two_to_the_minus_64() -> None:
    assert fewest(10, 0.1, 2.0**-64) is None


def test_false_positive_rate_of_the_two_of_ten_rule_is_the_formula_s() -> None:
    # Documented elsewhere as a rounder, smaller number: the rate must come from the code.
    assert 10 ** binomial_tail_log10(hits=2, trials=10, rate=1 / 256) == pytest.approx(6.7e-4, rel=0.01)
    missed = 10 ** binomial_tail_log10(hits=9, trials=10, rate=0.1)
    assert missed == pytest.approx(9.1e-9, rel=0.01)
