"""Monte Carlo p-values from drawing the owner's randomness again, given the recorded answers.

Notes:
    Hypothesis: the answers are independent of what was drawn (labels, a table of target classes). Then every re-draw
    is as likely as the sealed draw, whatever the suspect is, and no query is repeated.
    Guarantee: p = (1 + k) / (M + 1) has its level exactly for every M, and so has the stopped form. It is never below
    1 / (M + 1); for smaller values see :mod:`auditor.stats.table_law`.

References:
    Besag and Clifford (1991), Sequential Monte Carlo p-values; Phipson and Smyth (2010).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.draws import DrawStream

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

_CHUNK_OCTETS = 4096
"""The stream's own block: reading it whole yields the same bytes as reading it word by word."""
_BATCH_WORDS = 1 << 20
_TIE = 1e-10
"""Share of the scores' scale within which a re-draw ties with the sealed draw, and then counts against the owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MonteCarloOutcome:
    """The rank of the sealed draw among re-draws."""

    statistic: float
    """Value at the sealed draw."""
    draws: int
    """Re-draws made; fewer than asked for when the rule stopped early."""
    at_least_as_high: int
    """Re-draws with a value at least as high; ties count against the owner."""
    stopped: bool
    """Whether the rule stopped at its number of higher re-draws."""
    p_value: float
    """(1 + at_least_as_high) / (draws + 1), or at_least_as_high / draws when stopped."""


class UniformDraws:
    """Many uniform integers at a time, equal to repeated calls of :meth:`DrawStream.integer`."""

    def __init__(self, seed: bytes, *, below: int) -> None:
        if not 0 < below <= 1 << 32:
            raise ValueError("below must lie in [1, 2**32]")
        self._stream = DrawStream(seed)
        self._below = np.uint64(below)
        # 2**64 itself does not fit an unsigned word; values above this one are rejected, so that none is favoured.
        self._highest = np.uint64((1 << 64) - 1 - (1 << 64) % below)
        self._rest = np.empty(0, dtype=np.int64)

    def take(self, n: int) -> Integers:
        """Return the next ``n`` integers, uniform in [0, below)."""
        found = [self._rest]
        have = len(self._rest)
        while have < n:
            blocks = -(-(n - have) * 8 // _CHUNK_OCTETS)
            octets = b"".join(self._stream.octets(_CHUNK_OCTETS) for _ in range(blocks))
            words = np.frombuffer(octets, dtype=">u8").astype(np.uint64)
            kept = (words[words <= self._highest] % self._below).astype(np.int64)
            found.append(kept)
            have += len(kept)
        values = np.concatenate(found)
        self._rest = values[n:]
        return values[:n]


def monte_carlo(
    *, statistic: float, redraw: Callable[[int], Floats], draws: int, stop_after: int | None = None, batch: int = 4096
) -> MonteCarloOutcome:
    """Return the exact Monte Carlo p-value of a statistic whose null law can be drawn from.

    Args:
        statistic: value at the sealed draw.
        redraw: returns that many further independent values under the hypothesis, shape (n,).
        draws: most re-draws, M, at least 1.
        stop_after: stop as soon as this many re-draws, h, are at least as high; p is then h / draws made. Spares
            work on unremarkable suspects and keeps the level. None never stops.
        batch: re-draws made at a time; the result does not depend on it if ``redraw`` reads one stream in order.

    Raises:
        ValueError: counts below 1, or a statistic that is not finite.
    """
    if draws < 1 or batch < 1 or (stop_after is not None and stop_after < 1):
        raise ValueError("the numbers of draws must be at least 1")
    if not np.isfinite(statistic):
        raise ValueError("the statistic must be finite")
    made = at_least = 0
    while made < draws:
        values = np.asarray(redraw(min(batch, draws - made)), dtype=np.float64)
        high = np.flatnonzero(values >= statistic)
        if stop_after is not None and at_least + len(high) >= stop_after:
            made += int(high[stop_after - at_least - 1]) + 1
            return MonteCarloOutcome(
                statistic=statistic,
                draws=made,
                at_least_as_high=stop_after,
                stopped=True,
                p_value=stop_after / made,
            )
        made += len(values)
        at_least += len(high)
    return MonteCarloOutcome(
        statistic=statistic,
        draws=made,
        at_least_as_high=at_least,
        stopped=False,
        p_value=(1 + at_least) / (made + 1),
    )


def redraw_labels(*, natural: Sequence[int], n_classes: int, seed: bytes, draws: int) -> Integers:
    """Return re-drawn labels, shape (draws, keys): uniform on the classes other than each key's natural label.

    Raises:
        ValueError: fewer than two classes, a natural label out of range, or no draws.
    """
    own = np.asarray(natural, dtype=np.int64).reshape(-1)
    if n_classes < 2 or np.any((own < 0) | (own >= n_classes)):
        raise ValueError("natural labels must be classes, and there must be at least two")
    if draws < 1:
        raise ValueError("the numbers of draws must be at least 1")
    drawn = UniformDraws(seed, below=n_classes - 1).take(draws * len(own)).reshape(draws, len(own))
    return drawn + (drawn >= own)


def table_redraw(
    *, scores: npt.ArrayLike, targets: Sequence[int], seed: bytes, draws: int, stop_after: int | None = None
) -> MonteCarloOutcome:
    """Test T = Σ scores[c, targets[c]] against re-drawn tables of targets.

    Args:
        scores: shape (cells, choices); score of every choice the draw could have made, computed from the answers
            without the targets. A cell may be a group of probes (served marks) or one key (its choices the labels it
            could have been drawn; a hit count is the case of zeros and ones).
        targets: index of the sealed choice in each row, uniform over the row and independent under the hypothesis.
        seed: 32 bytes that make the re-draws reproducible.
        draws: most re-draws.
        stop_after: as in :func:`monte_carlo`.

    Raises:
        ValueError: no cells, scores that are not finite, a target out of range, or counts below 1.
    """
    table, chosen = check_table(scores, targets)
    cells, choices = table.shape
    own = float(table[np.arange(cells), chosen].sum())
    stream = UniformDraws(seed, below=choices)
    # Sums of the same scores in the same order agree exactly; those that tie only mathematically need the slack.
    slack = _TIE * float(np.abs(table).max(axis=1).sum())

    def redraw(n: int) -> Floats:
        picks = stream.take(n * cells).reshape(n, cells)
        return np.asarray(table[np.arange(cells), picks].sum(axis=1) + slack)

    return monte_carlo(
        statistic=own, redraw=redraw, draws=draws, stop_after=stop_after, batch=max(1, _BATCH_WORDS // cells)
    )


def check_table(scores: npt.ArrayLike, targets: Sequence[int]) -> tuple[Floats, Integers]:
    """Return the scores and targets as arrays after checking shapes and ranges.

    Raises:
        ValueError: no cells, scores that are not finite, or a target out of range.
    """
    table = np.asarray(scores, dtype=np.float64)
    chosen = np.asarray(targets, dtype=np.int64)
    if table.ndim != 2 or table.size == 0 or not np.all(np.isfinite(table)):
        raise ValueError("scores must be a finite table with at least one cell and one choice")
    if chosen.shape != (len(table),) or np.any((chosen < 0) | (chosen >= table.shape[1])):
        raise ValueError("every cell needs one target among its choices")
    return table, chosen
