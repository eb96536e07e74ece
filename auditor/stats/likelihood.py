"""Likelihood ratios in words, and the cap that measured error rates put on them.

Notes:
    A likelihood ratio compares how probable the findings are under two propositions; it says nothing about how
    probable either proposition is. The words follow the example scale of ENFSI's guideline for evaluative reporting
    (2015), with edge values in the lower band. Other scales exist, so a report prints the number first and the
    whole table beside the words.
"""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal

from auditor.stats.exact import upper_bound

SCALE_SOURCE = "ENFSI guideline for evaluative reporting in forensic science, 2015, example scale"


class Favours(StrEnum):
    """Which proposition a likelihood ratio supports."""

    H1 = "H1"
    H2 = "H2"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """One row of the verbal scale."""

    lower: float
    """Likelihood ratios above this belong to the band; for the first band, from 1 on."""
    upper: float | None
    """The largest ratio of the band, which belongs to it; None for the open top."""
    words: str


BANDS: tuple[Band, ...] = (
    Band(lower=1.0, upper=2.0, words="no support either way"),
    Band(lower=2.0, upper=10.0, words="weak support"),
    Band(lower=10.0, upper=100.0, words="moderate support"),
    Band(lower=100.0, upper=1_000.0, words="moderately strong support"),
    Band(lower=1_000.0, upper=10_000.0, words="strong support"),
    Band(lower=10_000.0, upper=1_000_000.0, words="very strong support"),
    Band(lower=1_000_000.0, upper=None, words="extremely strong support"),
)
"""The verbal scale, weakest first."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportedLr:
    """A likelihood ratio that is never stronger than the measured error rate allows."""

    log10_lr_model: float
    """log10 of the ratio computed from the stated null model."""
    upper_error: float
    """Upper confidence bound of the share of false claims."""
    lr: float
    """The ratio to report; below 1 it supports H2."""
    favours: Favours
    """Which proposition ``lr`` supports; NEITHER inside the first band."""
    band_words: str
    """Words for ``lr``, or for its reciprocal where it supports H2."""
    limited_by: Literal["model", "error rate"]
    """Which of the two is the weaker one."""


def band(lr: float) -> Band:
    """Return the band of the verbal scale; a ratio below 1 is placed by its reciprocal and then supports H2.

    Use :func:`favours` to see which proposition the words are about.

    Raises:
        ValueError: the ratio is negative or not a number.
    """
    _check_ratio(lr)
    strength = lr if lr >= 1.0 else _reciprocal(lr)
    return next(row for row in BANDS if row.upper is None or strength <= row.upper)


def favours(lr: float) -> Favours:
    """Return which proposition a ratio supports; inside the first band it is neither.

    Raises:
        ValueError: the ratio is negative or not a number.
    """
    if band(lr) is BANDS[0]:
        return Favours.NEITHER
    return Favours.H1 if lr > 1.0 else Favours.H2


def reported_lr(*, log10_lr_model: float, false_claims: int, audits: int, confidence: float = 0.95) -> ReportedLr:
    """Return 1 / (1/LR + u), where u bounds the measured share of false claims from above.

    So the reported ratio is never above 1/u, however small the null model's probability is. Discounting can take
    support for H1 away but never turns it into support for H2: the result is at least 1 when the model's ratio is.
    A model ratio below 1 is reported as it is, since false claims say nothing about support for H2.

    Args:
        log10_lr_model: log10 of the likelihood ratio under the stated null model.
        false_claims: audits of independent material that claimed falsely.
        audits: audits of independent material; with 0 the bound is 1 and no support is reported.
        confidence: one-sided confidence of the bound.

    Raises:
        ValueError: a log ratio that is not a number, counts that cannot be, or a confidence outside (0, 1).
    """
    if math.isnan(log10_lr_model):
        raise ValueError("the log ratio must be a number")
    u = upper_bound(hits=false_claims, trials=audits, confidence=confidence)
    limited_by: Literal["model", "error rate"] = "model"
    if log10_lr_model <= 0.0:
        lr = 10.0**log10_lr_model
    else:
        inverse = 10.0**-log10_lr_model
        lr = max(1.0, 1.0 / (inverse + u))
        limited_by = "model" if inverse >= u else "error rate"
    return ReportedLr(
        log10_lr_model=log10_lr_model,
        upper_error=u,
        lr=lr,
        favours=favours(lr),
        band_words=band(lr).words,
        limited_by=limited_by,
    )


def _reciprocal(lr: float) -> float:
    return math.inf if lr == 0.0 else 1.0 / lr


def _check_ratio(lr: float) -> None:
    if math.isnan(lr) or lr < 0.0:
        raise ValueError("a likelihood ratio is a number of at least zero")
