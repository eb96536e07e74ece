import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.draws import DrawStream
from auditor.stats import redraw
from auditor.stats.exact import binomial_tail_log10

SEED = bytes(range(32))


class TestUniformDraws:
    @pytest.mark.parametrize(("below", "n"), [(1, 5), (2, 700), (9, 3000), (99, 1500), (1 << 32, 600)])
    def test_equals_drawing_one_at_a_time_however_it_is_cut(self, below: int, n: int) -> None:
        stream = DrawStream(SEED)
        want = [stream.integer(below) for _ in range(n)]
        draws = redraw.UniformDraws(SEED, below=below)
        got = np.concatenate([draws.take(1), draws.take(n // 2), draws.take(0), draws.take(n - 1 - n // 2)])
        assert got.tolist() == want

    def test_values_that_would_favour_small_numbers_are_rejected(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Rigged(DrawStream):
            def octets(self, n: int) -> bytes:
                data = super().octets(n)
                first = not hasattr(self, "_started")
                self._started = True
                return b"\xff" * 8 + data[8:] if first else data

        monkeypatch.setattr(redraw, "DrawStream", Rigged)
        stream = Rigged(SEED)
        want = [stream.integer(3) for _ in range(900)]
        assert redraw.UniformDraws(SEED, below=3).take(900).tolist() == want

    def test_refuses_empty_ranges(self) -> None:
        with pytest.raises(ValueError, match="below"):
            redraw.UniformDraws(SEED, below=0)


class TestRedrawLabels:
    def test_uniform_on_the_other_classes_and_independent_between_keys(self) -> None:
        labels = redraw.redraw_labels(natural=[0, 2, 3], n_classes=4, seed=SEED, draws=27_000)
        assert labels.shape == (27_000, 3)
        cells = labels @ np.array([16, 4, 1])
        counts = np.bincount(cells, minlength=64)
        wanted = [16 * a + 4 * b + c for a in (1, 2, 3) for b in (0, 1, 3) for c in (0, 1, 2)]
        assert counts.sum() == counts[wanted].sum()
        assert stats.chisquare(counts[wanted]).pvalue > 1e-4

    @pytest.mark.parametrize(("natural", "n_classes", "draws"), [([0], 1, 3), ([4], 4, 3), ([-1], 4, 3), ([0], 4, 0)])
    def test_refuses_what_cannot_be(self, natural: list[int], n_classes: int, draws: int) -> None:
        with pytest.raises(ValueError, match=r"class|draws"):
            redraw.redraw_labels(natural=natural, n_classes=n_classes, seed=SEED, draws=draws)


class TestMonteCarlo:
    def test_counts_and_ties(self) -> None:
        values = iter([np.array([1.0, 3.0, 2.0]), np.array([5.0])])
        got = redraw.monte_carlo(statistic=2.0, redraw=lambda n: next(values)[:n], draws=4, batch=3)
        assert (got.draws, got.at_least_as_high, got.stopped, got.p_value) == (4, 3, False, 4 / 5)

    @given(st.integers(1, 6), st.integers(1, 40), st.integers(1, 50), st.integers(0, 2**20))
    def test_stopping_agrees_with_the_definition_for_every_batch(
        self, stop_after: int, batch: int, draws: int, number: int
    ) -> None:
        values = np.random.default_rng(number).integers(0, 4, size=draws).astype(float)
        position = 0

        def take(n: int) -> np.ndarray:
            nonlocal position
            position += n
            return values[position - n : position]

        got = redraw.monte_carlo(statistic=2.0, redraw=take, draws=draws, stop_after=stop_after, batch=batch)
        high = np.flatnonzero(values >= 2.0)
        if len(high) >= stop_after:
            made = int(high[stop_after - 1]) + 1
            assert (got.draws, got.stopped, got.p_value) == (made, True, stop_after / made)
        else:
            assert (got.draws, got.stopped, got.p_value) == (draws, False, (1 + len(high)) / (draws + 1))

    @pytest.mark.parametrize("stop_after", [None, 1, 5])
    def test_level_with_and_without_stopping(self, stop_after: int | None) -> None:
        # 100,000 Monte Carlo tests at once: the sealed value is one more draw from the same law.
        rng = np.random.default_rng(4)
        n_tests, draws = 100_000, 99
        values = rng.integers(0, 50, size=(n_tests, draws + 1), dtype=np.int8)
        above = values[:, 1:] >= values[:, :1]
        counts = above.sum(axis=1)
        p = (1 + counts) / (draws + 1)
        if stop_after is not None:
            made = np.argmax(np.cumsum(above, axis=1) == stop_after, axis=1) + 1
            p = np.where(counts >= stop_after, stop_after / made, p)
        for row in range(40):
            got = redraw.monte_carlo(
                statistic=float(values[row, 0]),
                redraw=lambda n, r=row: values[r, 1 : n + 1].astype(float),
                draws=draws,
                stop_after=stop_after,
            )
            assert got.p_value == pytest.approx(p[row])
        for alpha in (0.5, 0.1, 0.05, 0.02):
            assert np.sum(p <= alpha + 1e-12) <= stats.binom.isf(1e-4, n_tests, alpha)

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="at least 1"):
            redraw.monte_carlo(statistic=1.0, redraw=np.zeros, draws=0)
        with pytest.raises(ValueError, match="at least 1"):
            redraw.monte_carlo(statistic=1.0, redraw=np.zeros, draws=3, stop_after=0)
        with pytest.raises(ValueError, match="finite"):
            redraw.monte_carlo(statistic=float("nan"), redraw=np.zeros, draws=3)


class TestTableRedraw:
    def test_agrees_with_enumerating_all_tables(self) -> None:
        scores = np.random.default_rng(9).normal(size=(5, 4)).round(3)
        targets = [3, 0, 1, 2, 2]
        every = np.array(
            [sum(scores[c, g] for c, g in enumerate(table)) for table in itertools.product(range(4), repeat=5)]
        )
        own = sum(scores[c, g] for c, g in enumerate(targets))
        share = float(np.mean(every >= own - 1e-9))
        draws = 40_000
        got = redraw.table_redraw(scores=scores, targets=targets, seed=SEED, draws=draws)
        low, high = stats.binom.interval(1 - 1e-4, draws, share)
        assert low <= got.at_least_as_high <= high
        assert got.statistic == pytest.approx(own)

    def test_label_redraw_agrees_with_the_binomial_tail(self) -> None:
        # Scores of zeros and ones are hits: the re-draw of labels is the deviating-answer test by simulation.
        scores = np.zeros((30, 9))
        scores[:12, 4] = 1.0
        targets = [4] * 5 + [0] * 25
        got = redraw.table_redraw(scores=scores, targets=targets, seed=SEED, draws=100_000)
        p = 10 ** binomial_tail_log10(hits=5, trials=12, rate=1 / 9)
        low, high = stats.binom.interval(1 - 1e-4, got.draws, p)
        assert low <= got.at_least_as_high <= high

    def test_scores_that_tie_up_to_rounding_count_against_the_owner(self) -> None:
        scores = [[0.1, 0.3], [0.2, 0.2], [0.3, 0.1]]
        got = redraw.table_redraw(scores=scores, targets=[1, 0, 1], seed=SEED, draws=999)
        # Both (0.1, 0.3) and (0.3, 0.1) sum to 0.4, in different roundings; so does the sealed draw.
        assert got.at_least_as_high > 999 * 0.65

    def test_reproducible_and_early_stop(self) -> None:
        scores = np.zeros((3, 4))
        got = redraw.table_redraw(scores=scores, targets=[0, 0, 0], seed=SEED, draws=10**6, stop_after=10)
        assert (got.draws, got.stopped, got.p_value) == (10, True, 1.0)
        assert got == redraw.table_redraw(scores=scores, targets=[0, 0, 0], seed=SEED, draws=10**6, stop_after=10)

    @pytest.mark.parametrize(
        ("scores", "targets"),
        [([], []), ([[]], [0]), ([[1.0, 2.0]], [2]), ([[1.0, 2.0]], [-1]), ([[1.0, 2.0]], [0, 1]), ([[np.inf]], [0])],
    )
    def test_refuses_what_is_not_a_table(self, scores: list[list[float]], targets: list[int]) -> None:
        with pytest.raises(ValueError, match=r"scores|target"):
            redraw.table_redraw(scores=scores, targets=targets, seed=SEED, draws=9)
