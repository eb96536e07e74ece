"""The protocol with its default levels, for key sets of every origin."""

from auditor.records import Design, NullBasis, Protocol
from auditor.stats import rival_labels

P_MIN = 0.3
"""Smallest hit rate an audit goes on for."""
P_MIN_DRAWN = 0.1
"""The same for many drawn labels. Surrogates keep few of them, and few of many deviating answers still are strong
evidence, so that such an audit gives up later."""
MISSES_TO_EXCLUDE = 15.0
"""Keys times the smallest rate that suffice to exclude it: misses alone take about 2 ln 100 = 9.2, odd hits more."""


def smallest_rate(null_basis: NullBasis, *, n_keys: int) -> float:
    """Return the smallest hit rate that an audit with so many keys promises to detect, and is able to exclude."""
    if null_basis is NullBasis.RIVAL_LABELS:
        return rival_labels.smallest_rate(n_keys)
    if null_basis is not NullBasis.DRAWN_LABELS:
        return P_MIN
    return min(P_MIN, max(P_MIN_DRAWN, MISSES_TO_EXCLUDE / n_keys))


def standard_protocol(
    *,
    scheme: str,
    scheme_version: int,
    propositions: tuple[str, str],
    n_keys: int,
    opening_keys: int,
    n_shams: int,
    n_sham_patterns: int,
    n_controls: int,
    n_repeats: int,
    order_seed: str,
    randomness: str,
    grinding_log2: int,
    forecast_rate: float,
    forecast_sham_rate: float,
    forecast_control_accuracy: float,
    null_basis: NullBasis = NullBasis.SHAMS,
) -> Protocol:
    """Return a protocol whose levels are the defaults of docs/adr/0001; sizes and forecasts are the owner's."""
    h1, h2 = propositions
    return Protocol(
        scheme=scheme,
        scheme_version=scheme_version,
        h1=h1,
        h2=h2,
        design=Design.SEQUENTIAL,
        null_basis=null_basis,
        alpha=1e-6,
        null_share=0.5,
        null_floor=0.01,
        p_min=smallest_rate(null_basis, n_keys=n_keys),
        futility=0.01,
        n_keys=n_keys,
        opening_keys=opening_keys,
        n_shams=n_shams,
        n_sham_patterns=n_sham_patterns,
        n_controls=n_controls,
        n_repeats=n_repeats,
        min_control_accuracy=0.5,
        max_disagreement=0.1,
        max_failed_share=0.1,
        obstruction_alpha=0.001,
        code_alpha=0.01,
        order_seed=order_seed,
        randomness=randomness,
        grinding_log2=grinding_log2,
        forecast_rate=forecast_rate,
        forecast_sham_rate=forecast_sham_rate,
        forecast_control_accuracy=forecast_control_accuracy,
    )
