"""The sealed stopping rule while answers arrive."""

from collections.abc import Mapping, Sequence
from math import log10

import numpy as np
import numpy.typing as npt

from auditor.analysis import Basis, Null, sort_replies
from auditor.issued import Issued
from auditor.records import Design, NullBasis, Probe, Reply, Sample, SampleKind
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.sequential import crosses

_NO_KEY = -2
"""In the place of a sealed label; no answer is told as -1."""
LOOK_SHARE = 64
"""A test that is run whole at every look is looked at again when its answers have grown by one part in so many."""


class Watch:
    """The sealed rule while keys are answered: looks at each answer once, so that long audits stay cheap.

    Args:
        basis: the null basis of the sealed plan.
        samples: the sealed metadata by index.
        alpha: level of the claim.
        null: the null rate after stage 1, which is complete; shams are asked in no other, so that their bound stands.
        planned: the drawn order.
    """

    def __init__(
        self, basis: Basis, samples: Mapping[int, Sample], alpha: float, *, null: Null, planned: Sequence[Probe]
    ) -> None:
        self._basis = basis
        self._samples = samples
        self._sealed = np.array(
            [
                samples[probe.index].expected if probe.kind is SampleKind.KEY and not probe.repeat else _NO_KEY
                for probe in planned
            ],
            dtype=np.int32,
        )
        """The sealed label of every key by position, where it is asked for the first time."""
        self._levels = basis.levels(alpha)
        self._null = null
        self._n_seen = 0
        self._n_keys = 0
        self._n_hits = 0
        self._decided = False
        self._n_looked = 0
        self._n_searched = 0
        self._hit_seen = False

    def decided(self, replies: Issued, *, last: bool = False) -> bool:
        """Return whether the replies so far reach a boundary.

        Args:
            replies: all replies in asked order, stage 1 complete; every call gets those of the call before, unchanged,
                and perhaps more.
            last: look in any case, because no more replies will come.
        """
        protocol = self._basis.protocol
        if protocol.null_basis is not NullBasis.SHAMS:
            # Fewer looks keep the error rate, which the results compute from all answers anyway.
            due = self._n_looked + 1 + self._n_looked // LOOK_SHARE
            if not self._decided and (last or len(replies) >= due):
                self._n_looked = len(replies)
                self._decided = self._decides(replies)
            return self._decided
        new = self._key_hits(replies, self._n_seen)
        hits = self._n_hits + np.cumsum(new, dtype=np.int64)
        trials = self._n_keys + np.arange(1, len(new) + 1)
        self._n_seen, self._n_keys = len(replies), self._n_keys + len(new)
        self._n_hits = int(hits[-1]) if len(new) else self._n_hits
        if self._null.rate >= protocol.p_min:
            return False
        if protocol.design is Design.FIXED:
            if self._n_keys < protocol.n_keys:
                return False
            tail = binomial_tail_log10(hits=self._n_hits, trials=self._n_keys, rate=self._null.rate)
            return tail <= log10(self._levels.test)
        self._decided = self._decided or crosses(
            hits,
            trials,
            null_rate=self._null.rate,
            alpha=self._levels.test,
            p_min=protocol.p_min,
            futility=protocol.futility,
        )
        return self._decided

    def any_hit(self, replies: Issued) -> bool:
        """Return whether a key was answered with its sealed label; ``replies`` as for :meth:`decided`."""
        if not self._hit_seen:
            self._hit_seen = bool(self._key_hits(replies, self._n_searched).any())
            self._n_searched = len(replies)
        return self._hit_seen

    def _key_hits(self, replies: Issued, start: int) -> npt.NDArray[np.bool_]:
        """Return for each key from position ``start`` on whether it hit; no answer is no hit."""
        sealed, given = self._sealed[start : len(replies)], replies.labels(start)
        return np.asarray((given == sealed)[sealed != _NO_KEY])

    def _decides(self, replies: Sequence[Reply]) -> bool:
        grouped = sort_replies(replies)
        null = self._basis.measure_null(grouped, self._samples, self._levels)
        found = self._basis.decide(grouped, self._samples, null, self._levels)
        return found.rejected or found.futile
