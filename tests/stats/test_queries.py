import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import queries


class TestNewLabel:
    @pytest.mark.parametrize(
        ("rate", "mean", "ceiling", "sd", "quantiles"),
        [
            (0.3, 3.33, 4, 2.79, (7, 9, 13, 20, 39)),
            (0.5, 2.00, 2, 1.41, (4, 5, 7, 10, 20)),
            (0.6, 1.67, 2, 1.05, (3, 4, 6, 8, 16)),
            (0.7, 1.43, 2, 0.78, (2, 3, 4, 6, 12)),
            (0.8, 1.25, 2, 0.56, (2, 2, 3, 5, 9)),
            (0.9, 1.11, 2, 0.35, (1, 2, 2, 3, 6)),
            (0.95, 1.05, 2, 0.24, (1, 1, 2, 3, 5)),
        ],
    )
    def test_published_figures(
        self, rate: float, mean: float, ceiling: int, sd: float, quantiles: tuple[int, ...]
    ) -> None:
        got = queries.new_label_bound(rate)
        assert got.mean == pytest.approx(mean, abs=5.1e-3)
        assert got.ceiling == ceiling
        assert got.sd == pytest.approx(sd, abs=5.1e-3)
        misses = (0.1, 0.05, 0.01, 1e-3, 1e-6)
        assert tuple(queries.new_label_quantile(rate=rate, miss=m) for m in misses) == quantiles

    @pytest.mark.parametrize(("rate", "keys"), [(0.8, 1), (0.8, 5), (0.3, 10), (0.05, 100), (1.0, 4), (0.5, 0)])
    def test_means_agree_with_summing_the_law(self, rate: float, keys: int) -> None:
        law = [rate * (1 - rate) ** (q - 1) for q in range(1, keys + 1)]
        mean = sum(q * p for q, p in enumerate(law, start=1))
        assert queries.new_label_mean(rate=rate, keys=keys) == pytest.approx(mean, abs=1e-12)
        cost = mean + keys * (1 - sum(law))
        assert queries.new_label_cost(rate=rate, keys=keys) == pytest.approx(cost, abs=1e-12)
        assert queries.new_label_within(rate=rate, queries=keys) == pytest.approx(sum(law), abs=1e-12)

    @given(st.floats(1e-3, 0.999), st.floats(1e-9, 0.9))
    def test_quantile_is_the_smallest_that_suffices(self, rate: float, miss: float) -> None:
        q = queries.new_label_quantile(rate=rate, miss=miss)
        assert (1 - rate) ** q <= miss * (1 + 1e-6)
        assert q == 1 or (1 - rate) ** (q - 1) > miss * (1 - 1e-6)

    @given(st.floats(1e-3, 1.0), st.integers(0, 500))
    def test_means_stay_below_the_bound(self, rate: float, keys: int) -> None:
        bound = queries.new_label_bound(rate).mean
        assert queries.new_label_mean(rate=rate, keys=keys) <= bound + 1e-9
        assert queries.new_label_cost(rate=rate, keys=keys) <= min(bound, keys) + 1e-9

    @pytest.mark.parametrize(("n", "rate"), [(3, 0.63), (10, 0.26), (20, 0.14), (40, 0.07), (100, 0.03)])
    def test_ruling_out(self, n: int, rate: float) -> None:
        assert queries.excluded_rate(queries=n, confidence=0.95) == pytest.approx(rate, abs=6e-3)

    @pytest.mark.parametrize(
        ("randomised", "effective", "mean", "q99"),
        [
            (0.1, 0.72, 1.39, 4),
            (0.3, 0.56, 1.79, 6),
            (0.5, 0.40, 2.5, 10),
            (0.7, 0.24, 4.2, 17),
            (0.9, 0.08, 12.5, 56),
        ],
    )
    def test_randomising_suspects(self, randomised: float, effective: float, mean: float, q99: int) -> None:
        rate = queries.effective_rate(rate=0.8, randomised_share=randomised)
        assert rate == pytest.approx(effective, abs=1e-12)
        assert queries.new_label_bound(rate).mean == pytest.approx(mean, abs=0.06)
        assert queries.new_label_quantile(rate=rate, miss=0.01) == q99

    def test_refusing_and_lucky_suspects(self) -> None:
        assert queries.effective_rate(rate=0.8, refused_share=0.25) == pytest.approx(0.6)
        mixed = queries.effective_rate(rate=0.8, randomised_share=0.5, refused_share=0.5, random_hit_rate=0.1)
        assert mixed == pytest.approx(0.5 * (0.4 + 0.05))
        with pytest.raises(ValueError, match="shares"):
            queries.effective_rate(rate=0.8, refused_share=1.5)

    def test_one_means_one_query(self) -> None:
        got = queries.new_label_bound(1.0)
        assert (got.mean, got.ceiling, got.sd) == (1.0, 1, 0.0)
        assert queries.new_label_quantile(rate=1.0, miss=1e-9) == 1
        assert queries.new_label_bound(0.1).ceiling == 10

    def test_refuses_what_cannot_be(self) -> None:
        for rate in (0.0, 1.1, math.nan):
            with pytest.raises(ValueError, match="rate"):
                queries.new_label_bound(rate)
        with pytest.raises(ValueError, match="negative"):
            queries.new_label_cost(rate=0.5, keys=-1)
        with pytest.raises(ValueError, match="miss"):
            queries.new_label_quantile(rate=0.5, miss=0.0)


NO = None


class TestThresholdRule:
    def test_the_forty_query_figure(self) -> None:
        size = queries.threshold_size(rate=0.8, tau=0.3, accuracy=0.9)
        assert size is not None
        assert (size.first, size.stable) == (40, 47)
        assert queries.threshold_hits(keys=40, tau=0.3) == 29
        assert queries.threshold_accuracy(rate=0.8, keys=40, tau=0.3) == pytest.approx(0.91249, abs=5e-6)

    @pytest.mark.parametrize(
        ("rate", "claimed"),
        [(0.01, 2e-49), (0.1, 7.6e-21), (0.2, 1.2e-12), (0.3, 3.7e-8), (0.5, 3.2e-3), (0.8, 0.912), (0.95, 1.0)],
    )
    def test_claims_on_forty_queries(self, rate: float, claimed: float) -> None:
        assert queries.threshold_accuracy(rate=rate, keys=40, tau=0.3) == pytest.approx(claimed, rel=0.03)

    @pytest.mark.parametrize(
        ("accuracy", "rate", "cells"),
        [
            (0.90, 0.7, (NO, NO, NO, (45, 58), (14, 18))),
            (0.90, 0.8, (NO, NO, (40, 47), (13, 18), (6, 8))),
            (0.90, 0.9, (NO, (25, 35), (10, 14), (5, 8), (4, 4))),
            (0.90, 0.95, ((60, 80), (10, 15), (7, 7), (5, 5), (2, 4))),
            (0.95, 0.7, (NO, NO, NO, (70, 83), (20, 24))),
            (0.95, 0.8, (NO, NO, (60, 67), (20, 23), (10, 12))),
            (0.95, 0.9, (NO, (40, 50), (14, 17), (8, 10), (6, 6))),
            (0.95, 0.95, ((80, 100), (15, 20), (7, 10), (5, 5), (4, 4))),
            (0.99, 0.7, (NO, NO, NO, (130, 143), (36, 40))),
            (0.99, 0.8, (NO, NO, (107, 117), (30, 35), (16, 18))),
            (0.99, 0.9, (NO, (70, 80), (24, 27), (13, 13), (8, 8))),
            (0.99, 0.95, ((150, 170), (25, 30), (14, 14), (8, 8), (6, 6))),
        ],
    )
    def test_first_and_stable_sizes(
        self, accuracy: float, rate: float, cells: tuple[tuple[int, int] | None, ...]
    ) -> None:
        for tau, want in zip((0.1, 0.2, 0.3, 0.4, 0.5), cells, strict=True):
            got = queries.threshold_size(rate=rate, tau=tau, accuracy=accuracy)
            assert (None if got is None else (got.first, got.stable)) == want

    @given(st.integers(1, 400), st.sampled_from([Fraction(i, 20) for i in range(1, 20)]))
    def test_the_floor_is_that_of_exact_arithmetic(self, keys: int, tau: Fraction) -> None:
        assert queries.threshold_hits(keys=keys, tau=float(tau)) == keys + 1 - math.floor(tau * keys)

    @pytest.mark.parametrize(("rate", "keys", "tau"), [(0.8, 40, 0.3), (0.6, 13, 0.5), (0.9, 3, 0.3), (0.2, 10, 0.9)])
    def test_agrees_with_the_published_sum(self, rate: float, keys: int, tau: float) -> None:
        p, most = Fraction(rate), math.floor(Fraction(str(tau)) * keys) - 1
        acc = sum(math.comb(keys, m) * (1 - p) ** m * p ** (keys - m) for m in range(most + 1))
        assert queries.threshold_accuracy(rate=rate, keys=keys, tau=tau) == pytest.approx(float(acc), abs=1e-13)

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="close"):
            queries.threshold_size(rate=0.7001, tau=0.3, accuracy=0.99)
        with pytest.raises(ValueError, match="tau"):
            queries.threshold_accuracy(rate=0.5, keys=10, tau=1.0)
        with pytest.raises(ValueError, match="keys"):
            queries.threshold_accuracy(rate=0.5, keys=0, tau=0.3)
        with pytest.raises(ValueError, match="rate"):
            queries.threshold_accuracy(rate=1.5, keys=4, tau=0.3)


class TestFixedDesign:
    @pytest.mark.parametrize(
        ("null_rate", "alpha", "keys", "hits"),
        [
            (1e-3, 0.01, 3, 1),
            (1e-3, 1e-6, 7, 3),
            (0.01, 0.01, 5, 2),
            (0.01, 1e-6, 10, 5),
            (0.05, 0.01, 7, 3),
            (0.05, 1e-6, 15, 8),
            (0.1, 0.01, 9, 4),
            (0.1, 1e-6, 19, 11),
            (0.2, 0.01, 13, 7),
            (0.2, 1e-6, 29, 18),
        ],
    )
    def test_known_designs(self, null_rate: float, alpha: float, keys: int, hits: int) -> None:
        got = queries.fixed_design(alpha=alpha, power=0.99, rate=0.8, null_rate=null_rate)
        assert got is not None
        assert (got.keys, got.hits) == (keys, hits)
        assert got.log10_level == pytest.approx(math.log10(stats.binom.sf(hits - 1, keys, null_rate)), abs=1e-9)
        assert got.power == pytest.approx(stats.binom.sf(hits - 1, keys, 0.8), abs=1e-12)

    def test_nothing_smaller_would_do(self) -> None:
        got = queries.fixed_design(alpha=1e-6, power=0.95, rate=0.3, null_rate=0.1)
        assert got is not None
        for n in range(1, got.keys):
            critical = next(k for k in range(n + 2) if stats.binom.sf(k - 1, n, 0.1) <= 1e-6)
            assert stats.binom.sf(critical - 1, n, 0.3) < 0.95

    def test_out_of_reach_is_none(self) -> None:
        assert queries.fixed_design(alpha=1e-6, power=0.99, rate=0.12, null_rate=0.1, max_keys=500) is None

    def test_large_designs_are_found(self) -> None:
        got = queries.fixed_design(alpha=1e-3, power=0.95, rate=0.15, null_rate=0.1)
        assert got is not None
        assert stats.binom.sf(got.hits - 1, got.keys, 0.1) <= 1e-3 < stats.binom.sf(got.hits - 2, got.keys, 0.1)
        assert stats.binom.sf(got.hits - 1, got.keys, 0.15) >= 0.95

    @pytest.mark.parametrize(("rate", "null_rate"), [(0.1, 0.1), (0.1, 0.2), (0.5, 0.0), (1.1, 0.1), (math.nan, 0.1)])
    def test_refuses_rates_in_the_wrong_order(self, rate: float, null_rate: float) -> None:
        with pytest.raises(ValueError, match="rates"):
            queries.fixed_design(alpha=0.01, power=0.9, rate=rate, null_rate=null_rate)
        with pytest.raises(ValueError, match="rates"):
            queries.information_limit(alpha=0.01, power=0.9, rate=rate, null_rate=null_rate)
        with pytest.raises(ValueError, match="rates"):
            queries.sprt_design(alpha=0.01, power=0.9, rate=rate, null_rate=null_rate)


class TestSprt:
    @pytest.mark.parametrize(
        ("null_rate", "alpha", "mean", "bound", "innocent"),
        [
            (1e-3, 0.01, 1.28, 2.2, 3.0),
            (1e-3, 1e-6, 3.73, 4.1, 3.0),
            (0.01, 0.01, 2.50, 2.8, 3.1),
            (0.01, 1e-6, 5.07, 5.7, 3.1),
            (0.05, 0.01, 2.97, 3.9, 3.5),
            (0.05, 1e-6, 7.69, 8.7, 3.5),
            (0.1, 0.01, 4.10, 4.9, 5.0),
            (0.1, 1e-6, 10.9, 11.7, 5.1),
            (0.2, 0.01, 6.60, 7.2, 6.6),
            (0.2, 1e-6, 16.6, 18.3, 6.7),
        ],
    )
    def test_simulated_and_bounded_means(
        self, null_rate: float, alpha: float, mean: float, bound: float, innocent: float
    ) -> None:
        design = queries.sprt_design(alpha=alpha, power=0.99, rate=0.8, null_rate=null_rate)
        derived = queries.sprt_operating(design, rate=0.8, cap=400)
        independent = queries.sprt_operating(design, rate=null_rate, cap=400)
        assert derived.mean == pytest.approx(mean, rel=0.02)
        assert independent.mean == pytest.approx(innocent, rel=0.03)
        assert design.mean_bound_h1 == pytest.approx(bound, abs=0.06)
        assert derived.mean <= design.mean_bound_h1
        assert independent.mean <= design.mean_bound_h0
        assert independent.reject <= alpha
        assert derived.futile <= 0.01

    @pytest.mark.parametrize(
        ("null_rate", "rate", "at_1e3", "at_1e6"),
        [
            (0.10, 0.90, (3.6, 1.7), (7.4, 1.7)),
            (0.10, 0.50, (12.5, 8.1), (25.3, 8.1)),
            (0.10, 0.30, (41, 26), (84, 26)),
            (0.10, 0.20, (143, 81), (291, 82)),
            (0.30, 0.60, (33, 16), (67, 16)),
        ],
    )
    def test_wald_means(
        self, null_rate: float, rate: float, at_1e3: tuple[float, float], at_1e6: tuple[float, float]
    ) -> None:
        for alpha, want in ((1e-3, at_1e3), (1e-6, at_1e6)):
            got = queries.wald_means(alpha=alpha, power=0.95, rate=rate, null_rate=null_rate)
            assert (got.derived, got.innocent) == pytest.approx(
                want, abs=0.051 if rate >= 0.5 and null_rate == 0.1 else 0.51
            )

    def test_wald_thresholds_are_easier_to_reach(self) -> None:
        exact = queries.sprt_design(alpha=0.01, power=0.9, rate=0.5, null_rate=0.1)
        wald = queries.sprt_design_wald(alpha=0.01, power=0.9, rate=0.5, null_rate=0.1)
        assert (exact.upper, exact.lower) == pytest.approx((math.log(100), math.log(0.1)))
        assert (wald.upper, wald.lower) == pytest.approx((math.log(90), math.log(0.1 / 0.99)))

    def test_refuses_what_cannot_be(self) -> None:
        design = queries.sprt_design(alpha=0.01, power=0.9, rate=0.5, null_rate=0.1)
        with pytest.raises(ValueError, match="cap"):
            queries.sprt_operating(design, rate=0.5, cap=0)
        with pytest.raises(ValueError, match="rate"):
            queries.sprt_operating(design, rate=2.0, cap=10)
        with pytest.raises(ValueError, match="rate"):
            queries.sprt_design(alpha=0.01, power=0.9, rate=1.0, null_rate=0.1)
        with pytest.raises(ValueError, match="alpha"):
            queries.sprt_design(alpha=0.0, power=0.9, rate=0.5, null_rate=0.1)


class TestInformationLimit:
    @settings(max_examples=40)
    @given(st.floats(0.01, 0.4), st.floats(0.15, 0.5), st.floats(1e-9, 0.05), st.floats(0.5, 0.999))
    def test_no_fixed_or_sequential_test_is_below_it(
        self, null_rate: float, gap: float, alpha: float, power: float
    ) -> None:
        rate = null_rate + gap
        limit = queries.information_limit(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        fixed = queries.fixed_design(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        assert fixed is None or limit <= fixed.keys + 1e-9
        design = queries.sprt_design(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        sprt = queries.sprt_operating(design, rate=rate, cap=1000)
        assume(sprt.undecided < 1e-6)
        assert limit <= sprt.mean + 1e-3

    def test_power_one_gives_the_power_one_limit(self) -> None:
        divergence = 0.5 * math.log(5) + 0.5 * math.log(0.5 / 0.9)
        got = queries.information_limit(alpha=1e-6, power=1.0, rate=0.5, null_rate=0.1)
        assert got == pytest.approx(math.log(1e6) / divergence)
        assert queries.information_limit(alpha=1e-6, power=1.0, rate=1.0, null_rate=0.1) == pytest.approx(6.0)

    def test_refuses_a_level_above_the_power(self) -> None:
        with pytest.raises(ValueError, match="alpha"):
            queries.information_limit(alpha=0.5, power=0.5, rate=0.5, null_rate=0.1)

    def test_divergence_at_the_ends(self) -> None:
        assert queries.bernoulli_kl(0.0, 0.1) == pytest.approx(-math.log(0.9))
        assert queries.bernoulli_kl(0.3, 0.3) == 0.0
        assert np.isinf(queries.bernoulli_kl(0.3, 0.0))
