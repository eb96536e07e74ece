"""The second channel: where a cell's drawn sign says so, a surrogate's confidence in its first class is lower.

Notes:
    Hypothesis: the suspect is independent of the signs, given probes, cells and the clean model's answers. Then the
    signs are fair and independent, and :mod:`auditor.stats.table_law` knows the law of their weighted sum exactly: that
    of a table with the two columns +a and -a. Nothing is assumed about the suspect.
    The smallest p-value is 2 ** -cells, far above that of a table of targets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from auditor.stats.keyed_cells import MIN_PROBES, Floats, Integers, average_ranks


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SignTable:
    """How far the confidence fell in every used cell, as the two values that a fair sign can give it."""

    cells: tuple[int, ...]
    """Numbers of the used cells."""
    counts: tuple[int, ...]
    """Probes in each used cell."""
    scores: Floats
    """Shape (used cells, 2): the value at the sign +1, and at -1."""

    def columns(self, signs: Sequence[int], /) -> list[int]:
        """Return the column of the sign of every used cell.

        Args:
            signs: +1 or -1 for every cell of the key, used or not.
        """
        return [0 if signs[cell] > 0 else 1 for cell in self.cells]


def confidence_drops(*, suspect: Floats, reference: Floats) -> Floats:
    """Return how far the rank of the first class's confidence fell from the clean model to the suspect, shape (n,).

    Ranks are among all probes and divided by their number, so that a suspect's own scale does not matter.

    Args:
        suspect: the score that the suspect gave to its own first class, shape (n,).
        reference: the clean model's largest probability, same shape.

    Raises:
        ValueError: shapes differ, or a score is not a finite number.
    """
    if suspect.shape != reference.shape or suspect.ndim != 1:
        raise ValueError("suspect and reference need one score per probe")
    if not (np.isfinite(suspect).all() and np.isfinite(reference).all()):
        raise ValueError("scores must be finite numbers")
    ranks = average_ranks(np.stack([reference, suspect]))
    return np.asarray((ranks[0] - ranks[1]) / max(len(suspect), 1))


def sign_table(*, drops: Floats, cells: Integers, labels: Integers) -> SignTable:
    """Compare every cell's mean drop with that of its class, weighted with the root of the number of probes.

    Args:
        drops: :func:`confidence_drops`.
        cells: cell of every probe.
        labels: clean first class of every probe; equal within a cell.

    Raises:
        ValueError: no cell has enough probes.
    """
    numbers, first, counts = np.unique(cells, return_index=True, return_counts=True)
    used = [row for row, count in enumerate(counts.tolist()) if count >= MIN_PROBES]
    if not used:
        raise ValueError(f"no cell holds {MIN_PROBES} probes")
    gaps = [drops[cells == numbers[row]].mean() - drops[labels == labels[first[row]]].mean() for row in used]
    weighted = np.asarray(gaps) * np.sqrt(counts[used])
    return SignTable(
        cells=tuple(numbers[used].tolist()),
        counts=tuple(counts[used].tolist()),
        scores=np.stack([weighted, -weighted], axis=1),
    )
