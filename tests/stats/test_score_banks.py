import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.stats import score_banks

RNG = np.random.default_rng(61)
DERIVED = RNG.normal(4, 1, 400).tolist()
INDEPENDENT = RNG.normal(0, 1, 400).tolist()


def test_ratio_of_known_normal_banks() -> None:
    for score in (1.0, 2.0, 3.0):
        got = score_banks.bank_ratio(score, derived=DERIVED, independent=INDEPENDENT)
        assert not got.at_most
        assert not got.limited
        assert got.log10_lr == pytest.approx((4 * score - 8) / math.log(10), abs=0.45)


def test_few_models_never_support_much() -> None:
    far = score_banks.bank_ratio(50.0, derived=DERIVED[:8], independent=INDEPENDENT[:9])
    assert far.log10_lr <= math.log10(10) + 1e-12
    assert score_banks.bank_ratio(4.0, derived=DERIVED[:8], independent=INDEPENDENT[:9]).log10_lr == pytest.approx(1.0)
    low = score_banks.bank_ratio(-1.0, derived=DERIVED[:8], independent=INDEPENDENT[:9])
    assert low.log10_lr == pytest.approx(-math.log10(9))
    assert low.limited


def test_banks_that_show_no_distribution_are_refused() -> None:
    for derived, independent in (([1.0] * 9, INDEPENDENT), (DERIVED, [1.0, 2.0]), ([math.nan] * 9, INDEPENDENT)):
        with pytest.raises(ValueError, match=r"bank|scores"):
            score_banks.bank_ratio(1.0, derived=derived, independent=independent)


@pytest.mark.parametrize(("p", "ceiling"), [(0.05, 2.4560), (0.01, 7.9886), (0.001, 53.256), (0.5, 1.0)])
def test_published_ceilings(p: float, ceiling: float) -> None:
    got = score_banks.p_value_ceiling(math.log10(p))
    assert got.at_most
    assert 10**got.log10_lr == pytest.approx(ceiling, rel=1e-3)


def test_tiny_p_values_do_not_underflow() -> None:
    assert score_banks.p_value_ceiling(-2000.0).log10_lr == pytest.approx(
        2000 - math.log10(math.e * 2000 * math.log(10)), abs=1e-9
    )
    assert score_banks.p_value_ceiling(-math.inf).log10_lr == math.inf
    with pytest.raises(ValueError, match="zero"):
        score_banks.p_value_ceiling(0.1)


@given(st.floats(-300, 0), st.floats(-300, 0))
def test_ceiling_falls_as_p_rises_and_stays_below_one_over_p(a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert score_banks.p_value_ceiling(low).log10_lr >= score_banks.p_value_ceiling(high).log10_lr - 1e-12
    assert 0.0 <= score_banks.p_value_ceiling(low).log10_lr <= -low


def test_cost_of_ratios() -> None:
    assert score_banks.cllr(derived_log10_lr=[0.0], independent_log10_lr=[0.0, 0.0]) == pytest.approx(1.0)
    assert score_banks.cllr(derived_log10_lr=[9.0], independent_log10_lr=[-9.0]) < 1e-6
    assert score_banks.cllr(derived_log10_lr=[-2.0], independent_log10_lr=[2.0]) > 6
    with pytest.raises(ValueError, match="both kinds"):
        score_banks.cllr(derived_log10_lr=[], independent_log10_lr=[1.0])
