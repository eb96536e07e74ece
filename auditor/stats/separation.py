"""How well a score tells one group from another: the area under the ROC curve, and what a budget of errors buys.

Notes:
    Area: P(score of the first group > score of the second) + ½ P(equal). ½ means that the score tells nothing.
    Two intervals. DeLong's is asymptotic, on the logit scale; it has no width to work with where the groups are apart
    completely, and then takes the other's ends. The finite-sample one holds for all sizes and all laws of the scores:
    by Hoeffding's argument for two-sample U-statistics the estimate from groups of n and m is at least as concentrated
    as the mean of min(n, m) independent terms in [0, 1], so that min(n, m)·KL(estimate ‖ area) ≤ ln(2/δ) is wrong with
    probability at most δ. Both assume independent scores within and between the groups. Keys that share one secret
    are independent only given that secret: the figure is about this key set.

References:
    DeLong, DeLong and Clarke-Pearson (1988); Hoeffding (1963), section 5.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.stats import special
from auditor.stats.exact import Interval, clopper_pearson

Scores = npt.NDArray[np.float64]
"""One score per item, shape (n,)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Area:
    """The area under the ROC curve with its uncertainty."""

    area: float
    """In [0, 1]; ½ tells nothing, below ½ the first group scores lower."""
    first: int
    """Scores of the first group."""
    second: int
    """Scores of the second group."""
    delong: Interval
    """Asymptotic, on the logit scale."""
    exact: Interval
    """Valid at every size of the groups."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AtBudget:
    """What a threshold does that refuses at most a stated share of the second group."""

    budget: float
    """Share of the second group that may be refused."""
    hits: int
    """Items of the first group above the threshold."""
    trials: int
    interval: Interval
    """Clopper-Pearson interval of their share, given the threshold."""
    false_hits: int
    """Items of the second group above it that took no part in choosing it."""
    false_trials: int

    @property
    def share(self) -> float:
        """Share of the first group above the threshold."""
        return self.hits / self.trials


def area_under_curve(first: npt.ArrayLike, second: npt.ArrayLike, *, confidence: float = 0.95) -> Area:
    """Return the area under the ROC curve of two groups of scores; higher scores speak for the first group.

    Raises:
        ValueError: an empty group, a score that is not a number, or a confidence outside (0, 1).
    """
    ours, theirs = _checked(first), _checked(second)
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
    n, m = len(ours), len(theirs)
    placed, placed_theirs = _placements(ours, theirs), 1.0 - _placements(theirs, ours)
    area = float(np.mean(placed))
    exact = Interval(
        low=_divergence_bound(area, n=min(n, m), error=(1 - confidence) / 2, up=False),
        high=_divergence_bound(area, n=min(n, m), error=(1 - confidence) / 2, up=True),
        confidence=confidence,
    )
    variance = sum(float(np.var(each, ddof=1)) / len(each) for each in (placed, placed_theirs) if len(each) > 1)
    delong = exact
    if variance > 0.0 and 0.0 < area < 1.0 and min(n, m) > 1:
        reach = special.ndtri(0.5 + confidence / 2) * math.sqrt(variance) / (area * (1.0 - area))
        middle = math.log(area / (1.0 - area))
        delong = Interval(low=_logistic(middle - reach), high=_logistic(middle + reach), confidence=confidence)
    return Area(area=area, first=n, second=m, delong=delong, exact=exact)


def at_budget(
    *, first: npt.ArrayLike, chosen_on: npt.ArrayLike, tried_on: npt.ArrayLike, budget: float, confidence: float = 0.95
) -> AtBudget | None:
    """Return what a threshold chosen on some items of the second group does to the first and to its other items.

    The threshold is the order statistic that one more item of the second group exceeds with probability at most
    ``budget``; None where ``chosen_on`` holds fewer than 1/budget - 1 items, so that none is low enough.

    Raises:
        ValueError: an empty group, a score that is not a number, or a budget or confidence outside (0, 1).
    """
    ours, ordinary, others = _checked(first), _checked(chosen_on), _checked(tried_on)
    if not 0.0 < budget < 1.0:
        raise ValueError("the budget must lie strictly between 0 and 1")
    above = math.floor(budget * (len(ordinary) + 1) + 1e-9)
    if above < 1:
        return None
    threshold = np.sort(ordinary)[len(ordinary) - above]
    hits, trials = int(np.sum(ours > threshold)), len(ours)
    return AtBudget(
        budget=budget,
        hits=hits,
        trials=trials,
        interval=clopper_pearson(hits=hits, trials=trials, confidence=confidence),
        false_hits=int(np.sum(others > threshold)),
        false_trials=len(others),
    )


def squared_distances(items: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8]) -> Scores:
    """Return squared Euclidean distances, shape (n, m), of images on the uint8 grid.

    They are whole numbers and computed without rounding, so that every machine finds the same.

    Args:
        items: uint8, shape (n, ...).
        reference: uint8, shape (m, ...) of the same form.
    """
    one, other = (np.reshape(each, (len(each), -1)).astype(np.float64) for each in (items, reference))
    # All terms and sums are whole numbers below 2^53, which float64 adds exactly in any order.
    return np.asarray((one**2).sum(axis=1)[:, None] - 2.0 * (one @ other.T) + (other**2).sum(axis=1)[None, :])


def nearest_distances(items: npt.NDArray[np.uint8], reference: npt.NDArray[np.uint8], *, k: int = 1) -> Scores:
    """Return each item's mean Euclidean distance to its ``k`` nearest reference items, shape (n,).

    Raises:
        ValueError: fewer than ``k`` reference items.
    """
    if not 1 <= k <= len(reference):
        raise ValueError("there must be at least k reference items")
    found = [
        np.sqrt(np.partition(squared_distances(block, reference), k - 1, axis=1)[:, :k]).mean(axis=1)
        for block in np.array_split(items, max(1, len(items) // 500))
        if len(block)
    ]
    return np.concatenate(found) if found else np.zeros(0)


def _placements(ours: Scores, theirs: Scores) -> Scores:
    ordered = np.sort(theirs)
    below, up_to = (np.searchsorted(ordered, ours, side=side) for side in ("left", "right"))
    return np.asarray((below + up_to) / (2.0 * len(theirs)))


def _divergence_bound(mean: float, *, n: int, error: float, up: bool) -> float:
    allowed = -math.log(error) / n
    low, high = (mean, 1.0) if up else (0.0, mean)
    for _ in range(60):
        middle = 0.5 * (low + high)
        inside = _divergence(mean, middle) <= allowed
        low, high = (middle, high) if inside == up else (low, middle)
    return high if up else low


def _divergence(one: float, other: float) -> float:
    """Return KL(one ‖ other) of two Bernoulli laws."""
    first = one * math.log(one / other) if one > 0.0 and other > 0.0 else math.inf if one > 0.0 else 0.0
    rest, away = 1.0 - one, 1.0 - other
    return first + (rest * math.log(rest / away) if rest > 0.0 and away > 0.0 else math.inf if rest > 0.0 else 0.0)


def _logistic(value: float) -> float:
    return 1.0 / (1.0 + math.exp(-value)) if value >= 0 else math.exp(value) / (1.0 + math.exp(value))


def _checked(scores: npt.ArrayLike) -> Scores:
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1 or not len(values) or np.isnan(values).any():
        raise ValueError("every group needs at least one score, and all scores must be numbers")
    return values
