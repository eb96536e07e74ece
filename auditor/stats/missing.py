"""Answers that are missing, repeated, shuffled or batched: what they may count as, and what they cost.

Notes:
    Every issued key counts. A missing answer is a miss, except where the labels were drawn and the judge ran the
    transport: there the suspect cannot know which refusals would have been hits, and nobody else could drop them.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

import numpy as np
import numpy.typing as npt

from auditor.stats.exact import Interval, clopper_pearson, fisher_log10_p
from auditor.stats.sequential import Operating


class Transport(StrEnum):
    """Who ran the queries."""

    JUDGE = "judge"
    """Neither party could suppress an answer."""
    PARTY = "party"
    """A party could have; every issued key without a logged answer is a miss."""


class NullKind(StrEnum):
    """Where the null hypothesis comes from."""

    FIXED_RATE = "fixed rate"
    DRAWN_LABEL = "drawn label"


class Composite(StrEnum):
    """Pre-declared rules that make one answer of several; "any of them hits" is not among them."""

    FIRST_COMPLETE = "first complete"
    MAJORITY = "majority"
    """The most frequent label; among equals the one answered first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Missingness:
    """Whether keys go unanswered more often than controls."""

    log10_p: float
    """One-sided exact p-value (Fisher) of "keys are refused no more often than controls"."""
    obstructed: bool
    """The p-value is at most the declared level."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alignment:
    """A map from task classes to the suspect's labels, fixed before any key was asked."""

    suspect_label: tuple[int, ...]
    """Suspect's label of each task class."""
    unmatched: tuple[int, ...]
    """Suspect's labels that no class was matched to."""
    never_answered: tuple[int, ...]
    """Unmatched labels that no ordinary sample produced: the only candidates for a new label."""
    agreement: float
    """Share of the ordinary answers that agree with the map."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stability:
    """How often a repeated probe got another label."""

    disagreements: int
    repeats: int
    interval: Interval
    """Exact interval of the disagreement rate."""
    unstable: bool
    """The share exceeds the declared maximum; answers are then random and the rate forecasts do not apply."""


def missing_counts_as(*, null: NullKind, transport: Transport) -> bool | None:
    """Return what a key without an answer counts as: False is a miss, None is neutral (factor one).

    Dropping missing keys under a fixed rate lets an innocent suspect that refuses its misses be claimed; so does
    dropping them when the accuser could have suppressed answers.
    """
    match null:
        case NullKind.FIXED_RATE:
            return False
        case NullKind.DRAWN_LABEL:
            return None if transport is Transport.JUDGE else False
        case _:
            assert_never(null)


def composite_answer(answers: Sequence[int | None], rule: Composite) -> int | None:
    """Return the one answer that the pre-declared rule makes of all attempts at a key, None if none answered."""
    complete = [answer for answer in answers if answer is not None]
    if not complete:
        return None
    match rule:
        case Composite.FIRST_COMPLETE:
            return complete[0]
        case Composite.MAJORITY:
            return Counter(complete).most_common(1)[0][0]
        case _:
            assert_never(rule)


def selective_missingness(
    *, keys_missing: int, keys: int, controls_missing: int, controls: int, alpha: float
) -> Missingness:
    """Test whether keys are refused more often than controls: a suspect that detects keys obstructs the audit.

    Raises:
        ValueError: counts that cannot be, or a level outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    log10_p = fisher_log10_p(hits_a=keys_missing, trials_a=keys, hits_b=controls_missing, trials_b=controls)
    return Missingness(log10_p=log10_p, obstructed=log10_p <= math.log10(alpha))


def repeat_stability(*, disagreements: int, repeats: int, maximum: float) -> Stability:
    """Return whether repeated probes disagree more often than declared, with an exact 95 % interval.

    Raises:
        ValueError: counts that cannot be, or a maximum outside [0, 1].
    """
    if repeats < 1:
        raise ValueError("stability needs at least one repeat")
    if not 0.0 <= maximum <= 1.0:
        raise ValueError("maximum must lie in [0, 1]")
    return Stability(
        disagreements=disagreements,
        repeats=repeats,
        interval=clopper_pearson(hits=disagreements, trials=repeats, confidence=0.95),
        unstable=disagreements / repeats > maximum,
    )


def batched_mean(operating: Operating, *, batch: int) -> float:
    """Return the mean number of keys paid when they are sent ``batch`` at a time and judged in committed order.

    Validity is untouched; at most ``batch`` − 1 keys more than one by one are paid, cut off at the cap.

    Raises:
        ValueError: a batch below 1.
    """
    if batch < 1:
        raise ValueError("batch must be at least 1")
    cap = len(operating.decided_by) - 1
    starts = range(0, cap, batch)
    return sum(min(batch, cap - start) * (1.0 - operating.decided_by[start]) for start in starts)


def align_labels(counts: npt.ArrayLike) -> Alignment:
    """Return the map that agrees with most ordinary answers; fix it before the first key is asked.

    Any map fixed beforehand keeps a drawn-label null exact, and a wrong one only costs power. A map fitted on the key
    answers convicts innocent suspects. The ordinary samples are paid queries.

    Args:
        counts: shape (task classes, suspect labels), labels at least as many as classes; entry (c, s) is how often
            an ordinary sample of class c was answered s.

    Raises:
        ValueError: a matrix that is no table of counts, that is empty, or that has fewer labels than classes.
    """
    from scipy.optimize import linear_sum_assignment

    table = np.asarray(counts, dtype=np.float64)
    if table.ndim != 2 or table.shape[0] < 1 or table.shape[1] < table.shape[0]:
        raise ValueError("counts must be a matrix with at least as many suspect labels as classes")
    if np.any(table < 0) or not np.isfinite(table).all() or table.sum() == 0:
        raise ValueError("counts must be non-negative and not all zero")
    rows, columns = linear_sum_assignment(table, maximize=True)
    unmatched = tuple(int(s) for s in range(table.shape[1]) if s not in set(columns.tolist()))
    return Alignment(
        suspect_label=tuple(int(s) for s in columns),
        unmatched=unmatched,
        never_answered=tuple(s for s in unmatched if table[:, s].sum() == 0),
        agreement=float(table[rows, columns].sum() / table.sum()),
    )


def alignment_rounds(
    *, n_classes: int, accuracy: float, confidence: float = 0.99, seed: int, simulations: int = 2000, most: int = 60
) -> int | None:
    """Return how many rounds of one ordinary sample per class make the whole map right with ``confidence``.

    Simulated for a suspect that is right with probability ``accuracy`` and otherwise answers a uniform wrong class;
    one round costs ``n_classes`` queries. None if ``most`` rounds are too few.

    Raises:
        ValueError: fewer than two classes, or a probability outside (0, 1).
    """
    if n_classes < 2 or not 0.0 < accuracy < 1.0 or not 0.0 < confidence < 1.0:
        raise ValueError("alignment needs at least two classes and probabilities in (0, 1)")
    for rounds in range(1, most + 1):
        if _share_right(n_classes, accuracy, rounds, seed, simulations) >= confidence:
            return rounds
    return None


def _share_right(n_classes: int, accuracy: float, rounds: int, seed: int, simulations: int) -> float:
    generator = np.random.default_rng([seed, rounds])
    classes = np.arange(n_classes)
    right = 0
    for _ in range(simulations):
        correct = generator.random((rounds, n_classes)) < accuracy
        wrong = (classes + generator.integers(1, n_classes, (rounds, n_classes))) % n_classes
        answers = np.where(correct, classes, wrong)
        table = np.zeros((n_classes, n_classes))
        np.add.at(table, (np.broadcast_to(classes, answers.shape), answers), 1.0)
        # A random relabelling keeps the solver from breaking ties towards the right map.
        shuffle = generator.permutation(n_classes)
        right += bool(np.array_equal(shuffle[np.asarray(align_labels(table[:, shuffle]).suspect_label)], classes))
    return right / simulations
