"""The exact p-value of a line-up: where one of several exchangeable candidates ranks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUpRank:
    """Where the suspect's evidence ranks among all candidates."""

    at_least_as_high: int
    """Candidates whose evidence is at least the suspect's, the suspect included; ties count against the claim."""
    candidates: int
    """All candidates, the suspect included."""

    @property
    def p_value(self) -> float:
        """P(rank this good or better) when all candidates are exchangeable; never below :attr:`smallest`."""
        return self.at_least_as_high / self.candidates

    @property
    def smallest(self) -> float:
        """Smallest value that a line-up of this size can give: one in the number of candidates."""
        return 1 / self.candidates


def lineup_rank(suspect: float, others: Sequence[float | None]) -> LineUpRank:
    """Return the rank of the suspect's evidence among all candidates.

    Args:
        suspect: evidence of the suspect; larger speaks more for the claim.
        others: evidence of the other candidates; None where there is none to compare, which counts against the claim.

    Raises:
        ValueError: no other candidate, or a value that is not a number.

    Notes:
        Exact for every joint law under which the candidates are exchangeable: the suspect then is equally likely to
        take each place, and ties are broken against it. It says nothing about candidates that are not exchangeable
        with an innocent suspect, such as models of another task.
    """
    if not others:
        raise ValueError("a line-up needs at least one candidate beside the suspect")
    if math.isnan(suspect) or any(value is not None and math.isnan(value) for value in others):
        raise ValueError("evidence must be a number")
    higher = sum(value is None or value >= suspect for value in others)
    return LineUpRank(at_least_as_high=1 + higher, candidates=1 + len(others))
