"""Placebo keys: what was drawn is drawn again, and the whole decision is run again on the recorded answers.

Notes:
    Hypothesis: the answers are independent of what was drawn. A placebo draw is independent of the answers by
    construction, guilty suspect or not, so claims on placebo keys are false claims, and a valid procedure makes them
    with probability at most its level. The check needs no further query and covers code as well as theory.
    Guarantee: the sealed draw's rank among the placebo draws gives a second exact p-value, (1 + #) / (M + 1), that
    relies on nothing but the draw.
    It says nothing about independence between models: all placebo draws share the same answers.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream
from auditor.stats.exact import Interval, binomial_tail_log10, clopper_pearson

Material = TypeVar("Material")

BAND_ERROR = 1e-3
"""Probability with which a procedure exactly at its level is reported outside the band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What a decision function says about one draw."""

    claim: bool
    evidence: float
    """Larger is stronger, for example log10 of an e-value or minus log10 of a p-value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceboOutcome:
    """How often the decision claims on keys that were never used."""

    draws: int
    claims: int
    """Placebo draws that were claimed."""
    alpha: float
    """Level the procedure states."""
    most_expected: int
    """Largest number of claims that a procedure at its level stays within, but for one time in a thousand."""
    interval: Interval
    """95 % interval of the share of placebo claims."""
    at_least_as_high: int
    """Placebo draws with evidence at least that of the sealed draw."""
    p_value: float
    """(1 + at_least_as_high) / (draws + 1), exact."""

    @property
    def share(self) -> float:
        """Share of placebo draws that were claimed."""
        return self.claims / self.draws

    @property
    def within_level(self) -> bool:
        """Whether the share of claims is compatible with the stated level."""
        return self.claims <= self.most_expected


def placebo(
    *,
    sealed: Material,
    redraw: Callable[[DrawStream], Material],
    decide: Callable[[Material], Decided],
    alpha: float,
    seed: bytes,
    draws: int,
) -> PlaceboOutcome:
    """Run the decision on ``draws`` placebo draws and on the sealed one.

    Args:
        sealed: what was drawn, for example the key labels.
        redraw: draws the same from a stream, by the law the sealed draw followed.
        decide: the whole decision on the recorded answers; must not depend on anything but its argument.
        alpha: level the decision states, in (0, 1).
        seed: 32 bytes that make the outcome reproducible.
        draws: placebo draws, at least 1.

    Raises:
        ValueError: no draws, a level outside (0, 1), or evidence that is not a number.
    """
    stream = DrawStream(seed)
    decisions = [decide(redraw(stream)) for _ in range(draws)]
    return summarise(
        own_evidence=decide(sealed).evidence,
        claims=np.asarray([decision.claim for decision in decisions], dtype=np.bool_),
        evidence=np.asarray([decision.evidence for decision in decisions], dtype=np.float64),
        alpha=alpha,
    )


def summarise(
    *,
    own_evidence: float,
    claims: npt.NDArray[np.bool_],
    evidence: npt.NDArray[np.float64],
    alpha: float,
) -> PlaceboOutcome:
    """Return the outcome of placebo decisions made elsewhere, for example many at a time.

    Raises:
        ValueError: no draws, lengths that differ, a level outside (0, 1), or evidence that is not a number.
    """
    draws = len(claims)
    if draws < 1 or len(evidence) != draws:
        raise ValueError("placebo decisions must be given, each with its claim and its evidence")
    if not 0.0 < alpha < 1.0:
        raise ValueError("alpha must lie strictly between 0 and 1")
    if math.isnan(own_evidence) or np.any(np.isnan(evidence)):
        raise ValueError("evidence must be a number")
    n_claims = int(np.sum(claims))
    at_least = int(np.sum(evidence >= own_evidence))
    return PlaceboOutcome(
        draws=draws,
        claims=n_claims,
        alpha=alpha,
        most_expected=_most_expected(draws, alpha),
        interval=clopper_pearson(hits=n_claims, trials=draws, confidence=0.95),
        at_least_as_high=at_least,
        p_value=(1 + at_least) / (draws + 1),
    )


def _most_expected(draws: int, alpha: float) -> int:
    low, high = 0, draws
    while low < high:
        middle = (low + high) // 2
        tail = binomial_tail_log10(hits=middle + 1, trials=draws, rate=alpha)
        low, high = (low, middle) if tail <= math.log10(BAND_ERROR) else (middle + 1, high)
    return low
