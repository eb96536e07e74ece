"""How many paid queries each published or textbook rule needs, in closed form.

Three families: the new-label rule (one answer Δ suffices), the wrong-label threshold rule (too few misses), and
designs that control a false-claim probability (fixed sample, SPRT) with the information limit no test can beat.
Exact forecasts of the default test are in :mod:`auditor.stats.sequential`.

Notes:
    All figures assume distinct keys asked in a committed random order, each hit with the same probability.
"""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.stats import special
from auditor.stats.exact import binomial_tail_log10, upper_bound
from auditor.stats.sequential import Floats, Integers, Operating, boundary_operating, fewest_hits

_ROUNDING = 1e-9
"""Slack before rounding a computed count up or down: 0.3 · 10 must count as 3, not as 2."""
_SEARCH_LIMIT = 4_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class NewLabelBound:
    """The new-label paper's bound on the mean number of queries, with the law it comes from."""

    mean: float
    """1/p, the mean number of queries until the first hit on an endless key set."""
    ceiling: int
    """1/p rounded up, the figure the paper prints."""
    sd: float
    """Standard deviation of the number of queries until the first hit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThresholdSize:
    """Key counts at which the wrong-label threshold rule reaches a detection probability."""

    first: int
    """The smallest number of keys that reaches it; larger ones may fall short, since it moves in a sawtooth."""
    stable: int
    """The smallest number of keys from which on every number reaches it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FixedDesign:
    """The smallest exact binomial design."""

    keys: int
    """Keys to ask, all of them."""
    hits: int
    """Claim from this many hits on."""
    log10_level: float
    """log10 of the false-claim probability at the null rate, at most log10 of the demanded level."""
    power: float
    """Probability of a claim at the assumed rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SprtDesign:
    """Wald's sequential probability ratio test of ``rate`` against ``null_rate`` on the natural-log scale."""

    rate: float
    null_rate: float
    hit: float
    """Step of the log likelihood ratio at a hit, positive."""
    miss: float
    """Step at a miss, negative."""
    upper: float
    """Claim at or above this."""
    lower: float
    """Give up at or below this."""

    @property
    def mean_bound_h1(self) -> float:
        """Upper bound on the mean number of queries at ``rate``; rigorous for the guaranteed thresholds."""
        return (self.upper + self.hit) / bernoulli_kl(self.rate, self.null_rate)

    @property
    def mean_bound_h0(self) -> float:
        """Upper bound on the mean number of queries at ``null_rate``; rigorous for the guaranteed thresholds."""
        return (-self.lower - self.miss) / bernoulli_kl(self.null_rate, self.rate)


@dataclass(frozen=True, slots=True, kw_only=True)
class WaldMeans:
    """Wald's approximate mean sample sizes, overshoot ignored."""

    derived: float
    """Mean queries at the assumed rate."""
    innocent: float
    """Mean queries at the null rate."""


def effective_rate(
    *, rate: float, randomised_share: float = 0.0, refused_share: float = 0.0, random_hit_rate: float = 0.0
) -> float:
    """Return the hit rate that is left when a suspect randomises some answers and refuses some keys.

    p(1−r)(1−d), plus r(1−d)·u where a random answer hits with probability u; use it in place of p everywhere.

    Raises:
        ValueError: a share outside [0, 1].
    """
    for share in (rate, randomised_share, refused_share, random_hit_rate):
        if not 0.0 <= share <= 1.0:
            raise ValueError("rates and shares must lie in [0, 1]")
    answered = 1.0 - refused_share
    return answered * (rate * (1.0 - randomised_share) + randomised_share * random_hit_rate)


def new_label_bound(rate: float) -> NewLabelBound:
    """Return the paper's bound 1/p for the mean number of new-label queries.

    Raises:
        ValueError: a rate outside (0, 1].
    """
    _check_rate(rate)
    mean = 1.0 / rate
    return NewLabelBound(mean=mean, ceiling=math.ceil(mean - _ROUNDING), sd=math.sqrt(1.0 - rate) / rate)


def new_label_within(*, rate: float, queries: int) -> float:
    """Return the probability that at least one of ``queries`` answers is the new label, 1 − (1 − p)^q."""
    _check_rate(rate)
    _check_queries(queries)
    return -math.expm1(queries * _log_miss(rate)) if queries else 0.0


def new_label_mean(*, rate: float, keys: int) -> float:
    """Return the paper's E[q] over a set of ``keys``: [1 − (1 − p)^n (1 + np)] / p, where failures contribute nothing.

    It rises to 1/p with n; see :func:`new_label_cost` for what is actually spent.
    """
    _check_rate(rate)
    _check_queries(keys)
    none = 1.0 - new_label_within(rate=rate, queries=keys)
    return (1.0 - none * (1.0 + keys * rate)) / rate


def new_label_cost(*, rate: float, keys: int) -> float:
    """Return E[min(q, n)] = [1 − (1 − p)^n] / p: the mean number of queries spent when giving up after ``keys``."""
    return new_label_within(rate=rate, queries=keys) / rate


def new_label_quantile(*, rate: float, miss: float) -> int:
    """Return the fewest queries that fail to show the new label with probability at most ``miss``.

    Raises:
        ValueError: a rate outside (0, 1] or a probability outside (0, 1).
    """
    _check_rate(rate)
    _check_level("miss", miss)
    if rate == 1.0:
        return 1
    return max(1, math.ceil(math.log(miss) / _log_miss(rate) - _ROUNDING))


def excluded_rate(*, queries: int, confidence: float) -> float:
    """Return the hit rate that no hit at all in ``queries`` answers rules out, 1 − (1 − confidence)^(1/n)."""
    return upper_bound(hits=0, trials=queries, confidence=confidence)


def threshold_hits(*, keys: int, tau: float) -> int:
    """Return from how many hits on the wrong-label rule claims: misses of at most ⌊τn⌋ − 1; n + 1 means never."""
    _check_level("tau", tau)
    _check_queries(keys)
    return keys + 1 - math.floor(tau * keys + _ROUNDING)


def threshold_accuracy(*, rate: float, keys: int, tau: float) -> float:
    """Return the wrong-label rule's probability of a claim at hit rate ``rate``.

    At a marked model's rate it is the published "Acc"; at an innocent model's rate it is the false-claim probability,
    which the rule does not control.
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError("rate must lie in [0, 1]")
    return float(_threshold_accuracies(rate, tau, np.asarray([keys], dtype=np.int64))[0])


def threshold_size(*, rate: float, tau: float, accuracy: float) -> ThresholdSize | None:
    """Return the first and the stable number of keys with detection probability ``accuracy``.

    None where τ is not above the miss rate 1 − p, so that more keys do not help.

    Raises:
        ValueError: a value out of range, or τ so near 1 − p that millions of keys would be needed.
    """
    _check_rate(rate)
    _check_level("tau", tau)
    _check_level("accuracy", accuracy)
    gap = tau - (1.0 - rate)
    if gap <= _ROUNDING:
        return None
    # Hoeffding: beyond this n the rule, which allows at least τn − 2 misses, always reaches the accuracy.
    spread = math.sqrt(-math.log1p(-accuracy) / 2.0)
    horizon = math.ceil(((spread + math.sqrt(spread**2 + 4.0 * gap)) / (2.0 * gap)) ** 2) + 1
    if horizon > _SEARCH_LIMIT:
        raise ValueError("tau is too close to 1 - rate for a threshold rule of any practical size")
    reached = _threshold_accuracies(rate, tau, np.arange(1, horizon + 1, dtype=np.int64)) >= accuracy
    failing = np.flatnonzero(~reached)
    return ThresholdSize(first=int(np.flatnonzero(reached)[0]) + 1, stable=int(failing[-1]) + 2 if failing.size else 1)


def fixed_design(
    *, alpha: float, power: float, rate: float, null_rate: float, max_keys: int = 20_000
) -> FixedDesign | None:
    """Return the smallest exact binomial design of level ``alpha`` and ``power``, None if ``max_keys`` is too few.

    Raises:
        ValueError: a level outside (0, 1), or rates that are not 0 < null_rate < rate ≤ 1.
    """
    _check_contrast(rate, null_rate)
    _check_level("alpha", alpha)
    _check_level("power", power)
    start, stop = 1, min(256, max_keys) + 1
    while start <= max_keys:
        n = np.arange(start, stop, dtype=np.int64)
        critical = fewest_hits(lambda k, m: _tail(k, m, null_rate) <= alpha * (1.0 + 1e-12), n)
        powers = np.where(critical <= n, _tail(np.minimum(critical, n), n, rate), 0.0)
        enough = np.flatnonzero(powers >= power)
        if enough.size:
            keys, hits = int(n[enough[0]]), int(critical[enough[0]])
            level = binomial_tail_log10(hits=hits, trials=keys, rate=null_rate)
            return FixedDesign(keys=keys, hits=hits, log10_level=level, power=float(powers[enough[0]]))
        start, stop = stop, min(2 * stop, max_keys + 1)
    return None


def information_limit(*, alpha: float, power: float, rate: float, null_rate: float) -> float:
    """Return KL(power ‖ alpha) / KL(rate ‖ null_rate), below which no test's mean number of queries can be.

    It holds for every sequential test of that level and power. Power 1 gives log(1/alpha) / KL, the limit of tests
    that always claim in the end.

    Raises:
        ValueError: rates that are not 0 < null_rate < rate ≤ 1, or not 0 < alpha < power ≤ 1.
    """
    _check_contrast(rate, null_rate)
    if not 0.0 < alpha < power <= 1.0:
        raise ValueError("alpha must be positive and below power, and power at most 1")
    return bernoulli_kl(power, alpha) / bernoulli_kl(rate, null_rate)


def bernoulli_kl(a: float, b: float) -> float:
    """Return the Kullback-Leibler divergence of Bernoulli(a) from Bernoulli(b), in nats."""
    return float(special.rel_entr(a, b) + special.rel_entr(1.0 - a, 1.0 - b))


def sprt_design(*, alpha: float, power: float, rate: float, null_rate: float) -> SprtDesign:
    """Return the SPRT with thresholds 1/alpha and 1 − power, which guarantee both error probabilities.

    Raises:
        ValueError: a level outside (0, 1), or rates that are not 0 < null_rate < rate < 1.
    """
    _check_sprt(alpha, power, rate, null_rate)
    return _sprt(rate, null_rate, upper=-math.log(alpha), lower=math.log1p(-power))


def sprt_design_wald(*, alpha: float, power: float, rate: float, null_rate: float) -> SprtDesign:
    """Return the SPRT with Wald's thresholds, which meet the error probabilities only approximately.

    Raises:
        ValueError: as :func:`sprt_design`.
    """
    _check_sprt(alpha, power, rate, null_rate)
    return _sprt(rate, null_rate, upper=math.log(power / alpha), lower=math.log1p(-power) - math.log1p(-alpha))


def sprt_operating(design: SprtDesign, *, rate: float, cap: int) -> Operating:
    """Return the exact behaviour of an SPRT at true hit rate ``rate`` within ``cap`` queries.

    Raises:
        ValueError: a rate outside [0, 1] or a cap below 1.
    """

    def ratio(k: Integers, n: Integers) -> Floats:
        return np.asarray(k * design.hit + (n - k) * design.miss, dtype=np.float64)

    if cap < 1:
        raise ValueError("cap must be at least 1")
    n = np.arange(cap + 1, dtype=np.int64)
    return boundary_operating(
        rate=rate,
        reject_from=fewest_hits(lambda k, m: ratio(k, m) >= design.upper - 1e-12, n),
        continue_from=fewest_hits(lambda k, m: ratio(k, m) > design.lower + 1e-12, n),
    )


def wald_means(*, alpha: float, power: float, rate: float, null_rate: float) -> WaldMeans:
    """Return Wald's expected sample sizes of the SPRT, overshoot ignored; a forecast, not an exact figure.

    Raises:
        ValueError: as :func:`sprt_design`.
    """
    design = sprt_design_wald(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
    derived = power * design.upper + (1.0 - power) * design.lower
    innocent = alpha * design.upper + (1.0 - alpha) * design.lower
    return WaldMeans(
        derived=derived / bernoulli_kl(rate, null_rate), innocent=-innocent / bernoulli_kl(null_rate, rate)
    )


def _sprt(rate: float, null_rate: float, *, upper: float, lower: float) -> SprtDesign:
    return SprtDesign(
        rate=rate,
        null_rate=null_rate,
        hit=math.log(rate / null_rate),
        miss=math.log1p(-rate) - math.log1p(-null_rate),
        upper=upper,
        lower=lower,
    )


def _tail(hits: Integers, trials: Integers, rate: float) -> Floats:
    # P(Bin >= 0) is 1, where the incomplete beta function is not defined.
    inside = np.maximum(hits, 1)
    tail = special.betainc(inside, trials - inside + 1, rate)
    return np.asarray(np.where(hits <= 0, 1.0, tail), dtype=np.float64)


def _threshold_accuracies(rate: float, tau: float, keys: Integers) -> npt.NDArray[np.float64]:
    _check_level("tau", tau)
    if np.any(keys < 1):
        raise ValueError("the number of keys must be at least 1")
    needed = keys + 1 - np.floor(tau * keys + _ROUNDING).astype(np.int64)
    return np.where(needed > keys, 0.0, _tail(np.minimum(needed, keys), keys, rate))


def _log_miss(rate: float) -> float:
    return math.log1p(-rate) if rate < 1.0 else -math.inf


def _check_rate(rate: float) -> None:
    if not 0.0 < rate <= 1.0:
        raise ValueError("rate must lie in (0, 1]")


def _check_queries(queries: int) -> None:
    if queries < 0:
        raise ValueError("a number of queries cannot be negative")


def _check_level(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1")


def _check_contrast(rate: float, null_rate: float) -> None:
    if not 0.0 < null_rate < rate <= 1.0:
        raise ValueError("rates must satisfy 0 < null_rate < rate <= 1")


def _check_sprt(alpha: float, power: float, rate: float, null_rate: float) -> None:
    _check_contrast(rate, null_rate)
    if rate == 1.0:
        raise ValueError("rate must be below 1 for a likelihood ratio that allows misses")
    _check_level("alpha", alpha)
    _check_level("power", power)
