"""Exact binomial and hypergeometric inference, with tail probabilities that never underflow."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.stats import special

_SMALLEST_DIRECT = 1e-250
"""Below this a tail is summed in log space; the incomplete beta function loses digits from about 1e-300 on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """An interval for a rate."""

    low: float
    """Lower end, in [0, 1]."""
    high: float
    """Upper end, in [0, 1]."""
    confidence: float
    """Coverage probability, in (0, 1)."""


def binomial_tail_log10(*, hits: int, trials: int, rate: float) -> float:
    """Return log10 of P(Bin(trials, rate) ≥ hits), exact however small the probability is.

    The tail increases in ``rate``, so the figure is also the p-value of the null hypothesis "the rate is at most
    ``rate``". It is -inf only where the event is impossible: hits at rate zero.

    Raises:
        ValueError: counts that cannot be, or a rate outside [0, 1].
    """
    _check_counts(hits, trials)
    if not 0.0 <= rate <= 1.0:
        raise ValueError("rate must lie in [0, 1]")
    if hits == 0 or rate == 1.0:
        return 0.0
    if rate == 0.0:
        return -math.inf
    if hits == trials:
        return trials * math.log10(rate)
    tail = float(special.betainc(hits, trials - hits + 1, rate))
    if tail > 0.5:
        return math.log1p(-float(special.betaincc(hits, trials - hits + 1, rate))) / math.log(10)
    if tail > _SMALLEST_DIRECT:
        return math.log10(tail)
    return _tail_series_log10(hits, trials, rate)


def lower_bound(*, hits: int, trials: int, confidence: float) -> float:
    """Return the one-sided lower Clopper-Pearson bound: "the rate is at least this".

    90 of 100 at 0.95 gives 0.836. With 0 trials nothing is known and the bound is 0.

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).
    """
    _check_counts(hits, trials)
    _check_confidence(confidence)
    if hits == 0:
        return 0.0
    return float(special.betaincinv(hits, trials - hits + 1, 1.0 - confidence))


def upper_bound(*, hits: int, trials: int, confidence: float) -> float:
    """Return the one-sided upper Clopper-Pearson bound: "the rate is at most this".

    Solved from the small tail ``1 - confidence``, so that 0.9999995 loses no digits. With 0 trials nothing is known
    and the bound is 1.

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    return upper_bound_at(hits=hits, trials=trials, error=1.0 - confidence)


def upper_bound_at(*, hits: int, trials: int, error: float) -> float:
    """Return the one-sided upper Clopper-Pearson bound that is too low with probability at most ``error``.

    For error probabilities too small to be written as one minus a float. With 0 trials the bound is 1.

    Raises:
        ValueError: counts that cannot be, or an error outside (0, 1).
    """
    _check_counts(hits, trials)
    _check_confidence(error)
    if hits == trials:
        return 1.0
    return float(special.betainccinv(hits + 1, trials - hits, error))


def clopper_pearson(*, hits: int, trials: int, confidence: float) -> Interval:
    """Return the two-sided Clopper-Pearson interval; with 0 trials it is the whole of [0, 1].

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).
    """
    _check_confidence(confidence)
    one_sided = (1.0 + confidence) / 2.0
    return Interval(
        low=lower_bound(hits=hits, trials=trials, confidence=one_sided),
        high=upper_bound(hits=hits, trials=trials, confidence=one_sided),
        confidence=confidence,
    )


def mid_p_interval(*, hits: int, trials: int, confidence: float) -> Interval:
    """Return the two-sided mid-p interval: every rate at which each mid-p tail exceeds half the error.

    The mid-p tail counts the observed value half. Shorter than :func:`clopper_pearson`, with a coverage that is close
    to ``confidence`` but, unlike there, not guaranteed for every rate: to describe a rate, never to bound an error
    probability. With 0 trials it is the whole of [0, 1].

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).

    References:
        Lancaster (1961); Berry and Armitage (1995).
    """
    _check_counts(hits, trials)
    _check_confidence(confidence)
    error = (1.0 - confidence) / 2.0
    high = 1.0 if trials == 0 else 1.0 - _mid_p_low(trials - hits, trials, error)
    low = 0.0 if trials == 0 else _mid_p_low(hits, trials, error)
    return Interval(low=low, high=high, confidence=confidence)


def critical_hits(*, trials: int, rate: float, alpha: float) -> int | None:
    """Return the fewest hits that reject "the rate is at most ``rate``" at level ``alpha``; None if none do.

    The claim "hits ≥ critical value" is made with probability at most ``alpha`` under the hypothesis, exactly. The
    tail is summed from the value itself upwards; a threshold from the distribution function up to and including it,
    used with "≥", would have the size of the next smaller count.

    Raises:
        ValueError: negative trials, a rate outside [0, 1], or a level outside (0, 1).
    """
    _check_counts(0, trials)
    _check_confidence(alpha)
    low, high = 0, trials + 1
    while low < high:
        middle = (low + high) // 2
        tail = binomial_tail_log10(hits=middle, trials=trials, rate=rate) if middle else 0.0
        low, high = (low, middle) if tail <= math.log10(alpha) else (middle + 1, high)
    return low if low <= trials else None


def fisher_log10_p(*, hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> float:
    """Return log10 of Fisher's exact one-sided p-value that group a's rate is greater than group b's.

    Summed in log space, so it does not underflow; 0.0 (p = 1) where a group is empty.

    Raises:
        ValueError: counts that cannot be.
    """
    _check_counts(hits_a, trials_a)
    _check_counts(hits_b, trials_b)
    total_hits = hits_a + hits_b
    most = min(trials_a, total_hits)
    if hits_a == max(0, total_hits - trials_b):
        return 0.0
    support = np.arange(hits_a, most + 1)
    terms = (
        _log_choose(trials_a, support)
        + _log_choose(trials_b, total_hits - support)
        - _log_choose(trials_a + trials_b, np.asarray(total_hits))
    )
    return min(0.0, float(special.logsumexp(terms)) / math.log(10))


def boschloo_p(*, hits_a: int, trials_a: int, hits_b: int, trials_b: int) -> float:
    """Return Boschloo's exact one-sided p-value that group a's rate is greater than group b's.

    Hypothesis: both groups have one common rate, and all trials are independent. It is never above Fisher's p-value
    and has its level for every common rate. The premise is the same as Fisher's and just as fragile here: with
    control *models* as group b the answers of one model are not independent, so the figure describes and does not
    bound an error probability; use :func:`auditor.stats.panel.rank_p`. scipy maximises over the common rate
    numerically; the result is limited by double precision, about 1e-300. An empty group gives 1.

    Raises:
        ValueError: counts that cannot be.
    """
    _check_counts(hits_a, trials_a)
    _check_counts(hits_b, trials_b)
    if trials_a == 0 or trials_b == 0:
        return 1.0
    from scipy.stats import boschloo_exact

    table = [[hits_a, hits_b], [trials_a - hits_a, trials_b - hits_b]]
    # The maximum over a nuisance rate is searched from below, so rounding may not carry it above Fisher's p-value.
    fisher = math.pow(10.0, fisher_log10_p(hits_a=hits_a, trials_a=trials_a, hits_b=hits_b, trials_b=trials_b))
    found = float(boschloo_exact(table, alternative="greater").pvalue)
    return min(1.0, fisher, found) if math.isfinite(found) else min(1.0, fisher)


def mcnemar_log10_p(*, only_first: int, only_second: int) -> float:
    """Return log10 of the exact one-sided McNemar p-value that the first member of a pair is hit more often.

    Hypothesis: within a pair the two members are exchangeable, and pairs are independent. The unit is right where
    *which member of a pair carries the mark was itself drawn by the seed* (each key beside a sham made from the same
    carrier): then every discordant pair is a fair coin for any suspect that is independent of the seed. It is wrong
    for two models compared on the same keys, because there the keys' labels are common to both and a model's answers
    depend on each other; and for repeats of one input.

    Args:
        only_first: pairs in which only the first member (the key) was hit.
        only_second: pairs in which only the second member (the sham) was hit.

    Raises:
        ValueError: a negative count.
    """
    return binomial_tail_log10(hits=only_first, trials=only_first + only_second, rate=0.5)


def _mid_p_low(hits: int, trials: int, error: float) -> float:
    if hits == 0:
        return 0.0

    def excess(rate: float) -> float:
        at_least = float(special.betainc(hits, trials - hits + 1, rate))
        more = float(special.betainc(hits + 1, trials - hits, rate)) if hits < trials else 0.0
        return 0.5 * (at_least + more) - error

    if hits == trials and error >= 0.5:
        return 1.0
    return special.bracketed_root(excess, 0.0, 1.0)


def _tail_series_log10(hits: int, trials: int, rate: float) -> float:
    # The tail is its first term times 1 + r_0 + r_0 r_1 + …; a tail this small lies far above the mean, where every
    # ratio is below one and all terms are positive, so nothing cancels.
    j = np.arange(hits, trials, dtype=np.float64)
    ratios = (trials - j) / (j + 1.0) * (rate / (1.0 - rate))
    series = 1.0 + float(np.cumprod(ratios).sum())
    log_choose = float(_log_choose(trials, np.asarray(hits)))
    log_rest = (trials - hits) * math.log1p(-rate) + log_choose + math.log(series)
    return hits * math.log10(rate) + log_rest / math.log(10)


def _log_choose(n: int, k: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    return np.asarray(-special.betaln(n - k + 1, k + 1) - math.log1p(n), dtype=np.float64)


def _check_counts(hits: int, trials: int) -> None:
    if trials < 0 or not 0 <= hits <= trials:
        raise ValueError("hits must lie between 0 and trials")


def _check_confidence(confidence: float) -> None:
    if not 0.0 < confidence < 1.0:
        raise ValueError("confidence must lie strictly between 0 and 1")
