"""Drawn labels and a suspect that scores every class: rank evidence beside the evidence of the first labels.

Each asked key has a drawn label that is uniform over the wrong classes of its carrier. Two e-processes run over the
same keys: the default mixture on deviating first labels, and the product of rank weights of the drawn label among the
wrong classes, mixed over slopes. The evidence is their average.

Notes:
    Guarantee: both processes are test supermartingales for every suspect that is independent of the labels, given all
    that went before and the current answer; so is their average, at every stop and without any assumption about the
    scores. It is at least half of either, so the weaker one costs a factor of two at most.
    The rule does not depend on hits: whether ranks take part is decided by the first logged answer to a key, namely
    whether it scores every class. Its label enters the evidence only after that, and all keys before it stayed
    without an answer and could only lower the evidence, so that nothing is chosen with hindsight. A suspect that
    reveals labels alone is tested on them with the whole evidence.
    Later answers without scores count as a list of one label, unlisted classes sharing the remaining places. A
    missing answer gets the smallest weight there is, for the reason given in :mod:`auditor.stats.deviating`.
    Futility waits while the evidence is above one, which can only make it rarer.
    The rank form is used and not the soft one: its smallest weight is above zero, and it does not depend on how a
    service scales its scores. docs/adr/0008 gives the reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from auditor.records import Answer
from auditor.stats.rank import SLOPES, rank_weights
from auditor.stats.sequential import Decision, Floats, SequentialOutcome

_TIE = 1e-12
_SMALLEST = 1e-300
"""Weights below this are kept from becoming zero; over thousands of classes the last places underflow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShare:
    """What the ranks contributed."""

    answers: int
    """Answers to keys that scored every class."""
    log10_e_labels: float
    """Largest evidence of the first labels alone."""
    log10_e_ranks: float
    """Largest evidence of the ranks alone."""


def ranks_take_part(answers: Sequence[Answer | None], *, n_classes: int) -> bool:
    """Return whether the first logged answer scores every class of the task."""
    first = next((answer for answer in answers if answer is not None), None)
    return first is not None and _scores_all(first, n_classes)


def rank_tables(answers: Sequence[Answer | None], *, natural: Sequence[int], n_classes: int) -> Floats:
    """Return the natural-log e-value of every key for every label that could have been drawn, per slope.

    Shape (keys, n_classes, slopes); the entries of a key's natural label are never looked up.

    Raises:
        ValueError: fewer than three classes, or a natural label outside them.
    """
    candidates = n_classes - 1
    if n_classes < 3 or not all(0 <= own < n_classes for own in natural):
        raise ValueError("ranks need at least three classes, and natural labels among them")
    weights = np.stack([rank_weights(candidates, slope) for slope in SLOPES])
    # Summed from the small end, so that differences of neighbouring sums keep their digits.
    tails = np.concatenate([np.cumsum(weights[:, ::-1], axis=1)[:, ::-1], np.zeros((len(SLOPES), 1))], axis=1)
    tables = np.empty((len(answers), n_classes, len(SLOPES)))
    worst = np.log(np.maximum(weights[:, -1], _SMALLEST))
    for row, (answer, own) in enumerate(zip(answers, natural, strict=True)):
        if answer is None:
            tables[row] = worst
            continue
        values = np.zeros(n_classes)
        if _scores_all(answer, n_classes) and answer.scores is not None:
            values = np.asarray(answer.scores[:n_classes], dtype=np.float64)
        elif answer.label < n_classes:
            values[answer.label] = 1.0
        ordered = np.sort(np.delete(values, own))
        right, left = np.searchsorted(ordered, values, side="right"), np.searchsorted(ordered, values, side="left")
        above, tied = candidates - right, np.maximum(right - left, 1)
        ends = np.minimum(above + tied, candidates)
        tables[row] = np.log(np.maximum(tails[:, above] - tails[:, ends], _SMALLEST) / tied).T
    return tables


def rank_path(tables: Floats, drawn: Sequence[int]) -> Floats:
    """Return the natural log of the ranks' evidence after each key."""
    chosen = tables[np.arange(len(drawn)), np.asarray(drawn, dtype=np.int64)]
    return mixture_over_slopes(chosen)


def mixture_over_slopes(log_factors: Floats) -> Floats:
    """Return the log of the equal mixture of products; shape (..., keys, slopes) to (..., keys)."""
    products = np.cumsum(log_factors, axis=-2)
    return np.asarray(np.logaddexp.reduce(products, axis=-1) - math.log(products.shape[-1]), dtype=np.float64)


def average(labels: Floats, ranks: Floats) -> Floats:
    """Return the natural log of the average of two e-processes."""
    return np.asarray(np.logaddexp(labels, ranks) - math.log(2.0), dtype=np.float64)


def with_ranks(outcome: SequentialOutcome, ranks: Floats, *, alpha: float, futility: float) -> SequentialOutcome:
    """Return the course of the averaged evidence, decided anew.

    Args:
        outcome: the course of the first labels.
        ranks: natural log of the ranks' evidence after each key, shape (steps,).
        alpha: level of the test.
        futility: level of the futility stop.
    """
    evidence = average(np.asarray([step.log10_e for step in outcome.steps]) * math.log(10), ranks)
    reverse = np.asarray([step.log10_futility for step in outcome.steps]) * math.log(10)
    rejected = evidence >= -math.log(alpha) - _TIE
    futile = futile_at(reverse, evidence, futility)
    crossed = np.flatnonzero(rejected | futile)
    decision, decided_at = Decision.CONTINUE, None
    if crossed.size:
        decision = Decision.REJECT if rejected[crossed[0]] else Decision.FUTILE
        decided_at = int(crossed[0]) + 1
    log10_e = evidence / math.log(10)
    most = float(log10_e.max()) if outcome.steps else 0.0
    return SequentialOutcome(
        steps=tuple(replace(step, log10_e=float(log10_e[i])) for i, step in enumerate(outcome.steps)),
        decision=decision,
        decided_at=decided_at,
        log10_e_max=most,
        log10_p=-max(0.0, most) + 0.0,
    )


def futile_at(reverse: Floats, evidence: Floats, futility: float) -> np.typing.NDArray[np.bool_]:
    """Return where the futility stop applies: its boundary is crossed and the evidence is not above one."""
    return np.asarray((reverse <= math.log(futility) + _TIE) & (evidence <= _TIE))


def _scores_all(answer: Answer, n_classes: int) -> bool:
    return answer.scores is not None and len(answer.scores) >= n_classes
