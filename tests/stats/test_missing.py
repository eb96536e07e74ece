import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import missing, sequential
from auditor.stats.missing import Composite, NullKind, Transport


def claims(outcomes: np.ndarray, counted: np.ndarray, alpha: float) -> float:
    n = counted.cumsum(axis=1)
    k = (outcomes & counted).cumsum(axis=1)
    side = outcomes.shape[1] + 1
    table = np.full((side, side), -np.inf)
    for trials in range(side):
        table[: trials + 1, trials] = sequential.log_e(np.arange(trials + 1), trials, 1 / 9)
    return float((table[k, n].max(axis=1) >= -math.log(alpha)).mean())


class TestMissingAnswers:
    def test_table_of_the_rule(self) -> None:
        assert missing.missing_counts_as(null=NullKind.DRAWN_LABEL, transport=Transport.JUDGE) is None
        for null, transport in itertools.product(NullKind, Transport):
            if (null, transport) != (NullKind.DRAWN_LABEL, Transport.JUDGE):
                assert missing.missing_counts_as(null=null, transport=transport) is False

    def test_dropping_refused_misses_convicts_innocent_suspects_and_counting_them_does_not(self) -> None:
        rng, audits, keys, alpha = np.random.default_rng(51), 100_000, 60, 1e-3
        hits = rng.random((audits, keys)) < 1 / 9
        refused = ~hits & (rng.random((audits, keys)) < 0.8)
        assert claims(hits, ~refused, alpha) > 0.15
        assert claims(hits, np.ones_like(hits), alpha) <= alpha

    def test_any_of_three_retries_convicts_and_the_declared_composite_does_not(self) -> None:
        rng, audits, keys, alpha = np.random.default_rng(52), 100_000, 60, 1e-3
        attempts = rng.integers(0, 9, (audits, keys, 3)) == 0
        everything = np.ones((audits, keys), dtype=bool)
        assert claims(attempts.any(axis=2), everything, alpha) > 0.3
        assert claims(attempts[:, :, 0], everything, alpha) <= alpha

    @given(st.lists(st.one_of(st.none(), st.integers(0, 4)), max_size=6))
    def test_composites(self, answers: list[int | None]) -> None:
        first = missing.composite_answer(answers, Composite.FIRST_COMPLETE)
        most = missing.composite_answer(answers, Composite.MAJORITY)
        complete = [a for a in answers if a is not None]
        assert first == (complete[0] if complete else None)
        assert (most is None) == (not complete)
        if complete:
            assert complete.count(most) == max(complete.count(a) for a in complete)

    def test_selective_missingness(self) -> None:
        blocked = missing.selective_missingness(keys_missing=20, keys=24, controls_missing=1, controls=60, alpha=1e-3)
        even = missing.selective_missingness(keys_missing=2, keys=24, controls_missing=5, controls=60, alpha=1e-3)
        assert blocked.obstructed
        assert not even.obstructed
        want = stats.fisher_exact([[20, 4], [1, 59]], alternative="greater").pvalue
        assert blocked.log10_p == pytest.approx(math.log10(want), abs=1e-9)

    def test_unstable_repeats(self) -> None:
        assert not missing.repeat_stability(disagreements=2, repeats=20, maximum=0.1).unstable
        found = missing.repeat_stability(disagreements=3, repeats=20, maximum=0.1)
        assert found.unstable
        assert found.interval.low < 0.15 < found.interval.high
        with pytest.raises(ValueError, match="repeat"):
            missing.repeat_stability(disagreements=0, repeats=0, maximum=0.1)


class TestBatches:
    @pytest.mark.parametrize("batch", [1, 2, 5, 8, 200])
    def test_cost_by_simulation_and_bound(self, batch: int) -> None:
        cap = 120
        single = sequential.operating(rate=0.5, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01, cap=cap)
        law = np.diff([*single.decided_by, 1.0])
        stops = np.append(np.arange(1, cap + 1), cap)
        want = float((law * np.minimum(np.ceil(stops / batch) * batch, cap)).sum())
        got = missing.batched_mean(single, batch=batch)
        assert got == pytest.approx(want, abs=1e-9)
        assert single.mean - 1e-9 <= got <= single.mean + batch - 1 + 1e-9

    def test_one_by_one_is_the_mean(self) -> None:
        single = sequential.operating(rate=0.3, null_rate=0.1, alpha=1e-3, p_min=0.3, futility=0.01, cap=80)
        assert missing.batched_mean(single, batch=1) == pytest.approx(single.mean, abs=1e-9)
        with pytest.raises(ValueError, match="batch"):
            missing.batched_mean(single, batch=0)


class TestPermutedLabels:
    @given(st.permutations(range(6)))
    def test_finds_a_permutation_and_the_new_label(self, order: list[int]) -> None:
        table = np.ones((5, 6), dtype=int)
        for c in range(5):
            table[c, order[c]] = 9
        table[:, order[5]] = 0
        got = missing.align_labels(table)
        assert got.suspect_label == tuple(order[:5])
        assert got.unmatched == got.never_answered == (order[5],)
        assert got.agreement == pytest.approx(45 / table.sum())

    @pytest.mark.parametrize(("accuracy", "rounds"), [(0.6, 7), (0.8, 4), (0.95, 3)])
    def test_ordinary_queries_for_ten_classes(self, accuracy: float, rounds: int) -> None:
        got = missing.alignment_rounds(n_classes=10, accuracy=accuracy, seed=1, simulations=1500)
        assert got is not None
        assert abs(got - rounds) <= 1

    @pytest.mark.parametrize(("accuracy", "rounds"), [(0.6, 9), (0.8, 5), (0.95, 3)])
    def test_ordinary_queries_for_a_hundred_classes(self, accuracy: float, rounds: int) -> None:
        got = missing.alignment_rounds(n_classes=100, accuracy=accuracy, seed=3, simulations=200)
        assert got is not None
        assert abs(got - rounds) <= 1

    def test_why_two_published_shares_of_fitted_claims_differ(self) -> None:
        # 97.6 % tests the fitted matches against 1/10, which claims from 10 of 30 matches on; the deviating-answer rate
        # 1/9 demands one match more, and the many fits with exactly 10 matches fall out of the count.
        needed = {c: int(np.flatnonzero(stats.binom.sf(np.arange(31) - 1, 30, 1 / c) <= 1e-3)[0]) for c in (10, 9)}
        assert needed == {10: 10, 9: 11}
        rng, audits = np.random.default_rng(1), 1500
        matched = np.empty(audits)
        for audit in range(audits):
            table = np.zeros((10, 10))
            np.add.at(table, (rng.integers(0, 10, 30), rng.integers(0, 10, 30)), 1)
            matched[audit] = round(missing.align_labels(table).agreement * 30)
        assert np.mean(matched >= 10) == pytest.approx(0.976, abs=0.015)
        assert 0.78 < np.mean(matched >= 11) < 0.88

    def test_fitting_the_map_on_key_answers_convicts_innocent_suspects(self) -> None:
        # Against 1/9: see the test above for the share against 1/10.
        rng, audits, keys, classes = np.random.default_rng(53), 300, 30, 10
        false_claims = 0
        for _ in range(audits):
            table = np.zeros((classes, classes))
            np.add.at(table, (rng.integers(0, classes, keys), rng.integers(0, classes, keys)), 1)
            matched = round(missing.align_labels(table).agreement * keys)
            false_claims += stats.binom.sf(matched - 1, keys, 1 / 9) <= 1e-3
        assert false_claims / audits > 0.8

    def test_refuses_what_cannot_be(self) -> None:
        for table in ([[1, 2], [3, 4], [5, 6]], [[0, 0]], [[-1, 2]], [1, 2], [[math.nan, 1.0]]):
            with pytest.raises(ValueError, match="counts"):
                missing.align_labels(table)
        with pytest.raises(ValueError, match="alignment"):
            missing.alignment_rounds(n_classes=1, accuracy=0.5, seed=1)
        assert missing.alignment_rounds(n_classes=10, accuracy=0.2, seed=1, simulations=50, most=2) is None
