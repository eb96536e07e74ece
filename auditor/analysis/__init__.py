"""What the replies say: null rate, state of the test, validity facts; shared by ``verify`` while asking and after.

One file per null basis states the guarantee that the sealed test has on it; ``base`` holds what all share. The
functions here choose the basis that the sealed protocol names.
"""

from collections.abc import Mapping

from auditor.analysis.base import (
    Basis,
    Decided,
    Levels,
    Null,
    Placebo,
    Replies,
    claimed_controls,
    count_hits,
    fixed_log10_p,
    fixed_power,
    gather_facts,
    is_hit,
    sort_replies,
)
from auditor.analysis.drawn_labels import DrawnLabels
from auditor.analysis.drawn_table import DrawnTable
from auditor.analysis.panel import PanelMember, PanelView, panel_rate, view_panel
from auditor.analysis.randomness_checks import CODE_DRAWS, code_is_open, label_code, pattern_rank
from auditor.analysis.rival_labels import RivalLabels
from auditor.analysis.sham_bound import ShamBound
from auditor.records import Design, InputSpec, NullBasis, Protocol, Sample

__all__ = [
    "CODE_DRAWS",
    "Basis",
    "Decided",
    "Levels",
    "Null",
    "PanelMember",
    "PanelView",
    "Placebo",
    "Replies",
    "basis_of",
    "claimed_controls",
    "code_is_open",
    "count_hits",
    "decide_keys",
    "fixed_log10_p",
    "fixed_power",
    "gather_facts",
    "is_hit",
    "label_code",
    "measure_null",
    "panel_rate",
    "pattern_rank",
    "plan_problem",
    "sort_replies",
    "spend",
    "view_panel",
]

BASES: dict[NullBasis, type[Basis]] = {
    NullBasis.SHAMS: ShamBound,
    NullBasis.DRAWN_LABELS: DrawnLabels,
    NullBasis.RIVAL_LABELS: RivalLabels,
    NullBasis.DRAWN_TABLE: DrawnTable,
}
"""The implemented bases; a seal that names another is refused."""


def basis_of(protocol: Protocol, spec: InputSpec, *, panel_rate: float = 0.0) -> Basis:
    """Return the null basis of a sealed plan; ``panel_rate`` as for :class:`Basis`.

    Raises:
        ValueError: this version does not know the basis.
    """
    if protocol.null_basis not in BASES:
        raise ValueError(f"no test for keys with a null basis of {protocol.null_basis.value}")
    return BASES[protocol.null_basis](protocol, spec, panel_rate=panel_rate)


def plan_problem(protocol: Protocol, spec: InputSpec) -> str:
    """Return why a sealed plan has no test, or an empty text."""
    if protocol.null_basis not in BASES:
        return f"this version has no test for keys with a null basis of {protocol.null_basis.value}"
    if protocol.null_basis is NullBasis.DRAWN_TABLE and (protocol.design is not Design.FIXED or len(spec.classes) < 3):
        return "a drawn table is tested once, after all probes, and needs three classes"
    if protocol.null_basis is NullBasis.DRAWN_LABELS and len(spec.classes) < 3:
        return "with two classes the only wrong label is known to everybody; labels drawn over it show nothing"
    return ""


def spend(alpha: float, protocol: Protocol, spec: InputSpec) -> Levels:
    """Split the level ``alpha`` as the null basis needs it, after charging the declared grinding allowance."""
    return basis_of(protocol, spec).levels(alpha)


def measure_null(
    grouped: Replies,
    samples: Mapping[int, Sample],
    levels: Levels,
    protocol: Protocol,
    spec: InputSpec,
    *,
    panel_rate: float = 0.0,
) -> Null:
    """Return the null rate of the answers that the sealed test bets on."""
    return basis_of(protocol, spec, panel_rate=panel_rate).measure_null(grouped, samples, levels)


def decide_keys(
    grouped: Replies, samples: Mapping[int, Sample], null: Null, levels: Levels, protocol: Protocol, spec: InputSpec
) -> Decided:
    """Run the sealed test over the keys answered so far."""
    return basis_of(protocol, spec).decide(grouped, samples, null, levels)
