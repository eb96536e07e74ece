"""Labels drawn between two classes: each key's label is its carrier's natural class or one committed rival, by a coin.

Carriers on which a model of the task hesitates between two classes can be taught either at little cost, and a surrogate
that copies the model's answers copies the choice. Half of the keys then ask for the natural label, so that hits alone
say nothing; that the hits follow the coins does.

Notes:
    Hypothesis: the suspect, however it answers, is independent of the coins.
    Assumption: natural label and rival of every carrier were committed to before the coins fell; no drawn key was
    dropped, replaced or chosen afterwards; no coin reached the suspect before its last answer to that key.
    Guarantee: an answer that prefers one of the two classes prefers the drawn one with probability exactly 1/2, given
    all that went before. The two classes may be as likely or unlikely for an independent model as they like: a suspect
    trained on the same data, or one that knows the pairs, is covered.
    Which class an answer prefers never depends on the coin: the answered label where it is one of the two, otherwise
    the one with the larger score; a tie, or no score for either, says nothing and is not bet on.
    Missing answers count as misses, for the reason given in :mod:`auditor.stats.deviating`.
"""

import math
from collections.abc import Sequence

import numpy as np

from auditor.records import Answer
from auditor.stats.redraw import Integers, UniformDraws

RIVAL_RATE = 0.5
"""Hit rate of an independent suspect among the answers that prefer one of the two classes."""
_EXCLUSION = 3.5
"""Keys times the squared distance from 1/2 that exclude a hit rate: ln(100)/2 = 2.3 on average, and reserve."""
_NARROWEST, _WIDEST = 0.06, 0.25


def smallest_rate(n_keys: int) -> float:
    """Return the smallest hit rate, among all keys, that so many keys can tell from 1/2; in [0.56, 0.75]."""
    return 0.5 + min(_WIDEST, max(_NARROWEST, round(math.sqrt(_EXCLUSION / n_keys), 3)))


def preference(answer: Answer | None, *, natural: int, rival: int) -> int | None:
    """Return which of the two classes an answer prefers; None where it says nothing about them."""
    if answer is None:
        return None
    if answer.label in (natural, rival):
        return answer.label
    own, other = _score(answer, natural), _score(answer, rival)
    if own == other:
        return None
    # A list of the largest scores leaves out smaller ones: a listed class is ahead of one that is not.
    return natural if other is None or (own is not None and own > other) else rival


def _score(answer: Answer, label: int) -> float | None:
    if answer.scores is not None:
        return answer.scores[label] if label < len(answer.scores) else None
    return dict(answer.top or ()).get(label)


def key_outcomes(
    *, natural: Sequence[int], rival: Sequence[int], answers: Sequence[Answer | None], labels: Sequence[int]
) -> tuple[bool | None, ...]:
    """Return for every key, in the order asked, whether its answer prefers the drawn class; None where nothing is bet.

    Args:
        natural: natural label of each key's carrier.
        rival: the other class of each, fixed before the draw.
        answers: the suspect's answers; None, where an issued key has none, is a miss.
        labels: the drawn label of each key, one of the two.

    Raises:
        ValueError: lengths that differ, equal classes, or a label that is neither of the two.
    """
    if not len(natural) == len(rival) == len(answers) == len(labels):
        raise ValueError("natural labels, rivals, answers and drawn labels must be given for every key")
    if any(own == other or label not in (own, other) for own, other, label in zip(natural, rival, labels, strict=True)):
        raise ValueError("a drawn label must be one of two different classes")
    found: list[bool | None] = []
    for own, other, answer, label in zip(natural, rival, answers, labels, strict=True):
        preferred = preference(answer, natural=own, rival=other)
        found.append(False if answer is None else None if preferred is None else preferred == label)
    return tuple(found)


def redraw_coins(*, n_keys: int, seed: bytes, draws: int) -> Integers:
    """Return coins drawn again, shape (draws, n_keys), each 0 or 1; equal arguments give equal coins."""
    return np.asarray(UniformDraws(seed, below=2).take(draws * n_keys).reshape(draws, n_keys))
