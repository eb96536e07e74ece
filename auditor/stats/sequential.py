"""The default test: an anytime-valid e-process against "the hit rate is at most the null rate".

The bet is the Beta(1/2, 1/2) mixture of likelihood ratios, restricted to rates above the null rate. The restriction
is what makes it valid for every smaller rate too: the unrestricted mixture would convict a suspect for hitting
*less* often than the null rate. The audit also stops for futility when the reverse likelihood ratio shows that the
hit rate is not as high as the audit promises to detect.

Notes:
    Under any hit rate up to the null rate, conditionally on the past, the e-process is a non-negative
    supermartingale that starts at one; by Ville's inequality it ever reaches 1/alpha with probability at most alpha.
    Looking after every answer is therefore free. The futility rule has the same guarantee under any rate of at
    least ``p_min``.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import special

from auditor.stats.exact import Interval

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_PRIOR = 0.5
_SMALLEST_DIRECT = 1e-250
"""Below this the mixture's weight above the null rate is summed as a series."""
_TIE = 1e-12
"""Slack of threshold comparisons on the natural-log scale: exact ties count as reached."""


class Decision(StrEnum):
    """What the sequential rule says."""

    REJECT = "reject"
    """The null hypothesis is rejected: the evidence reached 1/alpha."""
    FUTILE = "futile"
    """Hit rates of at least ``p_min`` are excluded at the futility level."""
    CONTINUE = "continue"
    """Neither boundary was reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """The evidence after one more answer."""

    n: int
    """Keys asked so far, from 1."""
    bets: int
    """Answers among them that the evidence bets on: all of them, unless some can say nothing."""
    hits: int
    """Hits among them."""
    log10_e: float
    """Evidence against the null hypothesis."""
    log10_futility: float
    """Likelihood ratio of ``p_min`` against the rate of an innocent suspect; very negative means futile."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SequentialOutcome:
    """The whole course of a sequential test."""

    steps: tuple[Step, ...]
    """One step per outcome given, including those after the decision."""
    decision: Decision
    """The first boundary that was crossed; rejection wins when both fall on one step."""
    decided_at: int | None
    """Number of answers at the decision, None when undecided."""
    log10_e_max: float
    """Largest evidence over all steps; 0.0 without steps."""
    log10_p: float
    """Anytime-valid p-value min(1, 1 / largest evidence)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Operating:
    """Exact behaviour of the sequential rule at one true hit rate and one number of keys."""

    reject: float
    """Probability of a rejection within the cap."""
    futile: float
    """Probability of a futility stop within the cap."""
    undecided: float
    """Probability that the keys run out first."""
    mean: float
    """Mean number of keys asked until a rejection, a futility stop or the cap."""
    median: int | None
    """Keys within which the null is *rejected* with probability 0.5; None if the probability of a rejection by the
    cap is smaller. Futility stops never count as reached, so on an innocent suspect this is None."""
    q95: int | None
    """The same with probability 0.95."""
    q99: int | None
    """The same with probability 0.99."""
    reject_by: tuple[float, ...] = field(repr=False)
    """``reject_by[n]``: probability of a rejection within n keys, n = 0 … cap."""
    decided_by: tuple[float, ...] = field(repr=False)
    """``decided_by[n]``: probability of a rejection or a futility stop within n keys, n = 0 … cap."""

    def keys_to_reject(self, probability: float) -> int | None:
        """Return the fewest keys that give a rejection with ``probability``, None if the cap is too small."""
        return _first_reaching(self.reject_by, probability)

    def keys_to_decide(self, probability: float) -> int | None:
        """Return the fewest keys that give any decision with ``probability``, None if the cap is too small."""
        return _first_reaching(self.decided_by, probability)


def log_e(hits: npt.ArrayLike, trials: npt.ArrayLike, null_rate: float, *, prior: float = _PRIOR) -> Floats:
    """Return the natural log of the evidence after ``hits`` in ``trials`` against "rate ≤ ``null_rate``".

    Works elementwise on arrays that broadcast; plain numbers give a 0-d array. ``prior`` is both parameters of the
    Beta mixture: 0.5 is the default test, 1 the uniform mixture.

    Raises:
        ValueError: counts that cannot be, or a null rate outside (0, 1).
    """
    _check_open_unit("null_rate", null_rate)
    k, n = np.broadcast_arrays(np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64))
    if np.any(k < 0) or np.any(k > n):
        raise ValueError("hits must lie between 0 and trials")
    upper = np.asarray(special.betaincc(k + prior, n - k + prior, null_rate), dtype=np.float64)
    representable = upper > _SMALLEST_DIRECT
    weight = np.log(np.where(representable, upper, 1.0)) - math.log(special.betaincc(prior, prior, null_rate))
    mixture = special.betaln(k + prior, n - k + prior) - special.betaln(prior, prior)
    null = k * math.log(null_rate) + (n - k) * math.log1p(-null_rate)
    value = np.asarray(mixture + weight - null, dtype=np.float64)
    if not np.all(representable):
        value = np.where(representable, value, _log_e_tail(k, n, null_rate, ~representable, prior))
    # Every likelihood ratio in the mixture is at most one here; rounding must not turn that into evidence.
    return np.asarray(np.where(k <= n * null_rate, np.minimum(value, 0.0), value), dtype=np.float64)


def log_futility(hits: npt.ArrayLike, trials: npt.ArrayLike, null_rate: float, p_min: float) -> Floats:
    """Return the natural log of the likelihood ratio of ``p_min`` against ``null_rate``, elementwise.

    Raises:
        ValueError: a rate outside (0, 1), or a null rate that is not below ``p_min``.
    """
    _check_rates(null_rate, p_min)
    k, n = np.asarray(hits, dtype=np.float64), np.asarray(trials, dtype=np.float64)
    miss = math.log1p(-p_min) - math.log1p(-null_rate)
    return np.asarray(k * math.log(p_min / null_rate) + (n - k) * miss, dtype=np.float64)


def run(
    outcomes: Sequence[bool | None],
    *,
    null_rate: float,
    alpha: float,
    p_min: float,
    futility: float,
    futility_rate: float | None = None,
) -> SequentialOutcome:
    """Run the sequential test over answers in the order they were asked.

    Args:
        outcomes: True for a hit; every issued key without an answer must be given as False. None stands for an answer
            that cannot be evidence for the owner: no bet is placed on it, and futility counts it as a miss.
        null_rate: largest hit rate that an independent suspect may have on the answers bet on, in (0, 1).
        alpha: level; the null is rejected once the evidence reaches 1/alpha.
        p_min: smallest hit rate, among all keys asked, that the audit promises to detect.
        futility: level of the futility stop.
        futility_rate: the rate of an innocent suspect that futility sets against ``p_min``, in (0, p_min); any such
            rate keeps the level. The null rate when None.

    Raises:
        ValueError: a level or rate outside (0, 1), or the rate for futility not below ``p_min``.
    """
    _check_open_unit("alpha", alpha)
    _check_open_unit("futility", futility)
    n = np.arange(1, len(outcomes) + 1, dtype=np.int64)
    m = np.cumsum(np.asarray([outcome is not None for outcome in outcomes], dtype=np.int64))
    k = np.cumsum(np.asarray([bool(outcome) for outcome in outcomes], dtype=np.int64))
    evidence = log_e(k, m, null_rate)
    reverse = log_futility(k, n, null_rate if futility_rate is None else futility_rate, p_min)
    rejected, futile = _rejects(evidence, alpha), _is_futile(reverse, futility)
    decision, decided_at = Decision.CONTINUE, None
    crossed = np.flatnonzero(rejected | futile)
    if crossed.size:
        first = int(crossed[0])
        decision = Decision.REJECT if rejected[first] else Decision.FUTILE
        decided_at = first + 1
    log10_e = evidence / math.log(10)
    log10_futility = reverse / math.log(10)
    steps = tuple(
        Step(
            n=int(n[i]),
            bets=int(m[i]),
            hits=int(k[i]),
            log10_e=float(log10_e[i]),
            log10_futility=float(log10_futility[i]),
        )
        for i in range(len(outcomes))
    )
    log10_e_max = float(log10_e.max()) if steps else 0.0
    return SequentialOutcome(
        steps=steps,
        decision=decision,
        decided_at=decided_at,
        log10_e_max=log10_e_max,
        log10_p=-max(0.0, log10_e_max) + 0.0,
    )


def confidence_sequence(*, hits: int, trials: int, confidence: float) -> Interval:
    """Return an interval for the hit rate that is valid however the number of trials was chosen.

    It holds every rate that the two-sided Beta(1/2, 1/2) mixture does not reject; over all times together the
    intervals cover the true rate with probability ``confidence``. With 0 trials it is the whole of [0, 1].

    Raises:
        ValueError: counts that cannot be, or a confidence outside (0, 1).
    """
    _check_open_unit("confidence", confidence)
    if trials < 0 or not 0 <= hits <= trials:
        raise ValueError("hits must lie between 0 and trials")
    if trials == 0:
        return Interval(low=0.0, high=1.0, confidence=confidence)
    mixture = float(special.betaln(hits + _PRIOR, trials - hits + _PRIOR) - special.betaln(_PRIOR, _PRIOR))
    level = mixture + math.log1p(-confidence)
    return Interval(
        low=_likelihood_root(hits, trials, level),
        high=1.0 - _likelihood_root(trials - hits, trials, level),
        confidence=confidence,
    )


def operating(
    *,
    rate: float,
    null_rate: float,
    alpha: float,
    p_min: float,
    futility: float,
    cap: int,
    futility_rate: float | None = None,
) -> Operating:
    """Return the exact behaviour of :func:`run` on independent hits of probability ``rate``, up to ``cap`` keys.

    Computed by forward recursion over the number of hits, without simulation. The mean counts keys until a decision
    or the cap; the quantiles count keys until a *rejection* (see :class:`Operating`). A bet is placed on every
    answer; misses without a bet would raise the evidence, path by path, and the probability of a rejection with it.

    Raises:
        ValueError: a rate or level out of range, ``null_rate`` not below ``p_min``, or a cap below 1.
    """
    _check_open_unit("alpha", alpha)
    _check_open_unit("futility", futility)
    innocent = null_rate if futility_rate is None else futility_rate
    _check_rates(innocent, p_min)
    if cap < 1:
        raise ValueError("cap must be at least 1")
    n = np.arange(cap + 1, dtype=np.int64)
    up = fewest_hits(lambda k, m: _rejects(log_e(k, m, null_rate), alpha), n)
    keep = fewest_hits(lambda k, m: ~_is_futile(log_futility(k, m, innocent, p_min), futility), n)
    return boundary_operating(rate=rate, reject_from=up, continue_from=keep)


def boundary_operating(*, rate: float, reject_from: Integers, continue_from: Integers) -> Operating:
    """Return the exact behaviour of any rule given by hit counts per sample size, on independent hits.

    Args:
        rate: probability of a hit.
        reject_from: shape (cap + 1,); at n answers the rule rejects from this many hits on; entry 0 is not used.
        continue_from: shape (cap + 1,); with fewer hits the rule gives up, unless it rejects.

    Raises:
        ValueError: a rate outside [0, 1].
    """
    if not 0.0 <= rate <= 1.0:
        raise ValueError("rate must lie in [0, 1]")
    reject, futile, alive = _forward(rate, reject_from, continue_from)
    return operating_from_laws(reject=reject, futile=futile, alive=alive)


def operating_from_laws(*, reject: Floats, futile: Floats, alive: Floats) -> Operating:
    """Return the summary of a rule from its per-query laws, entries 0 … cap.

    Args:
        reject: probability of a rejection at exactly n keys.
        futile: probability of a futility stop at exactly n keys.
        alive: probability that the n-th key is asked.
    """
    reject_by, futile_by = np.cumsum(reject), np.cumsum(futile)
    by = tuple(float(x) for x in np.minimum(reject_by, 1.0))
    return Operating(
        reject=by[-1],
        futile=float(futile_by[-1]),
        undecided=max(0.0, 1.0 - float(reject_by[-1] + futile_by[-1])),
        mean=float(alive.sum()),
        median=_first_reaching(by, 0.5),
        q95=_first_reaching(by, 0.95),
        q99=_first_reaching(by, 0.99),
        reject_by=by,
        decided_by=tuple(float(x) for x in np.minimum(reject_by + futile_by, 1.0)),
    )


def fewest_hits(reached: Callable[[Integers, Integers], npt.NDArray[np.bool_]], n: Integers) -> Integers:
    """Return for every sample size the fewest hits at which a condition that is monotone in the hits holds.

    ``n + 1`` means that no number of hits is enough.
    """
    low, high = np.zeros_like(n), n + 1
    while np.any(low < high):
        middle = (low + high) // 2
        inside = middle <= n
        good = reached(np.minimum(middle, n), n) & inside
        open_ = low < high
        high = np.where(open_ & good, middle, high)
        low = np.where(open_ & ~good, middle + 1, low)
    return low


def _forward(rate: float, reject_from: Integers, continue_from: Integers) -> tuple[Floats, Floats, Floats]:
    # Per sample size: probability rejected at n, given up at n, still running before query n.
    cap = len(reject_from) - 1
    law = np.zeros(cap + 2)
    law[0] = 1.0
    reject, give_up, alive = np.zeros(cap + 1), np.zeros(cap + 1), np.zeros(cap + 1)
    for n in range(1, cap + 1):
        alive[n] = law[:n].sum()
        law[1 : n + 1] = law[1 : n + 1] * (1.0 - rate) + law[:n] * rate
        law[0] *= 1.0 - rate
        up = min(int(reject_from[n]), n + 1)
        reject[n] = law[up : n + 1].sum()
        law[up : n + 1] = 0.0
        keep = min(int(continue_from[n]), n + 1)
        give_up[n] = law[:keep].sum()
        law[:keep] = 0.0
    return reject, give_up, alive


def _rejects(evidence: Floats, alpha: float) -> npt.NDArray[np.bool_]:
    return np.asarray(evidence >= -math.log(alpha) - _TIE)


def _is_futile(reverse: Floats, futility: float) -> npt.NDArray[np.bool_]:
    return np.asarray(reverse <= math.log(futility) + _TIE)


def _first_reaching(by: Sequence[float], probability: float) -> int | None:
    # The slack keeps a sum of thousands of rounded terms from missing a probability it equals.
    return next((n for n, reached in enumerate(by) if reached >= probability - _TIE), None)


def _log_e_tail(k: Floats, n: Floats, null_rate: float, where: npt.NDArray[np.bool_], prior: float) -> Floats:
    # The mixture's weight above the null rate is below double precision. Its leading factor cancels against the null
    # likelihood, which leaves a hypergeometric series with positive terms and ratios below one.
    value = np.zeros(k.shape)
    constant = (
        prior * (math.log(null_rate) + math.log1p(-null_rate))
        - float(special.betaln(prior, prior))
        - math.log(special.betaincc(prior, prior, null_rate))
    )
    for index in np.ndindex(k.shape):
        if not where[index]:
            continue
        b = float(n[index] - k[index]) + prior
        total = float(n[index]) + 2 * prior
        series, term, j = 1.0, 1.0, 0
        while term > series * 1e-17:
            term *= (1.0 - null_rate) * (total + j) / (b + 1.0 + j)
            series += term
            j += 1
        value[index] = constant - math.log(b) + math.log(series)
    return value


def _likelihood_root(hits: int, trials: int, level: float) -> float:
    # The log-likelihood rises from -inf to its maximum at hits/trials; the smaller root of likelihood = level lies
    # above exp(level / hits) because the misses only lower the likelihood.
    from scipy.optimize import brentq

    if hits == 0:
        return 0.0
    below = math.exp(level / hits)
    if hits == trials:
        return below

    def excess(rate: float) -> float:
        return float(special.xlogy(hits, rate) + special.xlog1py(trials - hits, -rate)) - level

    return float(brentq(excess, 0.5 * below, hits / trials, xtol=1e-14, rtol=1e-13))


def _check_rates(null_rate: float, p_min: float) -> None:
    _check_open_unit("null_rate", null_rate)
    _check_open_unit("p_min", p_min)
    if not null_rate < p_min:
        raise ValueError("null_rate must be below p_min")


def _check_open_unit(name: str, value: float) -> None:
    if not 0.0 < value < 1.0:
        raise ValueError(f"{name} must lie strictly between 0 and 1")
