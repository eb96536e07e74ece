"""How strongly the observations support the owner's proposition: the weaker of null model and measured error rate."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import log10

from auditor.analysis import Decided, PanelView, Replies, is_hit
from auditor.canonical import JsonValue, decimal_string
from auditor.records import Protocol, Sample, Status
from auditor.results.numbers import LOG10_2
from auditor.stats import exact, likelihood


@dataclass(frozen=True, slots=True, kw_only=True)
class Empirical:
    """How often something that is not the key behaved like it, on this suspect."""

    what: str
    false_claims: int
    audits: int

    @property
    def upper(self) -> float:
        """Upper bound of the rate at error 0.05."""
        return exact.upper_bound_at(hits=self.false_claims, trials=self.audits, error=0.05)


def empirical_rate(
    grouped: Replies,
    samples: Mapping[int, Sample],
    protocol: Protocol,
    *,
    panel: PanelView | None,
) -> Empirical | None:
    """Return the measured error rate that limits the opinion; None where nothing measures one.

    With a panel of independent models, the weaker of its error rate and the one below.

    Foreign patterns count as behaving like the key from ``p_min`` of their samples on, which is stricter on the owner
    than the test. Where labels were drawn there are none, and only a panel measures an error rate: placebo draws test
    the same assumption again, as often as the computer is asked to, and must not buy stronger words.
    """
    own = _on_this_suspect(grouped, samples, protocol)
    if panel is None:
        return own
    what = "independent models that the whole procedure claims"
    models = Empirical(what=what, false_claims=panel.error.false_claims, audits=panel.error.models)
    return models if own is None else max(own, models, key=lambda found: found.upper)


def _on_this_suspect(grouped: Replies, samples: Mapping[int, Sample], protocol: Protocol) -> Empirical | None:
    placebo_hits: dict[int, list[bool]] = {}
    for reply in grouped.shams:
        placebo_hits.setdefault(samples[reply.probe.index].pattern, []).append(is_hit(reply, samples))
    like_key = sum(sum(hits) >= protocol.p_min * len(hits) for hits in placebo_hits.values())
    if not placebo_hits:
        return None
    what = "sham patterns that behave like the key on this suspect"
    return Empirical(what=what, false_claims=like_key, audits=len(placebo_hits))


def opinion_section(
    status: Status, decided: Decided, protocol: Protocol, *, family: int, empirical: Empirical | None
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
    log10_lr -= protocol.grinding_log2 * LOG10_2 + log10(family)
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
