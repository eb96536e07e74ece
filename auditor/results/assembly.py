"""The whole results object, from the sealed plan and the replies."""

from collections.abc import Mapping, Sequence

from auditor.analysis import (
    PanelMember,
    basis_of,
    gather_facts,
    label_code,
    panel_rate,
    pattern_rank,
    sort_replies,
    view_panel,
)
from auditor.analysis.drawn_table import OpenedTable, find_clients
from auditor.canonical import JsonValue
from auditor.records import InputSpec, NullBasis, Protocol, Reason, Reply, Sample, SuspectId
from auditor.results.drawn_table import table_decision, table_sections
from auditor.results.expected import expected_queries
from auditor.results.opinion import empirical_rate, opinion_section
from auditor.results.sections import (
    code_section,
    controls_section,
    detection_section,
    fixed_section,
    multiplicity_section,
    null_section,
    placebo_section,
    queries_section,
    test_section,
)
from auditor.verdict import decide, explain, status_of

RESULTS_SCHEMA = "mlaudit.results/1"


def analyse(
    *,
    protocol: Protocol,
    spec: InputSpec,
    keyset: Mapping[str, JsonValue],
    suspect: SuspectId,
    samples: Mapping[int, Sample],
    replies: Sequence[Reply],
    alpha: float,
    max_keys: int,
    closed_reason: str,
    deviations: Sequence[str],
    contestable: bool = False,
    panel: Sequence[PanelMember] = (),
    family: int = 1,
    serial: int = 1,
    table: OpenedTable | None = None,
    claimed: frozenset[int] | None = None,
    labels_unclear: bool = False,
) -> dict[str, JsonValue]:
    """Return the whole results object; see auditor.analysis for the guarantee.

    Args:
        protocol: the sealed protocol.
        spec: the task's input and label space.
        keyset: the ready-made ``keyset`` section that identifies seal and owner.
        suspect: what was under test.
        samples: the sealed metadata of at least every asked sample, by index.
        replies: every issued probe in asked order.
        alpha: level of the claim, at most the sealed one.
        max_keys: keys that could be asked, at most the sealed number.
        closed_reason: how the transcript ended.
        deviations: departures from the sealed plan, for the report.
        contestable: True when nobody can re-derive the key set.
        panel: how independent models answered the key set, as recorded before the first question.
        family: questions that might have been reported instead, this one included; the level is divided by it.
        serial: number of the key set's seal in its owner's series.
        table: the opened guard, where the null basis is a drawn table.
        claimed: classes that a calibration found a label for; None without a calibration.
        labels_unclear: True where that calibration leaves too much in doubt.

    Raises:
        ValueError: the null basis is a drawn table and none was opened.
    """
    basis = basis_of(protocol, spec, panel_rate=panel_rate(panel, protocol))
    grouped = sort_replies(replies)
    levels = basis.levels(alpha / family)
    null = basis.measure_null(grouped, samples, levels)
    decided = basis.decide(grouped, samples, null, levels)
    found = None
    if protocol.null_basis is NullBasis.DRAWN_TABLE:
        if table is None:
            raise ValueError("a drawn table can only be tested when it is opened")
        found = find_clients(grouped, table, protocol, levels)
        decided = table_decision(found, levels, complete=len(grouped.keys) == protocol.n_asked)
    placebo = basis.placebo(grouped, samples, null, levels)
    viewed = view_panel(panel, basis=basis, levels=levels)
    code = label_code(grouped, samples, spec, protocol)
    rank = pattern_rank(grouped, samples, protocol)
    facts = gather_facts(
        grouped, samples, protocol, null=null, decided=decided, code=code, closed_reason=closed_reason,
        contestable=contestable, claimed=claimed,
    )  # fmt: skip
    reason = Reason.PLAN_UNDERPOWERED if closed_reason == "underpowered" else decide(facts, protocol)
    if labels_unclear:
        reason = Reason.LABELS_UNCLEAR
    return {
        "schema": RESULTS_SCHEMA,
        "scheme": protocol.scheme,
        "scheme_version": protocol.scheme_version,
        "keyset": keyset,
        "propositions": {"h1": protocol.h1, "h2": protocol.h2},
        "verdict": {
            "status": status_of(reason).value,
            "reason": reason.value,
            "explanation": explain(reason).explanation,
        },
        "suspect": {
            "uri": suspect.uri,
            "kind": suspect.kind,
            "artefact_sha256": suspect.artefact_sha256,
            "address": suspect.address,
            "declared_name": suspect.declared_name,
        },
        "queries": queries_section(grouped, decided, protocol, reason),
        "detection": detection_section(grouped, samples, decided, protocol),
        "null": null_section(null, levels, protocol, rank, panel=viewed),
        "test": test_section(decided, null, levels, protocol, alpha=alpha, family=family),
        "fixed_test": fixed_section(decided, null, grouped, samples),
        "controls": controls_section(grouped, samples, protocol, facts, claimed=claimed),
        "label_code": None if code is None else code_section(code, protocol),
        "expected_queries": expected_queries(basis, null_rate=null.rate, levels=levels, max_keys=max_keys),
        "multiplicity": multiplicity_section(serial=serial, family=family),
        "placebo": placebo_section(placebo),
        "opinion": opinion_section(
            status_of(reason),
            decided,
            protocol,
            family=family,
            empirical=empirical_rate(grouped, samples, protocol, panel=viewed),
        ),
        "deviations": list(deviations),
        **table_sections(found, levels, protocol, alpha=alpha, family=family),
    }
