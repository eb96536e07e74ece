"""The few figures of a results object that a person sees first."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.canonical import Fields, JsonValue
from auditor.records import Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Headline:
    """The figures of a results object that fit on one line."""

    status: Status
    reason: Reason
    hits: int
    trials: int
    total_queries: int
    keys_until_decision: int | None
    p_value: str
    log10_p: float
    forecast_mean: float | None
    """Mean number of keys until the decision, forecast at the sealed hit rate; None without a forecast."""
    forecast_q95: int | None


def headline(results: Mapping[str, JsonValue]) -> Headline:
    """Read the headline of a results object."""
    top = Fields(results, what="results")
    verdict, detection, queries_section = (top.object(name) for name in ("verdict", "detection", "queries"))
    test = top.object("test")
    forecast = top.object("expected_queries").raw("forecast")
    numbers = None if forecast is None else Fields(forecast, what="results.forecast")
    decided_at = queries_section.raw("keys_until_decision")
    q95 = None if numbers is None else numbers.raw("q95")
    return Headline(
        status=Status(verdict.text("status")),
        reason=Reason(verdict.text("reason")),
        hits=detection.integer("hits"),
        trials=detection.integer("trials"),
        total_queries=queries_section.integer("total"),
        keys_until_decision=decided_at if isinstance(decided_at, int) else None,
        p_value=test.text("p_value"),
        log10_p=test.decimal("log10_p"),
        forecast_mean=None if numbers is None else numbers.decimal("mean"),
        forecast_q95=q95 if isinstance(q95, int) else None,
    )
