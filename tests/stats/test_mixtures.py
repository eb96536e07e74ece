import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import mixtures, queries
from auditor.stats.sequential import log_e


class TestGrid:
    @given(st.integers(0, 200), st.floats(0.001, 0.9), st.data())
    def test_lies_between_the_ratios_it_mixes(self, trials: int, null_rate: float, data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, trials))
        ratios = [
            float(mixtures.ratio_log_e(hits, trials, null_rate=null_rate, rate=q))
            for q in mixtures.GRID
            if q > null_rate
        ]
        got = float(mixtures.grid_log_e(hits, trials, null_rate=null_rate))
        assert max(ratios) - math.log(len(ratios)) - 1e-9 <= got <= max(ratios) + 1e-9

    def test_has_mean_one_at_the_null_rate_exactly(self) -> None:
        null = Fraction(1, 9)
        total = Fraction(0)
        for k in range(7):
            mixture = sum(
                (Fraction(q).limit_denominator(100) / null) ** k
                * ((1 - Fraction(q).limit_denominator(100)) / (1 - null)) ** (6 - k)
                for q in mixtures.GRID
            ) / len(mixtures.GRID)
            assert float(mixtures.grid_log_e(k, 6, null_rate=1 / 9)) == pytest.approx(math.log(mixture), abs=1e-9)
            total += math.comb(6, k) * null**k * (1 - null) ** (6 - k) * mixture
        assert total == 1

    def test_needs_a_point_above_the_null_rate(self) -> None:
        with pytest.raises(ValueError, match="grid"):
            mixtures.grid_log_e(1, 2, null_rate=0.96)
        with pytest.raises(ValueError, match="rate"):
            mixtures.ratio_log_e(1, 2, null_rate=0.5, rate=0.4)


class TestCappedBet:
    def test_is_a_test_martingale_at_the_null_rate_by_enumeration(self) -> None:
        null_rate, alpha, cap = 1 / 9, 1e-2, 10
        mean = claimed = below = 0.0
        for path in itertools.product((False, True), repeat=cap):
            k = sum(path)
            wealth = mixtures.capped_path(path, null_rate=null_rate, alpha=alpha)
            weight = null_rate**k * (1 - null_rate) ** (cap - k)
            mean += weight * math.exp(wealth[-1])
            crossed = wealth.max() >= -math.log(alpha) - 1e-12
            claimed += weight * crossed
            below += 0.05**k * 0.95 ** (cap - k) * crossed
            assert wealth.max() <= -math.log(alpha) + 1e-9
        # Rounding the wealth down to its lattice costs at most 0.001 per answer.
        assert 1 - 0.001 * cap - 1e-6 <= mean <= 1 + 1e-12
        assert below <= claimed <= alpha
        exact = mixtures.capped_operating(rate=null_rate, null_rate=null_rate, alpha=alpha, cap=cap)
        assert exact.reject == pytest.approx(claimed, abs=1e-9)

    @pytest.mark.parametrize(
        ("null_rate", "rate", "plain", "capped"),
        [(1 / 9, 0.5, 18.0, 17.0), (0.01, 0.5, 5.8, 5.3), (0.1, 0.3, 56.9, 54.2)],
    )
    def test_saves_the_overshoot(self, null_rate: float, rate: float, plain: float, capped: float) -> None:
        before = mixtures.open_ended(lambda k, n: log_e(k, n, null_rate), rate=rate, alpha=1e-3, cap=250)
        after = mixtures.capped_operating(rate=rate, null_rate=null_rate, alpha=1e-3, cap=250)
        assert before.mean == pytest.approx(plain, abs=0.06)
        assert after.mean == pytest.approx(capped, abs=0.06)

    def test_law_agrees_with_running_it(self) -> None:
        rng = np.random.default_rng(5)
        cap, stops = 60, []
        for row in rng.random((400, cap)) < 0.5:
            wealth = mixtures.capped_path(row.tolist(), null_rate=0.1, alpha=1e-3)
            reached = np.flatnonzero(wealth >= -math.log(1e-3) - 1e-12)
            stops.append(int(reached[0]) + 1 if reached.size else cap)
        exact = mixtures.capped_operating(rate=0.5, null_rate=0.1, alpha=1e-3, cap=cap)
        assert np.mean(stops) == pytest.approx(exact.mean, abs=4 * np.std(stops) / 20)

    @pytest.mark.parametrize("rate", [0.0, 0.05, 0.1])
    @pytest.mark.parametrize("alpha", [0.05, 1e-3])
    def test_level(self, rate: float, alpha: float) -> None:
        assert mixtures.capped_operating(rate=rate, null_rate=0.1, alpha=alpha, cap=80).reject <= alpha


class TestTruncatedSprt:
    def test_level_and_power_by_enumeration(self) -> None:
        design = queries.sprt_design(alpha=0.02, power=0.9, rate=0.5, null_rate=0.1)
        cap = 12
        for rate in (0.1, 0.5):
            want = 0.0
            for path in itertools.product((0, 1), repeat=cap):
                ratio = np.cumsum([design.hit if hit else design.miss for hit in path])
                out = np.flatnonzero((ratio >= design.upper - 1e-12) | (ratio <= design.lower + 1e-12))
                if out.size and ratio[out[0]] > 0:
                    want += rate ** sum(path) * (1 - rate) ** (cap - sum(path))
            got = queries.sprt_operating(design, rate=rate, cap=cap)
            assert got.reject == pytest.approx(want, abs=1e-12)
        assert queries.sprt_operating(design, rate=0.1, cap=cap).reject <= 0.02


class TestCurtailed:
    @settings(max_examples=40)
    @given(st.integers(1, 40), st.floats(0.01, 0.99), st.data())
    def test_same_decision_for_fewer_queries(self, keys: int, rate: float, data: st.DataObject) -> None:
        hits = data.draw(st.integers(1, keys))
        got = mixtures.curtailed_operating(keys=keys, hits=hits, rate=rate)
        assert got.reject == pytest.approx(stats.binom.sf(hits - 1, keys, rate), abs=1e-12)
        assert got.undecided == pytest.approx(0, abs=1e-12)
        assert got.mean <= keys + 1e-9

    def test_refuses_what_cannot_be(self) -> None:
        for hits in (0, 5):
            with pytest.raises(ValueError, match="critical"):
                mixtures.curtailed_operating(keys=4, hits=hits, rate=0.5)
        with pytest.raises(ValueError, match="alpha"):
            mixtures.open_ended(lambda k, n: log_e(k, n, 0.1), rate=0.5, alpha=1.0, cap=5)
        with pytest.raises(ValueError, match="cap"):
            mixtures.capped_operating(rate=0.5, null_rate=0.1, alpha=0.1, cap=0)
        with pytest.raises(ValueError, match="rate"):
            mixtures.capped_operating(rate=1.5, null_rate=0.1, alpha=0.1, cap=5)


def test_calibrated_threshold_is_not_anytime() -> None:
    made = mixtures.calibrated_boundary(lambda k, n: log_e(k, n, 0.1), null_rate=0.1, alpha=0.01, maximum=12)
    assert made.level <= 0.01
    beyond = mixtures.open_ended(lambda k, n: log_e(k, n, 0.1), rate=0.1, alpha=math.exp(-made.log_threshold), cap=3000)
    assert made.log_threshold < -math.log(0.01)
    assert beyond.reject > made.level
