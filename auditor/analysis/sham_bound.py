"""The null rate measured by foreign patterns on this suspect.

The guarantee, for schemes whose hit is "the answer equals the sealed label": if the suspect's hit rate on keys is at
most its rate on sham patterns or the sealed floor, the probability that the sealed test ever rejects is at most the
level. The level is split: ``null_share`` of it pays for the upper confidence bound of the null rate, the rest for the
e-process at that bound, so the two add up to it (docs/adr/0001).
"""

from collections.abc import Mapping

from auditor.analysis.base import Basis, Levels, Null, Replies, is_hit
from auditor.records import Sample
from auditor.stats import exact


class ShamBound(Basis):
    """The larger of the sealed floor and the shams' exact upper bound on this suspect."""

    def levels(self, alpha: float) -> Levels:
        """Spend ``null_share`` of the level on the bound and the rest on the test."""
        claim = alpha * 2.0**-self.protocol.grinding_log2
        share = self.protocol.null_share
        return Levels(claim=claim, null_bound=claim * share, test=claim * (1 - share))

    def forecast_null(self, levels: Levels) -> float:
        """Return the null rate when no sham hits."""
        trials = self.protocol.n_shams
        bound = exact.upper_bound_at(hits=0, trials=trials, error=levels.null_bound) if trials else 1.0
        return max(self.protocol.null_floor, bound)

    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return the null rate with the shams it follows from.

        A sham without an answer counts as a hit, because a suspect that hides sham answers must not lower the bound.
        """
        missing = sum(reply.answer is None for reply in grouped.shams)
        hits = missing + sum(is_hit(reply, samples) for reply in grouped.shams)
        trials = len(grouped.shams)
        bound = exact.upper_bound_at(hits=hits, trials=trials, error=levels.null_bound) if trials else 1.0
        rate = max(self.protocol.null_floor, bound)
        return Null(rate=rate, bound=bound, hits=hits, trials=trials, missing=missing)

    def key_outcomes(self, grouped: Replies, samples: Mapping[int, Sample]) -> tuple[bool | None, ...]:
        """Bet on every key; one without an answer counts as a miss."""
        return tuple(is_hit(reply, samples) for reply in grouped.keys)

    def has_power(self, null_rate: float) -> bool:
        """Return whether the null rate lies below the hit rate the plan promises to detect."""
        return null_rate < self.protocol.p_min

    def futility_rate(self, null_rate: float) -> float:
        """Return the null rate itself."""
        return null_rate
