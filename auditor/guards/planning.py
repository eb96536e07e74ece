"""How many probes a guard's key set should hold: measured surrogates, interpolated, and the exact law of the table.

The figures were measured on Fashion-MNIST with ten classes and one secret bit (benchmarks/dynamarks.md, *What the
planner rests on*); for another task they are a first guess. Outside the measured range nothing is said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from enum import StrEnum
from math import log

import numpy as np

from auditor.errors import UsageError
from auditor.guard_keys import MAX_BITS, MIN_CLASSES, ProbeData
from auditor.stats.table_forecast import NUMBERS, Shape, TableForecast, fewest_probes


class Revealed(StrEnum):
    """What the suspect's answers hold."""

    SCORES = "scores"
    CONFIDENCE = "confidence"
    """First label and its score, where the guard has the second channel."""
    LABELS = "labels"


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """The mean shape over the seeds of one kind of surrogate."""

    name: str
    """As in the benchmark."""
    mu: float
    queries: int
    bits: int = 1
    depth: float = 0.0
    """Relative change of the strength by a drawn sign; 0 without the second channel."""
    other: bool = False
    """True for another architecture than the guarded model's."""
    agreement: float
    """Share of test pictures on which surrogate and guarded model give one label."""
    seeds: int
    shapes: Mapping[tuple[Revealed, ProbeData], Shape]


USUAL_MU, USUAL_QUERIES = 0.1, 15_000
NEAR_AGREEMENT = 0.02
"""How far from a measured agreement the shape of its confidences is still used."""
MEASURED: tuple[Measured, ...] = (
    Measured(
        name="soft-1000",
        mu=0.1,
        queries=1_000,
        agreement=0.8648,
        seeds=1,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.3648, shift_sd=0.1485, spread=0.1590, noise=0.2534),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.2046, shift_sd=0.1344, spread=0.1280, noise=0.2363),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0134, shift_sd=0.0235, spread=0.0090, noise=0.1033),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0259, shift_sd=0.0543, spread=0.0529, noise=0.2129),
        },
    ),
    Measured(
        name="mu-0.005",
        mu=0.005,
        queries=15_000,
        agreement=0.9425,
        seeds=3,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.1189, shift_sd=0.0704, spread=0.0770, noise=0.2092),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.0475, shift_sd=0.0608, spread=0.0659, noise=0.1750),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=-0.0006, shift_sd=0.0133, spread=0.0097, noise=0.0692),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0043, shift_sd=0.0360, spread=0.0369, noise=0.1911),
        },
    ),
    Measured(
        name="mu-0.01",
        mu=0.01,
        queries=15_000,
        agreement=0.9374,
        seeds=3,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.1798, shift_sd=0.0894, spread=0.0878, noise=0.2141),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.0658, shift_sd=0.0742, spread=0.0716, noise=0.1776),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0006, shift_sd=0.0132, spread=0.0105, noise=0.0718),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0062, shift_sd=0.0454, spread=0.0397, noise=0.1923),
        },
    ),
    Measured(
        name="mu-0.02",
        mu=0.02,
        queries=15_000,
        agreement=0.9295,
        seeds=2,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.2485, shift_sd=0.1021, spread=0.1188, noise=0.2271),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.1064, shift_sd=0.0907, spread=0.0858, noise=0.1916),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0033, shift_sd=0.0098, spread=0.0102, noise=0.0737),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0025, shift_sd=0.0276, spread=0.0425, noise=0.1933),
        },
    ),
    Measured(
        name="mu-0.05",
        mu=0.05,
        queries=15_000,
        agreement=0.9335,
        seeds=2,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.3486, shift_sd=0.1156, spread=0.1363, noise=0.2291),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.1657, shift_sd=0.0963, spread=0.1037, noise=0.1944),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0027, shift_sd=0.0080, spread=0.0104, noise=0.0736),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0236, shift_sd=0.0628, spread=0.0451, noise=0.1971),
        },
    ),
    Measured(
        name="soft-15000",
        mu=0.1,
        queries=15_000,
        agreement=0.9311,
        seeds=2,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.4076, shift_sd=0.1272, spread=0.1455, noise=0.2349),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.2230, shift_sd=0.1010, spread=0.1238, noise=0.2106),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0050, shift_sd=0.0104, spread=0.0096, noise=0.0751),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0423, shift_sd=0.0599, spread=0.0428, noise=0.2019),
        },
    ),
    Measured(
        name="mu-0.2",
        mu=0.2,
        queries=15_000,
        agreement=0.9021,
        seeds=2,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.4347, shift_sd=0.1373, spread=0.1649, noise=0.2512),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.2683, shift_sd=0.1442, spread=0.1579, noise=0.2327),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0174, shift_sd=0.0209, spread=0.0088, noise=0.0911),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0876, shift_sd=0.0917, spread=0.0470, noise=0.2230),
        },
    ),
    Measured(
        name="soft-50000",
        mu=0.1,
        queries=50_000,
        agreement=0.9561,
        seeds=1,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.4290, shift_sd=0.1557, spread=0.1385, noise=0.2154),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.2236, shift_sd=0.0982, spread=0.1046, noise=0.1926),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0069, shift_sd=0.0086, spread=0.0138, noise=0.0613),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0416, shift_sd=0.0322, spread=0.0385, noise=0.1926),
        },
    ),
    Measured(
        name="mlp-15000",
        mu=0.1,
        queries=15_000,
        other=True,
        agreement=0.8692,
        seeds=2,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.3350, shift_sd=0.1379, spread=0.1874, noise=0.2520),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.2127, shift_sd=0.1150, spread=0.1568, noise=0.2317),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0045, shift_sd=0.0178, spread=0.0089, noise=0.1022),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0419, shift_sd=0.0875, spread=0.0520, noise=0.2071),
        },
    ),
    Measured(
        name="depth-1",
        mu=0.1,
        queries=15_000,
        depth=0.8,
        agreement=0.9240,
        seeds=3,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.2982, shift_sd=0.1635, spread=0.1335, noise=0.2304),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.1502, shift_sd=0.1414, spread=0.1174, noise=0.1991),
            (Revealed.CONFIDENCE, ProbeData.HELD_OUT): Shape(
                shift=0.0807, shift_sd=0.0000, spread=0.0295, noise=0.1654
            ),
            (Revealed.CONFIDENCE, ProbeData.MIXTURES): Shape(
                shift=0.0161, shift_sd=0.0000, spread=0.0371, noise=0.3151
            ),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0049, shift_sd=0.0145, spread=0.0091, noise=0.0770),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0376, shift_sd=0.0732, spread=0.0468, noise=0.2024),
        },
    ),
    Measured(
        name="depth-2",
        mu=0.1,
        queries=15_000,
        bits=2,
        depth=0.8,
        agreement=0.9339,
        seeds=3,
        shapes={
            (Revealed.SCORES, ProbeData.HELD_OUT): Shape(shift=0.2599, shift_sd=0.2013, spread=0.1632, noise=0.2262),
            (Revealed.SCORES, ProbeData.MIXTURES): Shape(shift=0.1029, shift_sd=0.1199, spread=0.1144, noise=0.1893),
            (Revealed.CONFIDENCE, ProbeData.HELD_OUT): Shape(
                shift=0.0695, shift_sd=0.0000, spread=0.0412, noise=0.1672
            ),
            (Revealed.CONFIDENCE, ProbeData.MIXTURES): Shape(
                shift=0.0083, shift_sd=0.0000, spread=0.0631, noise=0.3002
            ),
            (Revealed.LABELS, ProbeData.HELD_OUT): Shape(shift=0.0004, shift_sd=0.0182, spread=0.0098, noise=0.0750),
            (Revealed.LABELS, ProbeData.MIXTURES): Shape(shift=0.0209, shift_sd=0.0722, spread=0.0524, noise=0.1969),
        },
    ),
)
"""Means over the seeds; the tests compute them again from the benchmark's record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbeQuestion:
    """What is planned for."""

    mu: float = 0.1
    agreement: float = 0.93
    """Share of pictures on which surrogate and guarded model give one label; 0.93 is measured after 15,000 queries."""
    answers: Revealed = Revealed.SCORES
    classes: int = 10
    bits: int = 1
    clients: int = 1
    alpha: float = 1e-6
    power: float = 0.99

    def __post_init__(self) -> None:
        if not (0 < self.alpha < 1 and 0 < self.power < 1):
            raise UsageError("plan: level and power must lie between 0 and 1")
        if self.answers is Revealed.CONFIDENCE and not self.bits:
            raise UsageError("plan: confidences need one secret bit at least, to compare cells within a class")
        if self.classes < MIN_CLASSES or not 0 <= self.bits <= MAX_BITS or self.clients < 1:
            raise UsageError(f"plan: from {MIN_CLASSES} classes, 0-{MAX_BITS} bits and at least one client")

    @property
    def n_cells(self) -> int:
        """Cells of the table."""
        return self.classes << self.bits

    @property
    def level(self) -> float:
        """Largest p-value of one client that counts after Holm's adjustment over all."""
        return self.alpha / self.clients


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbePlan:
    """The forecast for one kind of probes."""

    data: ProbeData
    source: str
    """What the figures rest on."""
    enough: TableForecast | None
    """The smallest number of probes with the power; None where no number has it."""
    tried: tuple[TableForecast, ...]
    most: int
    """Largest number that was considered."""


def plan_probes(question: ProbeQuestion) -> tuple[ProbePlan, ...]:
    """Return the forecast for each kind of probes.

    Raises:
        UsageError: strength or agreement lie outside what was measured.
    """
    plans = []
    for data in ProbeData:
        signs = question.answers is Revealed.CONFIDENCE
        if signs:
            shape = confidence_shape(question, data=data)
        else:
            shape = expected_shape(question.mu, question.agreement, revealed=question.answers, data=data)
        enough, tried = fewest_probes(
            shape,
            n_cells=question.n_cells,
            n_choices=question.classes - 1,
            level=question.level,
            power=question.power,
            cells_per_class=1 << question.bits if signs else 0,
        )
        plans.append(
            ProbePlan(data=data, source=_source(shape, signs=signs), enough=enough, tried=tried, most=NUMBERS[-1])
        )
    return tuple(plans)


def confidence_shape(question: ProbeQuestion, *, data: ProbeData) -> Shape:
    """Return the measured shape of a surrogate's confidences; nothing is interpolated between so few.

    Raises:
        UsageError: strength, bits or agreement are not those that were measured.
    """
    known = [each for each in MEASURED if each.depth]
    for each in known:
        same = (each.mu, each.bits) == (question.mu, question.bits)
        if same and abs(each.agreement - question.agreement) <= NEAR_AGREEMENT:
            return each.shapes[Revealed.CONFIDENCE, data]
    told = "; ".join(f"mu {each.mu:g}, {each.bits} bits, agreement {each.agreement:.2f}" for each in known)
    raise UsageError(f"plan: confidences were measured for depth {known[0].depth:g} only, at {told}")


def expected_shape(mu: float, agreement: float, *, revealed: Revealed, data: ProbeData) -> Shape:
    """Return the shape of a surrogate's scores, interpolated between those that were measured.

    Strength is interpolated on a logarithmic scale at 15,000 queries; the ratio between another agreement and theirs is
    taken from surrogates of the default strength.

    Raises:
        UsageError: strength or agreement lie outside what was measured.
    """
    plain = [each for each in MEASURED if not each.depth]
    by_mu = sorted((each for each in plain if each.queries == USUAL_QUERIES and not each.other), key=lambda m: m.mu)
    by_agreement = sorted((each for each in plain if each.mu == USUAL_MU), key=lambda m: m.agreement)
    for what, value, known in (
        ("mu", mu, [each.mu for each in by_mu]),
        ("agreement", agreement, [each.agreement for each in by_agreement]),
    ):
        if not known[0] <= value <= known[-1]:
            raise UsageError(f"plan: {what} {value:g} lies outside the measured {known[0]:g} to {known[-1]:g}")
    usual = next(each for each in by_mu if each.mu == USUAL_MU)
    key = (revealed, data)
    strength = _between(log(mu), [log(each.mu) for each in by_mu], [each.shapes[key] for each in by_mu])
    places, shapes = [each.agreement for each in by_agreement], [each.shapes[key] for each in by_agreement]
    here, there = _between(agreement, places, shapes), _between(usual.agreement, places, shapes)
    ratios = [a / b if b else 1.0 for a, b in zip(astuple(here), astuple(there), strict=True)]
    shift, shift_sd, spread, noise = (a * ratio for a, ratio in zip(astuple(strength), ratios, strict=True))
    return Shape(shift=shift, shift_sd=shift_sd, spread=spread, noise=noise)


def _between(at: float, places: Sequence[float], shapes: Sequence[Shape]) -> Shape:
    columns = np.array([astuple(shape) for shape in shapes]).T
    shift, shift_sd, spread, noise = (float(np.interp(at, places, column)) for column in columns)
    return Shape(shift=shift, shift_sd=shift_sd, spread=spread, noise=noise)


def _source(shape: Shape, *, signs: bool) -> str:
    if signs:
        return (
            f"expected fall of confidence by a sign {shape.shift:.4f} of the ranks, of other causes {shape.spread:.4f}"
        )
    return f"expected lead of a target {shape.shift:.3f}, spread of other classes {shape.spread:.3f}"
