"""What a panel of independently trained models says about the procedure, with the model as the unit.

The panel validates: the whole sealed test is run on each model as if it were the suspect, and false claims are counted
over models, with an exact interval. Where the null rate is measured, the panel's upper bound of the mean hit rate is a
further lower limit of that rate. Where labels were drawn, the panel supplies no rate (docs/adr/0006, docs/adr/0008).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log10

from auditor.analysis.base import Basis, Levels, fixed_log10_p
from auditor.records import Design, NullBasis, Protocol
from auditor.stats import exact, panel, sequential

PANEL_ERROR = 0.05
"""Error probability of the bound of the mean rate, which no level is spent on because it can only raise the rate."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelMember:
    """How one independent model answered every key of the key set."""

    keys: tuple[bool | None, ...]
    """Per key in sealed order: hit, miss, or None where nothing is bet on the answer."""
    sham_hits: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PanelView:
    """What the panel shows."""

    error: panel.ErrorRate
    """False claims of the whole procedure."""
    measured: panel.PanelNull
    keys: int
    """Keys that each model was asked."""


def panel_rate(members: Sequence[PanelMember], protocol: Protocol) -> float:
    """Return the bound that a measured null rate may not be set below; 0.0 without a panel or with a drawn null."""
    if not members or protocol.null_basis is not NullBasis.SHAMS:
        return 0.0
    return _measured(members).mean_upper


def view_panel(members: Sequence[PanelMember], *, basis: Basis, levels: Levels) -> PanelView | None:
    """Return what the panel shows; None without one."""
    if not members:
        return None
    claims = sum(_claimed(member, basis, levels) for member in members)
    return PanelView(
        error=panel.procedure_error(false_claims=claims, models=len(members)),
        measured=_measured(members),
        keys=len(members[0].keys),
    )


def _measured(members: Sequence[PanelMember]) -> panel.PanelNull:
    return panel.measure_panel([[outcome is True for outcome in member.keys] for member in members], error=PANEL_ERROR)


def _claimed(member: PanelMember, basis: Basis, levels: Levels) -> bool:
    # The model in the suspect's place: its own shams, all keys in sealed order. Its own hits do not raise its rate.
    protocol, null_rate = basis.protocol, basis.forecast_null(levels)
    if protocol.null_basis is NullBasis.SHAMS:
        trials = protocol.n_shams
        bound = exact.upper_bound_at(hits=member.sham_hits, trials=trials, error=levels.null_bound) if trials else 1.0
        null_rate = max(protocol.null_floor, bound)
    if not basis.has_power(null_rate):
        return False
    outcome = sequential.run(
        member.keys,
        null_rate=null_rate,
        alpha=levels.test,
        p_min=protocol.p_min,
        futility=protocol.futility,
        futility_rate=basis.futility_rate(null_rate),
    )
    if protocol.design is Design.FIXED:
        return fixed_log10_p(outcome, null_rate) <= log10(levels.test)
    return outcome.decision is sequential.Decision.REJECT
