"""Drawn wrong labels revealed one by one: evidence from deviating answers only.

Each key's label was drawn uniformly from the C−1 wrong classes after its carrier was fixed. An answer that equals the
carrier's natural label cannot hit and says nothing; each other answer hits with probability exactly 1/(C−1) if the
suspect is independent of the draw, whatever it is and however it adapts to labels revealed before.

Notes:
    Test: the default mixture with null rate 1/(C−1) on the deviating answers alone, in the committed order. The
    conditional null is a single rate, so the level is exact up to discreteness (Ville). It assumes that no label
    reached the suspect before its own answer, and that no key was dropped or re-ordered after its label was known.
    Missing answers and answers outside the task: by the one rule of :mod:`auditor.stats.deviating`.
    Futility: ``p_min`` is the share of *all* keys asked that hit, as the owner measures it and as the plan states it.
    Natural answers are therefore misses for futility, although the evidence does not bet on them: a suspect that
    always answers the natural label would otherwise never be excluded. The rule weighs ``p_min`` against
    :func:`innocent_rate` on all keys; its level holds for every suspect whose hit probability on each key, given the
    past, is at least ``p_min``. Among deviating answers alone such a suspect hits at least as often.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from auditor.stats import mixtures
from auditor.stats.deviating import key_outcomes
from auditor.stats.queries import bernoulli_kl
from auditor.stats.sequential import Operating, SequentialOutcome, log_e, operating, run

FUTILITY_OFF = 1e-300
"""A futility level no audit reaches."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLabelOutcome:
    """The sequential test over deviating answers."""

    deviating: tuple[int, ...]
    """Positions of the keys that carry evidence, from 0: deviating answers, and missing ones as misses."""
    hits: int
    test: SequentialOutcome
    """One step per key asked; the evidence moves at deviating answers only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnLabelForecast:
    """Cost of a drawn-label audit on a copy."""

    mean: float
    """Mean keys asked until a claim, neutral answers included."""
    q95: int | None
    """Keys within which the claim is made with probability 0.95; None if the search ends before."""
    q99: int | None
    """The same with probability 0.99."""
    limit: float
    """log(1/alpha) over the largest expected growth per key: the limit of tests that always claim in the end."""
    mean_of_plain_analysis: float
    """Mean keys if every answer that misses, neutral ones included, counted against the owner."""


def drawn_label_test(
    *,
    answers: Sequence[int | None],
    natural: Sequence[int],
    drawn: Sequence[int],
    n_classes: int,
    alpha: float,
    p_min: float,
    futility: float = FUTILITY_OFF,
) -> DrawnLabelOutcome:
    """Run the sequential deviating-answer test in the order the keys were asked.

    Args:
        answers: the suspect's labels; None where an issued key has no logged answer. Labels outside the task are
            neutral.
        natural: the carriers' natural labels.
        drawn: the drawn labels, never equal to the natural one.
        n_classes: classes of the task, at least 3.
        alpha: level of the claim.
        p_min: smallest hit rate among all keys asked that the audit promises to detect.
        futility: level of the futility stop; off by default.

    Raises:
        ValueError: lengths that differ, labels outside the task, or a rate or level out of range.
    """
    null_rate = drawn_rate(n_classes)
    given = (*answers, *natural, *drawn)
    outcomes = key_outcomes(natural=natural, answers=answers, labels=drawn, n_classes=n_classes) if given else ()
    test = run(
        outcomes, null_rate=null_rate, alpha=alpha, p_min=p_min, futility=futility,
        futility_rate=innocent_rate(null_rate, p_min),
    )  # fmt: skip
    return DrawnLabelOutcome(
        deviating=tuple(i for i, outcome in enumerate(outcomes) if outcome is not None),
        hits=sum(outcome is True for outcome in outcomes),
        test=test,
    )


def drawn_rate(n_classes: int) -> float:
    """Return 1/(C−1), the exact hit rate of an independent suspect's deviating answers.

    Raises:
        ValueError: fewer than three classes: with one wrong class the "draw" is known to everybody.
    """
    if n_classes < 3:
        raise ValueError("drawn labels need at least three classes")
    return 1.0 / (n_classes - 1)


def innocent_rate(null_rate: float, p_min: float) -> float:
    """Return the rate that futility sets against ``p_min``: 1/(C−1), but at most half of ``p_min``.

    Every rate below ``p_min`` keeps the level of the futility stop; this one is where innocent suspects lie, since
    they hit at most 1/(C−1) of all keys, and exists for few classes too, where 1/(C−1) exceeds ``p_min``.
    """
    return min(null_rate, 0.5 * p_min)


def drawn_label_operating(
    *, rate: float, n_classes: int, alpha: float, p_min: float, futility: float, cap: int
) -> Operating:
    """Return the exact behaviour of the test on a suspect that hits ``rate`` of all keys, if all others deviate.

    The least favourable suspect with that hit rate: where it answers the natural label on some of the other keys, the
    evidence is larger at every key, and the probability of a claim with it.

    Raises:
        ValueError: a rate or level out of range, fewer than three classes, or a cap below 1.
    """
    null_rate = drawn_rate(n_classes)
    return operating(
        rate=rate, null_rate=null_rate, alpha=alpha, p_min=p_min, futility=futility, cap=cap,
        futility_rate=innocent_rate(null_rate, p_min),
    )  # fmt: skip


def information_limit(*, alpha: float, power: float, rate: float, n_classes: int) -> float:
    """Return the smallest mean number of keys of any test with this level and power, at hit rate ``rate``.

    KL(power ‖ α) over rate · log(C−1): the information of a key is largest where every answer that is not the drawn
    label is the natural one.

    Raises:
        ValueError: a probability out of range, or fewer than three classes.
    """
    if not 0.0 < rate <= 1.0:
        raise ValueError("the hit rate must lie in (0, 1]")
    return bernoulli_kl(power, alpha) / (-rate * math.log(drawn_rate(n_classes)))


def drawn_label_forecast(
    *, alpha: float, n_classes: int, hit: float, natural: float, cap: int = 400
) -> DrawnLabelForecast:
    """Return the exact cost on a copy that answers the drawn label with probability ``hit``.

    Args:
        alpha: level of the claim.
        n_classes: classes of the task, at least 3.
        hit: probability of the drawn label, above 1/(C−1) of the deviating answers.
        natural: probability of the natural label, in [0, 1 − hit].
        cap: deviating answers the recursion goes through.

    Raises:
        ValueError: probabilities that cannot be, or a hit rate that gives no growth.
    """
    null_rate = 1.0 / (n_classes - 1)
    if not 0.0 < hit <= 1.0 or not 0.0 <= natural < 1.0 or hit + natural > 1.0 + 1e-12:
        raise ValueError("hit and natural must be probabilities that sum to at most 1")
    deviating = 1.0 - natural
    share = min(hit / deviating, 1.0)
    if not share > null_rate:
        raise ValueError("the hit rate among deviating answers must exceed 1/(C-1)")
    course = mixtures.open_ended(lambda k, n: log_e(k, n, null_rate), rate=share, alpha=alpha, cap=cap)
    plain = mixtures.open_ended(lambda k, n: log_e(k, n, null_rate), rate=hit, alpha=alpha, cap=2 * cap)
    at = np.diff(np.asarray(course.reject_by))
    return DrawnLabelForecast(
        mean=course.mean / deviating,
        q95=_keys_for(at, deviating, 0.95),
        q99=_keys_for(at, deviating, 0.99),
        limit=-math.log(alpha) / (deviating * bernoulli_kl(share, null_rate)),
        mean_of_plain_analysis=plain.mean,
    )


def _keys_for(claim_at: np.typing.NDArray[np.float64], deviating: float, probability: float) -> int | None:
    # P(claim within n keys) = sum over m of P(claim at the m-th deviating answer) P(Bin(n, deviating) >= m).
    m = np.arange(1, len(claim_at) + 1)
    if claim_at.sum() < probability:
        return None

    def reached(n: int) -> float:
        inside = m <= n
        tail = np.where(inside, special.betainc(np.minimum(m, n), n - np.minimum(m, n) + 1, deviating), 0.0)
        return float((claim_at * tail).sum())

    low, high = 0, 1
    while reached(high) < probability:
        low, high = high, 2 * high
        if high > 10_000_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) >= probability else (middle, high)
    return high
