import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import poisson_binomial
from auditor.stats.exact import binomial_tail_log10


def rational_law(rates: list[Fraction]) -> list[Fraction]:
    law = [Fraction(1)]
    for p in rates:
        law = [
            (law[k] if k < len(law) else Fraction(0)) * (1 - p) + (law[k - 1] * p if k else Fraction(0))
            for k in range(len(law) + 1)
        ]
    return law


def rational_log10(value: Fraction) -> float:
    return math.log10(value.numerator) - math.log10(value.denominator)


class TestUpperTail:
    @pytest.mark.parametrize("n", [1, 2, 9, 25])
    def test_agrees_with_rational_arithmetic(self, n: int) -> None:
        rates = [Fraction(1 + 37 * i % 97, 128) for i in range(n)]
        law = rational_law(rates)
        for hits in range(n + 1):
            got = poisson_binomial.upper_tail_log10(hits=hits, rates=[float(p) for p in rates])
            assert got == pytest.approx(rational_log10(sum(law[hits:], Fraction(0))), rel=1e-13, abs=1e-13)

    def test_agrees_with_rational_arithmetic_down_to_1e_minus_3000(self) -> None:
        # Powers of two are exact as floats, so both sides compute the same number; integers over a common denominator.
        exponents = [1 + i % 60 for i in range(400)]
        law = [1]
        for e in exponents:
            law = [a * (2**e - 1) + b for a, b in zip([*law, 0], [0, *law], strict=True)]
        seen = []
        for hits in (30, 100, 200, 300, 350, 398, 399, 400):
            want = math.log10(sum(law[hits:])) - sum(exponents) * math.log10(2)
            got = poisson_binomial.upper_tail_log10(hits=hits, rates=[0.5**e for e in exponents])
            assert got == pytest.approx(want, abs=1e-9)
            seen.append(want)
        assert min(seen) < -3000

    def test_equal_rates_are_binomial(self) -> None:
        for n, rate in ((50, 0.1), (2000, 0.01), (300, 0.9)):
            for hits in (0, 1, n // 3, n // 2, n - 1, n):
                want = binomial_tail_log10(hits=hits, trials=n, rate=rate)
                got = poisson_binomial.upper_tail_log10(hits=hits, rates=[rate] * n)
                assert got == pytest.approx(want, abs=1e-10)

    def test_certain_and_impossible_keys(self) -> None:
        tail = poisson_binomial.upper_tail_log10
        assert tail(hits=0, rates=[]) == 0.0
        assert tail(hits=2, rates=[1.0, 1.0, 0.0]) == 0.0
        assert tail(hits=3, rates=[1.0, 1.0, 0.0]) == -math.inf
        assert tail(hits=3, rates=[1.0, 0.5, 0.25, 0.0]) == pytest.approx(math.log10(0.125))

    @given(st.lists(st.floats(1e-12, 1 - 1e-12), min_size=1, max_size=30), st.data())
    def test_falls_as_hits_rise_and_rises_with_the_rates(self, rates: list[float], data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, len(rates) - 1))
        low = poisson_binomial.upper_tail_log10(hits=hits, rates=rates)
        assert poisson_binomial.upper_tail_log10(hits=hits + 1, rates=rates) <= low + 1e-9
        more = [min(1.0, rate * 1.1) for rate in rates]
        assert low <= poisson_binomial.upper_tail_log10(hits=hits, rates=more) + 1e-9

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=25), st.data())
    def test_agrees_with_the_direct_sum(self, rates: list[float], data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, len(rates)))
        direct = float(poisson_binomial.law(rates)[hits:].sum())
        if direct > 1e-280:
            got = poisson_binomial.upper_tail_log10(hits=hits, rates=rates)
            assert got == pytest.approx(math.log10(min(1.0, direct)), abs=1e-11)

    @pytest.mark.parametrize(("hits", "rates"), [(-1, [0.1]), (2, [0.1]), (1, [1.1]), (1, [-0.1]), (1, [math.nan])])
    def test_refuses_what_cannot_be(self, hits: int, rates: list[float]) -> None:
        with pytest.raises(ValueError, match="must lie"):
            poisson_binomial.upper_tail_log10(hits=hits, rates=rates)


class TestLowerTail:
    def test_agrees_with_rational_arithmetic(self) -> None:
        rates = [Fraction(1 + 37 * i % 97, 128) for i in range(20)]
        law = rational_law(rates)
        for hits in range(21):
            got = poisson_binomial.lower_tail_log10(hits=hits, rates=[float(p) for p in rates])
            assert got == pytest.approx(rational_log10(sum(law[: hits + 1], Fraction(0))), rel=1e-13, abs=1e-13)

    def test_tiny_rates_keep_their_digits(self) -> None:
        got = poisson_binomial.lower_tail_log10(hits=2, rates=[1e-20, 1e-30, 1.0, 1.0, 1.0])
        assert got == -math.inf
        assert poisson_binomial.lower_tail_log10(hits=0, rates=[0.5] * 2000) == pytest.approx(2000 * math.log10(0.5))


class TestLaw:
    def test_agrees_with_enumeration(self) -> None:
        rates = np.array([0.03, 0.4, 0.71, 0.2, 0.99, 0.5, 0.11, 0.3, 0.66, 0.05])
        outcomes = (np.arange(2**10)[:, None] >> np.arange(10)) & 1
        probabilities = np.where(outcomes == 1, rates, 1 - rates).prod(axis=1)
        want = np.bincount(outcomes.sum(axis=1), weights=probabilities)
        assert np.allclose(poisson_binomial.law(rates.tolist()), want, rtol=1e-13)


def test_trap_scipy_poisson_binom_sf_returns_rounding_noise() -> None:
    # scipy's tail is one minus a sum; for evidence it must not be used.
    rates = [0.01 + 0.001 * (i % 7) for i in range(40)]
    law = rational_law([Fraction(p) for p in rates])
    want = rational_log10(sum(law[22:], Fraction(0)))
    assert want < -25
    theirs = float(stats.poisson_binom.sf(21, rates))
    assert theirs == 0.0 or math.log10(abs(theirs)) > -18
    assert poisson_binomial.upper_tail_log10(hits=22, rates=rates) == pytest.approx(want, abs=1e-11)
