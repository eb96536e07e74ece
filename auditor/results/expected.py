"""What the sealed plan was expected to cost, beside the published bound and the information limit."""

from auditor.analysis import Basis, Levels
from auditor.canonical import JsonValue, decimal_string
from auditor.records import NullBasis, Protocol
from auditor.stats import drawn_labels, queries

FORECAST_POWER = 0.99
THRESHOLD_TAU = 0.3
THRESHOLD_ACCURACY = 0.9


def expected_queries(basis: Basis, *, null_rate: float, levels: Levels, max_keys: int) -> dict[str, JsonValue]:
    """Return the forecast of key queries at the sealed hit rate, with the published bound and the information limit."""
    rate = basis.protocol.forecast_rate
    section: dict[str, JsonValue] = {"forecast": None, "bound": None, "lower_limit": None}
    section["bound"] = _published_bound(basis.protocol)
    if not basis.has_power(null_rate) or rate <= null_rate:
        return section
    operating = basis.operating(rate=rate, null_rate=null_rate, levels=levels, cap=max_keys)
    section["forecast"] = {
        "rate": decimal_string(rate),
        "mean": decimal_string(operating.mean),
        "median": operating.median,
        "q95": operating.q95,
        "q99": operating.q99,
        "power": decimal_string(operating.reject),
    }
    name, limit = _information_limit(basis, null_rate=null_rate, alpha=levels.test)
    section["lower_limit"] = {"name": name, "mean": decimal_string(limit)}
    return section


def _information_limit(basis: Basis, *, null_rate: float, alpha: float) -> tuple[str, float]:
    rate = basis.protocol.forecast_rate
    if basis.protocol.null_basis is NullBasis.DRAWN_LABELS:
        limit = drawn_labels.information_limit(
            alpha=alpha, power=FORECAST_POWER, rate=rate, n_classes=len(basis.spec.classes)
        )
        return "KL(power‖alpha)/(p1·log(C−1))", limit
    limit = queries.information_limit(alpha=alpha, power=FORECAST_POWER, rate=rate, null_rate=null_rate)
    return "KL(power‖alpha)/KL(p1‖p0)", limit


def _published_bound(protocol: Protocol) -> dict[str, JsonValue] | None:
    """Return the query count that the scheme's own paper states, for comparison; None where it has none."""
    rate = protocol.forecast_rate
    if protocol.scheme == "new-label" and rate > 0:
        bound = queries.new_label_bound(rate)
        return {"name": "new-label paper, 1/p", "mean": decimal_string(bound.mean), "ceiling": bound.ceiling}
    # Near its pole at 1 − τ the rule needs millions of keys; such a figure helps nobody.
    if protocol.scheme == "wrong-label" and rate > 1 - THRESHOLD_TAU + 0.02:
        size = queries.threshold_size(rate=rate, tau=THRESHOLD_TAU, accuracy=THRESHOLD_ACCURACY)
        if size is not None:
            return {
                "name": f"threshold rule of Zhang et al., tau = {THRESHOLD_TAU:g}",
                "mean": decimal_string(float(size.first)),
                "ceiling": size.first,
            }
    return None
