"""How many probes a drawn table needs: its exact law over simulated scores of a surrogate.

Notes:
    Model: in a cell with n probes, the mean score of a class is normal with the natural spread between classes and the
    noise of one probe over √n; the target's is higher by a shift that differs from cell to cell. Probes fall into cells
    uniformly. Each simulated table is tested as a real one is, cells with few probes left out. Shift, spread and noise
    are measured on surrogates; nothing here is a guarantee about a suspect, whereas the test's level needs none of it.
    Second channel: the mean fall of confidence in a cell is normal around plus or minus the shift, by the cell's sign,
    and is compared with that of all probes of its class, as in :mod:`auditor.stats.keyed_signs`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

import numpy as np

from auditor.stats.keyed_cells import MIN_PROBES, Floats, Integers
from auditor.stats.table_law import table_tail

ROUNDS = 100
"""Simulated surrogates per number of probes."""
NUMBERS = (50, 75, 100, 150, 200, 300, 400, 500, 750, 1_000, 1_500, 2_000, 3_000, 5_000, 7_500, 10_000, 20_000)
"""Numbers of probes among which the smallest sufficient one is looked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the scores of a surrogate look like in the cells of its client's table."""

    shift: float
    """Mean lead of the target's score over the mean of the other classes."""
    shift_sd: float
    """Standard deviation of that lead from cell to cell."""
    spread: float
    """Standard deviation of the other classes' mean scores within a cell, without sampling noise."""
    noise: float
    """Standard deviation of one probe's score of one class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TableForecast:
    """What a number of probes is expected to show."""

    probes: int
    cells: int
    """Cells with enough probes, median."""
    log10_p: float
    """Median over simulated surrogates."""
    power: float
    """Share of simulated surrogates at which p is at most the level."""


def forecast(
    shape: Shape,
    *,
    n_cells: int,
    n_choices: int,
    probes: int,
    level: float,
    cells_per_class: int = 0,
    rounds: int = ROUNDS,
    seed: int = 0,
) -> TableForecast:
    """Return what this many probes are expected to show.

    Args:
        shape: of the surrogate's scores.
        n_cells: cells of the table.
        n_choices: classes that a target is drawn from, one less than there are classes.
        probes: number of probes.
        level: largest p-value that counts, in (0, 1).
        cells_per_class: for drawn signs, cells of one class, a divisor of ``n_cells``; 0 for drawn targets.
        rounds: simulated surrogates.
        seed: of the simulation; the same seed gives the same answer.

    Raises:
        ValueError: a number is out of range.
    """
    if min(n_cells, probes, rounds) < 1 or n_choices < 2 or not 0 < level < 1:
        raise ValueError("cells, probes and rounds start at 1, choices at 2, and the level lies in (0, 1)")
    if cells_per_class and n_cells % cells_per_class:
        raise ValueError("every class has as many cells as any other")
    generator = np.random.default_rng([seed, probes])
    found, used = [], []
    for _ in range(rounds):
        counts = generator.multinomial(probes, np.full(n_cells, 1.0 / n_cells))
        filled = counts[counts >= MIN_PROBES]
        used.append(len(filled))
        if not len(filled):
            found.append(0.0)
        elif cells_per_class:
            found.append(_log10_p(_sign_scores(shape, counts, cells_per_class, generator)))
        else:
            found.append(_log10_p(_scores(shape, filled, n_choices, generator)))
    return TableForecast(
        probes=probes,
        cells=int(np.median(used)),
        log10_p=float(np.median(found)),
        power=float(np.mean([p <= log10(level) for p in found])),
    )


def fewest_probes(
    shape: Shape,
    *,
    n_cells: int,
    n_choices: int,
    level: float,
    power: float,
    cells_per_class: int = 0,
    numbers: Sequence[int] = NUMBERS,
) -> tuple[TableForecast | None, tuple[TableForecast, ...]]:
    """Return the smallest of some numbers of probes that has the power, or None, and every forecast on the way there.

    Power is taken to grow with the number, so that the number is found by bisection.

    Raises:
        ValueError: as :func:`forecast` does.
    """
    tried: dict[int, TableForecast] = {}

    def at(number: int) -> TableForecast:
        if number not in tried:
            tried[number] = forecast(
                shape, n_cells=n_cells, n_choices=n_choices, probes=number, level=level, cells_per_class=cells_per_class
            )
        return tried[number]

    enough = None
    low, high = 0, len(numbers)
    while low < high:
        middle = (low + high) // 2
        if at(numbers[middle]).power >= power:
            enough, high = at(numbers[middle]), middle
        else:
            low = middle + 1
    return enough, tuple(tried[number] for number in sorted(tried))


def _scores(shape: Shape, counts: Integers, n_choices: int, generator: np.random.Generator) -> Floats:
    cells = len(counts)
    scores = shape.spread * generator.normal(size=(cells, n_choices))
    scores += shape.noise / np.sqrt(counts)[:, None] * generator.normal(size=(cells, n_choices))
    scores[:, 0] += shape.shift + shape.shift_sd * generator.normal(size=cells)
    return np.asarray(scores - scores.mean(axis=1, keepdims=True))


def _sign_scores(shape: Shape, counts: Integers, per_class: int, generator: np.random.Generator) -> Floats:
    signs = generator.choice([-1.0, 1.0], size=len(counts))
    drops = signs * (shape.shift + shape.shift_sd * generator.normal(size=len(counts)))
    drops += shape.spread * generator.normal(size=len(counts))
    drops += shape.noise / np.sqrt(np.maximum(counts, 1)) * generator.normal(size=len(counts))
    sums, of_class = (drops * counts).reshape(-1, per_class).sum(axis=1), counts.reshape(-1, per_class).sum(axis=1)
    gaps = drops - np.repeat(sums / np.maximum(of_class, 1), per_class)
    used = counts >= MIN_PROBES
    own = (signs * gaps * np.sqrt(counts))[used]
    return np.stack([own, -own], axis=1)


def _log10_p(scores: Floats) -> float:
    return table_tail(scores=scores, targets=[0] * len(scores)).log10_p_upper
