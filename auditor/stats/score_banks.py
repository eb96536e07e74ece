"""Likelihood ratios from scores of known models, and the ceiling that holds where no such banks exist.

Notes:
    A Bayes factor needs the law of the score under both propositions. With scores of derived and of independent
    models both laws are estimated by kernel densities, and the ratio is limited to what so few models can support:
    never above the number of independent models plus one, never below the reciprocal for derived ones. Without the
    banks only a p-value remains, and -1/(e p ln p) bounds the Bayes factor of every alternative from a broad class
    (Sellke, Bayarri and Berger, 2001). It is a ceiling, not an estimate.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MIN_BANK = 5
"""Fewest models of a bank, each trained independently."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoreRatio:
    """A likelihood ratio, or a ceiling of one."""

    log10_lr: float
    at_most: bool
    """True for a ceiling that must be reported with the words "at most"."""
    limited: bool
    """True where the size of a bank, not the densities, decided the figure."""
    basis: str
    """What it was computed from, in words."""


def bank_ratio(score: float, *, derived: Sequence[float], independent: Sequence[float]) -> ScoreRatio:
    """Return the Bayes factor of a score from banks of derived and independent models.

    Raises:
        ValueError: a bank with fewer than MIN_BANK scores or without spread, or a score that is not finite.
    """
    values = [np.asarray(bank, dtype=np.float64) for bank in (derived, independent)]
    if not math.isfinite(score) or not all(np.isfinite(bank).all() for bank in values):
        raise ValueError("scores must be finite numbers")
    if any(bank.size < MIN_BANK or float(bank.std()) == 0.0 for bank in values):
        raise ValueError(f"each bank needs at least {MIN_BANK} scores that are not all equal")
    from scipy.stats import gaussian_kde

    logs = [_log_density(score, bank, math.sqrt(float(gaussian_kde(bank).covariance[0, 0]))) for bank in values]
    high, low = math.log10(len(independent) + 1), -math.log10(len(derived) + 1)
    log10_lr = (logs[0] - logs[1]) / math.log(10)
    held = min(max(log10_lr, low), high)
    return ScoreRatio(
        log10_lr=held,
        at_most=False,
        limited=held != log10_lr,
        basis=f"scores of {len(derived)} derived and {len(independent)} independent models",
    )


def _log_density(score: float, bank: npt.NDArray[np.float64], bandwidth: float) -> float:
    # In log space, where the library's density underflows far from the bank.
    kernels = -0.5 * ((score - bank) / bandwidth) ** 2
    return float(np.logaddexp.reduce(kernels)) - math.log(bank.size * bandwidth * math.sqrt(2.0 * math.pi))


def p_value_ceiling(log10_p: float) -> ScoreRatio:
    """Return -1/(e p ln p), above which no Bayes factor of the class lies; 1 for p from 1/e on.

    Raises:
        ValueError: a logarithm above zero or not a number.
    """
    if math.isnan(log10_p) or log10_p > 0.0:
        raise ValueError("log10 p must be at most zero")
    natural = log10_p * math.log(10)
    if math.isinf(natural):
        log10_lr = math.inf
    else:
        log10_lr = 0.0 if natural >= -1.0 else (-natural - 1.0 - math.log(-natural)) / math.log(10)
    return ScoreRatio(
        log10_lr=log10_lr, at_most=True, limited=False, basis="ceiling from the p-value; no banks of scores"
    )


def cllr(*, derived_log10_lr: Sequence[float], independent_log10_lr: Sequence[float]) -> float:
    """Return the log-likelihood-ratio cost of known cases, in bits: 0 is perfect, 1 is worth nothing.

    Raises:
        ValueError: a side without cases.
    """
    if not derived_log10_lr or not independent_log10_lr:
        raise ValueError("the cost needs cases of both kinds")
    own = np.asarray(derived_log10_lr, dtype=np.float64) * math.log(10)
    other = np.asarray(independent_log10_lr, dtype=np.float64) * math.log(10)
    return float((np.logaddexp(0.0, -own).mean() + np.logaddexp(0.0, other).mean()) / (2.0 * math.log(2)))
