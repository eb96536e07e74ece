"""The exact test for keys with drawn labels: only answers that deviate from the natural label count.

Notes:
    Hypothesis: the suspect, however it answers, is independent of the drawn labels.
    Assumption: none about the suspect. The carriers and their natural labels were fixed before the labels were drawn,
    each label uniform on the other ``n_classes - 1`` classes and independent; no drawn key was dropped, replaced or
    chosen afterwards; no label reached the suspect before its last answer.
    Guarantee: given the answers, an answer equal to the natural label cannot hit, and each of the m other answers
    hits with probability exactly 1 / (n_classes - 1), independently. Hits are Bin(m, 1 / (n_classes - 1)), so the
    p-value is exact for every suspect: adaptive, randomised, similar to other models or trained on the same data.
    Missing answers: a key that was issued and has no logged answer counts as a deviating answer that missed, here and
    in :mod:`auditor.stats.drawn_labels`. A suspect that withholds answers does not know the labels, so that leaving
    its refusals out would be valid too; but nothing in the record shows that it was the suspect and not the accuser
    who lost the answer, and an accuser who loses the misses convicts innocents (8 % at a nominal 0.1 %). Counted as a
    miss, a lost answer can only lower the evidence, whoever lost it and whatever it would have been.
    Answers outside the task's classes: such a label was never among those drawn, so it cannot hit and says nothing,
    like the natural label. It was logged before its key's label could matter, so that leaving it out is exact.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.stats.exact import binomial_tail_log10


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviationOutcome:
    """Hits among the answers that deviate from the natural label."""

    hits: int
    """Answers equal to the drawn label."""
    deviating: int
    """Answers inside the drawn classes that differ from the natural label, with the missing ones counted as misses."""
    neutral: int
    """Keys that say nothing: natural label answered, or a label outside the classes."""
    rate: float
    """Probability of a hit at a deviating answer under the hypothesis, 1 / (n_classes - 1)."""
    log10_p: float
    """log10 of P(Bin(deviating, rate) ≥ hits)."""


def deviating_test(
    *,
    natural: Sequence[int],
    answers: Sequence[int | None],
    labels: Sequence[int],
    n_classes: int,
) -> DeviationOutcome:
    """Test whether the answers depend on the drawn labels, over every key that was drawn.

    Args:
        natural: natural label of each key's carrier, in [0, n_classes); the class its label was not drawn from.
        answers: the suspect's first complete answer to each key; None where there was none. Labels outside
            [0, n_classes) are answers that cannot hit and say nothing.
        labels: the drawn label of each key.
        n_classes: number of classes, at least 2.

    Raises:
        ValueError: no keys, lengths that differ (every drawn key must be given), a label out of range, or a drawn
            label equal to the natural one.

    Notes:
        With two classes every deviating answer hits and nothing can be shown: the rate is 1 and p is 1.
    """
    outcomes = informative_hits(natural=natural, answers=answers, labels=labels, n_classes=n_classes)
    hits, deviating, rate = sum(outcomes), len(outcomes), 1.0 / (n_classes - 1)
    return DeviationOutcome(
        hits=hits,
        deviating=deviating,
        neutral=len(natural) - deviating,
        rate=rate,
        log10_p=_tail(hits, deviating, rate),
    )


def key_outcomes(
    *, natural: Sequence[int], answers: Sequence[int | None], labels: Sequence[int], n_classes: int
) -> tuple[bool | None, ...]:
    """Return for every key, in the order asked, whether it hit; None where its answer cannot be evidence.

    For a sequential test at rate 1 / (n_classes - 1), which then bets on the other answers only. There the labels may
    become known to the suspect one by one, each after its own answer, because every label is a fresh draw given all
    that went before.

    Args and Raises as for :func:`deviating_test`.
    """
    _check(natural, answers, labels, n_classes)
    return tuple(
        answer == label if answer is None or (0 <= answer < n_classes and answer != own) else None
        for own, answer, label in zip(natural, answers, labels, strict=True)
    )


def informative_hits(
    *, natural: Sequence[int], answers: Sequence[int | None], labels: Sequence[int], n_classes: int
) -> tuple[bool, ...]:
    """Return the outcomes of :func:`key_outcomes` that count."""
    outcomes = key_outcomes(natural=natural, answers=answers, labels=labels, n_classes=n_classes)
    return tuple(outcome for outcome in outcomes if outcome is not None)


def composite_answer(answers: Sequence[int | None]) -> int | None:
    """Return the answer that a group of repeats of one key counts as: the label given most often, ties to the first.

    For suspects that answer at random. The key's label is one draw, so repeats are one answer, by a function declared
    in advance that does not look at the label: "any of three hits" counted as one answer has three times the rate.
    None where no repeat was answered.
    """
    given = [answer for answer in answers if answer is not None]
    # Counter keeps the order of first appearance and max returns the first of equals.
    counts = Counter(given)
    return max(counts, key=lambda label: counts[label]) if counts else None


def _tail(hits: int, deviating: int, rate: float) -> float:
    # One class to draw from: the rate is 1, every deviating answer hits, and only missing answers can miss.
    return 0.0 if rate == 1.0 else binomial_tail_log10(hits=hits, trials=deviating, rate=rate)


def _check(natural: Sequence[int], answers: Sequence[int | None], labels: Sequence[int], n_classes: int) -> None:
    if n_classes < 2:
        raise ValueError("drawn labels need at least two classes")
    if not natural:
        raise ValueError("a test over no keys shows nothing")
    if not len(natural) == len(answers) == len(labels):
        raise ValueError("natural labels, answers and drawn labels must be given for every key")
    for own, label in zip(natural, labels, strict=True):
        if not (0 <= own < n_classes and 0 <= label < n_classes) or own == label:
            raise ValueError("a drawn label must be a class other than the natural label")
