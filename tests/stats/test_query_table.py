"""The published-style table of query counts, made by another program with other code (36 cells, 3 levels)."""

from typing import NamedTuple

import pytest

from auditor.stats import queries, sequential


class Row(NamedTuple):
    alpha: float
    null_rate: float
    rate: float
    limit: float
    fixed95: int
    fixed95_hits: int
    fixed99: int
    fixed99_hits: int
    sprt95: float
    sprt95_innocent: float
    sprt99: float
    sprt99_innocent: float
    default: float
    cap95: int
    cap99: int


ROWS = [
    Row(0.001, 0.001, 0.3, 4.72, 14, 2, 20, 2, 6.5, 9.2, 6.7, 13.2, 7.0, 17, 24),
    Row(0.001, 0.001, 0.5, 2.5, 8, 2, 11, 2, 3.9, 5.0, 4.0, 7.1, 4.0, 8, 11),
    Row(0.001, 0.001, 0.8, 1.37, 4, 2, 5, 2, 2.4, 2.0, 2.5, 3.0, 2.5, 4, 5),
    Row(0.001, 0.001, 0.95, 1.09, 1, 1, 3, 2, 2.1, 2.0, 2.1, 2.0, 2.1, 3, 3),
    Row(0.001, 0.01, 0.3, 8.88, 19, 3, 30, 4, 10.4, 10.1, 10.9, 15.7, 12.0, 27, 35),
    Row(0.001, 0.01, 0.5, 4.28, 11, 3, 14, 3, 4.9, 5.4, 5.1, 7.5, 5.8, 13, 16),
    Row(0.001, 0.01, 0.8, 2.17, 4, 2, 5, 2, 2.5, 2.1, 2.6, 3.1, 3.0, 6, 7),
    Row(0.001, 0.01, 0.95, 1.65, 3, 2, 3, 2, 2.2, 2.0, 2.2, 2.1, 2.2, 4, 5),
    Row(0.001, 0.1, 0.3, 44.95, 81, 18, 108, 22, 44.8, 26.7, 47.2, 40.7, 56.9, 116, 149),
    Row(0.001, 0.1, 0.5, 13.52, 26, 9, 35, 11, 14.3, 9.1, 14.8, 13.1, 16.6, 34, 44),
    Row(0.001, 0.1, 0.8, 5.07, 9, 5, 12, 6, 5.7, 2.8, 6.0, 5.0, 6.3, 11, 14),
    Row(0.001, 0.1, 0.95, 3.46, 5, 4, 7, 5, 4.4, 2.3, 4.4, 2.5, 4.4, 6, 8),
    Row(1e-06, 0.001, 0.3, 9.45, 19, 3, 30, 4, 10.3, 9.2, 10.7, 13.2, 11.9, 24, 30),
    Row(1e-06, 0.001, 0.5, 5.0, 11, 3, 14, 3, 6.0, 5.1, 6.1, 7.1, 6.3, 13, 16),
    Row(1e-06, 0.001, 0.8, 2.75, 6, 3, 7, 3, 3.6, 2.0, 3.7, 3.0, 3.8, 6, 7),
    Row(1e-06, 0.001, 0.95, 2.17, 4, 3, 5, 3, 3.2, 2.0, 3.2, 2.0, 3.2, 4, 5),
    Row(1e-06, 0.01, 0.3, 17.76, 33, 6, 44, 7, 18.5, 10.1, 19.3, 15.7, 21.0, 40, 52),
    Row(1e-06, 0.01, 0.5, 8.56, 16, 5, 22, 6, 9.2, 5.4, 9.5, 7.5, 10.2, 18, 24),
    Row(1e-06, 0.01, 0.8, 4.34, 7, 4, 10, 5, 4.9, 2.1, 5.1, 3.1, 5.3, 9, 10),
    Row(1e-06, 0.01, 0.95, 3.31, 5, 4, 6, 4, 4.2, 2.0, 4.2, 2.1, 4.2, 5, 7),
    Row(1e-06, 0.1, 0.3, 89.91, 145, 35, 178, 40, 87.7, 26.7, 91.7, 40.8, 104.1, 180, 221),
    Row(1e-06, 0.1, 0.5, 27.05, 44, 17, 54, 19, 27.2, 9.2, 28.1, 13.1, 30.7, 53, 65),
    Row(1e-06, 0.1, 0.8, 10.14, 16, 10, 19, 11, 10.3, 2.8, 10.9, 5.0, 11.3, 18, 22),
    Row(1e-06, 0.1, 0.95, 6.93, 10, 8, 12, 9, 7.7, 2.3, 7.8, 2.5, 7.8, 11, 13),
    Row(1e-09, 0.001, 0.3, 14.17, 28, 5, 35, 5, 15.3, 9.2, 15.8, 13.2, 16.5, 32, 40),
    Row(1e-09, 0.001, 0.5, 7.51, 13, 4, 19, 5, 8.2, 5.1, 8.4, 7.1, 8.7, 16, 19),
    Row(1e-09, 0.001, 0.8, 4.12, 7, 4, 9, 4, 4.8, 2.0, 5.0, 3.0, 5.0, 7, 10),
    Row(1e-09, 0.001, 0.95, 3.26, 5, 4, 6, 4, 4.2, 2.0, 4.2, 2.0, 4.2, 5, 6),
    Row(1e-09, 0.01, 0.3, 26.65, 45, 9, 58, 10, 27.2, 10.1, 28.3, 15.7, 30.1, 53, 66),
    Row(1e-09, 0.01, 0.5, 12.84, 23, 8, 27, 8, 13.3, 5.4, 13.7, 7.5, 14.6, 25, 30),
    Row(1e-09, 0.01, 0.8, 6.51, 10, 6, 12, 6, 6.9, 2.1, 7.1, 3.1, 7.3, 11, 13),
    Row(1e-09, 0.01, 0.95, 4.96, 6, 5, 8, 6, 5.5, 2.0, 5.5, 2.1, 5.5, 7, 8),
    Row(1e-09, 0.1, 0.3, 134.86, 204, 51, 243, 57, 130.6, 26.7, 136.2, 40.8, 150.5, 241, 286),
    Row(1e-09, 0.1, 0.5, 40.57, 60, 24, 73, 27, 40.2, 9.2, 41.5, 13.1, 44.4, 71, 84),
    Row(1e-09, 0.1, 0.8, 15.21, 21, 14, 26, 16, 15.1, 2.8, 15.8, 5.0, 16.4, 24, 29),
    Row(1e-09, 0.1, 0.95, 10.39, 13, 11, 15, 12, 11.0, 2.3, 11.1, 2.5, 11.4, 14, 16),
]


@pytest.mark.parametrize("row", ROWS, ids=lambda r: f"{r.alpha:g}-{r.null_rate:g}-{r.rate:g}")
def test_cell(row: Row) -> None:
    rates = {"rate": row.rate, "null_rate": row.null_rate}
    limit = queries.information_limit(alpha=row.alpha, power=1.0, **rates)
    assert limit == pytest.approx(row.limit, abs=5.1e-3)

    for power, keys, hits in ((0.95, row.fixed95, row.fixed95_hits), (0.99, row.fixed99, row.fixed99_hits)):
        fixed = queries.fixed_design(alpha=row.alpha, power=power, **rates)
        assert fixed is not None
        assert (fixed.keys, fixed.hits) == (keys, hits)

    for power, derived, innocent in ((0.95, row.sprt95, row.sprt95_innocent), (0.99, row.sprt99, row.sprt99_innocent)):
        design = queries.sprt_design(alpha=row.alpha, power=power, **rates)
        assert queries.sprt_operating(design, rate=row.rate, cap=900).mean == pytest.approx(derived, abs=0.0501)
        assert queries.sprt_operating(design, rate=row.null_rate, cap=900).mean == pytest.approx(innocent, abs=0.0501)

    # The default procedure without its futility stop, on an endless key set.
    default = sequential.operating(
        rate=row.rate,
        null_rate=row.null_rate,
        alpha=row.alpha,
        p_min=max(0.3, 2 * row.null_rate),
        futility=1e-300,
        cap=900,
    )
    assert default.mean == pytest.approx(row.default, abs=0.0501)
    assert (default.keys_to_reject(0.95), default.keys_to_reject(0.99)) == (row.cap95, row.cap99)
    assert (default.q95, default.q99) == (row.cap95, row.cap99)
