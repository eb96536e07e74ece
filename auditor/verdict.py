"""From measured facts to one of three outcomes; the status is a property of the reason."""

from dataclasses import dataclass
from math import log10
from typing import assert_never

from auditor.records import NullBasis, Protocol, Reason, Status, Verdict

CODE_LOOKS = 2
"""Looks at the label code between which its level is divided: where the test of the hits ends, and at all keys."""


def code_level(protocol: Protocol) -> float:
    """Return the level of one look at the label code."""
    return protocol.code_alpha / CODE_LOOKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the verdict may depend on, as numbers."""

    interrupted: bool
    opening_complete: bool
    """True when every probe of stage 1 was issued."""
    opening_failed_share: float
    """Share of stage-1 probes without an answer."""
    obstruction_log10_p: float
    """Exact one-sided test that keys go without an answer, or with one that its own scores contradict, more often than
    controls."""
    control_accuracy: float | None
    """Share of natural labels on answered controls; None when no control was answered."""
    disagreement: float
    """Share of repeats whose label differs from the first answer; 0 without repeats."""
    null_rate: float
    rejected: bool
    """The test crossed the claim threshold."""
    futile: bool
    """The test excluded a hit rate of ``p_min`` or more."""
    design_exhausted: bool
    """A fixed design asked all its keys without rejecting."""
    code_p_value: float | None
    """p-value of the label code where the new label was never answered; None when not applicable."""
    uninformative: bool = False
    """True when the answers reveal so little that a fixed design cannot speak against the claim."""
    contestable: bool = False
    """True when the key set cannot carry a claim; see :func:`auditor.evidence.seal.claim_problem`."""


def decide(facts: Facts, protocol: Protocol) -> Reason:
    """Return the reason of the outcome; the order of the rules is part of the sealed protocol version.

    Validity comes before evidence: an audit whose controls fail, whose answers are unstable or selectively missing
    is inconclusive whatever its e-value says.
    """
    if facts.interrupted:
        return Reason.INTERRUPTED
    if facts.obstruction_log10_p <= log10(protocol.obstruction_alpha):
        return Reason.OBSTRUCTED
    if not facts.opening_complete or facts.opening_failed_share > protocol.max_failed_share:
        return Reason.TOO_FEW_ANSWERS
    if facts.control_accuracy is None or facts.control_accuracy < protocol.min_control_accuracy:
        return Reason.CONTROLS_FAILED
    if facts.disagreement > protocol.max_disagreement:
        return Reason.ANSWERS_UNSTABLE
    # A rate that the draw itself supplies is known, whatever it is; only a measured one can turn out too high.
    if protocol.null_basis is NullBasis.SHAMS and facts.null_rate >= protocol.p_min:
        return Reason.NULL_UNCALIBRATED
    if facts.rejected:
        return Reason.CONTESTABLE if facts.contestable else Reason.NULL_REJECTED
    if facts.code_p_value is not None and facts.code_p_value <= code_level(protocol):
        return Reason.LABEL_HIDDEN
    if facts.futile:
        return Reason.HIT_RATE_EXCLUDED
    if facts.design_exhausted:
        return Reason.ANSWERS_UNINFORMATIVE if facts.uninformative else Reason.NULL_NOT_REJECTED
    return Reason.BUDGET_EXHAUSTED


def status_of(reason: Reason) -> Status:
    """Return the status that a reason belongs to."""
    match reason:
        case Reason.NULL_REJECTED:
            return Status.SUPPORTED
        case Reason.HIT_RATE_EXCLUDED | Reason.NULL_NOT_REJECTED:
            return Status.NOT_SUPPORTED
        case (
            Reason.BUDGET_EXHAUSTED
            | Reason.TOO_FEW_ANSWERS
            | Reason.CONTROLS_FAILED
            | Reason.ANSWERS_UNSTABLE
            | Reason.OBSTRUCTED
            | Reason.LABEL_HIDDEN
            | Reason.NULL_UNCALIBRATED
            | Reason.PLAN_UNDERPOWERED
            | Reason.INTERRUPTED
            | Reason.CONTESTABLE
            | Reason.LABELS_UNCLEAR
            | Reason.ANSWERS_UNINFORMATIVE
        ):
            return Status.INCONCLUSIVE
        case _:
            assert_never(reason)


EXPLANATIONS: dict[Reason, str] = {
    Reason.NULL_REJECTED: "The suspect gave the sealed label to key samples far more often than the null rate allows; "
    "the claim's error level was fixed in the seal.",
    Reason.HIT_RATE_EXCLUDED: "The suspect gave the sealed label so rarely that a hit rate at or above the sealed "
    "minimum is excluded at the sealed error level.",
    Reason.NULL_NOT_REJECTED: "All keys of the fixed design were asked and the sealed level was not reached.",
    Reason.BUDGET_EXHAUSTED: "The permitted keys were asked without reaching the claim threshold or excluding the "
    "sealed minimum hit rate.",
    Reason.TOO_FEW_ANSWERS: "Too many questions of the opening stage remained without an answer.",
    Reason.CONTROLS_FAILED: "The suspect did not perform the task on ordinary control samples, so its answers to key "
    "samples carry no information about this claim.",
    Reason.ANSWERS_UNSTABLE: "The suspect answered the same inputs differently when asked again.",
    Reason.OBSTRUCTED: "Obstructed: key samples went unanswered, or were given a label that the answer's own scores "
    "contradict, more often than ordinary samples, beyond chance at the sealed level.",
    Reason.LABEL_HIDDEN: "The sealed label was never answered, yet the answers on key samples follow the sealed label "
    "code; the extra label may have been removed.",
    Reason.NULL_UNCALIBRATED: "Foreign patterns were answered with the sealed label so often on this suspect that the "
    "sealed test has no power.",
    Reason.PLAN_UNDERPOWERED: "The sealed plan could not have decided within the permitted keys; nothing was asked.",
    Reason.INTERRUPTED: "The audit was interrupted before it decided; the transcript up to that point is kept.",
    Reason.LABELS_UNCLEAR: "Ordinary inputs, asked before any key, did not show beyond doubt what enough of the "
    "suspect's labels mean; no key was asked.",
    Reason.ANSWERS_UNINFORMATIVE: "All keys of the fixed design were asked without reaching the sealed level, and the "
    "answers reveal too little for a derivation to show every time; they speak neither for nor against the claim.",
    Reason.CONTESTABLE: "Contestable: the key set cannot carry the claim. The suspect gave the sealed label to key "
    "samples far more often than the null rate allows, but nobody can re-derive the key set, so that its keys may have "
    "been made to fit other models as well, or its foreign patterns cannot show what the owner's does by itself.",
}


def explain(reason: Reason) -> Verdict:
    """Return the verdict record for a reason."""
    return Verdict(reason=reason, explanation=EXPLANATIONS[reason])
