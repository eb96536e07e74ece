"""What attacks, channels and random answers leave of the hit rate, and what the audit then costs."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from auditor.stats import queries
from auditor.stats.forecast import LabelSpace, ProcedureForecast, Question, default_procedure


@dataclass(frozen=True, slots=True, kw_only=True)
class LossForecast:
    """The default procedure after an attack or a channel took some of the hits."""

    loss: float
    """Share of the hits that is lost, in [0, 1)."""
    rate: float
    """Hit rate that is left."""
    default: ProcedureForecast | None
    """None where the rate that is left is not above the null rate: no test can work there."""


def losses(question: Question, shares: Sequence[float]) -> tuple[LossForecast, ...]:
    """Return the default procedure's cost for each share of the hits that an attack takes.

    Raises:
        ValueError: a share outside [0, 1).
    """
    if any(not 0.0 <= share < 1.0 for share in shares):
        raise ValueError("a loss must lie in [0, 1)")
    found = []
    for share in shares:
        left = queries.effective_rate(rate=question.rate, refused_share=share)
        default = default_procedure(replace(question, rate=left)) if left > question.null_rate else None
        found.append(LossForecast(loss=share, rate=left, default=default))
    return tuple(found)


def diluted_rate(*, rate: float, dilution: float, labels: LabelSpace, classes: int) -> float:
    """Return the hit rate on a suspect that answers at random with probability ``dilution``.

    A random answer hits a drawn wrong label with probability 1/classes; a new label is taken never to be among the
    random answers.

    Raises:
        ValueError: a share outside [0, 1].
    """
    by_chance = 1.0 / classes if labels is LabelSpace.WRONG_LABEL else 0.0
    return queries.effective_rate(rate=rate, randomised_share=dilution, random_hit_rate=by_chance)
