"""The known law of T = Σ_c A_c(g_c): bounds for p-values far below what re-drawing can reach.

Notes:
    Hypothesis: the targets g_c are independent and uniform over the columns of a table of scores A that was computed
    without them. Signs drawn for magnitudes a_c are the table with rows (a_c, -a_c).
    Guarantee: the law of T given A is known completely, so no assumption about probes or suspect enters. The upper
    p-value and the Chernoff bound are never below the true p-value; the lower one is never above it. The standardised
    value z is descriptive only: normal tails are wrong in both directions here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.stats import special
from auditor.stats.redraw import check_table

Floats = npt.NDArray[np.float64]

_ROUNDING = 1e-9
"""Relative allowance for floating point in sums of positive terms; the true error is below 1e-12."""
_LOG_ROUNDING = 16 * float(np.finfo(np.float64).eps)
"""Allowance per unit of the logarithms that are added up, on top of it."""
_UNDERFLOW = -600.0
"""Natural log below which a sum may have lost terms to underflow."""
_STEEPEST = 1e4
"""Largest slope in units of one over the widest cell; steeper ones only cost digits."""
_TIE_STEPS = 1e-6
"""Allowance, in lattice steps, for the rounding of the observed sum and of the scores."""
_SLOPES = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Slopes of the mixture, in units of one over the law's standard deviation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTail:
    """How improbable the sealed table's sum is, with rigorous bounds."""

    statistic: float
    """T at the sealed targets."""
    z: float
    """(T - mean) over the standard deviation of T; descriptive."""
    log10_p_upper: float
    """Upper bound of log10 P(T ≥ statistic): the p-value to report."""
    log10_p_lower: float
    """Lower bound of the same, without the draws that only tie; -inf where nothing is left."""
    log10_p_chernoff: float
    """Chernoff bound from the exact moment-generating function; looser, one line to check by hand."""
    log10_e: float
    """An e-value: mean of exp(λT)/E exp(λT) over fixed slopes; may be multiplied with those of independent draws."""


def table_tail(*, scores: npt.ArrayLike, targets: Sequence[int], bins: int = 20_000) -> TableTail:
    """Bound P(T' ≥ T) for re-drawn targets, without drawing any.

    Scores are rounded up (down) to a lattice for the upper (lower) bound, and the exact law on the lattice is found
    by convolution. The floor is choices ** -cells.

    Args:
        scores: shape (cells, choices), as for :func:`auditor.stats.redraw.table_redraw`.
        targets: index of the sealed choice in each row.
        bins: lattice steps in the range of T; more bring the two bounds closer together.

    Raises:
        ValueError: no cells, scores that are not finite, a target out of range, or fewer than 10 bins.
    """
    table, chosen = check_table(scores, targets)
    if bins < 10:
        raise ValueError("the lattice needs at least 10 bins")
    statistic = float(table[np.arange(len(table)), chosen].sum())
    centred = table - table.mean(axis=1, keepdims=True)
    excess = float(centred[np.arange(len(table)), chosen].sum())
    deviation = math.sqrt(float((centred**2).mean(axis=1).sum()))
    if not np.any(np.ptp(table, axis=1)):
        return TableTail(
            statistic=statistic, z=0.0, log10_p_upper=0.0, log10_p_lower=0.0, log10_p_chernoff=0.0, log10_e=0.0
        )
    chernoff = _chernoff_log10(centred, excess)
    return TableTail(
        statistic=statistic,
        z=excess / deviation,
        log10_p_upper=min(chernoff, _lattice_log10(centred, excess, bins, up=True)),
        log10_p_lower=_lattice_log10(centred, excess, bins, up=False),
        log10_p_chernoff=chernoff,
        log10_e=_mixture_log10_e(centred, excess, deviation),
    )


def hoeffding_log10_p(*, statistic: float, magnitudes: Sequence[float]) -> float:
    """Return log10 of exp(-T² / (2 Σ a²)), which bounds P(Σ s_c a_c ≥ T) for independent fair signs s_c.

    Raises:
        ValueError: magnitudes that are all zero or not finite.
    """
    square = math.fsum(a * a for a in magnitudes)
    if not 0.0 < square < math.inf:
        raise ValueError("magnitudes must be finite and not all zero")
    return 0.0 if statistic <= 0.0 else -(statistic**2) / (2.0 * square) / math.log(10)


def direction_log10_p(*, cosine: float, dimension: int) -> float:
    """Return log10 of P(cosine ≥ observed) for a direction drawn uniformly on the sphere.

    Hypothesis: the response vector is independent of the direction; then t = c √((d-1)/(1-c²)) follows Student's law
    with d-1 degrees of freedom exactly, whatever the vector is.

    Raises:
        ValueError: a cosine outside [-1, 1], or a dimension below 2.
    """
    if not -1.0 <= cosine <= 1.0 or dimension < 2:
        raise ValueError("the cosine must lie in [-1, 1] and the dimension must be at least 2")
    half = 0.5 * float(special.betainc(0.5 * (dimension - 1), 0.5, (1.0 - cosine) * (1.0 + cosine)))
    if cosine < 0.0:
        return math.log10(1.0 - half)
    if half > 0.0:
        return math.log10(half)
    # Below double precision: replacing 1/√(1-t) in the integral by its largest value bounds it from above.
    a = 0.5 * (dimension - 1)
    x = (1.0 - cosine) * (1.0 + cosine)
    if x == 0.0:
        return -math.inf
    log_p = a * math.log(x) - math.log(2.0 * a) - float(special.betaln(a, 0.5)) - math.log(cosine)
    return log_p / math.log(10)


def _best_slope(scores: Floats, target: float) -> float:
    # Where the mean of the law weighted with exp(slope · score) equals the target. Every slope gives a valid bound, so
    # the search needs no certificate; at the largest possible sum the best slope is infinite.
    def mean(slope: float) -> float:
        weights = np.exp(slope * (scores - scores.max(axis=1, keepdims=True)))
        return float(((weights * scores).sum(axis=1) / weights.sum(axis=1)).sum())

    if mean(0.0) >= target:
        return 0.0
    scale = float(np.ptp(scores, axis=1).max())
    low, high = 0.0, 1.0 / scale
    while mean(high) < target and high * scale < _STEEPEST:
        low, high = high, 2.0 * high
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean(middle) < target else (low, middle)
    return low


def _chernoff_log10(centred: Floats, excess: float) -> float:
    slope = _best_slope(centred, excess)
    log_mgf = _log_mgf(centred, slope)
    margin = _ROUNDING + _LOG_ROUNDING * (abs(log_mgf) + abs(slope * excess) + math.log(centred.size))
    return min(0.0, log_mgf - slope * excess + margin) / math.log(10)


def _log_mgf(centred: Floats, slope: float) -> float:
    cells = special.logsumexp(slope * centred, axis=1) - math.log(centred.shape[1])
    return math.fsum(cells)


def _lattice_log10(centred: Floats, excess: float, bins: int, *, up: bool) -> float:
    least = centred.min(axis=1, keepdims=True)
    step = float(np.ptp(centred, axis=1).sum()) / bins
    exact_units = (centred - least) / step
    units = np.ceil(exact_units - _TIE_STEPS) if up else np.floor(exact_units + _TIE_STEPS)
    # The rounding allowance of every cell is given back in the threshold, so the bound's direction is kept.
    allowance = 2.0 * _TIE_STEPS * len(centred)
    target = (excess - math.fsum(least[:, 0])) / step
    threshold = math.ceil(target - allowance) if up else math.ceil(target + allowance)
    log_p, margin = _lattice_tail(units.astype(np.int64), max(threshold, 0), up=up)
    return min(0.0, log_p + margin) / math.log(10) if up else (min(0.0, log_p) - margin) / math.log(10)


def _lattice_tail(units: npt.NDArray[np.int64], threshold: int, *, up: bool) -> tuple[float, float]:
    # Natural log of P(sum of units ≥ threshold) and of the factor its rounding may amount to. As in the
    # Poisson-binomial tail: the tilted law has its mean at the threshold, and only positive terms are added.
    reach = units.max(axis=1)
    law = np.zeros(int(reach.sum()) + 1)
    if threshold >= len(law):
        return -math.inf, 0.0
    tilt = _best_slope(units.astype(np.float64), float(threshold))
    law[0] = 1.0
    log_sums = special.logsumexp(tilt * units, axis=1)
    filled = 1
    for row, top, log_sum in zip(units, reach, log_sums, strict=True):
        weights = np.exp(tilt * row - log_sum)
        before = law[:filled].copy()
        law[: filled + int(top)] = 0.0
        for unit, weight in zip(row, weights, strict=True):
            law[int(unit) : int(unit) + filled] += weight * before
        filled += int(top)
    above = law[threshold:filled]
    positive = np.flatnonzero(above)
    log_rest = float(special.logsumexp(np.log(above[positive]) - tilt * positive)) if positive.size else -math.inf
    if up and log_rest < _UNDERFLOW:
        # Only where the slope had to be cut off: without this factor the product is the Chernoff bound.
        log_rest = 0.0
    log_total = math.fsum(log_sums) - len(units) * math.log(units.shape[1])
    size = math.fsum(np.abs(log_sums)) + len(units) * math.log(units.shape[1]) + tilt * threshold + abs(log_rest)
    return log_total - tilt * threshold + log_rest, _ROUNDING + _LOG_ROUNDING * size


def _mixture_log10_e(centred: Floats, excess: float, deviation: float) -> float:
    logs = [slope * excess - _log_mgf(centred, slope) for slope in (s / deviation for s in _SLOPES)]
    return (float(special.logsumexp(logs)) - math.log(len(logs))) / math.log(10)
