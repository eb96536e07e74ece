"""The null rate measured by foreign patterns on this suspect.

The guarantee, for schemes whose hit is "the answer equals the sealed label": if the suspect's hit rate on keys is at
most its rate on sham patterns or the sealed floor, the probability that the sealed test ever rejects is at most the
level. The level is split: ``null_share`` of it pays for the upper confidence bound of the null rate, the rest for the
e-process at that bound, so the two add up to it (docs/adr/0001).
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import log

import numpy as np

from auditor.analysis.base import Basis, Decided, Levels, Null, Placebo, Replies, is_hit
from auditor.records import Reply, Sample
from auditor.stats import exact, sequential
from auditor.stats.placebo import summarise

MIN_SAMPLES = 3
"""Fewer samples of a foreign pattern do not show what it does by itself."""
MIN_PATTERNS = 16
"""Fewer foreign patterns do not show what patterns do."""


class ShamBound(Basis):
    """The largest of sealed floor, the shams' exact upper bound on this suspect, and a panel's bound where one is
    given; a larger rate can only make the claim harder, so that adding a panel costs no level."""

    def levels(self, alpha: float) -> Levels:
        """Spend ``null_share`` of the level on the bound and the rest on the test."""
        claim = alpha * 2.0**-self.protocol.grinding_log2
        share = self.protocol.null_share
        return Levels(claim=claim, null_bound=claim * share, test=claim * (1 - share))

    def forecast_null(self, levels: Levels) -> float:
        """Return the null rate when no sham hits."""
        trials = self.protocol.n_shams
        bound = exact.upper_bound_at(hits=0, trials=trials, error=levels.null_bound) if trials else 1.0
        return max(self.protocol.null_floor, bound, self.panel_rate)

    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return the null rate with the shams it follows from.

        A sham without an answer counts as a hit, because a suspect that hides sham answers must not lower the bound.
        Where one foreign pattern hits by itself, patterns differ so much that their mean bounds nothing: the rate is 1.
        """
        missing = sum(reply.answer is None for reply in grouped.shams)
        hits = missing + sum(is_hit(reply, samples) for reply in grouped.shams)
        trials = len(grouped.shams)
        bound = exact.upper_bound_at(hits=hits, trials=trials, error=levels.null_bound) if trials else 1.0
        if _one_hits_by_itself(grouped.shams, samples):
            bound = 1.0
        rate = max(self.protocol.null_floor, bound, self.panel_rate)
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

    def placebo(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Placebo | None:
        """Run the test on each foreign pattern as if it were the owner's, at the null rate that the others give.

        A foreign pattern carries only as many samples as the plan gave it, so that one alone may be unable to reach
        the threshold; ``reach_log10_e`` says how far it could have come at the null rate in force.
        """
        by_pattern: dict[int, list[Reply]] = {}
        for reply in grouped.shams:
            by_pattern.setdefault(samples[reply.probe.index].pattern, []).append(reply)
        if len(by_pattern) < 2 or not grouped.keys:
            return None
        tests = [self._as_key(pattern, by_pattern, samples, levels) for pattern in sorted(by_pattern)]
        each = min(map(len, by_pattern.values()))
        own = Replies(keys=grouped.keys[:each], shams=grouped.shams, controls=(), repeats=())
        outcome = summarise(
            own_evidence=_evidence(self.decide(own, samples, null, levels)),
            claims=np.asarray([test.rejected for test in tests], dtype=np.bool_),
            evidence=np.asarray([_evidence(test) for test in tests]),
            alpha=levels.test,
        )
        reach = float(sequential.log_e(each, each, null.rate)) / log(10) if null.rate < 1 else 0.0
        what = f"foreign patterns in the place of the owner's, {each} samples each"
        return Placebo(what=what, outcome=outcome, exact_rank=False, reach_log10_e=reach)

    def _as_key(
        self, pattern: int, by_pattern: Mapping[int, Sequence[Reply]], samples: Mapping[int, Sample], levels: Levels
    ) -> Decided:
        others = tuple(reply for j, replies in by_pattern.items() if j != pattern for reply in replies)
        swapped = Replies(keys=tuple(by_pattern[pattern]), shams=others, controls=(), repeats=())
        return self.decide(swapped, samples, self.measure_null(swapped, samples, levels), levels)


def _one_hits_by_itself(shams: Sequence[Reply], samples: Mapping[int, Sample]) -> bool:
    """Return whether more than half of the samples of some foreign pattern are answered with the sealed label."""
    asked: Counter[int] = Counter(samples[reply.probe.index].pattern for reply in shams)
    hits: Counter[int] = Counter(samples[r.probe.index].pattern for r in shams if is_hit(r, samples))
    return any(asked[pattern] >= MIN_SAMPLES and 2 * n > asked[pattern] for pattern, n in hits.items())


def _evidence(decided: Decided) -> float:
    return 0.0 if decided.outcome is None else decided.outcome.log10_e_max
