"""Several schemes on one suspect, one of them perhaps embedded: which to ask next, with one wealth for all.

Notes:
    The null hypothesis is that the suspect is independent of every scheme's secret. Each key's factor has mean at most
    one given the past, whichever scheme it belongs to, as long as the scheme and the bet are chosen from the past
    alone. The single wealth is then a test supermartingale, and 1/alpha is crossed with probability at most alpha.
    Schemes must have been drawn independently of one another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from auditor.stats.queries import bernoulli_kl
from auditor.stats.sequential import log_e


@dataclass(frozen=True, slots=True, kw_only=True)
class SchemeCount:
    """What one scheme has shown so far."""

    hits: int
    trials: int
    null_rate: float
    """Largest hit rate of an independent suspect on this scheme's keys, in (0, 1)."""
    keys: int
    """Keys of this scheme that may be asked in all."""

    @property
    def bet(self) -> float:
        """Predictive hit rate of the default mixture; always above the null rate."""
        now = float(log_e(self.hits, self.trials, self.null_rate))
        after = float(log_e(self.hits + 1, self.trials + 1, self.null_rate))
        return self.null_rate * math.exp(after - now)

    @property
    def growth(self) -> float:
        """Predicted growth of the log wealth by one more key, in nats."""
        return bernoulli_kl(self.bet, self.null_rate)

    @property
    def log_e(self) -> float:
        """Natural log of the wealth won on this scheme's keys."""
        return float(log_e(self.hits, self.trials, self.null_rate))


def next_scheme(counts: Sequence[SchemeCount]) -> int | None:
    """Return the scheme with the largest predicted growth among those with keys left; the first of equals.

    None once every key is used.
    """
    left = [(count.growth, -index) for index, count in enumerate(counts) if count.trials < count.keys]
    return -max(left)[1] if left else None


def total_log_e(counts: Sequence[SchemeCount]) -> float:
    """Return the natural log of the one wealth: the products of all factors, so the sum over the schemes."""
    return sum(count.log_e for count in counts)
