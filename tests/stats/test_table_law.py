import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import redraw, table_law
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.table_law import table_tail


class TestTableTail:
    @settings(max_examples=40)
    @given(st.integers(0, 2**30))
    def test_bounds_enclose_the_enumerated_tail(self, number: int) -> None:
        rng = np.random.default_rng(number)
        scores = rng.normal(size=(6, 4)) * rng.lognormal(size=(6, 1))
        targets = rng.integers(0, 4, size=6)
        every = np.zeros(1)
        for row in scores:
            every = (every[:, None] + row[None, :]).ravel()
        own = float(scores[np.arange(6), targets].sum())
        log10_p = math.log10(np.mean(every >= own - 1e-12))
        got = table_tail(scores=scores, targets=targets.tolist(), bins=2_000)
        assert got.log10_p_lower <= log10_p + 1e-12
        assert log10_p <= got.log10_p_upper + 1e-12
        assert log10_p <= got.log10_p_chernoff + 1e-9

    def test_equal_signs_are_binomial_far_below_double_precision(self) -> None:
        for n, plus in ((200, 136), (200, 150), (200, 200), (1500, 1480)):
            scores = np.tile([1.0, -1.0], (n, 1))
            got = table_tail(scores=scores, targets=[0] * plus + [1] * (n - plus), bins=2 * n)
            want = binomial_tail_log10(hits=plus, trials=n, rate=0.5)
            without_ties = binomial_tail_log10(hits=plus + 1, trials=n, rate=0.5) if plus < n else -math.inf
            assert got.log10_p_lower == pytest.approx(without_ties, abs=1e-6)
            assert got.log10_p_upper == pytest.approx(want, abs=1e-6)
            assert got.z == pytest.approx((2 * plus - n) / math.sqrt(n))

    def test_reference_signs(self) -> None:
        # 200 signs of equal magnitude.
        for z, hoeffding in ((5, "3.7e-06"), (6, "1.5e-08"), (7, "2.3e-11")):
            log10_p = table_law.hoeffding_log10_p(statistic=z * math.sqrt(200), magnitudes=[1.0] * 200)
            assert f"{10**log10_p:.1e}" == hoeffding

    @pytest.mark.parametrize(("cells", "choices"), [(20, 9), (40, 9), (60, 2)])
    def test_order_of_the_bounds_and_their_width(self, cells: int, choices: int) -> None:
        rng = np.random.default_rng(cells)
        scores = rng.standard_t(3, size=(cells, choices))
        # The most probable cell choices of a marked suspect: a high score in most cells.
        targets = np.argsort(scores, axis=1)[:, -1 - (np.arange(cells) % 3 == 0)].diagonal().tolist()
        targets = [int(t) for t in targets]
        got = table_tail(scores=scores, targets=targets)
        assert got.log10_p_lower <= got.log10_p_upper <= got.log10_p_chernoff
        assert got.log10_p_upper - got.log10_p_lower < 0.02 * -got.log10_p_upper
        assert got.log10_e <= -got.log10_p_chernoff
        assert choices == 2 or got.log10_p_upper < -4

    def test_bracket_contains_monte_carlo(self) -> None:
        rng = np.random.default_rng(6)
        scores = rng.normal(size=(20, 9))
        targets = [int(t) for t in rng.integers(0, 9, size=20)]
        targets[:6] = [int(t) for t in scores[:6].argmax(axis=1)]
        got = table_tail(scores=scores, targets=targets)
        drawn = redraw.table_redraw(scores=scores, targets=targets, seed=bytes(32), draws=200_000)
        assert stats.binom.cdf(drawn.at_least_as_high, drawn.draws, 10**got.log10_p_lower) > 1e-4
        assert stats.binom.sf(drawn.at_least_as_high - 1, drawn.draws, 10**got.log10_p_upper) > 1e-4

    def test_the_best_table_reaches_the_floor(self) -> None:
        scores = np.zeros((400, 9))
        scores[:, 3] = 1.0
        got = table_tail(scores=scores, targets=[3] * 400, bins=4_000)
        assert got.log10_p_upper == pytest.approx(-400 * math.log10(9), abs=1e-6)
        assert got.log10_p_chernoff >= got.log10_p_upper - 1e-6

    @pytest.mark.parametrize("cells", [5, 60, 400])
    def test_upper_bound_at_the_largest_sum_of_uneven_scores(self, cells: int) -> None:
        # Exactly one table in 9^cells reaches it, although many more do after rounding up.
        scores = np.random.default_rng(cells).normal(size=(cells, 9))
        got = table_tail(scores=scores, targets=[int(t) for t in scores.argmax(axis=1)])
        floor = -cells * math.log10(9)
        assert floor <= got.log10_p_upper <= floor + 0.5
        assert got.log10_p_lower <= floor
        near = [int(t) for t in scores.argsort(axis=1)[:, -2]]
        assert floor < table_tail(scores=scores, targets=near).log10_p_upper < 0.2 * floor

    def test_level_of_upper_bound_and_chernoff(self) -> None:
        # The p-value as a function of the draw, over every one of 4^7 draws.
        scores = np.random.default_rng(3).exponential(size=(7, 4))
        order = np.array(list(itertools.product(range(4), repeat=7)))
        sums = scores[np.arange(7), order].sum(axis=1)
        rng = np.random.default_rng(5)
        for row in order[rng.choice(len(order), size=40, replace=False)]:
            got = table_tail(scores=scores, targets=row.tolist(), bins=1_000)
            share = np.mean(sums >= sums[(order == row).all(axis=1)][0])
            # An upper p-value is valid if it is never below the share of draws that do at least as well.
            assert 10**got.log10_p_upper >= share - 1e-12
            assert 10**got.log10_p_chernoff >= share - 1e-12

    def test_mean_of_the_e_value_is_one(self) -> None:
        scores = np.random.default_rng(8).normal(size=(5, 3))
        e_values = [
            10 ** table_tail(scores=scores, targets=list(row), bins=50).log10_e
            for row in itertools.product(range(3), repeat=5)
        ]
        assert np.mean(e_values) == pytest.approx(1.0, rel=1e-9)

    def test_constant_scores_show_nothing(self) -> None:
        got = table_tail(scores=np.full((4, 3), 0.7), targets=[0, 1, 2, 0])
        assert (got.log10_p_upper, got.log10_p_chernoff, got.log10_e, got.z) == (0.0, 0.0, 0.0, 0.0)

    def test_below_the_mean_shows_nothing(self) -> None:
        scores = np.tile([1.0, -1.0], (10, 1))
        got = table_tail(scores=scores, targets=[1] * 10, bins=100)
        assert got.log10_p_upper == pytest.approx(0.0, abs=1e-6)
        assert got.log10_p_chernoff == 0.0

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="bins"):
            table_tail(scores=[[1.0, 2.0]], targets=[0], bins=3)
        with pytest.raises(ValueError, match="target"):
            table_tail(scores=[[1.0, 2.0]], targets=[2])
        with pytest.raises(ValueError, match="magnitudes"):
            table_law.hoeffding_log10_p(statistic=1.0, magnitudes=[0.0])


class TestDirection:
    @pytest.mark.parametrize(
        ("dimension", "cosines"),
        [(16, ("0.69", "0.89", "0.96")), (64, ("0.38", "0.55", "0.66")), (256, ("0.19", "0.29", "0.36"))],
    )
    def test_reference_cosines(self, dimension: int, cosines: tuple[str, ...]) -> None:
        # The cosine that is needed for 1e-3, 1e-6 and 1e-9.
        for alpha, want in zip((-3, -6, -9), cosines, strict=True):
            low, high = 0.0, 1.0
            for _ in range(60):
                middle = (low + high) / 2
                reached = table_law.direction_log10_p(cosine=middle, dimension=dimension) <= alpha
                low, high = (low, middle) if reached else (middle, high)
            assert f"{high:.2f}" == want

    @pytest.mark.parametrize("cosine", [-0.9, -0.2, 0.0, 0.1, 0.6, 0.99])
    def test_agrees_with_students_law(self, cosine: float) -> None:
        for dimension in (2, 3, 17, 400):
            t = cosine * math.sqrt((dimension - 1) / (1 - cosine**2))
            want = stats.t.logsf(t, dimension - 1) / math.log(10)
            if want > -280:
                got = table_law.direction_log10_p(cosine=cosine, dimension=dimension)
                assert got == pytest.approx(want, rel=1e-9, abs=1e-12)

    def test_deep_tail_continues_without_a_jump(self) -> None:
        values = [table_law.direction_log10_p(cosine=c, dimension=2000) for c in np.linspace(0.5, 0.9999, 300)]
        steps = np.diff(values)
        assert min(values) < -1000
        assert np.all(steps < 0)
        assert table_law.direction_log10_p(cosine=1.0, dimension=5) == -math.inf

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="cosine"):
            table_law.direction_log10_p(cosine=1.1, dimension=4)
