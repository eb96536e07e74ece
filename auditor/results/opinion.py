"""How strongly the observations support the owner's proposition: the weaker of null model and measured error rate."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.analysis import Decided, Placebo, Replies, is_hit
from auditor.canonical import JsonValue, decimal_string
from auditor.records import NullBasis, Protocol, Sample, Status
from auditor.results.numbers import LOG10_2
from auditor.stats import likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class Empirical:
    """How often something that is not the key behaved like it, on this suspect."""

    what: str
    false_claims: int
    audits: int


def empirical_rate(
    grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol, placebo: Placebo | None
) -> Empirical | None:
    """Return the measured error rate that limits the opinion; None where nothing measures one.

    Foreign patterns count as behaving like the key from ``p_min`` of their samples on, which is stricter on the owner
    than the test. Where labels were drawn, the label draws made after the examination take their place: they are to
    the sealed labels what foreign patterns are to the sealed pattern.
    """
    if protocol.null_basis is NullBasis.DRAWN_LABELS:
        if placebo is None:
            return None
        what = "label draws made after the examination that the answers would have supported"
        return Empirical(what=what, false_claims=placebo.outcome.claims, audits=placebo.outcome.draws)
    placebo_hits: dict[int, list[bool]] = {}
    for reply in grouped.shams:
        placebo_hits.setdefault(samples[reply.probe.index].pattern, []).append(is_hit(reply, samples))
    like_key = sum(sum(hits) >= protocol.p_min * len(hits) for hits in placebo_hits.values())
    if not placebo_hits:
        return None
    what = "sham patterns that behave like the key on this suspect"
    return Empirical(what=what, false_claims=like_key, audits=len(placebo_hits))


def opinion_section(
    status: Status, decided: Decided, protocol: Protocol, *, empirical: Empirical | None
) -> dict[str, JsonValue]:
    """Return the reported likelihood ratio with its two limits."""
    section: dict[str, JsonValue] = {
        "log10_lr_model": None,
        "empirical": None,
        "lr": None,
        "band": None,
        "limited_by": None,
    }
    if status is not Status.SUPPORTED or decided.outcome is None or empirical is None:
        return section
    # Only the evidence at the stopping time reads as a likelihood ratio; its later maximum does not.
    log10_lr = decided.outcome.log10_e_max
    if decided.outcome.decided_at is not None:
        log10_lr = decided.outcome.steps[decided.outcome.decided_at - 1].log10_e
    log10_lr -= protocol.grinding_log2 * LOG10_2
    reported = likelihood.reported_lr(
        log10_lr_model=log10_lr, false_claims=empirical.false_claims, audits=empirical.audits
    )
    return {
        "log10_lr_model": decimal_string(log10_lr),
        "empirical": {
            "what": empirical.what,
            "false_claims": empirical.false_claims,
            "audits": empirical.audits,
            "upper_bound": decimal_string(reported.upper_error),
        },
        "lr": decimal_string(reported.lr),
        "band": reported.band_words,
        "limited_by": reported.limited_by,
    }
