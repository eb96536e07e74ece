"""The sections of a results object, each a function of what the analysis found."""

from collections.abc import Mapping, Sequence
from math import inf, log10

from auditor.analysis import (
    Decided,
    Levels,
    Null,
    PanelView,
    Placebo,
    Replies,
    claimed_controls,
    count_hits,
    fixed_log10_p,
)
from auditor.canonical import JsonValue, decimal_string
from auditor.records import Design, NullBasis, Protocol, Reason, Reply, Sample
from auditor.results.numbers import LOG10_2, log10_sum, power_of_ten
from auditor.stats import exact, randomization, sequential
from auditor.verdict import Facts, code_level

INTERVAL_CONFIDENCE = 0.95
BET_ON = {
    NullBasis.DRAWN_LABELS: "answers other than the carrier's natural label, missing ones counted as misses",
    NullBasis.RIVAL_LABELS: "answers that prefer one of the two classes the label was drawn from, missing ones counted "
    "as misses",
}
"""What the evidence bets on where that is not every key."""
DECIDED = (Reason.NULL_REJECTED, Reason.HIT_RATE_EXCLUDED, Reason.CONTESTABLE)
"""Reasons that a crossed boundary of the sealed test led to."""


def queries_section(grouped: Replies, decided: Decided, protocol: Protocol, reason: Reason) -> dict[str, JsonValue]:
    """Return what was asked, and after how many keys the sealed rule decided."""
    # A boundary that was crossed in an invalid audit, or by a test that is not the sealed one, decided nothing.
    decided_at = None
    if protocol.design is Design.SEQUENTIAL and reason in DECIDED:
        decided_at = None if decided.outcome is None else decided.outcome.decided_at
    return {
        "keys": len(grouped.keys),
        "shams": len(grouped.shams),
        "controls": len(grouped.controls),
        "repeats": len(grouped.repeats),
        "total": len(grouped.everything),
        "failed": grouped.n_failed,
        "keys_until_decision": decided_at,
    }


def detection_section(
    grouped: Replies, samples: Mapping[int, Sample], decided: Decided, protocol: Protocol
) -> dict[str, JsonValue]:
    """Return hits among all keys asked, with the answers that the evidence bets on where those are fewer."""
    hits, trials = count_hits(grouped.keys, samples), len(grouped.keys)
    if not trials:
        return {"hits": 0, "trials": 0, "rate": None, "interval": None, "bets": None}
    interval = sequential.confidence_sequence(hits=hits, trials=trials, confidence=INTERVAL_CONFIDENCE)
    bets: JsonValue = None
    if protocol.null_basis in BET_ON and decided.outcome is not None:
        bets = {
            "answers": decided.outcome.steps[-1].bets,
            "hits": decided.outcome.steps[-1].hits,
            "missing": sum(reply.answer is None for reply in grouped.keys),
            "what": BET_ON[protocol.null_basis],
        }
    return {
        "hits": hits,
        "trials": trials,
        "rate": decimal_string(hits / trials),
        "interval": {
            "low": decimal_string(interval.low),
            "high": decimal_string(interval.high),
            "confidence": decimal_string(interval.confidence),
            "method": "anytime-valid confidence sequence",
        },
        "bets": bets,
    }


def null_section(
    null: Null,
    levels: Levels,
    protocol: Protocol,
    rank: randomization.RankOutcome | None,
    *,
    panel: PanelView | None,
) -> dict[str, JsonValue]:
    """Return the null rate with its basis."""
    measured = protocol.null_basis is NullBasis.SHAMS
    if protocol.null_basis is NullBasis.DRAWN_LABELS:
        basis = "labels drawn uniformly over the wrong classes of each carrier"
    elif protocol.null_basis is NullBasis.RIVAL_LABELS:
        basis = "labels drawn by a fair coin between two classes of each carrier"
    elif protocol.null_basis is NullBasis.DRAWN_TABLE:
        basis = "target classes drawn uniformly over the classes other than each cell's own"
    elif not null.trials:
        basis = "unknown: no sham pattern was asked"
    elif panel is not None and panel.measured.mean_upper >= max(null.bound, protocol.null_floor):
        basis = "upper bound of the mean hit rate of a panel of independent models"
    elif null.bound > protocol.null_floor:
        basis = "upper bound from sham patterns on this suspect"
    else:
        basis = "sealed floor"
    shams: dict[str, JsonValue] = {
        "hits": null.hits,
        "trials": null.trials,
        "missing": null.missing,
        "patterns": protocol.n_sham_patterns,
        "upper_bound": decimal_string(null.bound) if measured else None,
        "error": decimal_string(levels.null_bound) if measured else None,
    }
    return {
        "kind": protocol.null_basis.value,
        "basis": basis,
        "rate": decimal_string(null.rate),
        "floor": decimal_string(protocol.null_floor) if measured else None,
        "shams": shams if measured or null.trials else None,
        "panel": None if panel is None else _panel_object(panel),
        "pattern_rank": None
        if rank is None
        else {
            "patterns": rank.patterns,
            "at_least_as_high": rank.at_least_as_high,
            "p_value": decimal_string(rank.p_value),
        },
    }


def _panel_object(view: PanelView) -> dict[str, JsonValue]:
    return {
        "models": view.error.models,
        "keys": view.keys,
        "false_claims": view.error.false_claims,
        "upper_bound": decimal_string(view.error.upper),
        "interval": {
            "low": decimal_string(view.error.interval.low),
            "high": decimal_string(view.error.interval.high),
            "confidence": decimal_string(view.error.interval.confidence),
            "method": "Clopper-Pearson over models",
        },
        "sentence": view.error.sentence,
        "mean_rate": decimal_string(view.measured.mean_rate),
        "mean_rate_upper": decimal_string(view.measured.mean_upper),
        "worst_rate": decimal_string(view.measured.worst_rate),
        "keys_hit_by_half": sum(2 * key.hits >= key.models for key in view.measured.keys),
    }


def test_section(
    decided: Decided, null: Null, levels: Levels, protocol: Protocol, *, alpha: float, family: int
) -> dict[str, JsonValue]:
    """Return the sealed test with its whole course."""
    outcome = decided.outcome
    if protocol.design is Design.FIXED and outcome is not None:
        log10_test_p = fixed_log10_p(outcome, null.rate)
        name = "exact binomial tail"
    else:
        log10_test_p = 0.0 if outcome is None else outcome.log10_p
        name = "one-sided Beta(1/2,1/2) mixture e-process"
    if protocol.null_basis is NullBasis.DRAWN_LABELS:
        name += " on deviating answers"
    elif protocol.null_basis is NullBasis.RIVAL_LABELS:
        name += " on answers that prefer one of the two classes"
    if decided.ranks is not None:
        name += ", averaged with the rank e-process of the scores"
    log10_e = 0.0 if outcome is None else outcome.log10_e_max
    # The reported p-value is of the whole procedure: a null bound that is too low, all tries of the owner, and all
    # questions of the family included.
    tries = protocol.grinding_log2 * LOG10_2 + log10(family)
    bound = log10(levels.null_bound) if levels.null_bound else -inf
    log10_p = min(0.0, tries + log10_sum(log10_test_p, bound)) if outcome is not None else 0.0
    return {
        "name": name,
        "design": protocol.design.value,
        "alpha": decimal_string(alpha),
        "alpha_test": decimal_string(levels.test),
        "grinding_log2": protocol.grinding_log2,
        "log10_test_p": decimal_string(log10_test_p),
        "log10_p": decimal_string(log10_p),
        "p_value": power_of_ten(log10_p),
        "log10_e": decimal_string(log10_e),
        "e_value": power_of_ten(log10_e),
        "p_min": decimal_string(protocol.p_min),
        "futility": decimal_string(protocol.futility),
        "ranks": None
        if decided.ranks is None
        else {
            "answers": decided.ranks.answers,
            "log10_e_labels": decimal_string(decided.ranks.log10_e_labels),
            "log10_e_ranks": decimal_string(decided.ranks.log10_e_ranks),
        },
        "steps": []
        if outcome is None
        else [
            {
                "n": step.n,
                "bets": step.bets,
                "hits": step.hits,
                "log10_e": decimal_string(step.log10_e),
                "log10_futility": decimal_string(step.log10_futility),
            }
            for step in outcome.steps
        ],
    }


def fixed_section(decided: Decided, null: Null, grouped: Replies, samples: Mapping[int, Sample]) -> JsonValue:
    """Return the exact binomial tail that ignores when the audit stopped; None where the null rate allows any count."""
    if not grouped.keys or null.rate >= 1:
        return None
    if decided.outcome is not None:
        tail = fixed_log10_p(decided.outcome, null.rate)
    else:
        hits = count_hits(grouped.keys, samples)
        tail = exact.binomial_tail_log10(hits=hits, trials=len(grouped.keys), rate=null.rate)
    return {"name": "exact binomial tail (descriptive)", "log10_p": decimal_string(tail)}


def controls_section(
    grouped: Replies,
    samples: Mapping[int, Sample],
    protocol: Protocol,
    facts: Facts,
    *,
    claimed: frozenset[int] | None = None,
) -> dict[str, JsonValue]:
    """Return what shows that the audit is valid at all."""
    accuracy = facts.control_accuracy
    controls = claimed_controls(grouped, samples, claimed)
    answered = sum(r.answer is not None for r in controls)
    return {
        "clean": {
            "correct": count_hits(controls, samples),
            "trials": answered,
            "accuracy": None if accuracy is None else decimal_string(accuracy),
            "minimum": decimal_string(protocol.min_control_accuracy),
        },
        "repeats": {
            "disagreements": round(facts.disagreement * sum(r.answer is not None for r in grouped.repeats)),
            "trials": sum(r.answer is not None for r in grouped.repeats),
            "maximum": decimal_string(protocol.max_disagreement),
        },
        "missing": {
            "keys": sum(r.answer is None for r in grouped.keys),
            "shams": sum(r.answer is None for r in grouped.shams),
            "controls": sum(r.answer is None for r in grouped.controls),
            "contradictory_keys": _contradictory(grouped.keys),
            "contradictory_controls": _contradictory(grouped.controls),
            "obstruction_log10_p": decimal_string(facts.obstruction_log10_p),
        },
    }


def _contradictory(replies: Sequence[Reply]) -> int:
    return sum(reply.answer is not None and reply.answer.contradicts_itself for reply in replies)


def code_section(code: randomization.CodeOutcome, protocol: Protocol) -> dict[str, JsonValue]:
    """Return the label-code test."""
    return {
        "hits": code.hits,
        "trials": code.trials,
        "draws": code.draws,
        "at_least_as_high": code.at_least_as_high,
        "p_value": decimal_string(code.p_value),
        "alpha": decimal_string(protocol.code_alpha),
        "alpha_look": decimal_string(code_level(protocol)),
    }


def placebo_section(placebo: Placebo | None) -> JsonValue:
    """Return how often the sealed test claims on placebo draws; None where nothing was asked."""
    if placebo is None:
        return None
    found = placebo.outcome
    return {
        "what": placebo.what,
        "draws": found.draws,
        "claims": found.claims,
        "alpha": decimal_string(found.alpha),
        "most_expected": found.most_expected,
        "interval": {
            "low": decimal_string(found.interval.low),
            "high": decimal_string(found.interval.high),
            "confidence": decimal_string(found.interval.confidence),
            "method": "Clopper-Pearson",
        },
        "reach_log10_e": None if placebo.reach_log10_e is None else decimal_string(placebo.reach_log10_e),
        "rank_p_value": decimal_string(found.p_value) if placebo.exact_rank else None,
    }


def multiplicity_section(*, serial: int, family: int) -> dict[str, JsonValue]:
    """Return how many questions the claim answers for, and how the level was charged for them."""
    return {
        "serial": serial,
        "family": family,
        "rule": "Bonferroni: the level is divided, and the p-value multiplied, by the size of the family",
        "combining": "several audits of one matter: Holm over p-values before this charge, averages over e-values",
    }
