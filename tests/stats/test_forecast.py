import dataclasses
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from auditor.stats.forecast import Forecast, LabelSpace, ProcedureForecast, Question, forecast

QUESTION = Question(
    labels=LabelSpace.NEW_LABEL, rate=0.8, null_rate=0.1, alpha=1e-6, power=0.99, p_min=0.3, futility=0.01
)


def row(result: Forecast, start: str) -> ProcedureForecast:
    return next(r for r in result.procedures if r.name.startswith(start))


def test_known_figures() -> None:
    result = forecast(QUESTION)
    default = row(result, "default")
    assert default.mean == pytest.approx(11.3, abs=0.05)
    assert (default.q95, default.q99, default.keys_for_power, result.keys_for_power) == (18, 22, 22, 22)
    fixed = row(result, "fixed")
    assert (fixed.keys_for_power, fixed.rule) == (19, "≥ 11 hits of 19")
    assert row(result, "SPRT").mean == pytest.approx(10.9, abs=0.05)
    published = row(result, "new-label")
    assert (published.mean, published.median, published.q95, published.q99) == (1.25, 1, 2, 3)
    assert 10**published.false_claim_log10 == pytest.approx(1 - 0.9**3)
    assert row(result, "threshold").rule == "≥ 76 hits of 107"
    limit = (0.99 * math.log(0.99e6) + 0.01 * math.log(0.01)) / (0.8 * math.log(8) + 0.2 * math.log(2 / 9))
    assert result.limit == pytest.approx(limit, rel=1e-6)


def test_the_forty_query_figure() -> None:
    asked = dataclasses.replace(QUESTION, labels=LabelSpace.WRONG_LABEL, power=0.9)
    result = forecast(asked)
    threshold = row(result, "threshold")
    assert (threshold.keys_for_power, threshold.mean, threshold.q95) == (40, 40.0, None)
    assert 10**threshold.false_claim_log10 == pytest.approx(7.6e-21, rel=0.01)
    assert not any(r.name.startswith("new-label") for r in result.procedures)


def test_with_the_recommended_keys_the_power_is_reached_and_with_one_less_it_is_not() -> None:
    needed = forecast(QUESTION).keys_for_power
    assert needed is not None
    enough, short = forecast(QUESTION, keys=needed).with_keys, forecast(QUESTION, keys=needed - 1).with_keys
    assert enough is not None
    assert short is not None
    assert enough.reject >= 0.99 > short.reject


def test_a_rate_below_what_the_audit_promises_to_detect_is_out_of_reach() -> None:
    result = forecast(dataclasses.replace(QUESTION, rate=0.2))
    assert result.keys_for_power is None
    default = row(result, "default")
    assert default.keys_for_power is None
    assert default.ratio_to(result.limit) is None
    assert not any(r.name.startswith("threshold") for r in result.procedures)


def test_rates_too_close_to_tell_apart() -> None:
    result = forecast(dataclasses.replace(QUESTION, rate=0.3001, null_rate=0.299, alpha=1e-9))
    assert result.keys_for_power is None
    assert row(result, "default").mean is None
    assert not any(r.name.startswith("fixed") for r in result.procedures)


def test_tau_next_to_the_miss_rate_leaves_the_threshold_rule_out() -> None:
    for rate in (0.7001, 0.71):
        result = forecast(dataclasses.replace(QUESTION, rate=rate))
        assert not any(r.name.startswith("threshold") for r in result.procedures)


def test_the_smallest_level() -> None:
    result = forecast(dataclasses.replace(QUESTION, rate=1e-6, null_rate=1e-7, alpha=1e-100))
    assert row(result, "default").false_claim_log10 < -99
    assert row(result, "SPRT").false_claim_log10 == -math.inf


@settings(max_examples=20)
@given(st.floats(0.01, 0.25), st.floats(0.35, 0.97), st.sampled_from([1e-3, 1e-6, 1e-9]), st.floats(0.5, 0.98))
def test_guaranteed_procedures_keep_the_level_and_respect_the_limit(
    null_rate: float, rate: float, alpha: float, power: float
) -> None:
    question = Question(
        labels=LabelSpace.NEW_LABEL,
        rate=rate,
        null_rate=null_rate,
        alpha=alpha,
        power=power,
        p_min=0.3,
        futility=0.01,
    )
    result = forecast(question)
    for name in ("default", "fixed", "SPRT"):
        found = row(result, name)
        assert found.false_claim_log10 <= math.log10(alpha) + 1e-9
        ratio = found.ratio_to(result.limit)
        assert ratio is not None
        assert ratio >= 1 - 1e-9


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 1.0},
        {"rate": 0.1},
        {"rate": math.nan},
        {"null_rate": 0.0},
        {"null_rate": 0.3},
        {"p_min": 1.0},
        {"alpha": 0.0},
        {"alpha": 1e-120},
        {"alpha": 0.995},
        {"power": 1.0},
        {"futility": 0.0},
    ],
)
def test_refuses_what_cannot_be(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"rate|level|p-min|power"):
        dataclasses.replace(QUESTION, **change)


@pytest.mark.parametrize("keys", [0, -3, 1_000_000])
def test_refuses_numbers_of_keys_out_of_range(keys: int) -> None:
    with pytest.raises(ValueError, match="keys"):
        forecast(QUESTION, keys=keys)
