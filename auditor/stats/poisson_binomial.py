"""Exact tails of a number of hits whose probability differs from key to key (Poisson-binomial law).

Notes:
    Hypothesis: key i is hit with probability at most ``rates[i]``, independently of the other keys. Both halves are
    assumptions about the suspect; keys of one suspect share its habits, so rates *estimated* from other models give
    no guarantee here (see :mod:`auditor.stats.panel`). Where the rates are known by design, for example one over the
    number of labels a key's label was drawn from, the law is exact.
    Guarantee: every figure is exact up to rounding (relative error below 1e-9 at 1e-3000), because only positive
    terms are added. ``scipy.stats.poisson_binom.sf`` is one minus a sum and returns rounding noise below 1e-16.

References:
    Exponential change of measure as in Daniels (1954); the convolution is the textbook one.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def upper_tail_log10(*, hits: int, rates: Sequence[float]) -> float:
    """Return log10 of P(at least ``hits`` hits), where key i is hit with probability ``rates[i]``.

    The tail rises in every rate, so it is also the p-value of "no rate is above the given one". It is -inf only where
    the event is impossible: more hits than keys with a positive rate.

    Raises:
        ValueError: a rate outside [0, 1], or hits outside [0, number of keys].
    """
    p = _checked(hits, rates)
    possible = p[p > 0.0]
    certain = int(np.sum(possible == 1.0))
    open_ = possible[possible < 1.0]
    return _tail_log10(hits - certain, np.log(open_), np.log1p(-open_))


def lower_tail_log10(*, hits: int, rates: Sequence[float]) -> float:
    """Return log10 of P(at most ``hits`` hits), where key i is hit with probability ``rates[i]``.

    Raises:
        ValueError: a rate outside [0, 1], or hits outside [0, number of keys].
    """
    p = _checked(hits, rates)
    # At most that many hits are at least the other number of misses; swapping the logarithms keeps tiny rates exact.
    impossible = int(np.sum(p == 0.0))
    open_ = p[(p > 0.0) & (p < 1.0)]
    return _tail_log10(len(p) - hits - impossible, np.log1p(-open_), np.log(open_))


def law(rates: Sequence[float]) -> Floats:
    """Return the probabilities of 0 … n hits, shape (n + 1,), by convolution of the two-point laws.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    p = _checked(0, rates)
    return _convolve(p, 1.0 - p)


def _tail_log10(hits: int, log_hit: Floats, log_miss: Floats) -> float:
    n = len(log_hit)
    if hits <= 0:
        return 0.0
    if hits > n:
        return -math.inf
    if hits == n:
        return min(0.0, math.fsum(log_hit) / math.log(10))
    tilt = _tilt(hits, log_hit, log_miss)
    # Weighting hits by exp(tilt) moves the mean of the law to the tail asked for; undoing the weight afterwards only
    # adds positive terms, and everything that could underflow is in the two logarithms.
    log_total = np.logaddexp(log_hit + tilt, log_miss)
    tilted = _convolve(np.exp(log_hit + tilt - log_total), np.exp(log_miss - log_total))
    steps = np.arange(n - hits + 1)
    rest = float(np.sum(tilted[hits:] * np.exp(-tilt * steps)))
    return min(0.0, (math.fsum(log_total) - tilt * hits + math.log(rest)) / math.log(10))


def _tilt(hits: int, log_hit: Floats, log_miss: Floats) -> float:
    # The tilt at which the mean equals the count; zero when the count already lies at or below the mean.
    log_odds = log_hit - log_miss

    def mean(tilt: float) -> float:
        return float(np.sum(1.0 / (1.0 + np.exp(np.minimum(-(log_odds + tilt), 700.0)))))

    if mean(0.0) >= hits:
        return 0.0
    low, high = 0.0, 1.0
    while mean(high) < hits:
        low, high = high, 2.0 * high
    # Any tilt gives the exact answer; this one only has to be near the best.
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if mean(middle) < hits else (low, middle)
    return low


def _convolve(hit: Floats, miss: Floats) -> Floats:
    result = np.zeros(len(hit) + 1)
    result[0] = 1.0
    for i in range(len(hit)):
        result[1 : i + 2] = result[1 : i + 2] * miss[i] + result[: i + 1] * hit[i]
        result[0] *= miss[i]
    return result


def _checked(hits: int, rates: Sequence[float]) -> Floats:
    p = np.asarray(rates, dtype=np.float64).reshape(-1)
    if not np.all((p >= 0.0) & (p <= 1.0)):
        raise ValueError("every rate must lie in [0, 1]")
    if not 0 <= hits <= len(p):
        raise ValueError("hits must lie between 0 and the number of keys")
    return p
