import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from auditor.stats import replacement


def test_evidence_agrees_with_rational_arithmetic() -> None:
    keys, null_total = 12, 3
    for n in range(keys + 1):
        got = replacement.log_e_without_replacement(trials=n, keys=keys, null_total=null_total)
        mean = Fraction(0)
        for k in range(n + 1):

            def pmf(total: int, k: int = k, n: int = n) -> Fraction:
                if k > total or n - k > keys - total:
                    return Fraction(0)
                return Fraction(math.comb(total, k) * math.comb(keys - total, n - k), math.comb(keys, n))

            mixture = sum((pmf(t) for t in range(null_total + 1, keys + 1)), Fraction(0)) / (keys - null_total)
            null = pmf(null_total)
            if null:
                mean += null * (mixture / null)
                want = math.log(mixture / null) if mixture else -math.inf
                assert got[k] == pytest.approx(want, abs=1e-9)
            elif mixture:
                assert got[k] == math.inf
        assert mean <= 1


def test_level_by_enumeration_of_every_order() -> None:
    keys, null_total, alpha = 12, 3, 0.1
    boundary = replacement.without_replacement_boundary(keys=keys, null_total=null_total, alpha=alpha)
    levels = []
    for total in range(null_total + 2):
        claims = orders = 0
        for hits in itertools.combinations(range(keys), total):
            seen = np.cumsum([i in hits for i in range(keys)])
            orders += 1
            claims += any(seen[n - 1] >= boundary[n] for n in range(1, keys + 1))
        exact = replacement.without_replacement_operating(keys=keys, total=total, null_total=null_total, alpha=alpha)
        assert exact.reject == pytest.approx(claims / orders, abs=1e-12)
        levels.append(claims / orders)
    assert max(levels[: null_total + 1]) <= alpha
    assert levels == sorted(levels)


@pytest.mark.parametrize(("null_total", "published"), [(29, 0.0050), (10, 0.0026)])
def test_simulated_level(null_total: int, published: float) -> None:
    keys, alpha, audits = 100, 0.01, 100_000
    boundary = replacement.without_replacement_boundary(keys=keys, null_total=null_total, alpha=alpha)
    rng = np.random.default_rng(31)
    deck = np.zeros((audits, keys), dtype=np.int8)
    deck[:, :null_total] = 1
    seen = rng.permuted(deck, axis=1).cumsum(axis=1)
    claims = int((seen >= boundary[1:]).any(axis=1).sum())
    exact = replacement.without_replacement_operating(
        keys=keys, total=null_total, null_total=null_total, alpha=alpha
    ).reject
    low, high = stats.binom.interval(1 - 1e-4, audits, exact)
    assert low <= claims <= high
    assert exact == pytest.approx(published, abs=0.0012)
    for total in (0, null_total // 2):
        less = replacement.without_replacement_operating(keys=keys, total=total, null_total=null_total, alpha=alpha)
        assert less.reject <= exact


def test_refuses_what_cannot_be() -> None:
    with pytest.raises(ValueError, match="total"):
        replacement.log_e_without_replacement(trials=1, keys=10, null_total=10)
    with pytest.raises(ValueError, match="draws"):
        replacement.log_e_without_replacement(trials=11, keys=10, null_total=3)
    with pytest.raises(ValueError, match="alpha"):
        replacement.without_replacement_boundary(keys=10, null_total=3, alpha=0.0)
    with pytest.raises(ValueError, match="total"):
        replacement.without_replacement_operating(keys=10, total=11, null_total=3, alpha=0.1)
