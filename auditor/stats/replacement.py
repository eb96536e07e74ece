"""Keys drawn without replacement from a finite sealed set: "would more than so many of them hit?".

That is another question than "does the suspect depend on the drawn labels?", for which the size of the set is
irrelevant. It needs a committed random order, and a separate argument why an independent model stays at or below the
tolerated total.

Notes:
    The evidence is the uniform mixture, over totals above the tolerated one, of hypergeometric likelihood ratios
    against it (the prior-posterior idea of Waudby-Smith and Ramdas, 2020). At the tolerated total it is a test
    martingale; the simulated level at smaller totals is smaller still.
"""

import math

import numpy as np

from auditor.stats import special
from auditor.stats.sequential import Floats, Integers, Operating, operating_from_laws

_TIE = 1e-12


def log_e_without_replacement(*, trials: int, keys: int, null_total: int) -> Floats:
    """Return the natural log of the evidence after ``trials`` draws for every count of hits, shape (trials + 1,).

    It is inf where more hits were seen than the tolerated total holds, and -inf where no larger total explains them.

    Raises:
        ValueError: a total or a number of draws that does not fit the set.
    """
    _check(keys, null_total)
    if not 0 <= trials <= keys:
        raise ValueError("draws must lie between 0 and the number of keys")
    hits = np.arange(trials + 1)
    alternatives = np.arange(null_total + 1, keys + 1)[:, None]
    null = _log_pmf(hits, trials, keys, np.asarray(null_total))
    mixture = np.logaddexp.reduce(_log_pmf(hits, trials, keys, alternatives), axis=0) - math.log(len(alternatives))
    impossible = np.isneginf(null)
    value = mixture - np.where(impossible, 0.0, null)
    return np.asarray(np.where(np.isneginf(mixture), -np.inf, np.where(impossible, np.inf, value)), dtype=np.float64)


def without_replacement_boundary(*, keys: int, null_total: int, alpha: float) -> Integers:
    """Return per number of draws 0 … keys the fewest hits with evidence of at least 1/alpha, n + 1 for never.

    Raises:
        ValueError: a total that does not fit the set, or a level outside (0, 1).
    """
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    boundary = np.ones(keys + 1, dtype=np.int64)
    for n in range(keys + 1):
        reached = log_e_without_replacement(trials=n, keys=keys, null_total=null_total) >= -math.log(alpha) - _TIE
        boundary[n] = int(np.argmax(reached)) if reached.any() else n + 1
    return boundary


def without_replacement_operating(*, keys: int, total: int, null_total: int, alpha: float) -> Operating:
    """Return the exact behaviour when ``total`` of the ``keys`` would hit, drawn in random order.

    Raises:
        ValueError: totals that do not fit the set, or a level outside (0, 1).
    """
    if not 0 <= total <= keys:
        raise ValueError("the total must lie between 0 and the number of keys")
    boundary = without_replacement_boundary(keys=keys, null_total=null_total, alpha=alpha)
    law = np.zeros(keys + 2)
    law[0] = 1.0
    reject, alive = np.zeros(keys + 1), np.zeros(keys + 1)
    seen = np.arange(keys + 2)
    for n in range(1, keys + 1):
        alive[n] = law.sum()
        hit = law * np.clip((total - seen) / (keys - n + 1), 0.0, 1.0)
        law -= hit
        law[1:] += hit[:-1]
        reject[n] = law[boundary[n] :].sum()
        law[boundary[n] :] = 0.0
    return operating_from_laws(reject=reject, futile=np.zeros(keys + 1), alive=alive)


def _log_pmf(hits: Integers, trials: int, keys: int, total: Integers) -> Floats:
    return np.asarray(
        _log_choose(total, hits) + _log_choose(keys - total, trials - hits) - _log_choose(np.asarray(keys), trials),
        dtype=np.float64,
    )


def _log_choose(n: Integers, k: Integers | int) -> Floats:
    possible = (np.asarray(k) >= 0) & (np.asarray(k) <= n)
    inside = np.where(possible, k, 0)
    value = special.gammaln(n + 1) - special.gammaln(inside + 1) - special.gammaln(n - inside + 1)
    return np.asarray(np.where(possible, value, -np.inf), dtype=np.float64)


def _check(keys: int, null_total: int) -> None:
    if not 0 <= null_total < keys:
        raise ValueError("the tolerated total must lie between 0 and one less than the number of keys")
