"""Mid-p intervals, critical values, Fisher and Boschloo against controls, exact McNemar."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from auditor.stats import exact


class TestMidP:
    def test_known_interval(self) -> None:
        got = exact.mid_p_interval(hits=1, trials=10, confidence=0.95)
        assert (got.low, got.high) == pytest.approx((0.005001475, 0.403476158), abs=1e-8)

    @pytest.mark.parametrize(("hits", "trials"), [(0, 7), (1, 7), (3, 7), (7, 7), (22, 100), (990, 1000)])
    def test_ends_solve_the_defining_equation(self, hits: int, trials: int) -> None:
        got = exact.mid_p_interval(hits=hits, trials=trials, confidence=0.9)
        if got.low > 0.0:
            half = 0.5 * stats.binom.pmf(hits, trials, got.low)
            assert stats.binom.sf(hits, trials, got.low) + half == pytest.approx(0.05, rel=1e-9)
        if got.high < 1.0:
            half = 0.5 * stats.binom.pmf(hits, trials, got.high)
            assert stats.binom.cdf(hits - 1, trials, got.high) + half == pytest.approx(0.05, rel=1e-9)
        assert (got.low == 0.0, got.high == 1.0) == (hits == 0, hits == trials)

    def test_inside_clopper_pearson_and_its_coverage_is_near_nominal_on_average(self) -> None:
        trials = 40
        mid = [exact.mid_p_interval(hits=k, trials=trials, confidence=0.95) for k in range(trials + 1)]
        wide = [exact.clopper_pearson(hits=k, trials=trials, confidence=0.95) for k in range(trials + 1)]
        rates = np.linspace(0.005, 0.995, 400)
        law = stats.binom.pmf(np.arange(trials + 1)[:, None], trials, rates)

        def coverage(intervals: list[exact.Interval]) -> np.ndarray:
            low = np.array([i.low for i in intervals])[:, None]
            high = np.array([i.high for i in intervals])[:, None]
            return (law * ((low <= rates) & (rates <= high))).sum(axis=0)

        assert all(w.low <= m.low and m.high <= w.high for m, w in zip(mid, wide, strict=True))
        assert coverage(wide).min() >= 0.95
        assert 0.945 <= coverage(mid).mean() <= 0.965
        assert coverage(mid).min() < 0.95

    def test_nothing_known_and_refusals(self) -> None:
        got = exact.mid_p_interval(hits=0, trials=0, confidence=0.95)
        assert (got.low, got.high) == (0.0, 1.0)
        with pytest.raises(ValueError, match="hits"):
            exact.mid_p_interval(hits=3, trials=2, confidence=0.95)


class TestCriticalHits:
    @given(st.integers(0, 400), st.floats(0.0, 1.0), st.floats(1e-12, 0.5))
    def test_level_is_kept_and_one_hit_fewer_would_break_it(self, trials: int, rate: float, alpha: float) -> None:
        got = exact.critical_hits(trials=trials, rate=rate, alpha=alpha)
        if got is None:
            assert stats.binom.sf(trials - 1, trials, rate) >= alpha * (1 - 1e-9)
        else:
            assert stats.binom.sf(got - 1, trials, rate) <= alpha * (1 + 1e-9)
            assert stats.binom.sf(got - 2, trials, rate) > alpha * (1 - 1e-9)

    def test_ten_keys_of_ten_classes_never_reach_two_to_the_minus_64(self) -> None:
        assert exact.critical_hits(trials=10, rate=0.1, alpha=2.0**-64) is None


class TestFisherAndBoschloo:
    def test_reference_case(self) -> None:
        fisher = exact.fisher_log10_p(hits_a=24, trials_a=30, hits_b=4, trials_b=200)
        assert f"{10**fisher:.1e}" == "4.9e-23"
        # The maximum over the common rate, by a direct grid: 1.39e-23. (9.9e-24 is the transposed table's value.)
        assert exact.boschloo_p(hits_a=24, trials_a=30, hits_b=4, trials_b=200) == pytest.approx(1.387e-23, rel=1e-3)

    @pytest.mark.parametrize("counts", [(24, 30, 4, 200), (3, 10, 1, 10), (5, 5, 0, 5), (7, 12, 2, 9)])
    def test_boschloo_is_the_largest_probability_of_a_smaller_fisher_value(
        self, counts: tuple[int, int, int, int]
    ) -> None:
        hits_a, trials_a, hits_b, trials_b = counts
        a, b = np.arange(trials_a + 1)[:, None], np.arange(trials_b + 1)[None, :]
        fisher = stats.hypergeom.sf(a - 1, trials_a + trials_b, a + b, trials_a)
        extreme = fisher <= fisher[hits_a, hits_b] * (1 + 1e-12)
        grid = np.linspace(0.002, 0.998, 499)
        sizes = [(stats.binom.pmf(a, trials_a, r) * stats.binom.pmf(b, trials_b, r))[extreme].sum() for r in grid]
        got = exact.boschloo_p(hits_a=hits_a, trials_a=trials_a, hits_b=hits_b, trials_b=trials_b)
        assert got == pytest.approx(max(sizes), rel=2e-3)
        assert got <= 10 ** exact.fisher_log10_p(hits_a=hits_a, trials_a=trials_a, hits_b=hits_b, trials_b=trials_b)

    def test_level_by_enumeration(self) -> None:
        trials = 7
        p = np.array(
            [
                [exact.boschloo_p(hits_a=i, trials_a=trials, hits_b=j, trials_b=trials) for j in range(trials + 1)]
                for i in range(trials + 1)
            ]
        )
        for rate in (0.05, 0.3, 0.5, 0.8):
            law = stats.binom.pmf(np.arange(trials + 1), trials, rate)
            for alpha in (0.05, 0.01):
                assert (np.outer(law, law)[p <= alpha]).sum() <= alpha * (1 + 1e-6)

    def test_empty_group_shows_nothing(self) -> None:
        assert exact.boschloo_p(hits_a=3, trials_a=3, hits_b=0, trials_b=0) == 1.0
        with pytest.raises(ValueError, match="hits"):
            exact.boschloo_p(hits_a=4, trials_a=3, hits_b=0, trials_b=0)


class TestMcNemar:
    @pytest.mark.parametrize(("first", "second"), [(0, 0), (5, 0), (9, 2), (2, 9), (30, 11)])
    def test_half_of_the_two_sided_oracle(self, first: int, second: int) -> None:
        p = 10 ** exact.mcnemar_log10_p(only_first=first, only_second=second)
        if first > second:
            oracle = mcnemar([[4, first], [second, 6]], exact=True).pvalue
            assert 2 * p == pytest.approx(oracle, rel=1e-12)
        else:
            assert p >= 0.5

    def test_far_tail_and_refusals(self) -> None:
        assert exact.mcnemar_log10_p(only_first=4000, only_second=0) == pytest.approx(-4000 * math.log10(2))
        with pytest.raises(ValueError, match="hits"):
            exact.mcnemar_log10_p(only_first=-1, only_second=3)
