"""What the sealed plan does at given true hit rates, computed anew for every report."""

from dataclasses import dataclass

from auditor.analysis import fixed_power
from auditor.records import Design, Reason
from auditor.report import drawn_labels, drawn_table
from auditor.report.inputs import ReportInput, Tree
from auditor.report.text import rate
from auditor.stats import sequential


@dataclass(frozen=True, slots=True, kw_only=True)
class PowerRow:
    """What the plan does at one true hit rate."""

    rate: str
    supported: str
    not_supported: str
    undecided: str
    is_minimum: bool
    """True at the sealed minimum hit rate."""


def power_rows(tree: Tree, given: ReportInput) -> tuple[PowerRow, ...]:
    """Return the measured power: what this examination does at given true hit rates, at the null rate it found.

    Computed exactly from the sealed rule; empty where the null rate left the test without any power. With drawn
    labels every answer that is not the drawn one is taken to deviate, which gives the least power.
    """
    if drawn_table.applies(tree):
        return ()
    null_rate, p_min = tree.number("/null/rate"), tree.number("/test/p_min")
    alpha, futility = tree.number("/test/alpha_test"), tree.number("/test/futility")
    most, innocent = cap(tree, given), null_rate
    if drawn_labels.applies(tree):
        innocent = drawn_labels.innocent(tree)
    if not (0 < innocent < p_min < 1 and null_rate < 1) or most < 1:
        return ()
    forecast = Tree(given.protocol, "protocol.json").optional_number("/forecast_rate")
    rates = sorted({null_rate, p_min, 0.5, 0.8, *({forecast} if forecast is not None and 0 < forecast < 1 else ())})
    names = {forecast: " (owner's model)", p_min: " (sealed minimum)", null_rate: " (the null rate)"}
    fixed = tree.text("/test/design") == Design.FIXED
    rows = []
    for true_rate in rates:
        if fixed:
            reject = fixed_power(trials=most, null_rate=null_rate, alpha=alpha, rate=true_rate)
            futile, undecided = 1 - reject, 0.0
        else:
            behaviour = sequential.operating(
                rate=true_rate, null_rate=null_rate, alpha=alpha, p_min=p_min, futility=futility, cap=most,
                futility_rate=innocent,
            )  # fmt: skip
            reject, futile, undecided = behaviour.reject, behaviour.futile, behaviour.undecided
        rows.append(
            PowerRow(
                rate=f"{rate(true_rate)}{names.get(true_rate, '')}",
                supported=probability(reject),
                not_supported=probability(futile),
                undecided=probability(undecided),
                is_minimum=true_rate == p_min,
            )
        )
    return tuple(rows)


def cap(tree: Tree, given: ReportInput) -> int:
    """Return the largest number of key samples that the measured power may count on."""
    # An examination that stopped for another reason than its own rule could use no more keys than it asked.
    reason = Reason(tree.text("/verdict/reason"))
    asked = tree.integer("/queries/keys")
    if reason in (Reason.NULL_REJECTED, Reason.HIT_RATE_EXCLUDED, Reason.LABEL_HIDDEN, Reason.CONTESTABLE):
        return max(asked, Tree(given.preamble, "transcript preamble").integer("/max_keys"))
    return asked


def probability(value: float) -> str:
    """Return a probability to three places, never as 0 or 1."""
    if value > 0.9995:
        return "> 0.999"
    return "< 0.001" if value < 0.0005 else f"{value:.3f}"
