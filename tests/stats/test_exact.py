import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.proportion import proportion_confint

from auditor.stats import exact


def rational_tail(hits: int, trials: int, rate: Fraction) -> Fraction:
    return sum(
        (math.comb(trials, j) * rate**j * (1 - rate) ** (trials - j) for j in range(hits, trials + 1)), Fraction(0)
    )


def rational_log10(value: Fraction) -> float:
    # Fractions of thousands of digits do not fit a float, but the logarithm of a Python integer does.
    return math.log10(value.numerator) - math.log10(value.denominator)


class TestBinomialTail:
    @pytest.mark.parametrize("rate", [Fraction(1, 1000), Fraction(1, 9), Fraction(1, 2), Fraction(4, 5)])
    @pytest.mark.parametrize("trials", [1, 7, 30])
    def test_agrees_with_rational_arithmetic(self, trials: int, rate: Fraction) -> None:
        for hits in range(1, trials + 1):
            want = rational_log10(rational_tail(hits, trials, rate))
            got = exact.binomial_tail_log10(hits=hits, trials=trials, rate=float(rate))
            assert got == pytest.approx(want, rel=1e-12, abs=1e-13)

    def test_all_hits_far_below_double_precision(self) -> None:
        assert exact.binomial_tail_log10(hits=2000, trials=2000, rate=0.1) == -2000.0
        assert exact.binomial_tail_log10(hits=3000, trials=3000, rate=0.1) == -3000.0

    @pytest.mark.parametrize(("hits", "trials"), [(1999, 2000), (390, 400), (320, 400), (3500, 4000), (310, 1000)])
    def test_deep_tail_agrees_with_integers(self, hits: int, trials: int) -> None:
        want = rational_log10(rational_tail(hits, trials, Fraction(1, 10)))
        got = exact.binomial_tail_log10(hits=hits, trials=trials, rate=0.1)
        assert got == pytest.approx(want, rel=1e-12)

    def test_both_ways_of_summing_agree_at_the_border(self) -> None:
        for hits in range(288, 306):
            direct = math.log10(stats.binom.sf(hits - 1, 320, 0.1))
            assert exact._tail_series_log10(hits, 320, 0.1) == pytest.approx(direct, rel=1e-12)

    @given(st.integers(1, 400), st.data(), st.floats(1e-6, 0.999))
    def test_agrees_with_scipy_where_that_is_representable(self, trials: int, data: st.DataObject, rate: float) -> None:
        hits = data.draw(st.integers(0, trials))
        direct = stats.binom.sf(hits - 1, trials, rate)
        got = exact.binomial_tail_log10(hits=hits, trials=trials, rate=rate)
        if direct > 1e-250:
            assert got == pytest.approx(math.log10(direct), rel=1e-9, abs=1e-12)
        else:
            assert got < -249

    @given(st.integers(1, 3000), st.data(), st.floats(1e-9, 0.999))
    def test_falls_as_hits_rise_and_rises_with_the_rate(self, trials: int, data: st.DataObject, rate: float) -> None:
        hits = data.draw(st.integers(0, trials - 1))
        low = exact.binomial_tail_log10(hits=hits, trials=trials, rate=rate)
        high = exact.binomial_tail_log10(hits=hits + 1, trials=trials, rate=rate)
        slack = 1e-9 * max(1.0, abs(high))
        assert high <= low + slack
        assert low <= exact.binomial_tail_log10(hits=hits, trials=trials, rate=min(1.0, rate * 1.01)) + slack

    def test_certain_and_impossible_events(self) -> None:
        assert exact.binomial_tail_log10(hits=0, trials=0, rate=0.3) == 0.0
        assert exact.binomial_tail_log10(hits=0, trials=9, rate=0.0) == 0.0
        assert exact.binomial_tail_log10(hits=1, trials=9, rate=0.0) == -math.inf
        assert exact.binomial_tail_log10(hits=9, trials=9, rate=1.0) == 0.0

    @pytest.mark.parametrize(("hits", "trials", "rate"), [(12, 10, 0.1), (-1, 10, 0.1), (0, -1, 0.1), (1, 2, 1.1)])
    def test_refuses_counts_and_rates_that_cannot_be(self, hits: int, trials: int, rate: float) -> None:
        with pytest.raises(ValueError, match="must lie"):
            exact.binomial_tail_log10(hits=hits, trials=trials, rate=rate)

    @pytest.mark.parametrize(
        ("rate", "trials", "minimum"),
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
    def test_fewest_hits_for_a_level(self, rate: float, trials: int, minimum: tuple[int | None, ...]) -> None:
        for alpha, want in zip((0.05, 1e-3, 1e-6, 2.0**-64), minimum, strict=True):
            enough = (
                k
                for k in range(trials + 1)
                if exact.binomial_tail_log10(hits=k, trials=trials, rate=rate) <= math.log10(alpha)
            )
            assert next(enough, None) == want


class TestBounds:
    def test_lower_bound_is_the_at_least_direction(self) -> None:
        got = exact.lower_bound(hits=90, trials=100, confidence=0.95)
        assert got == pytest.approx(0.836, abs=5e-4)
        ours = stats.binomtest(90, 100, alternative="greater").proportion_ci(confidence_level=0.95)
        assert got == pytest.approx(ours.low, rel=1e-10)
        # statsmodels calls the same bound "smaller", after the rejected alternative.
        other = proportion_confint(90, 100, alpha=0.05, method="beta", alternative="smaller")
        assert got == pytest.approx(other[0], rel=1e-10)

    def test_upper_bound_is_the_at_most_direction(self) -> None:
        got = exact.upper_bound(hits=90, trials=100, confidence=0.95)
        assert got == pytest.approx(0.945, abs=5e-4)
        other = proportion_confint(90, 100, alpha=0.05, method="beta", alternative="larger")
        assert got == pytest.approx(other[1], rel=1e-10)

    @pytest.mark.parametrize(
        ("hits", "trials", "at_95", "at_99"),
        [
            (0, 10, 0.259, 0.369),
            (0, 20, 0.139, 0.206),
            (0, 60, 0.049, 0.074),
            (0, 300, 0.0099, 0.015),
            (0, 3000, 0.0010, 0.0015),
            (1, 10, 0.394, 0.504),
            (1, 100, 0.047, 0.065),
            (1, 1000, 0.0047, 0.0066),
        ],
    )
    def test_upper_bounds_of_small_counts(self, hits: int, trials: int, at_95: float, at_99: float) -> None:
        assert exact.upper_bound(hits=hits, trials=trials, confidence=0.95) == pytest.approx(at_95, rel=0.035)
        assert exact.upper_bound(hits=hits, trials=trials, confidence=0.99) == pytest.approx(at_99, rel=0.035)

    @pytest.mark.parametrize(("trials", "bound"), [(29, 0.1), (59, 0.05), (299, 0.01), (2995, 0.001)])
    def test_trials_needed_for_a_bound(self, trials: int, bound: float) -> None:
        assert exact.upper_bound(hits=0, trials=trials, confidence=0.95) <= bound
        assert exact.upper_bound(hits=0, trials=trials - 1, confidence=0.95) > bound

    def test_upper_bound_at_extreme_confidence(self) -> None:
        got = exact.upper_bound(hits=0, trials=200, confidence=1 - 5e-7)
        assert got == pytest.approx(-math.expm1(math.log(5e-7) / 200), rel=1e-9)

    @pytest.mark.parametrize("error", [5e-7, 5e-7 * 2.0**-64])
    @pytest.mark.parametrize(("hits", "trials"), [(0, 200), (1, 200), (7, 200), (150, 200)])
    def test_upper_bound_inverts_the_small_tail(self, hits: int, trials: int, error: float) -> None:
        bound = exact.upper_bound_at(hits=hits, trials=trials, error=error)
        assert stats.binom.cdf(hits, trials, bound) == pytest.approx(error, rel=1e-8)

    def test_nothing_is_known_without_trials(self) -> None:
        assert exact.lower_bound(hits=0, trials=0, confidence=0.95) == 0.0
        assert exact.upper_bound(hits=0, trials=0, confidence=0.95) == 1.0
        both = exact.clopper_pearson(hits=0, trials=0, confidence=0.95)
        assert (both.low, both.high) == (0.0, 1.0)

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="hits"):
            exact.lower_bound(hits=12, trials=10, confidence=0.95)
        with pytest.raises(ValueError, match="hits"):
            exact.upper_bound(hits=12, trials=10, confidence=0.95)
        for confidence in (0.0, 1.0, -0.1, math.nan):
            with pytest.raises(ValueError, match="confidence"):
                exact.clopper_pearson(hits=1, trials=10, confidence=confidence)

    @given(st.integers(1, 500), st.data(), st.floats(0.5, 0.999999))
    def test_bounds_enclose_the_estimate_and_agree_with_statsmodels(
        self, trials: int, data: st.DataObject, confidence: float
    ) -> None:
        hits = data.draw(st.integers(0, trials))
        low = exact.lower_bound(hits=hits, trials=trials, confidence=confidence)
        high = exact.upper_bound(hits=hits, trials=trials, confidence=confidence)
        assert 0.0 <= low <= hits / trials <= high <= 1.0
        both = exact.clopper_pearson(hits=hits, trials=trials, confidence=confidence)
        other = proportion_confint(hits, trials, alpha=1 - confidence, method="beta")
        assert (both.low, both.high) == pytest.approx(other, rel=1e-7, abs=1e-12)

    @pytest.mark.parametrize("trials", [1, 8, 25])
    def test_coverage_by_enumeration(self, trials: int) -> None:
        bounds = [
            (
                exact.lower_bound(hits=k, trials=trials, confidence=0.9),
                exact.upper_bound(hits=k, trials=trials, confidence=0.9),
            )
            for k in range(trials + 1)
        ]
        for step in range(1, 200):
            rate = step / 200
            law = stats.binom.pmf(range(trials + 1), trials, rate)
            assert sum(law[k] for k, (low, _) in enumerate(bounds) if low <= rate) >= 0.9 - 1e-12
            assert sum(law[k] for k, (_, high) in enumerate(bounds) if rate <= high) >= 0.9 - 1e-12


class TestFisher:
    @given(st.integers(0, 40), st.integers(0, 40), st.data())
    def test_agrees_with_scipy(self, trials_a: int, trials_b: int, data: st.DataObject) -> None:
        hits_a = data.draw(st.integers(0, trials_a))
        hits_b = data.draw(st.integers(0, trials_b))
        table = [[hits_a, trials_a - hits_a], [hits_b, trials_b - hits_b]]
        want = float(stats.fisher_exact(table, alternative="greater").pvalue)
        got = exact.fisher_log10_p(hits_a=hits_a, trials_a=trials_a, hits_b=hits_b, trials_b=trials_b)
        assert got == pytest.approx(math.log10(want), rel=1e-9, abs=1e-9)

    def test_known_value(self) -> None:
        got = exact.fisher_log10_p(hits_a=24, trials_a=30, hits_b=4, trials_b=200)
        assert 10**got == pytest.approx(4.9e-23, rel=0.01)

    def test_does_not_underflow(self) -> None:
        got = exact.fisher_log10_p(hits_a=2000, trials_a=2000, hits_b=0, trials_b=2000)
        assert got == pytest.approx(-math.log10(math.comb(4000, 2000)), rel=1e-12)

    def test_an_empty_group_shows_nothing(self) -> None:
        assert exact.fisher_log10_p(hits_a=0, trials_a=0, hits_b=3, trials_b=5) == 0.0
        assert exact.fisher_log10_p(hits_a=3, trials_a=3, hits_b=0, trials_b=0) == 0.0

    def test_refuses_counts_that_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="hits"):
            exact.fisher_log10_p(hits_a=3, trials_a=2, hits_b=0, trials_b=5)
