import itertools
import math

import numpy as np
import pytest
from scipy import stats

from auditor.stats.keyed_cells import (
    CellTable,
    cell_table,
    label_scores,
    most_extreme_log10_p,
    probability_scores,
    redraw_values,
    table_test,
)


def distributions(n: int, classes: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), size=n)


def test_rank_scores_by_hand() -> None:
    reference = np.array([[0.7, 0.1, 0.15, 0.05]])
    suspect = np.array([[0.4, 0.3, 0.1, 0.2]])
    # Ranks among classes 1-3: suspect 3, 1, 2; reference 2, 3, 1.
    assert probability_scores(suspect=suspect, reference=reference) == pytest.approx(np.array([[1 / 3, -2 / 3, 1 / 3]]))


def test_ranks_are_those_of_a_stock_library() -> None:
    generator = np.random.default_rng(9)
    reference = distributions(40, 6, 2)
    suspect = np.round(distributions(40, 6, 3), 1)
    suspect[generator.random((40, 6)) < 0.3] = -math.inf
    others = ~(np.arange(6) == reference.argmax(axis=1)[:, None])
    expected = [stats.rankdata(table[others].reshape(40, 5), axis=1) for table in (suspect, reference)]
    assert probability_scores(suspect=suspect, reference=reference) == pytest.approx((expected[0] - expected[1]) / 5)


def test_hidden_classes_are_tied_last() -> None:
    reference = np.array([[0.7, 0.1, 0.15, 0.05]])
    suspect = np.array([[0.6, -math.inf, 0.4, -math.inf]])
    assert probability_scores(suspect=suspect, reference=reference) == pytest.approx(
        np.array([[(1.5 - 2) / 3, 0.0, (1.5 - 1) / 3]])
    )


def test_ranks_do_not_change_under_monotone_maps() -> None:
    reference, suspect = distributions(50, 6, 0), distributions(50, 6, 1)
    assert np.array_equal(
        probability_scores(suspect=suspect, reference=reference),
        probability_scores(suspect=np.log(suspect) / 7, reference=reference),
    )


def test_label_scores_by_hand() -> None:
    reference = np.array([[0.5, 0.3, 0.2], [0.1, 0.2, 0.7]])
    found = label_scores(labels=np.array([1, 2]), reference=reference)
    assert found == pytest.approx(np.array([[0.7, -0.2], [-0.1, -0.2]]))


def test_cells_are_means_and_small_ones_are_left_out() -> None:
    scores = np.arange(24, dtype=float).reshape(12, 2) ** 2
    few = np.array([3] * 4 + [6] * 4 + [0] * 4)
    with pytest.raises(ValueError, match="no cell holds 5 probes"):
        cell_table(scores=scores, cells=few, labels=few // 2)
    cells = np.array([3] * 5 + [6] * 2 + [3] + [0] * 4)
    table = cell_table(scores=scores, cells=cells, labels=cells // 2)
    assert table.cells == (3,)
    assert table.labels == (1,)
    assert table.counts == (6,)
    means = scores[cells == 3].mean(axis=0)
    assert table.scores == pytest.approx((means - means.mean())[None])


def test_columns_skip_the_cells_own_class() -> None:
    table = CellTable(cells=(0, 3), labels=(0, 1), counts=(5, 5), scores=np.zeros((2, 2)))
    assert table.columns([2, 1, 0, 0]) == [1, 0]
    with pytest.raises(ValueError, match="own class"):
        table.columns([0, 1, 0, 0])


def test_the_law_is_the_enumeration_of_all_tables() -> None:
    scores = np.random.default_rng(3).normal(size=(4, 3))
    scores -= scores.mean(axis=1, keepdims=True)
    table = CellTable(cells=(0, 1, 2, 3), labels=(0, 1, 2, 3), counts=(9,) * 4, scores=scores)
    sums = np.array([sum(scores[c, k] for c, k in enumerate(pick)) for pick in itertools.product(range(3), repeat=4)])
    for targets in ([1, 0, 3, 2], [3, 3, 0, 1], [2, 2, 1, 0]):
        own = sum(scores[c, k] for c, k in enumerate(table.columns(targets)))
        exact = float((sums >= own - 1e-12).mean())
        found = table_test(table, targets=targets, seed=bytes(32), draws=20_000)
        assert 10**found.log10_p == pytest.approx(exact, rel=0.02)
        assert 10**found.log10_p >= exact * (1 - 1e-9)
        assert found.law.log10_p_chernoff >= found.log10_p - 1e-12
        deviation = math.sqrt(exact * (1 - exact) / 20_000)
        assert abs(found.redraw.p_value - exact) <= 5 * deviation + 1e-4
        assert found.redraw.at_least_as_high == int(
            (redraw_values(table, seed=bytes(32), draws=20_000) >= own - 1e-9).sum()
        )


def test_redraws_of_the_targets_are_uniform_p_values() -> None:
    """Under fresh tables the exact Monte Carlo p-value is uniform on its grid, whatever the scores are."""
    generator = np.random.default_rng(5)
    reference = distributions(300, 5, 0)
    suspect = 0.5 * reference + 0.5 * distributions(300, 5, 1)
    cells = np.argmax(reference, axis=1) * 2 + generator.integers(0, 2, size=300)
    table = cell_table(scores=probability_scores(suspect=suspect, reference=reference), cells=cells, labels=cells // 2)
    p_values = []
    for trial in range(1000):
        drawn = generator.integers(0, 4, size=10)
        targets = [int(k + (k >= cell // 2)) for cell, k in enumerate(drawn)]
        p_values.append(table_test(table, targets=targets, seed=trial.to_bytes(32, "big"), draws=99).redraw.p_value)
    for level in (0.01, 0.05, 0.1, 0.5):
        rejections = sum(p <= level + 1e-12 for p in p_values)
        assert stats.binomtest(rejections, 1000, level).pvalue > 1e-4


@pytest.mark.parametrize("suspect", [np.ones((2, 3)), np.ones((1, 2)), np.array([[math.nan, 1.0, 1.0]])])
def test_scores_that_do_not_fit_are_refused(suspect: np.ndarray) -> None:
    with pytest.raises(ValueError, match="score"):
        probability_scores(suspect=suspect, reference=np.ones((1, suspect.shape[1])))
    with pytest.raises(ValueError, match="label"):
        label_scores(labels=np.zeros(2, dtype=int), reference=np.ones((1, 3)))


@pytest.mark.parametrize("decimals", [1, 9])
def test_the_most_extreme_p_value_is_the_smallest_of_all_tables(decimals: int) -> None:
    reference, suspect = distributions(60, 4, 5), np.round(distributions(60, 4, 6), decimals)
    labels = reference.argmax(axis=1)
    scores = probability_scores(suspect=suspect, reference=reference)
    table = cell_table(scores=scores, cells=labels, labels=labels)
    sums = np.array([
        sum(row[column] for row, column in zip(table.scores, columns, strict=True))
        for columns in itertools.product(range(3), repeat=len(table.cells))
    ])  # fmt: skip
    smallest = np.mean(sums >= sums.max() - 1e-12)
    assert 10 ** most_extreme_log10_p(table) == pytest.approx(smallest, rel=1e-6)
