import numpy as np
import pytest
from scipy import stats

from auditor.stats.keyed_cells import cell_table, table_test
from auditor.stats.keyed_signs import sign_table
from auditor.stats.table_forecast import Shape, fewest_probes, forecast

CLASSES, BITS = 10, 1
CELLS = CLASSES << BITS


def ranked(n: int, *, lead: float, likeness: float, generator: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Rank differences of a surrogate whose logits follow the clean model's, with a lead of each cell's target.

    Nothing of the planner's model is used: logits, ranks of a stock library, cells by a fair coin.
    """
    targets = generator.integers(0, CLASSES - 1, size=CELLS)
    own = likeness * generator.normal(size=(CELLS, CLASSES - 1))
    cells = generator.integers(0, CELLS, size=n)
    clean = generator.normal(size=(n, CLASSES - 1))
    suspect = clean + own[cells] + generator.normal(size=(n, CLASSES - 1))
    suspect[np.arange(n), targets[cells]] += lead
    ranks = [stats.rankdata(table, axis=1) for table in (suspect, clean)]
    return (ranks[0] - ranks[1]) / (CLASSES - 1), cells, targets


def measured(*, lead: float, likeness: float) -> Shape:
    """The shape as the benchmark measures it, from one large simulation."""
    generator = np.random.default_rng(77)
    shifts, spreads, noises = [], [], []
    for _ in range(12):
        scores, cells, targets = ranked(4_000, lead=lead, likeness=likeness, generator=generator)
        for cell in range(CELLS):
            rows = scores[cells == cell]
            means, others = rows.mean(axis=0), np.delete(rows.mean(axis=0), targets[cell])
            noises.append(rows.var(axis=0, ddof=1).mean())
            shifts.append(means[targets[cell]] - others.mean())
            spreads.append(others.var(ddof=1) - noises[-1] / len(rows))
    return Shape(
        shift=float(np.mean(shifts)),
        shift_sd=float(np.std(shifts)),
        spread=float(np.sqrt(np.mean(spreads))),
        noise=float(np.sqrt(np.mean(noises))),
    )


@pytest.mark.parametrize(
    ("lead", "likeness", "probes"), [(0.8, 0.4, 200), (0.5, 0.4, 500), (1.5, 0.6, 100), (0.0, 0.4, 300)]
)
def test_the_forecast_is_that_of_simulated_audits(lead: float, likeness: float, probes: int) -> None:
    generator = np.random.default_rng(5)
    p_values = []
    for _ in range(60):
        scores, cells, drawn = ranked(probes, lead=lead, likeness=likeness, generator=generator)
        labels = cells >> BITS
        table = cell_table(scores=scores, cells=cells, labels=labels)
        targets = [int(k + (k >= cell >> BITS)) for cell, k in enumerate(drawn)]
        p_values.append(table_test(table, targets=targets, seed=bytes(32), draws=1).log10_p)
    level = 10.0 ** float(np.median(p_values)) if lead else 1e-3
    shape = measured(lead=lead, likeness=likeness)
    found = forecast(shape, n_cells=CELLS, n_choices=CLASSES - 1, probes=probes, level=min(level, 0.5))
    # The median of 60 audits has a standard error of a few tenths; so has the share at the median itself.
    assert found.log10_p == pytest.approx(np.median(p_values), abs=0.25 + 0.12 * abs(np.median(p_values)))
    share = np.mean([p <= np.log10(min(level, 0.5)) for p in p_values])
    assert found.power == pytest.approx(share, abs=0.28)


def test_more_probes_and_more_cells_help_and_bisection_finds_the_first_that_suffices() -> None:
    shape = Shape(shift=0.3, shift_sd=0.1, spread=0.12, noise=0.25)
    numbers = (50, 100, 150, 200, 400, 1_000)
    enough, tried = fewest_probes(shape, n_cells=20, n_choices=9, level=1e-6, power=0.9, numbers=numbers)
    assert enough is not None
    assert enough in tried
    every = [forecast(shape, n_cells=20, n_choices=9, probes=n, level=1e-6) for n in numbers]
    assert next(each.probes for each in every if each.power >= 0.9) == enough.probes
    assert [each.power for each in every] == sorted(each.power for each in every)
    assert every[0].cells < 20 == every[-1].cells
    more = forecast(shape, n_cells=40, n_choices=9, probes=1_000, level=1e-6)
    assert more.log10_p < every[-1].log10_p


def test_nothing_suffices_where_the_floor_lies_above_the_level() -> None:
    shape = Shape(shift=0.9, shift_sd=0.0, spread=0.01, noise=0.01)
    enough, tried = fewest_probes(shape, n_cells=3, n_choices=2, level=1e-6, power=0.5)
    assert enough is None
    assert tried[-1].probes == 20_000
    assert tried[-1].log10_p >= -3 * np.log10(2) - 1e-9


def test_the_same_seed_gives_the_same_forecast() -> None:
    shape = Shape(shift=0.2, shift_sd=0.1, spread=0.1, noise=0.2)
    first, again = (forecast(shape, n_cells=10, n_choices=4, probes=100, level=1e-3, rounds=5) for _ in range(2))
    assert first == again
    with pytest.raises(ValueError, match="start at"):
        forecast(shape, n_cells=10, n_choices=1, probes=100, level=1e-3)


@pytest.mark.parametrize(("bits", "shift", "probes"), [(1, 0.05, 400), (2, 0.05, 800), (2, 0.0, 400)])
def test_the_forecast_of_signs_is_that_of_simulated_audits(bits: int, shift: float, probes: int) -> None:
    """Confidences with falls by fair signs, through the audit's own table of signs; classes drift as they like."""
    generator, per_class = np.random.default_rng(9), 1 << bits
    n_cells, spread, noise, p_values = CLASSES * per_class, 0.01, 0.15, []
    for _ in range(60):
        signs = generator.choice([-1, 1], size=n_cells)
        cells = generator.integers(0, n_cells, size=probes)
        level = shift * signs + spread * generator.normal(size=n_cells)
        drift = generator.normal(size=CLASSES)
        drops = level[cells] + drift[cells // per_class] + noise * generator.normal(size=probes)
        table = sign_table(drops=drops, cells=cells, labels=cells // per_class)
        p_values.append(table_test(table, targets=signs.tolist(), seed=bytes(32), draws=1).log10_p)
    limit = 10.0 ** float(np.median(p_values)) if shift else 1e-2
    found = forecast(
        Shape(shift=shift, shift_sd=0.0, spread=spread, noise=noise), n_cells=n_cells, n_choices=2, probes=probes,
        level=limit, cells_per_class=per_class, rounds=60,
    )  # fmt: skip
    assert found.log10_p == pytest.approx(float(np.median(p_values)), abs=1.0)
    assert found.power == pytest.approx(float(np.mean([p <= np.log10(limit) for p in p_values])), abs=0.25)


def test_one_cell_to_a_class_shows_no_sign() -> None:
    shape = Shape(shift=1.0, shift_sd=0.0, spread=0.0, noise=0.0)
    assert forecast(shape, n_cells=10, n_choices=2, probes=500, level=0.5, cells_per_class=1, rounds=5).power == 0.0
    with pytest.raises(ValueError, match="as many cells"):
        forecast(shape, n_cells=10, n_choices=2, probes=500, level=0.5, cells_per_class=4)
