"""From replies to ``results.json``: every number with the inputs it follows from, ready to be signed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isinf, log10

from auditor.analysis import (
    Decided,
    Levels,
    Null,
    Replies,
    count_hits,
    decide_keys,
    gather_facts,
    is_hit,
    label_code,
    measure_null,
    pattern_rank,
    sort_replies,
    spend,
)
from auditor.canonical import Fields, JsonValue, decimal_string
from auditor.records import Design, InputSpec, Protocol, Reason, Reply, Sample, Status, SuspectId
from auditor.stats import exact, likelihood, queries, randomization, sequential
from auditor.verdict import Facts, decide, explain, status_of

RESULTS_SCHEMA = "mlaudit.results/1"
INTERVAL_CONFIDENCE = 0.95
FORECAST_POWER = 0.99
LOG10_2 = log10(2.0)
THRESHOLD_TAU = 0.3
THRESHOLD_ACCURACY = 0.9
DECIDED = (Reason.NULL_REJECTED, Reason.HIT_RATE_EXCLUDED, Reason.CONTESTABLE)
"""Reasons that a crossed boundary of the sealed test led to."""


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
    """
    grouped = sort_replies(replies)
    levels = spend(alpha, protocol)
    null = measure_null(grouped, samples, levels, protocol)
    decided = decide_keys(grouped, samples, null, levels, protocol)
    code = label_code(grouped, samples, spec, protocol)
    rank = pattern_rank(grouped, samples, protocol)
    facts = gather_facts(
        grouped, samples, protocol, null=null, decided=decided, code=code, closed_reason=closed_reason,
        contestable=contestable,
    )  # fmt: skip
    reason = Reason.PLAN_UNDERPOWERED if closed_reason == "underpowered" else decide(facts, protocol)
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
        "queries": _queries_section(grouped, decided, protocol, reason),
        "detection": _detection_section(grouped, samples),
        "null": _null_section(null, levels, protocol, rank),
        "test": _test_section(decided, null, levels, grouped, samples, protocol, alpha),
        "fixed_test": _fixed_section(grouped, samples, null),
        "controls": _controls_section(grouped, samples, protocol, facts),
        "label_code": None if code is None else _code_section(code, protocol),
        "expected_queries": expected_queries(protocol, null_rate=null.rate, levels=levels, max_keys=max_keys),
        "opinion": _opinion_section(status_of(reason), decided, grouped, samples, protocol),
        "deviations": list(deviations),
    }


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


def expected_queries(protocol: Protocol, *, null_rate: float, levels: Levels, max_keys: int) -> dict[str, JsonValue]:
    """Return the forecast of key queries at the sealed hit rate, with the published bound and the information limit."""
    rate = protocol.forecast_rate
    section: dict[str, JsonValue] = {"forecast": None, "bound": None, "lower_limit": None}
    section["bound"] = _published_bound(protocol)
    if null_rate >= protocol.p_min or rate <= null_rate:
        return section
    operating = sequential.operating(
        rate=rate,
        null_rate=null_rate,
        alpha=levels.test,
        p_min=protocol.p_min,
        futility=protocol.futility,
        cap=max_keys,
    )
    section["forecast"] = {
        "rate": decimal_string(rate),
        "mean": decimal_string(operating.mean),
        "median": operating.median,
        "q95": operating.q95,
        "q99": operating.q99,
        "power": decimal_string(operating.reject),
    }
    limit = queries.information_limit(alpha=levels.test, power=FORECAST_POWER, rate=rate, null_rate=null_rate)
    section["lower_limit"] = {"name": "KL(power‖alpha)/KL(p1‖p0)", "mean": decimal_string(limit)}
    return section


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


def _queries_section(grouped: Replies, decided: Decided, protocol: Protocol, reason: Reason) -> dict[str, JsonValue]:
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


def _detection_section(grouped: Replies, samples: Mapping[int, Sample]) -> dict[str, JsonValue]:
    hits, trials = count_hits(grouped.keys, samples), len(grouped.keys)
    if not trials:
        return {"hits": 0, "trials": 0, "rate": None, "interval": None}
    interval = sequential.confidence_sequence(hits=hits, trials=trials, confidence=INTERVAL_CONFIDENCE)
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
    }


def _null_section(
    null: Null, levels: Levels, protocol: Protocol, rank: randomization.RankOutcome | None
) -> dict[str, JsonValue]:
    if not null.trials:
        basis = "unknown: no sham pattern was asked"
    elif null.bound > protocol.null_floor:
        basis = "upper bound from sham patterns on this suspect"
    else:
        basis = "sealed floor"
    return {
        "basis": basis,
        "rate": decimal_string(null.rate),
        "floor": decimal_string(protocol.null_floor),
        "shams": {
            "hits": null.hits,
            "trials": null.trials,
            "missing": null.missing,
            "patterns": protocol.n_sham_patterns,
            "upper_bound": decimal_string(null.bound),
            "error": decimal_string(levels.null_bound),
        },
        "panel": None,
        "pattern_rank": None
        if rank is None
        else {
            "patterns": rank.patterns,
            "at_least_as_high": rank.at_least_as_high,
            "p_value": decimal_string(rank.p_value),
        },
    }


def _test_section(
    decided: Decided,
    null: Null,
    levels: Levels,
    grouped: Replies,
    samples: Mapping[int, Sample],
    protocol: Protocol,
    alpha: float,
) -> dict[str, JsonValue]:
    outcome = decided.outcome
    if protocol.design is Design.FIXED and outcome is not None:
        log10_test_p = exact.binomial_tail_log10(
            hits=count_hits(grouped.keys, samples), trials=len(grouped.keys), rate=null.rate
        )
        name = "exact binomial tail"
    else:
        log10_test_p = 0.0 if outcome is None else outcome.log10_p
        name = "one-sided Beta(1/2,1/2) mixture e-process"
    log10_e = 0.0 if outcome is None else outcome.log10_e_max
    # The reported p-value is of the whole procedure: a null bound that is too low and all tries of the owner included.
    tries = protocol.grinding_log2 * LOG10_2
    log10_p = min(0.0, tries + _log10_sum(log10_test_p, log10(levels.null_bound))) if outcome is not None else 0.0
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
        "steps": []
        if outcome is None
        else [
            {
                "n": step.n,
                "hits": step.hits,
                "log10_e": decimal_string(step.log10_e),
                "log10_futility": decimal_string(step.log10_futility),
            }
            for step in outcome.steps
        ],
    }


def _fixed_section(grouped: Replies, samples: Mapping[int, Sample], null: Null) -> dict[str, JsonValue] | None:
    if not grouped.keys or null.rate >= 1:
        return None
    tail = exact.binomial_tail_log10(hits=count_hits(grouped.keys, samples), trials=len(grouped.keys), rate=null.rate)
    return {"name": "exact binomial tail (descriptive)", "log10_p": decimal_string(tail)}


def _controls_section(
    grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol, facts: Facts
) -> dict[str, JsonValue]:
    accuracy = facts.control_accuracy
    answered = sum(r.answer is not None for r in grouped.controls)
    return {
        "clean": {
            "correct": count_hits(grouped.controls, samples),
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
            "obstruction_log10_p": decimal_string(facts.obstruction_log10_p),
        },
    }


def _code_section(code: randomization.CodeOutcome, protocol: Protocol) -> dict[str, JsonValue]:
    return {
        "hits": code.hits,
        "trials": code.trials,
        "draws": code.draws,
        "at_least_as_high": code.at_least_as_high,
        "p_value": decimal_string(code.p_value),
        "alpha": decimal_string(protocol.code_alpha),
    }


def _opinion_section(
    status: Status, decided: Decided, grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol
) -> dict[str, JsonValue]:
    placebo_hits: dict[int, list[bool]] = {}
    for reply in grouped.shams:
        placebo_hits.setdefault(samples[reply.probe.index].pattern, []).append(is_hit(reply, samples))
    like_key = sum(sum(hits) >= protocol.p_min * len(hits) for hits in placebo_hits.values())
    section: dict[str, JsonValue] = {
        "log10_lr_model": None,
        "empirical": None,
        "lr": None,
        "band": None,
        "limited_by": None,
    }
    if status is not Status.SUPPORTED or decided.outcome is None or not placebo_hits:
        return section
    # Only the evidence at the stopping time reads as a likelihood ratio; its later maximum does not.
    log10_lr = decided.outcome.log10_e_max
    if decided.outcome.decided_at is not None:
        log10_lr = decided.outcome.steps[decided.outcome.decided_at - 1].log10_e
    log10_lr -= protocol.grinding_log2 * LOG10_2
    reported = likelihood.reported_lr(log10_lr_model=log10_lr, false_claims=like_key, audits=len(placebo_hits))
    return {
        "log10_lr_model": decimal_string(log10_lr),
        "empirical": {
            "what": "sham patterns that behave like the key on this suspect",
            "false_claims": like_key,
            "audits": len(placebo_hits),
            "upper_bound": decimal_string(reported.upper_error),
        },
        "lr": decimal_string(reported.lr),
        "band": reported.band_words,
        "limited_by": reported.limited_by,
    }


def power_of_ten(log10_value: float) -> str:
    """Return 10**x for readers: three digits where a float can hold it, else a power of ten; never zero."""
    if isinf(log10_value):
        return "0" if log10_value < 0 else "inf"
    if -300 < log10_value < 300:
        return f"{10.0**log10_value:.3g}"
    return f"10^{log10_value:.1f}"


def _log10_sum(a: float, b: float) -> float:
    high, low = max(a, b), min(a, b)
    return high + log10(1.0 + 10.0 ** (low - high)) if not isinf(low) else high
