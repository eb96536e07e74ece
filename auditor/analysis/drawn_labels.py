"""The null rate known by the draw: every sealed label is uniform over the wrong classes of its carrier.

The guarantee: whatever the suspect is, if its answers are independent of the drawn labels, the probability that the
sealed test ever rejects is at most the level. An answer equal to the carrier's natural label cannot hit and is not
bet on; each other answer inside the task hits with probability exactly 1/(C−1), given all that went before. Nothing
has to be measured, so no sham is demanded, no share of the level is spent on a bound, and the sealed floor has no
meaning here. What counts as a hit, a miss and nothing is said in :mod:`auditor.stats.deviating`; what futility and
``p_min`` mean in :mod:`auditor.stats.drawn_labels`.
"""

import hashlib
from collections.abc import Mapping

from auditor.analysis.base import Basis, Levels, Null, Placebo, Replies, count_hits, is_hit
from auditor.records import Design, Protocol, Sample
from auditor.stats import deviating
from auditor.stats.drawn_labels import drawn_rate, innocent_rate
from auditor.stats.placebo_labels import placebo_labels


class DrawnLabels(Basis):
    """The exact rate 1/(C−1) among answers that deviate from the carrier's natural label."""

    def levels(self, alpha: float) -> Levels:
        """Spend the whole level on the test."""
        claim = alpha * 2.0**-self.protocol.grinding_log2
        return Levels(claim=claim, null_bound=0.0, test=claim)

    def forecast_null(self, levels: Levels) -> float:
        """Return 1/(C−1); raises ValueError for fewer than three classes."""
        return drawn_rate(len(self.spec.classes))

    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return 1/(C−1); shams, where the plan has any, are counted and not used."""
        missing = sum(reply.answer is None for reply in grouped.shams)
        hits = missing + sum(is_hit(reply, samples) for reply in grouped.shams)
        rate = drawn_rate(len(self.spec.classes))
        return Null(rate=rate, bound=rate, hits=hits, trials=len(grouped.shams), missing=missing)

    def key_outcomes(self, grouped: Replies, samples: Mapping[int, Sample]) -> tuple[bool | None, ...]:
        """Bet on answers that deviate from the natural label; a key without an answer counts as a deviating miss."""
        if not grouped.keys:
            return ()
        sealed = [samples[reply.probe.index] for reply in grouped.keys]
        return deviating.key_outcomes(
            natural=[sample.natural for sample in sealed],
            answers=[None if reply.answer is None else reply.answer.label for reply in grouped.keys],
            labels=[sample.expected for sample in sealed],
            n_classes=len(self.spec.classes),
        )

    def has_power(self, null_rate: float) -> bool:
        """Return True: deviating answers can be evidence at every null rate below one."""
        return null_rate < 1.0

    def futility_rate(self, null_rate: float) -> float:
        """Return 1/(C−1), but at most half of ``p_min``."""
        return innocent_rate(null_rate, self.protocol.p_min)

    def placebo(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Placebo | None:
        """Draw every asked key's label again; the answers, and when they ended, stay what they were."""
        if not grouped.keys:
            return None
        protocol = self.protocol
        outcome = placebo_labels(
            answers=[None if reply.answer is None else reply.answer.label for reply in grouped.keys],
            natural=[samples[reply.probe.index].natural for reply in grouped.keys],
            n_classes=len(self.spec.classes),
            alpha=levels.test,
            p_min=protocol.p_min,
            futility=protocol.futility,
            futility_rate=self.futility_rate(null.rate),
            fixed=protocol.design is Design.FIXED,
            own_hits=count_hits(grouped.keys, samples),
            seed=placebo_seed(protocol),
        )
        what = "labels drawn again after the examination, with the suspect's recorded answers"
        return Placebo(what=what, outcome=outcome, exact_rank=protocol.design is Design.FIXED)


def placebo_seed(protocol: Protocol) -> bytes:
    """Return the seed of the placebo draws, which follows from the seal so that everybody draws the same."""
    return hashlib.sha256(b"auditor/1 placebo labels\x00" + bytes.fromhex(protocol.order_seed)).digest()
