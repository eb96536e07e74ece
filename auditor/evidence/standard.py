"""The protocol with its default levels, for key sets of every origin."""

from auditor.records import Design, NullBasis, Protocol

P_MIN = {NullBasis.SHAMS: 0.3, NullBasis.DRAWN_LABELS: 0.1, NullBasis.DRAWN_TABLE: 0.3}
"""Smallest hit rate an audit goes on for. Surrogates keep few drawn labels, and few of many deviating answers still are
strong evidence, so that an audit of drawn labels gives up later."""


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
        p_min=P_MIN[null_basis],
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
        code_alpha=0.001,
        order_seed=order_seed,
        randomness=randomness,
        grinding_log2=grinding_log2,
        forecast_rate=forecast_rate,
        forecast_sham_rate=forecast_sham_rate,
        forecast_control_accuracy=forecast_control_accuracy,
    )
