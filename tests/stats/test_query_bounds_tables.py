"""Every table that the independent program prints, from its printed digits (the CSV files beside this test)."""

import csv
import math
from pathlib import Path

import numpy as np
import pytest

from auditor.stats import drawn_labels, mixtures, optimum, queries, replacement, sequential
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.sequential import log_e

HERE = Path(__file__).parent
DIGIT = 0.0501


def read(name: str) -> list[dict[str, str]]:
    with (HERE / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


CELLS = read("query_bounds.csv")
DRAWN = read("query_bounds_drawn.csv")
FINITE = read("query_bounds_finite.csv")


def name(row: dict[str, str]) -> str:
    return "-".join(list(row.values())[:4])


def rates(row: dict[str, str]) -> tuple[float, float, float]:
    return float(row["alpha"]), float(row["null_rate"]), float(row["rate"])


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_open_ended_mixtures(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    evidence = {
        "lr_p1_mean": lambda k, n: mixtures.ratio_log_e(k, n, null_rate=null_rate, rate=rate),
        "kt_one_mean": lambda k, n: log_e(k, n, null_rate),
        "uni_one_mean": lambda k, n: log_e(k, n, null_rate, prior=1.0),
        "grid_mean": lambda k, n: mixtures.grid_log_e(k, n, null_rate=null_rate),
    }
    for column, rule in evidence.items():
        got = mixtures.open_ended(rule, rate=rate, alpha=alpha, cap=900)
        assert got.undecided < 1e-5
        assert got.mean == pytest.approx(float(row[column]), abs=DIGIT), column


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_a_wrong_guess_of_the_rate(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    growth = queries.bernoulli_kl(rate, null_rate) - queries.bernoulli_kl(rate, 0.8)
    got = mixtures.open_ended(
        lambda k, n: mixtures.ratio_log_e(k, n, null_rate=null_rate, rate=0.8), rate=rate, alpha=alpha, cap=1500
    )
    if math.isinf(float(row["lr_guess_mean"])):
        # The other program calls a mean infinite, too, when its horizon of some hundred keys does not suffice.
        assert growth <= 0 or got.reject_by[400] < 0.99999
    else:
        assert growth > 0
        assert got.mean == pytest.approx(float(row["lr_guess_mean"]), abs=DIGIT)


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_calibrated_threshold(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    made = mixtures.calibrated_boundary(
        lambda k, n: log_e(k, n, null_rate), null_rate=null_rate, alpha=alpha, maximum=400
    )
    assert made.level <= alpha
    assert made.log_threshold <= -math.log(alpha)
    got = sequential.boundary_operating(
        rate=rate, reject_from=made.reject_from, continue_from=np.zeros_like(made.reject_from)
    )
    assert got.mean == pytest.approx(float(row["cal_mean"]), abs=DIGIT)


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_curtailed_fixed_design(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    for power, column in ((0.95, "curt95"), (0.99, "curt99")):
        design = queries.fixed_design(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        assert design is not None
        got = mixtures.curtailed_operating(keys=design.keys, hits=design.hits, rate=rate)
        assert got.mean == pytest.approx(float(row[column]), abs=DIGIT)
        assert got.reject == pytest.approx(design.power, abs=1e-12)


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_default_with_futility(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    for column, true_rate in (("def_mean", rate), ("def_h0", null_rate), ("def_zero", 0.0)):
        got = sequential.operating(rate=true_rate, null_rate=null_rate, alpha=alpha, p_min=0.3, futility=0.01, cap=900)
        assert got.mean == pytest.approx(float(row[column]), abs=DIGIT), column


@pytest.mark.parametrize("row", CELLS, ids=name)
def test_exact_optimum(row: dict[str, str]) -> None:
    alpha, null_rate, rate = rates(row)
    for power, column in ((0.95, "opt95"), (0.99, "opt99")):
        got = optimum.least_mean(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        assert got == pytest.approx(float(row[column]), abs=DIGIT)
        limit = queries.information_limit(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        design = queries.sprt_design(alpha=alpha, power=power, rate=rate, null_rate=null_rate)
        assert limit - 1e-3 <= got <= queries.sprt_operating(design, rate=rate, cap=900).mean + 1e-6


@pytest.mark.parametrize("row", DRAWN, ids=name)
def test_drawn_labels(row: dict[str, str]) -> None:
    got = drawn_labels.drawn_label_forecast(
        alpha=float(row["alpha"]),
        n_classes=int(row["n_classes"]),
        hit=float(row["hit"]),
        natural=float(row["natural"]),
    )
    assert got.mean == pytest.approx(float(row["mean"]), abs=DIGIT)
    assert (got.q95, got.q99) == (int(row["cap95"]), int(row["cap99"]))
    assert got.mean / got.limit == pytest.approx(float(row["ratio"]), abs=5.01e-3)
    assert got.mean_of_plain_analysis == pytest.approx(float(row["plain"]), abs=DIGIT)


@pytest.mark.parametrize("row", FINITE, ids=name)
def test_finite_key_set(row: dict[str, str]) -> None:
    null_total, total, alpha = int(row["null_total"]), int(row["total"]), float(row["alpha"])
    got = replacement.without_replacement_operating(keys=100, total=total, null_total=null_total, alpha=alpha)
    assert got.mean == pytest.approx(float(row["without"]), abs=DIGIT)
    iid = mixtures.open_ended(
        lambda k, n: log_e(k, n, null_total / 100, prior=1.0), rate=total / 100, alpha=alpha, cap=1500
    )
    assert iid.mean == pytest.approx(float(row["iid"]), abs=DIGIT)


@pytest.mark.parametrize(
    ("rate", "mean", "cap95", "cap99"), [(0.3, 3.33, 9, 13), (0.5, 2.0, 5, 7), (0.8, 1.25, 2, 3), (0.95, 1.05, 1, 2)]
)
def test_new_label_rule(rate: float, mean: float, cap95: int, cap99: int) -> None:
    assert queries.new_label_bound(rate).mean == pytest.approx(mean, abs=5e-3)
    assert queries.new_label_quantile(rate=rate, miss=0.05) == cap95
    assert queries.new_label_quantile(rate=rate, miss=0.01) == cap99


@pytest.mark.parametrize(
    ("null_rate", "risks"),
    [
        (1e-4, (1.00e-04, 2.00e-04, 5.00e-04, 1.00e-03, 3.99e-03)),
        (1e-3, (1.00e-03, 2.00e-03, 4.99e-03, 9.96e-03, 3.92e-02)),
        (0.01, (1.00e-02, 1.99e-02, 4.90e-02, 9.56e-02, 3.31e-01)),
        (0.1, (1.00e-01, 1.90e-01, 4.10e-01, 6.51e-01, 9.85e-01)),
    ],
)
def test_new_label_rule_on_innocent_suspects(null_rate: float, risks: tuple[float, ...]) -> None:
    for cap, risk in zip((1, 2, 5, 10, 40), risks, strict=True):
        assert float(f"{queries.new_label_within(rate=null_rate, queries=cap):.2e}") == pytest.approx(risk, rel=1e-9)


@pytest.mark.parametrize(
    ("rate", "strict", "curtailed", "lenient"),
    [
        (0.01, 2.08e-49, 12.1, 4.31e-15),
        (0.1, 7.56e-21, 13.3, 3.81e-4),
        (1 / 9, 1.41e-19, 13.5, 9.88e-4),
        (0.15, 5.28e-16, 14.1, 0.012),
        (0.2, 1.17e-12, 15.0, 0.0875),
        (0.3, 3.71e-8, 17.1, 0.559),
        (0.5, 3.21e-3, 24.0, 0.997),
        (0.8, 0.912, 35.7, 1.0),
        (0.95, 1.0, 30.5, 1.0),
    ],
)
def test_threshold_rule(rate: float, strict: float, curtailed: float, lenient: float) -> None:
    for hits, want in ((29, strict), (12, lenient)):
        got = 10 ** binomial_tail_log10(hits=hits, trials=40, rate=rate)
        assert float(f"{got:.3g}") == pytest.approx(want, rel=1e-9)
    got_mean = mixtures.curtailed_operating(keys=40, hits=29, rate=rate).mean
    assert got_mean == pytest.approx(curtailed, abs=DIGIT)
