import math

import numpy as np
import pytest
from scipy import stats

from auditor.stats.adaptive import SchemeCount, next_scheme, total_log_e

NULL = 1 / 9
SIDE = 300


def count(hits: int, trials: int, keys: int = 500) -> SchemeCount:
    return SchemeCount(hits=hits, trials=trials, null_rate=NULL, keys=keys)


def growth_table(side: int) -> np.ndarray:
    table = np.zeros((side, side))
    for n in range(side):
        for k in range(n + 1):
            table[k, n] = count(k, n).growth
    return table


@pytest.fixture(scope="module")
def tables() -> tuple[np.ndarray, np.ndarray]:
    side = 90
    wealth = np.zeros((side, side))
    for n in range(side):
        for k in range(n + 1):
            wealth[k, n] = count(k, n).log_e
    return growth_table(side), wealth


def audit(
    rng: np.random.Generator, rates: list[float], alpha: float, most: int, tables: tuple[np.ndarray, np.ndarray]
) -> tuple[int, bool]:
    growth, wealth = tables
    hits, trials = [0] * 3, [0] * 3
    for asked in range(1, most + 1):
        options = [growth[hits[i], trials[i]] if trials[i] < len(growth) - 1 else -1.0 for i in range(3)]
        chosen = options.index(max(options))
        hits[chosen] += rng.random() < rates[chosen]
        trials[chosen] += 1
        if sum(wealth[hits[i], trials[i]] for i in range(3)) >= -math.log(alpha) - 1e-12:
            return asked, True
    return most, False


def test_asks_the_scheme_that_promises_most_and_stops_when_keys_run_out() -> None:
    assert next_scheme([count(0, 0), count(0, 0)]) == 0
    assert next_scheme([count(0, 1), count(0, 0)]) == 1
    assert next_scheme([count(2, 2), count(0, 0)]) == 0
    assert next_scheme([count(2, 2, keys=2), count(0, 4)]) == 1
    assert next_scheme([count(2, 2, keys=2)]) is None
    assert next_scheme([]) is None


def test_bet_stays_above_the_null_rate_so_no_scheme_is_given_up() -> None:
    for n in (0, 1, 5, 40):
        assert count(0, n).bet > NULL
        assert count(0, n).growth > 0


def test_one_wealth_is_the_product() -> None:
    assert total_log_e([count(3, 5), count(0, 2)]) == pytest.approx(count(3, 5).log_e + count(0, 2).log_e)


@pytest.mark.parametrize(
    ("rate", "alpha", "published"), [(0.8, 1e-3, 9.5), (0.8, 1e-6, 15.3), (0.5, 1e-3, 28.7), (0.5, 1e-6, 44.0)]
)
def test_simulated_means(rate: float, alpha: float, published: float, tables: tuple[np.ndarray, np.ndarray]) -> None:
    rng = np.random.default_rng(21)
    asked = []
    for i in range(1500):
        rates = [NULL] * 3
        rates[i % 3] = rate
        asked.append(audit(rng, rates, alpha, 250, tables)[0])
    error = float(np.std(asked)) / math.sqrt(len(asked))
    assert np.mean(asked) == pytest.approx(published, abs=0.06 * published + 4 * error)


def test_level_with_adaptive_choice(tables: tuple[np.ndarray, np.ndarray]) -> None:
    rng, alpha, audits = np.random.default_rng(22), 0.05, 3000
    claims = sum(audit(rng, [NULL] * 3, alpha, 60, tables)[1] for _ in range(audits))
    assert claims <= stats.binom.isf(1e-4, audits, alpha)
