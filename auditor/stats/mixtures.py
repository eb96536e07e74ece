"""E-processes beside the default one: other mixtures, a capped last bet, and a threshold calibrated to a maximum.

Every mixture holds only rates above the null rate, so each is a non-negative supermartingale under every rate up to
it, and 1/alpha is crossed with probability at most alpha however often the evidence is looked at. The calibrated
threshold is the exception: it holds its level only up to the maximum number of keys it was made for.

Notes:
    The capped last bet never stakes more than one hit needs to reach 1/alpha. Its stakes depend on the past alone, so
    it stays a test martingale at the null rate and a supermartingale below; it saves the overshoot of the threshold.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from auditor.stats.sequential import (
    Floats,
    Integers,
    Operating,
    boundary_operating,
    fewest_hits,
    log_e,
    operating_from_laws,
)

GRID: tuple[float, ...] = (0.3, 0.5, 0.8, 0.95)
"""Hit rates of the grid mixture, equally weighted; those up to the null rate are left out."""
Evidence = Callable[[Integers, Integers], Floats]
"""Natural log of the evidence from arrays (hits, trials); it must rise with the hits."""

_TIE = 1e-12
_STEPS_PER_NAT = 1000.0
"""The capped bet rounds its log wealth down to this lattice after every answer, which makes its law finite; giving
wealth away keeps the guarantee."""
_NEGLIGIBLE = 1e-12
"""States less probable than this are dropped and counted as undecided."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A boundary whose exact crossing probability within a pre-registered maximum is at most the level."""

    log_threshold: float
    """Claim from this natural-log evidence on; at most log(1/alpha)."""
    level: float
    """Probability at the null rate of crossing it within ``maximum`` keys, at most the demanded level."""
    maximum: int
    """Keys it was made for. Going on beyond them voids the level."""
    reject_from: Integers = field(repr=False)
    """Shape (maximum + 1,): hits from which it claims, per sample size."""


def ratio_log_e(hits: npt.ArrayLike, trials: npt.ArrayLike, *, null_rate: float, rate: float) -> Floats:
    """Return the natural log likelihood ratio of one ``rate`` above the null rate, elementwise.

    Raises:
        ValueError: rates that are not 0 < null_rate < rate < 1.
    """
    if not 0.0 < null_rate < rate < 1.0:
        raise ValueError("rates must satisfy 0 < null_rate < rate < 1")
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    miss = math.log1p(-rate) - math.log1p(-null_rate)
    return np.asarray(k * math.log(rate / null_rate) + (n - k) * miss, dtype=np.float64)


def grid_log_e(hits: npt.ArrayLike, trials: npt.ArrayLike, *, null_rate: float, grid: Sequence[float] = GRID) -> Floats:
    """Return the natural log of the equal mixture of likelihood ratios over the grid points above the null rate.

    Raises:
        ValueError: no grid point lies above the null rate, or a rate outside (0, 1).
    """
    points = [rate for rate in grid if rate > null_rate]
    if not points:
        raise ValueError("the grid needs a rate above the null rate")
    ratios = np.stack([ratio_log_e(hits, trials, null_rate=null_rate, rate=rate) for rate in points])
    return np.asarray(np.logaddexp.reduce(ratios, axis=0) - math.log(len(points)), dtype=np.float64)


def evidence_boundary(evidence: Evidence, *, log_threshold: float, cap: int) -> Integers:
    """Return per sample size 0 … cap the fewest hits whose evidence reaches the threshold, n + 1 for never."""
    n = np.arange(cap + 1, dtype=np.int64)
    return fewest_hits(lambda k, m: np.asarray(evidence(k, m) >= log_threshold - _TIE), n)


def open_ended(evidence: Evidence, *, rate: float, alpha: float, cap: int) -> Operating:
    """Return the exact behaviour, without a futility stop, of claiming once the evidence reaches 1/alpha.

    Raises:
        ValueError: a level outside (0, 1), a rate outside [0, 1] or a cap below 1.
    """
    _check(alpha, cap)
    up = evidence_boundary(evidence, log_threshold=-math.log(alpha), cap=cap)
    return boundary_operating(rate=rate, reject_from=up, continue_from=np.zeros_like(up))


def calibrated_boundary(evidence: Evidence, *, null_rate: float, alpha: float, maximum: int) -> Calibrated:
    """Return the lowest threshold whose exact crossing probability within ``maximum`` keys is at most ``alpha``.

    It removes most of the overshoot but is no e-process: valid only for the pre-registered maximum, without
    continuation. The level is exact at ``null_rate`` and smaller below, since crossing is monotone in the hits.

    Raises:
        ValueError: a level outside (0, 1) or a maximum below 1.
    """
    _check(alpha, maximum)
    low, high = 0.2 * -math.log(alpha), -math.log(alpha)
    best = evidence_boundary(evidence, log_threshold=high, cap=maximum)
    level = _crossing(best, null_rate)
    for _ in range(22):
        middle = 0.5 * (low + high)
        boundary = evidence_boundary(evidence, log_threshold=middle, cap=maximum)
        crossing = _crossing(boundary, null_rate)
        if crossing <= alpha:
            best, level, high = boundary, crossing, middle
        else:
            low = middle
    return Calibrated(log_threshold=high, level=level, maximum=maximum, reject_from=best)


def curtailed_operating(*, keys: int, hits: int, rate: float) -> Operating:
    """Return the exact behaviour of "claim from ``hits`` of ``keys`` on", stopped once the outcome is certain.

    It claims exactly when the fixed test of all keys would.

    Raises:
        ValueError: a critical count outside 1 … keys, or a rate outside [0, 1].
    """
    if not 1 <= hits <= keys:
        raise ValueError("the critical count must lie between 1 and the number of keys")
    n = np.arange(keys + 1, dtype=np.int64)
    keep = np.maximum(hits - (keys - n), 0)
    return boundary_operating(rate=rate, reject_from=np.minimum(np.full_like(n, hits), n + 1), continue_from=keep)


def capped_path(outcomes: Sequence[bool], *, null_rate: float, alpha: float) -> Floats:
    """Return the natural-log wealth of the capped bet after each answer; it stays at 1/alpha once it is there.

    Raises:
        ValueError: a level or null rate outside (0, 1).
    """
    _check(alpha, 1)
    wealth, hits, path = 0.0, 0, []
    for n, hit in enumerate(outcomes):
        if wealth < -math.log(alpha) - _TIE:
            bet = float(_capped_log_bet(np.asarray([hits]), n, np.asarray([wealth]), null_rate, alpha)[0])
            moved = wealth + (bet - math.log(null_rate) if hit else math.log1p(-math.exp(bet)) - math.log1p(-null_rate))
            wealth = moved if moved >= -math.log(alpha) - _TIE else float(_rounded_down(np.asarray([moved]))[0])
        hits += bool(hit)
        path.append(wealth)
    return np.asarray(path, dtype=np.float64)


def capped_operating(*, rate: float, null_rate: float, alpha: float, cap: int) -> Operating:
    """Return the exact behaviour of the capped bet on independent hits, without a futility stop.

    The wealth depends on the order of hits and misses once the cap has bound, so the recursion carries the law of
    (hits, wealth on its lattice) instead of the hits alone. Its cost grows with the cap: a hundred keys are practical.

    Raises:
        ValueError: a level or rate out of range, or a cap below 1.
    """
    _check(alpha, cap)
    if not 0.0 <= rate <= 1.0:
        raise ValueError("rate must lie in [0, 1]")
    hits, wealth, law = np.zeros(1, dtype=np.int64), np.zeros(1), np.ones(1)
    reject, alive = np.zeros(cap + 1), np.zeros(cap + 1)
    for n in range(cap):
        alive[n + 1] = law.sum()
        bet = _capped_log_bet(hits, n, wealth, null_rate, alpha)
        up = wealth + bet - math.log(null_rate)
        down = wealth + np.log1p(-np.exp(bet)) - math.log1p(-null_rate)
        claimed = up >= -math.log(alpha) - _TIE
        reject[n + 1] = rate * law[claimed].sum()
        hits, wealth, law = _merged(
            np.concatenate([hits[~claimed] + 1, hits]),
            _rounded_down(np.concatenate([up[~claimed], down])),
            np.concatenate([law[~claimed] * rate, law * (1.0 - rate)]),
        )
        if not law.size:
            break
    return operating_from_laws(reject=reject, futile=np.zeros(cap + 1), alive=alive)


def _capped_log_bet(hits: Integers, trials: int, wealth: Floats, null_rate: float, alpha: float) -> Floats:
    # The predictive rate of the default mixture, lowered to what one hit needs and never below the null rate.
    counts = np.arange(trials + 1)
    predictive = math.log(null_rate) + log_e(counts + 1, trials + 1, null_rate) - log_e(counts, trials, null_rate)
    enough = math.log(null_rate) - math.log(alpha) - wealth
    return np.asarray(np.maximum(np.minimum(predictive[hits], enough), math.log(null_rate)), dtype=np.float64)


def _rounded_down(wealth: Floats) -> Floats:
    return np.asarray(np.floor(wealth * _STEPS_PER_NAT + 1e-6) / _STEPS_PER_NAT, dtype=np.float64)


def _merged(hits: Integers, wealth: Floats, law: Floats) -> tuple[Integers, Floats, Floats]:
    kept = law > _NEGLIGIBLE
    hits, wealth, law = hits[kept], wealth[kept], law[kept]
    if not law.size:
        return hits, wealth, law
    order = np.lexsort((wealth, hits))
    hits, wealth, law = hits[order], wealth[order], law[order]
    starts = np.flatnonzero(np.concatenate([[True], (np.diff(hits) != 0) | (np.diff(wealth) > 1e-6)]))
    return hits[starts], wealth[starts], np.asarray(np.add.reduceat(law, starts), dtype=np.float64)


def _crossing(boundary: Integers, rate: float) -> float:
    return boundary_operating(rate=rate, reject_from=boundary, continue_from=np.zeros_like(boundary)).reject


def _check(alpha: float, cap: int) -> None:
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    if cap < 1:
        raise ValueError("cap must be at least 1")
