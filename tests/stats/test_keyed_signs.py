import itertools
import math

import numpy as np
import pytest
from scipy import stats

from auditor.stats.keyed_cells import table_test
from auditor.stats.keyed_signs import SignTable, confidence_drops, sign_table
from auditor.stats.table_law import hoeffding_log10_p


def test_drops_are_rank_differences_of_a_stock_library() -> None:
    generator = np.random.default_rng(0)
    suspect, reference = np.round(generator.random(60), 1), generator.random(60)
    expected = (stats.rankdata(reference) - stats.rankdata(suspect)) / 60
    assert confidence_drops(suspect=suspect, reference=reference) == pytest.approx(expected)
    assert confidence_drops(suspect=7 * suspect - 3, reference=reference) == pytest.approx(expected)


def test_signs_by_hand() -> None:
    cells = np.array([0] * 8 + [1] * 8 + [4] * 3)
    drops = np.array([0.3] * 8 + [0.1] * 8 + [9.0] * 3)
    table = sign_table(drops=drops, cells=cells, labels=cells // 2)
    magnitude = 0.1 * math.sqrt(8)
    assert table.cells == (0, 1)
    assert table.counts == (8, 8)
    assert table.scores == pytest.approx(np.array([[magnitude, -magnitude], [-magnitude, magnitude]]))
    # One of the four pairs of signs gives the largest sum; a sum of zero is reached by three.
    for signs, p in (((1, -1), 1 / 4), ((1, 1), 3 / 4), ((-1, 1), 1.0)):
        found = table_test(table, targets=(*signs, 1, 1, 1), seed=bytes(32), draws=9_999)
        assert 10**found.log10_p == pytest.approx(p, rel=1e-3)
        assert abs(found.redraw.p_value - p) < 0.02
    assert table_test(table, targets=(1, -1, 1, 1, 1), seed=bytes(32), draws=9).first_ranked == 2


def test_the_law_is_the_enumeration_of_all_signs_and_never_above_the_bound_of_hoeffding() -> None:
    magnitudes = np.random.default_rng(1).normal(size=10)
    table = SignTable(cells=tuple(range(10)), counts=(9,) * 10, scores=np.stack([magnitudes, -magnitudes], axis=1))
    sums = np.array([np.dot(signs, magnitudes) for signs in itertools.product((1, -1), repeat=10)])
    for signs in (np.sign(magnitudes), np.ones(10), np.r_[np.sign(magnitudes[:8]), -np.sign(magnitudes[8:])]):
        own = float(np.dot(signs, magnitudes))
        exact = float((sums >= own - 1e-12).mean())
        found = table_test(table, targets=[int(sign) for sign in signs], seed=bytes(32), draws=99)
        assert exact * (1 - 1e-9) <= 10**found.log10_p <= exact * 1.02
        bound = hoeffding_log10_p(statistic=own, magnitudes=magnitudes.tolist())
        assert found.log10_p <= bound + 1e-9


def test_fresh_signs_give_uniform_p_values_whatever_the_drops_are() -> None:
    generator = np.random.default_rng(2)
    cells = generator.integers(0, 12, size=300)
    drops = generator.normal(size=300) + (cells == 3)
    table = sign_table(drops=drops, cells=cells, labels=cells // 2)
    p_values = [
        table_test(
            table, targets=generator.choice((-1, 1), size=12).tolist(), seed=trial.to_bytes(32, "big"), draws=99
        ).redraw.p_value
        for trial in range(400)
    ]
    for level in (0.01, 0.05, 0.1, 0.5):
        rejections = sum(p <= level + 1e-12 for p in p_values)
        assert stats.binomtest(rejections, 400, level).pvalue > 1e-4


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="one score per probe"):
        confidence_drops(suspect=np.ones(3), reference=np.ones(2))
    with pytest.raises(ValueError, match="finite"):
        confidence_drops(suspect=np.array([1.0, math.nan]), reference=np.ones(2))
    with pytest.raises(ValueError, match="no cell holds"):
        sign_table(drops=np.ones(4), cells=np.zeros(4, dtype=int), labels=np.zeros(4, dtype=int))
