"""The area under the curve and what a budget buys, against enumeration, scikit-learn and simulation."""

import numpy as np
import pytest
from scipy import stats as reference
from scipy.spatial.distance import cdist
from sklearn.metrics import roc_auc_score
from sklearn.neighbors import NearestNeighbors

from auditor.stats.separation import (
    area_under_curve,
    at_budget,
    nearest_distances,
    squared_distances,
)


def test_the_area_is_scikit_learns_with_ties():
    rng = np.random.default_rng(1)
    for _ in range(20):
        ours, theirs = rng.integers(0, 6, 17), rng.integers(0, 5, 23)
        found = area_under_curve(ours, theirs).area
        truth = np.repeat([1, 0], [17, 23])
        assert found == pytest.approx(roc_auc_score(truth, np.concatenate([ours, theirs])), abs=1e-12)
        mann_whitney = reference.mannwhitneyu(ours, theirs).statistic / (17 * 23)
        assert found == pytest.approx(mann_whitney, abs=1e-12)


def test_delongs_variance_is_the_published_formula():
    # Structural components written out, on the logit scale.
    ours, theirs = np.array([0.8, 0.7, 0.9, 0.3]), np.array([0.1, 0.4, 0.35, 0.75, 0.2])
    psi = (ours[:, None] > theirs[None, :]) + 0.5 * (ours[:, None] == theirs[None, :])
    area, variance = psi.mean(), psi.mean(1).var(ddof=1) / 4 + psi.mean(0).var(ddof=1) / 5
    reach = reference.norm.ppf(0.975) * np.sqrt(variance) / (area * (1 - area))
    logit = np.log(area / (1 - area))
    found = area_under_curve(ours, theirs).delong
    assert (found.low, found.high) == pytest.approx(tuple(1 / (1 + np.exp(-(logit + s * reach))) for s in (-1, 1)))


def test_complete_separation_still_has_an_interval():
    found = area_under_curve(np.arange(10) + 100, np.arange(30))
    assert found.area == 1.0
    assert found.delong == found.exact
    # min(n, m) KL(1 || a) = ln(2 / 0.05) has the closed form (0.025) ** (1 / 10).
    assert found.exact.low == pytest.approx(0.025**0.1)
    assert found.exact.high == 1.0


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.5])
def test_both_intervals_cover(shift):
    rng = np.random.default_rng(int(10 * shift) + 2)
    true = reference.norm.cdf(shift / np.sqrt(2))
    trials, exact, delong = 400, 0, 0
    for _ in range(trials):
        found = area_under_curve(rng.normal(shift, size=40), rng.normal(size=80))
        exact += found.exact.low <= true <= found.exact.high
        delong += found.delong.low <= true <= found.delong.high
    assert exact >= reference.binom.ppf(0.001, trials, 0.95)
    # Asymptotic: near its nominal level at these sizes, which is all that is claimed.
    assert delong >= reference.binom.ppf(0.001, trials, 0.92)


def test_the_budget_is_kept_by_fresh_items():
    rng = np.random.default_rng(5)
    over, trials = 0, 400
    for _ in range(trials):
        found = at_budget(first=[9.0], chosen_on=rng.normal(size=99), tried_on=rng.normal(size=50), budget=0.05)
        over += found.false_hits
    assert over <= reference.binom.ppf(0.999, trials * 50, 0.05)


def test_a_budget_needs_enough_items():
    assert at_budget(first=[1.0], chosen_on=range(98), tried_on=[0.0], budget=0.01) is None
    found = at_budget(first=[97.5, 98.5], chosen_on=range(99), tried_on=[0.0, 99.0], budget=0.01)
    assert (found.hits, found.trials, found.false_hits, found.false_trials) == (1, 2, 1, 2)
    assert found.share == 0.5


def test_distances_are_exact():
    rng = np.random.default_rng(3)
    one, other = (rng.integers(0, 256, (n, 1, 5, 6), dtype=np.uint8) for n in (7, 11))
    wanted = cdist(one.reshape(7, -1).astype(int), other.reshape(11, -1).astype(int), "sqeuclidean")
    np.testing.assert_array_equal(squared_distances(one, other), wanted)
    nearest = NearestNeighbors(n_neighbors=3).fit(other.reshape(11, -1)).kneighbors(one.reshape(7, -1))[0]
    np.testing.assert_allclose(nearest_distances(one, other, k=3), nearest.mean(axis=1))


@pytest.mark.parametrize(
    "call",
    [
        lambda: area_under_curve([], [1.0]),
        lambda: area_under_curve([np.nan], [1.0]),
        lambda: area_under_curve([1.0], [1.0], confidence=1.0),
        lambda: at_budget(first=[1.0], chosen_on=[1.0], tried_on=[1.0], budget=0.0),
        lambda: nearest_distances(np.zeros((1, 2), np.uint8), np.zeros((1, 2), np.uint8), k=2),
    ],
)
def test_what_cannot_be_is_refused(call):
    with pytest.raises(ValueError, match=r"must|needs"):
        call()
