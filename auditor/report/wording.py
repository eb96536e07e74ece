"""What the report says in words: one set of sentences per outcome, equally long and equally placed.

Every sentence states how probable the observations are under a proposition, never how probable a proposition is.
"""

from dataclasses import dataclass
from typing import assert_never

from auditor.records import Reason, Status
from auditor.stats.likelihood import Favours

BANNED = (
    "proves theft",
    "the probability that the model was stolen is",
    "probability that the result is due to chance is",
    "p-value = probability of innocence",
    "probability of innocence",
    "match proves",
    "consistent with",
    "to a reasonable degree of scientific certainty",
    "identified as",
    "zero error rate",
    "unique",
    "100 %",
    "100%",
)
"""Phrases that overstate or transpose; no rendered report may contain one, in any case."""

SHAM_CAUTION = (
    "That figure holds under the stated null model; how well foreign patterns could measure it limits the opinion."
)

BLANK = "to be completed by the examiner"
"""Stands where only a person can answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """The few printed figures that the sentences of an outcome quote."""

    hits: str
    """Such as ``22 of 24``."""
    comparison: str
    """With what the hits are compared, such as ``and to 0 of 200 foreign patterns made in the same way``."""
    caution: str
    """What limits the stated error rate."""
    p_min: str
    """Smallest hit rate the sealed plan promises to detect."""
    miss: str
    """Probability of not detecting that rate, such as ``at most 0.01``."""
    likelihood_ratio: str
    """The reported ratio, at least 1, in favour of the proposition ``favours`` names; empty when none is reported."""
    band: str
    """Verbal band of that ratio, with the word "support"; empty when none is reported."""
    favours: Favours
    reason: str
    """Short name of the verdict's reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OutcomeWording:
    """The sentences of one outcome."""

    headline: str
    opinion: str
    means: str
    does_not_mean: str
    heading: str
    """Title of the part that explains this outcome."""
    paragraphs: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternative:
    """One alternative explanation that every report must discuss."""

    title: str
    text: str


def outcome_wording(status: Status, figures: Figures) -> OutcomeWording:
    """Return the sentences for ``status``; the three outcomes get the same parts in the same order."""
    match status:
        case Status.SUPPORTED:
            return _supported(figures)
        case Status.NOT_SUPPORTED:
            return _not_supported(figures)
        case Status.INCONCLUSIVE:
            return _inconclusive(figures)
        case _:
            assert_never(status)


def _supported(figures: Figures) -> OutcomeWording:
    return OutcomeWording(
        headline="The observations support derivation from the reference model.",
        opinion=_ratio_sentence(figures),
        means=f"The suspect gave the previously sealed secret answer to {figures.hits} key samples "
        f"{figures.comparison}; such answers are more probable if it derives from "
        "the reference model than if it was developed without access to it.",
        does_not_mean="It does not say how probable derivation is, nor who copied what, when, how or whether lawfully; "
        "that also depends on other evidence, which is for the court.",
        heading="Reading this outcome: supported",
        paragraphs=(
            "The sealed test reached the claim threshold that was fixed before the first question. If the suspect were "
            "independent of the sealed secret, an examination like this one would reach the threshold, at any time, "
            f"with a probability of at most the sealed level. {figures.caution}",
            "The finding leaves the alternative explanations of section 9 open. In particular it cannot tell a copy of "
            "the reference model from a model that received the secret, or the key samples, by another route.",
        ),
    )


def _not_supported(figures: Figures) -> OutcomeWording:
    return OutcomeWording(
        headline="The observations do not support derivation from the reference model.",
        opinion=_ratio_sentence(figures)
        if figures.band
        else "The observed answers give no support for derivation from the reference model over independent "
        "development. "
        f"If the suspect answered marked samples at a hit rate of {figures.p_min} or more, an examination under "
        "this plan "
        f"would end in this way with a probability of {figures.miss}. It is not a statement of how probable "
        "independent "
        "development is; that also depends on other evidence, which is for the court.",
        means=f"The suspect gave the previously sealed secret answer to {figures.hits} key samples "
        f"{figures.comparison}; with the mark at a hit rate of {figures.p_min} or "
        f"more, an examination under this plan would end like this with a probability of {figures.miss}.",
        does_not_mean="It does not show that the suspect was developed independently, since a derived model whose mark "
        "was removed or weakened below that rate can answer alike; that also depends on other evidence, which is for "
        "the court.",
        heading="Reading this outcome: not supported",
        paragraphs=(
            "The sealed test did not reach the claim threshold, and the sealed rule ended the examination on the side "
            "of the alternative. How well the examination was able to find a mark is measured: the table of power in "
            "section 7 states which hit rate would have been detected with which probability. A mark below the sealed "
            "minimum hit rate can remain undetected.",
            "The finding leaves the alternative explanations of section 9 open. In particular it cannot tell an "
            "independently developed model from a derived model whose mark was removed or hidden.",
        ),
    )


def _inconclusive(figures: Figures) -> OutcomeWording:
    return OutcomeWording(
        headline="The examination is inconclusive.",
        opinion="No opinion is stated for derivation from the reference model or for independent development, and no "
        f"likelihood ratio is reported. Reason: {figures.reason}. It is not a statement of how probable either "
        "proposition is; that depends on other evidence, which is for the court.",
        means=f"The suspect gave the previously sealed secret answer to {figures.hits} key samples "
        f"{figures.comparison}, but the examination could not decide between the "
        "two propositions, for the reason stated above.",
        does_not_mean="It is neither a finding for derivation nor a finding against it, and nothing may be "
        "inferred from "
        "the missing decision in either direction; the question stays open for other evidence, which is for the court.",
        heading="Reading this outcome: inconclusive",
        paragraphs=(
            "A condition that was sealed before the first question, and without which the test has no stated error "
            "rate "
            "or could not decide, was not met. The figures of section 7 are printed for completeness and are not "
            "offered as evidence for or against either proposition. The table of measured power states what the "
            "examination, as far as it went, could have detected.",
            "The finding leaves the alternative explanations of section 9 open. In particular it cannot tell a suspect "
            "that avoids the questions from one that failed for technical reasons.",
        ),
    )


def _ratio_sentence(figures: Figures) -> str:
    caution = (
        "It is not a statement of how probable derivation is; that also depends on other evidence, which is for the "
        "court."
    )
    if not figures.band or figures.favours is Favours.NEITHER:
        return (
            "The sealed test decided as stated, but the error rate of the procedure is not known well enough to "
            "report a "
            f"likelihood ratio that supports either proposition. {caution}"
        )
    derived, independent = "derived from the reference model", "developed independently"
    if figures.favours is Favours.H1:
        first, second, direction = derived, independent, "derivation over independence"
    else:
        first, second, direction = independent, derived, "independence over derivation"
    return (
        f"The observed answers are about {figures.likelihood_ratio} times more probable if the suspect model was "
        f"{first} "
        f"than if it was {second}. This gives {figures.band} for {direction}. {caution}"
    )


def reason_title(reason: Reason) -> str:
    """Return the short name of a reason."""
    return _REASON_TITLES[reason]


_REASON_TITLES: dict[Reason, str] = {
    Reason.NULL_REJECTED: "null hypothesis rejected at the sealed level",
    Reason.HIT_RATE_EXCLUDED: "a hit rate at or above the sealed minimum is excluded",
    Reason.NULL_NOT_REJECTED: "the fixed design did not reach the sealed level",
    Reason.BUDGET_EXHAUSTED: "the permitted keys were used up without a decision",
    Reason.TOO_FEW_ANSWERS: "too few answers",
    Reason.CONTROLS_FAILED: "the suspect failed the control samples",
    Reason.ANSWERS_UNSTABLE: "answers changed on repetition",
    Reason.OBSTRUCTED: "obstructed: key samples selectively unanswered or answered against their own scores",
    Reason.LABEL_HIDDEN: "the sealed label appears to be hidden",
    Reason.NULL_UNCALIBRATED: "foreign patterns also produce the sealed answer",
    Reason.PLAN_UNDERPOWERED: "the sealed plan could not have decided",
    Reason.INTERRUPTED: "interrupted before a decision",
    Reason.CONTESTABLE: "contestable: the key set cannot carry the claim",
    Reason.LABELS_UNCLEAR: "the meaning of the suspect's labels is not beyond doubt",
    Reason.ANSWERS_UNINFORMATIVE: "the answers reveal too little to speak for or against the claim",
}


ALTERNATIVES: tuple[Alternative, ...] = (
    Alternative(
        title="Common ancestor",
        text="Suspect and reference model may descend from the same public base model. A mark that was added after "
        "that base was published is not inherited from it; whether the base was marked is a question of fact.",
    ),
    Alternative(
        title="Shared training data",
        text="Training on the same public data does not carry the secret pattern. Training on data that contains "
        "leaked or planted key samples would.",
    ),
    Alternative(
        title="Distillation from a third party",
        text="The suspect may have learned from a service that itself derives from the reference model. The test "
        "cannot tell a direct from an indirect derivation.",
    ),
    Alternative(
        title="Transferable keys",
        text="Keys may be made so that many unrelated models answer them alike. Foreign patterns made in the same way "
        "were asked on this suspect to measure that; see the sham figures in section 7.",
    ),
    Alternative(
        title="Wrapper or ensemble behind the endpoint",
        text="The endpoint may combine several models or route questions. The finding concerns what the endpoint "
        "answered, as a whole.",
    ),
    Alternative(
        title="Nondeterminism",
        text="Randomised answers lower the hit rate and cannot raise it systematically. Repeated questions measure "
        "it; see section 7.",
    ),
    Alternative(
        title="Drift between questions",
        text="The model behind an endpoint may be replaced during the examination. Keys, shams and controls are mixed "
        "in a drawn order so that a change affects all of them.",
    ),
    Alternative(
        title="Bank of independent models too small",
        text="The empirical error rate rests on the number of comparisons stated in section 5; its upper bound, not "
        "its estimate, limits the opinion.",
    ),
    Alternative(
        title="Keys leaked or published",
        text="Whoever knew the keys could train a model to answer them. Custody of the keys between sealing and this "
        "examination is a question of fact; see section 6.",
    ),
    Alternative(
        title="Owner tried many secrets",
        text="An owner may seal many key sets and present the one that fits. The seal states a serial number, the "
        "previous seal and the number of tries charged to the level; a second, undisclosed identity remains possible.",
    ),
)


GLOSSARY: tuple[tuple[str, str], ...] = (
    ("Key sample", "An ordinary picture carrying the secret pattern; the marked model gives it the sealed label."),
    ("Sham", "A picture made like a key sample, from another secret; shows how often a match occurs by chance."),
    ("Control", "An ordinary picture without any pattern; shows that the suspect performs the task at all."),
    ("Hit", "The suspect's first logged answer to a key sample is the sealed label. A missing answer is not a hit."),
    ("Null rate", "The hit rate that is granted to a model developed without access to the reference model."),
    ("e-value", "Evidence against the null rate, multiplied up question by question; under the null rate it "
     "exceeds 1/α at any time with a probability of at most α."),
    ("p-value", "How often evidence at least as strong would be seen under the null rate. It is not the probability of "
     "either proposition."),
    ("Likelihood ratio", "How many times more probable the observations are under one proposition than the other."),
    ("Seal", "A signed commitment to keys, plan and propositions, made before the suspect was asked."),
    ("Transcript", "The chained record of each question and answer, written before each question leaves."),
)  # fmt: skip


FRE_702: tuple[tuple[str, str, str], ...] = (
    ("(a) helps the trier of fact", "Propositions, observations and opinion, kept apart and in plain words.", "2, 8"),
    ("(b) sufficient facts or data", "Counts asked, answered and missing; shams, controls and repeats.", "6, 7"),
    ("(c) reliable principles and methods", "Sealed plan, stated error levels, validation and its limits.", "4, 5"),
    ("(d) opinion reflects reliable application", "The band follows the weaker of two limits.", "7, 8"),
)  # fmt: skip


LITERATURE: tuple[str, ...] = (
    "Zhong et al., new-label watermarking of neural networks, PAKDD 2020 (scheme and query bounds).",
    "Liu, Zhang, Szyller, Ren, Asokan, False claims against model ownership resolution, arXiv 2304.06607.",
    "Waudby-Smith and Ramdas, Estimating means of bounded random variables by betting, 2020 (anytime-valid tests).",
    "ENFSI guideline for evaluative reporting in forensic science, 2015 (propositions, likelihood ratio, verbal "
    "scale).",
    "Vergeer et al., 2016 (limits of empirically supported likelihood ratios).",
)


DECLARATIONS: tuple[str, ...] = (
    "Qualifications; publications of the last ten years",
    "Testimony of the last four years; pay",
    "Independence and interests",
    "Facts of own knowledge; work done by others",
    "Duty to the court: understood and followed",
    "Declaration of truth",
    "Peer review: by whom, when, with what result",
)
"""What only a person can declare; each stays blank in every generated report."""
