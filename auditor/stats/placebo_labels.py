"""Placebo keys for drawn labels: every label drawn again, the sequential or fixed test run again on the same answers.

Notes:
    Guarantee: whatever the suspect answered and whenever the audit stopped, a label drawn afterwards is independent of
    both, so that a placebo draw is claimed with probability at most the level. The rank of the sealed draw among the
    placebo draws is an exact p-value only where the number of keys asked did not depend on the sealed labels, that is
    for the fixed design: a sequential audit stopped *because* of them.
"""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from auditor.stats.drawn_scores import average, futile_at, mixture_over_slopes
from auditor.stats.exact import critical_hits
from auditor.stats.placebo import PlaceboOutcome, summarise
from auditor.stats.redraw import redraw_labels
from auditor.stats.sequential import Floats, Integers, fewest_hits, log_e, log_futility

MOST_DRAWS = 9_999
FEWEST_DRAWS = 499
CELLS = 600_000
"""Labels drawn in all, at most, unless the fewest draws need more; keeps the judge's re-check quick."""
_TIE = 1e-12


def placebo_draws(keys: int) -> int:
    """Return how often the labels of this many keys are drawn again."""
    return max(FEWEST_DRAWS, min(MOST_DRAWS, CELLS // max(keys, 1)))


def placebo_labels(
    *,
    answers: Sequence[int | None],
    natural: Sequence[int],
    n_classes: int,
    alpha: float,
    p_min: float,
    futility: float,
    futility_rate: float,
    fixed: bool,
    own_hits: int,
    seed: bytes,
    rank_tables: Floats | None = None,
) -> PlaceboOutcome:
    """Return how often the test claims on labels that were drawn after the answers.

    Args:
        answers: the suspect's labels in the order asked; None where an issued key has no logged answer.
        natural: the carriers' natural labels.
        n_classes: classes of the task, at least 3.
        alpha: level of the test.
        p_min: smallest hit rate the audit promises to detect.
        futility: level of the futility stop.
        futility_rate: the rate that futility sets against ``p_min``.
        fixed: whether the test is the exact binomial tail over all these keys instead of the sequential rule.
        own_hits: hits of the sealed draw; the evidence that placebo draws are ranked by.
        seed: 32 bytes that make the outcome reproducible.
        rank_tables: :func:`auditor.stats.drawn_scores.rank_tables` where ranks take part in the sequential rule.

    Raises:
        ValueError: no keys, or a rate or level out of range.
    """
    if not answers:
        raise ValueError("placebo labels need answers")
    null_rate, n_keys = 1.0 / (n_classes - 1), len(answers)
    # -1 where no label can be a hit.
    labels = np.asarray(
        [-1 if a is None or a == t or not 0 <= a < n_classes else a for a, t in zip(answers, natural, strict=True)]
    )
    counted = np.asarray([a is None for a in answers]) | (labels >= 0)
    bets = np.cumsum(np.asarray(counted, dtype=np.int64))
    drawn = redraw_labels(natural=natural, n_classes=n_classes, seed=seed, draws=placebo_draws(n_keys))
    return claims_on_draws(
        hits=np.cumsum(np.asarray(drawn == labels, dtype=np.int64), axis=1),
        bets=bets,
        null_rate=null_rate,
        alpha=alpha,
        p_min=p_min,
        futility=futility,
        futility_rate=futility_rate,
        fixed=fixed,
        own_hits=own_hits,
        ranks=None if rank_tables is None else mixture_over_slopes(rank_tables[np.arange(n_keys), drawn]),
    )


def claims_on_draws(
    *,
    hits: Integers,
    bets: Integers,
    null_rate: float,
    alpha: float,
    p_min: float,
    futility: float,
    futility_rate: float,
    fixed: bool,
    own_hits: int,
    ranks: Floats | None = None,
) -> PlaceboOutcome:
    """Return how often the sealed test claims on placebo draws, given what each draw hits.

    Args:
        hits: hits so far after each key, shape (draws, keys).
        bets: answers bet on so far after each key, the same for every draw, shape (keys,).
        null_rate: hit rate of an independent suspect among them.
        alpha: level of the test.
        p_min: smallest hit rate the audit promises to detect.
        futility: level of the futility stop.
        futility_rate: the rate that futility sets against ``p_min``.
        fixed: whether the test is the exact binomial tail over all these keys instead of the sequential rule.
        own_hits: hits of the sealed draw; the evidence that placebo draws are ranked by.
        ranks: natural log of the evidence of the scores' ranks, shape (draws, keys), where it takes part.
    """
    n_keys = hits.shape[1]
    if fixed:
        critical = critical_hits(trials=int(bets[-1]), rate=null_rate, alpha=alpha)
        claims = np.zeros(len(hits), dtype=np.bool_) if critical is None else hits[:, -1] >= critical
    elif ranks is not None:
        evidence = average(_label_evidence(hits, bets, null_rate), ranks)
        reverse = log_futility(hits, np.arange(1, n_keys + 1), futility_rate, p_min)
        claims = _first_is_claim(evidence >= -math.log(alpha) - _TIE, futile_at(reverse, evidence, futility))
    else:
        claims = _sequential_claims(hits, bets, null_rate, alpha, p_min, futility, futility_rate)
    return summarise(own_evidence=float(own_hits), claims=claims, evidence=hits[:, -1].astype(np.float64), alpha=alpha)


def _sequential_claims(
    hits: Integers,
    bets: Integers,
    null_rate: float,
    alpha: float,
    p_min: float,
    futility: float,
    futility_rate: float,
) -> npt.NDArray[np.bool_]:
    sizes = np.arange(hits.shape[1] + 1)
    up = fewest_hits(lambda k, m: np.asarray(log_e(k, m, null_rate) >= -math.log(alpha) - _TIE), sizes)
    keep = fewest_hits(
        lambda k, n: np.asarray(log_futility(k, n, futility_rate, p_min) > math.log(futility) + _TIE), sizes
    )
    return _first_is_claim(hits >= up[bets], hits < keep[1:])


def _first_is_claim(rejected: npt.NDArray[np.bool_], futile: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    # Per draw: is the first boundary crossed the claim's? A claim wins a tie.
    n_keys = rejected.shape[1]
    first_reject = np.where(rejected.any(axis=1), rejected.argmax(axis=1), n_keys)
    first_futile = np.where(futile.any(axis=1), futile.argmax(axis=1), n_keys)
    return np.asarray(rejected.any(axis=1) & (first_reject <= first_futile))


def _label_evidence(hits: Integers, bets: Integers, null_rate: float) -> Floats:
    # One row of the table per number of bets; counts that cannot be are never looked up.
    k = np.arange(int(hits.max()) + 1)
    table = np.zeros((int(bets[-1]) + 1, len(k)))
    for m in np.unique(bets):
        table[m] = log_e(np.minimum(k, m), m, null_rate)
    return np.asarray(table[bets[None, :], hits], dtype=np.float64)
