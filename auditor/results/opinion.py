"""How strongly the observations support the owner's proposition: the weaker of null model and measured error rate."""

from collections.abc import Mapping

from auditor.analysis import Decided, Replies, is_hit
from auditor.canonical import JsonValue, decimal_string
from auditor.records import Protocol, Sample, Status
from auditor.results.numbers import LOG10_2
from auditor.stats import likelihood


def opinion_section(
    status: Status, decided: Decided, grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol
) -> dict[str, JsonValue]:
    """Return the reported likelihood ratio with its two limits."""
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
