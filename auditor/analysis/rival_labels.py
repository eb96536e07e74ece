"""The null rate known by the draw: every sealed label is its carrier's natural class or its rival, by a fair coin.

The guarantee: whatever the suspect is, if its answers are independent of the coins, the probability that the sealed
test ever rejects is at most the level. An answer that prefers one of the two classes prefers the drawn one with
probability exactly 1/2, given all that went before; see :mod:`auditor.stats.rival_labels` for what an answer prefers.
Nothing is measured: no sham is demanded, and no share of the level is spent on a bound.

``p_min`` is a hit rate among all keys, and futility sets it against 1/2: no independent suspect hits more often on
average, and every answer that says nothing counts as a miss there.
"""

from collections.abc import Mapping

import numpy as np

from auditor.analysis.base import Basis, Levels, Null, Placebo, Replies, is_hit
from auditor.analysis.drawn_labels import placebo_seed
from auditor.records import Design, Sample
from auditor.stats.placebo_labels import claims_on_draws, placebo_draws
from auditor.stats.rival_labels import RIVAL_RATE, key_outcomes, redraw_coins


class RivalLabels(Basis):
    """The exact rate 1/2 among answers that prefer one of the two classes a label was drawn from."""

    def levels(self, alpha: float) -> Levels:
        """Spend the whole level on the test."""
        claim = alpha * 2.0**-self.protocol.grinding_log2
        return Levels(claim=claim, null_bound=0.0, test=claim)

    def forecast_null(self, levels: Levels) -> float:
        """Return 1/2."""
        return RIVAL_RATE

    def measure_null(self, grouped: Replies, samples: Mapping[int, Sample], levels: Levels) -> Null:
        """Return 1/2; shams, where the plan has any, are counted and not used."""
        missing = sum(reply.answer is None for reply in grouped.shams)
        hits = missing + sum(is_hit(reply, samples) for reply in grouped.shams)
        return Null(rate=RIVAL_RATE, bound=RIVAL_RATE, hits=hits, trials=len(grouped.shams), missing=missing)

    def key_outcomes(self, grouped: Replies, samples: Mapping[int, Sample]) -> tuple[bool | None, ...]:
        """Bet on answers that prefer one of the two classes; a key without an answer counts as a miss."""
        sealed = [samples[reply.probe.index] for reply in grouped.keys]
        return key_outcomes(
            natural=[sample.natural for sample in sealed],
            rival=[sample.rival for sample in sealed],
            answers=[reply.answer for reply in grouped.keys],
            labels=[sample.expected for sample in sealed],
        )

    def has_power(self, null_rate: float) -> bool:
        """Return True: answers that prefer a class can be evidence."""
        return null_rate < 1.0

    def futility_rate(self, null_rate: float) -> float:
        """Return 1/2."""
        return null_rate

    def placebo(self, grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels) -> Placebo | None:
        """Flip every asked key's coin again; the answers, and when they ended, stay what they were."""
        if not grouped.keys:
            return None
        protocol, outcomes = self.protocol, self.key_outcomes(grouped, samples)
        counted = np.asarray([outcome is not None for outcome in outcomes])
        # A fresh coin is as likely to fall on the preferred class as not, whichever that is; no answer prefers none.
        answered = counted & np.asarray([reply.answer is not None for reply in grouped.keys])
        draws = placebo_draws(len(outcomes))
        coins = redraw_coins(n_keys=len(outcomes), seed=placebo_seed(protocol), draws=draws)
        outcome = claims_on_draws(
            hits=np.cumsum(coins * answered, axis=1, dtype=np.int64),
            bets=np.cumsum(counted, dtype=np.int64),
            null_rate=null.rate,
            alpha=levels.test,
            p_min=protocol.p_min,
            futility=protocol.futility,
            futility_rate=self.futility_rate(null.rate),
            fixed=protocol.design is Design.FIXED,
            own_hits=sum(found is True for found in outcomes),
        )
        what = "coins flipped again after the examination, with the suspect's recorded answers"
        return Placebo(what=what, outcome=outcome, exact_rank=protocol.design is Design.FIXED)
