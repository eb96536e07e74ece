"""Anchor numbers computed for the comparison with other tools, by another program."""

import math

import pytest

from auditor.stats.exact import binomial_tail_log10

LEVELS = (0.05, 1e-3, 1e-6, 2.0**-64)


def fewest(trials: int, rate: float, level: float) -> int | None:
    return next(
        (k for k in range(trials + 1) if binomial_tail_log10(hits=k, trials=trials, rate=rate) <= math.log10(level)),
        None,
    )


@pytest.mark.parametrize(
    ("rate", "trials", "hits"),
    [
        (0.10, 20, (5, 8, 11, 20)),
        (0.10, 50, (10, 14, 18, 32)),
        (0.10, 100, (16, 21, 28, 46)),
        (0.10, 200, (28, 35, 44, 68)),
        (0.01, 20, (2, 4, 6, 13)),
        (0.01, 100, (4, 6, 9, 20)),
        (0.30, 50, (21, 26, 32, 46)),
        (0.30, 100, (39, 46, 54, 75)),
        (0.50, 50, (32, 37, 42, None)),
        (0.50, 100, (59, 66, 74, 93)),
    ],
)
def test_fewest_hits_for_a_level(rate: float, trials: int, hits: tuple[int | None, ...]) -> None:
    assert tuple(fewest(trials, rate, level) for level in LEVELS) == hits


def test_ten_keys_of_ten_classes_never_reach_two_to_the_minus_64() -> None:
    assert fewest(10, 0.1, 2.0**-64) is None


def test_false_positive_rate_of_the_two_of_ten_rule_is_the_formula_s() -> None:
    # Documented elsewhere as a rounder, smaller number: the rate must come from the code.
    assert 10 ** binomial_tail_log10(hits=2, trials=10, rate=1 / 256) == pytest.approx(6.7e-4, rel=0.01)
    missed = 10 ** binomial_tail_log10(hits=9, trials=10, rate=0.1)
    assert missed == pytest.approx(9.1e-9, rel=0.01)
