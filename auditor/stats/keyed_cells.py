"""Scores of every target a cell could have been given, and the test that the drawn targets score too high.

Notes:
    Hypothesis: the suspect is independent of the table of targets, given probes, cells and the owner's clean answers.
    Then the targets are independent uniform draws over the columns of a table that was computed without them, and
    :mod:`auditor.stats.redraw` and :mod:`auditor.stats.table_law` know the law of their sum exactly.
    Nothing is assumed about the suspect. Subtracting the clean model's own ranks removes natural likeness of classes;
    it serves power alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from auditor.stats.redraw import MonteCarloOutcome, table_redraw
from auditor.stats.table_law import TableTail, table_tail

Floats = npt.NDArray[np.float64]
Integers = npt.NDArray[np.int64]

MIN_PROBES = 5
"""Cells with fewer probes are left out; the rule looks at the clean model alone."""


class Scored(Protocol):
    """Scores of everything that could have been drawn, computed without what was drawn."""

    @property
    def counts(self) -> tuple[int, ...]:
        """Probes in each used cell."""

    @property
    def scores(self) -> Floats:
        """Shape (used cells, choices)."""

    def columns(self, drawn: Sequence[int], /) -> list[int]:
        """Return the column of what was drawn for every used cell."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class CellTable:
    """Mean score of every possible target in every used cell."""

    cells: tuple[int, ...]
    """Numbers of the used cells."""
    labels: tuple[int, ...]
    """The class of each used cell."""
    counts: tuple[int, ...]
    """Probes in each used cell."""
    scores: Floats
    """Shape (used cells, classes - 1), columns in the order of the classes other than the cell's own."""

    def columns(self, targets: Sequence[int], /) -> list[int]:
        """Return the column of the target of every used cell.

        Args:
            targets: target class of every cell of the key, used or not.

        Raises:
            ValueError: a target is missing or the cell's own class.
        """
        chosen = [targets[cell] for cell in self.cells]
        if any(target == label for target, label in zip(chosen, self.labels, strict=True)):
            raise ValueError("a target is never the cell's own class")
        return [target - (target > label) for target, label in zip(chosen, self.labels, strict=True)]


@dataclass(frozen=True, slots=True, kw_only=True)
class TableTest:
    """The test of one key's table against one suspect."""

    law: TableTail
    redraw: MonteCarloOutcome
    n_cells: int
    n_probes: int
    first_ranked: int
    """Cells whose target, or sign, scores higher than everything else it could have been."""

    @property
    def log10_p(self) -> float:
        """Upper bound of the p-value from the exactly known law."""
        return self.law.log10_p_upper


def probability_scores(*, suspect: Floats, reference: Floats) -> Floats:
    """Return rank differences between suspect and clean model, shape (n, classes - 1).

    Among the classes other than the clean first one, ties averaged, divided by their number. Classes that the suspect
    did not reveal hold -inf and are tied last.

    Args:
        suspect: scores, shape (n, classes); larger means more likely.
        reference: the clean model's probabilities, same shape.

    Raises:
        ValueError: shapes differ, fewer than three classes, or a score is not a number.
    """
    if suspect.shape != reference.shape or suspect.ndim != 2 or suspect.shape[1] < 3:
        raise ValueError("suspect and reference need one score per class, and at least three classes")
    if np.isnan(suspect).any() or np.isnan(reference).any():
        raise ValueError("scores must be numbers")
    n, m = reference.shape
    others = ~(np.arange(m) == np.argmax(reference, axis=1)[:, None])
    ranks = [average_ranks(table[others].reshape(n, m - 1)) for table in (suspect, reference)]
    return np.asarray((ranks[0] - ranks[1]) / (m - 1))


def label_scores(*, labels: Integers, reference: Floats) -> Floats:
    """Return [label = k] - p_k for every class k other than the clean first one, shape (n, classes - 1).

    Only labels are needed; expect far less power than with scores. Probes near the clean model's borders serve best.

    Raises:
        ValueError: shapes differ or fewer than three classes.
    """
    if labels.shape != reference.shape[:1] or reference.ndim != 2 or reference.shape[1] < 3:
        raise ValueError("one label per probe and at least three classes are needed")
    n, m = reference.shape
    others = ~(np.arange(m) == np.argmax(reference, axis=1)[:, None])
    hits = labels[:, None] == np.arange(m)
    return np.asarray((hits - reference)[others].reshape(n, m - 1))


def cell_table(*, scores: Floats, cells: Integers, labels: Integers) -> CellTable:
    """Average scores over cells and centre every row.

    Args:
        scores: :func:`probability_scores` or :func:`label_scores`.
        cells: cell of every probe.
        labels: clean first class of every probe; equal within a cell.

    Raises:
        ValueError: no cell has enough probes.
    """
    numbers, first, inverse, counts = np.unique(cells, return_index=True, return_inverse=True, return_counts=True)
    sums = np.zeros((len(numbers), scores.shape[1]))
    np.add.at(sums, inverse, scores)
    used = counts >= MIN_PROBES
    if not used.any():
        raise ValueError(f"no cell holds {MIN_PROBES} probes")
    means = sums[used] / counts[used][:, None]
    return CellTable(
        cells=tuple(numbers[used].tolist()),
        labels=tuple(labels[first[used]].tolist()),
        counts=tuple(counts[used].tolist()),
        scores=means - means.mean(axis=1, keepdims=True),
    )


def table_test(table: Scored, *, targets: Sequence[int], seed: bytes, draws: int) -> TableTest:
    """Test one key's targets, or signs: the exact law for small p, and re-draws that anybody can repeat.

    Args:
        table: computed without the targets.
        targets: target class, or sign, of every cell of the key.
        seed: 32 bytes that draw the tables the targets are compared with.
        draws: number of such tables.
    """
    columns = table.columns(targets)
    own = table.scores[np.arange(len(columns)), columns]
    others = table.scores.copy()
    others[np.arange(len(columns)), columns] = -np.inf
    return TableTest(
        law=table_tail(scores=table.scores, targets=columns),
        redraw=table_redraw(scores=table.scores, targets=columns, seed=seed, draws=draws),
        n_cells=len(columns),
        n_probes=sum(table.counts),
        first_ranked=int((own > others.max(axis=1)).sum()),
    )


def most_extreme_log10_p(table: Scored) -> float:
    """Return log10 of the p-value of the draw that fits these scores best: no other one has a smaller."""
    best = np.argmax(table.scores, axis=1)
    return table_tail(scores=table.scores, targets=best.tolist()).log10_p_upper


def redraw_values(table: Scored, *, seed: bytes, draws: int) -> Floats:
    """Return the statistic at the re-drawn tables that :func:`table_test` uses, shape (draws,)."""
    from auditor.stats.redraw import UniformDraws

    cells, choices = table.scores.shape
    picks = UniformDraws(seed, below=choices).take(draws * cells).reshape(draws, cells)
    return np.asarray(table.scores[np.arange(cells), picks].sum(axis=1))


def average_ranks(table: Floats) -> Floats:
    """Return the ranks within every row, from 1, ties averaged; same shape."""
    # Not scipy.stats, which cannot be imported where torch is blocked.
    ranks = np.empty(table.shape)
    for number, row in enumerate(table):
        ordered = np.sort(row)
        below, up_to = np.searchsorted(ordered, row, side="left"), np.searchsorted(ordered, row, side="right")
        ranks[number] = (below + up_to + 1) / 2.0
    return ranks
