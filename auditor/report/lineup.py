"""The page of a blind line-up: a function of its finding alone."""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.canonical import Fields, JsonValue
from auditor.errors import MalformedError
from auditor.evidence.lineup import CandidateRole
from auditor.evidence.lineup_finding import LineUpOutcome
from auditor.report import html
from auditor.report.text import clean, decimal, p_value, power_of_ten

TEMPLATE = "lineup.html.j2"
WHAT = "finding.json"
TITLE = "Is the suspect alone among models shown blind?"

HEADLINES: Mapping[LineUpOutcome, str] = {
    LineUpOutcome.STANDS_OUT: "Of {k} models audited under opaque letters, the suspect alone is called supported.",
    LineUpOutcome.NOT_ALONE: "The audits call {claimed} of {others} models other than the suspect supported too.",
    LineUpOutcome.DOES_NOT_STAND_OUT: "Of {k} models audited under opaque letters, the suspect does not stand out.",
    LineUpOutcome.INCONCLUSIVE: "The line-up shows nothing either way.",
}
MEANINGS: Mapping[LineUpOutcome, str] = {
    LineUpOutcome.STANDS_OUT: "The examiner, who was not told which letter was the suspect, and the sealed "
    "keys, which were the same for all, separate the suspect from every other candidate.",
    LineUpOutcome.NOT_ALONE: "Either these models derive from the owner's as well, or the keys are not "
    "specific to it. Which of the two holds, the line-up cannot tell, except for a model that provably existed before "
    "the keys were sealed.",
    LineUpOutcome.DOES_NOT_STAND_OUT: "The sealed keys treat the suspect like a model that has nothing to do with the "
    "owner's.",
    LineUpOutcome.INCONCLUSIVE: "The suspect's own audit, or that of candidates it is to be compared with, did not end "
    "with evidence that can be compared.",
}
NOT_MEANT: Mapping[LineUpOutcome, str] = {
    LineUpOutcome.STANDS_OUT: "Who copied what, when, or whether it was allowed. The strength of the evidence "
    "is that of the suspect's own audit; a line-up alone cannot show more than one in the number of candidates.",
    LineUpOutcome.NOT_ALONE: "That the claim on the suspect is false: who chose the candidates may have "
    "put copies among them.",
    LineUpOutcome.DOES_NOT_STAND_OUT: "That the suspect is independent. A copy whose mark was removed answers the same "
    "way.",
    LineUpOutcome.INCONCLUSIVE: "Anything about descent.",
}
LIMITS = (
    "That a candidate is public or independent is the custodian's statement. Only a verified time stamp shows that a "
    "model existed before the keys were sealed.",
    "The rank counts only if the suspect, were it innocent, would be interchangeable with the other candidates: models "
    "of the same task, made without access to the owner's.",
    "Whoever runs the relay, and every service behind it, sees the keys. A custodian who is the accused could "
    "recognise them at one candidate and answer otherwise at another; the same questions asked again of a model file "
    "that the court holds show it. The keys asked here are used up.",
    "The examiner sees neither names nor files, and answers leave at whole multiples of a fixed time. What the answers "
    "themselves tell, such as how good a model is, is not hidden.",
)
CLASSES: Mapping[LineUpOutcome, str] = {
    LineUpOutcome.STANDS_OUT: "supported",
    LineUpOutcome.DOES_NOT_STAND_OUT: "not-supported",
}
"""How the stylesheet colours an outcome."""
ROLES: Mapping[str, str] = {
    "suspect": "suspect",
    "earlier": "the accused's earlier model",
    "public": "public model",
    "independent": "independent model",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class CandidateRow:
    """One candidate as the page shows it."""

    label: str
    name: str
    role: str
    suspect: bool
    status: str
    reason: str
    hits: str
    evidence: str
    p: str
    dated: str
    identity: str


def render_lineup(finding: Mapping[str, JsonValue], *, issued_at: str) -> bytes:
    """Render the page.

    Args:
        finding: content of ``finding.json``.
        issued_at: RFC 3339 time of issue.

    Raises:
        MalformedError: the finding lacks a field.
        MissingPartError: the templates are not installed.
    """
    top = Fields(finding, what=WHAT)
    outcome, innocents = _outcome(top.text("outcome")), top.object("innocents")
    keyset, lineup = top.object("keyset"), top.object("lineup")
    sealed_at = keyset.text("sealed_at")
    rows = [_row(item) for item in top.items("candidates")]
    claimed, others = innocents.integer("false_claims"), innocents.integer("candidates")
    suspect = next(row for row in rows if row.suspect)
    text = html.template(TEMPLATE).render(
        css=html.stylesheet(),
        generator=html.generator(),
        title=TITLE,
        issued=issued_at,
        issued_day=issued_at[:10],
        report_id=f"line-up {keyset.text('id')[:8]}",
        headline=HEADLINES[outcome].format(k=len(rows), claimed=claimed, others=others),
        status_class={
            "the suspect alone stands out": "supported",
            "the suspect does not stand out": "not-supported",
        }.get(outcome, "inconclusive"),
        outcomes=list(HEADLINES),
        outcome=outcome,
        means=MEANINGS[outcome],
        not_meant=NOT_MEANT[outcome],
        rows=rows,
        figures=[
            (f"{len(rows)}", "candidates, the suspect among them"),
            (f"{claimed} of {others}", "others called supported"),
            (_rank_text(finding), "rank p-value, exact"),
            (suspect.status, "verdict on the suspect"),
        ],
        rank_sentence=_rank_sentence(finding),
        family_sentence=_family_sentence(top.integer("family", low=1), n_candidates=len(rows)),
        innocents_sentence=_innocents_sentence(innocents, claimed=claimed, others=others),
        refuted_sentence=_refuted_sentence(finding, sealed_at),
        unproven_sentence=_unproven_sentence(finding),
        identification=[
            ("Custodian's key", lineup.text("custodian_fingerprint")),
            ("Examiner's key", top.text("examiner_fingerprint")),
            ("Owner's key", keyset.text("owner_fingerprint")),
            ("Seal of the keys", keyset.text("seal_sha256")),
            ("Sealed, owner's clock", sealed_at),
            ("List fixed, custodian's clock", lineup.text("committed_at")),
            ("List fixed, trusted time", _time(lineup.raw("committed_trusted"))),
            ("List opened, custodian's clock", lineup.text("opened_at")),
            ("Answers passed on", lineup.text("revealed")),
        ],
        steps=steps(top.items("steps")),
        limits=LIMITS,
    )
    return text.encode("utf-8")


def _outcome(text: str) -> LineUpOutcome:
    try:
        return LineUpOutcome(text)
    except ValueError as error:
        raise MalformedError(f"{WHAT}: unknown outcome") from error


def steps(items: list[JsonValue]) -> list[tuple[str, str, str, str]]:
    """Return number, title, outcome and detail of each step."""
    found = []
    for item in items:
        step = Fields(item, what=f"{WHAT} step")
        found.append(
            (
                str(step.integer("number")),
                step.text("title"),
                step.text("outcome"),
                clean(step.text("detail"), limit=400),
            )
        )
    return found


def _row(item: JsonValue) -> CandidateRow:
    fields = Fields(item, what=f"{WHAT} candidate")
    role, dated = fields.text("role"), _time(fields.raw("dated"))
    digest, address = fields.text("artefact_sha256"), fields.text("address")
    again = "asked again, same answers" if fields.boolean("asked_again") else "not asked again"
    evidence = power_of_ten(fields.decimal("log10_e"))
    return CandidateRow(
        label=fields.text("label"),
        name=clean(fields.text("name")),
        role=ROLES[role],
        suspect=role == CandidateRole.SUSPECT,
        status=fields.text("status"),
        reason=fields.text("reason"),
        hits=f"{fields.integer('hits')} of {fields.integer('trials')}",
        evidence=evidence if fields.boolean("comparable") else "not comparable",
        p=p_value(fields.decimal("log10_p")),
        dated=dated,
        identity=f"{digest or clean(address)} ({again})",
    )


def _time(value: JsonValue) -> str:
    if value is None:
        return "none verified"
    fields = Fields(value, what=f"{WHAT} time")
    return fields.text("at")


def _rank(finding: Mapping[str, JsonValue]) -> Fields | None:
    value = finding.get("rank")
    return None if value is None else Fields(value, what=f"{WHAT} rank")


def _rank_text(finding: Mapping[str, JsonValue]) -> str:
    rank = _rank(finding)
    return "none" if rank is None else f"{rank.integer('at_least_as_high')}/{rank.integer('candidates')}"


def _rank_sentence(finding: Mapping[str, JsonValue]) -> str:
    rank = _rank(finding)
    if rank is None:
        return "The suspect's audit ended without evidence that can be compared, so that there is no rank."
    place, k = rank.integer("at_least_as_high"), rank.integer("candidates")
    return (
        f"Counting the suspect, {place} of {k} candidates reach at least the suspect's evidence; ties, and candidates "
        f"whose audit was not valid, count against the claim. Were the suspect innocent and interchangeable with the "
        f"others, a place this high would come about with a probability of {place}/{k} = {decimal(place / k)}, "
        f"whatever the keys are and whoever made them. A line-up of {k} can never give less than 1/{k} = "
        f"{decimal(1 / k)}: it tests keys and examiner, and does not replace the test in the suspect's own report."
    )


def _family_sentence(family: int, *, n_candidates: int) -> str:
    return (
        f"The {n_candidates} audits are one family: each divides the sealed level by {family}, and each p-value is "
        "multiplied by it, so that the chance of calling any innocent candidate supported stays at most the sealed "
        "level."
    )


def _innocents_sentence(innocents: Fields, *, claimed: int, others: int) -> str:
    upper, error = innocents.decimal("upper_bound"), innocents.decimal("error")
    return (
        f"{claimed} of the {others} other candidates were called supported. If these had been drawn independently from "
        f"innocent models of this task, their rate would be at most {decimal(upper)} (exact bound, error {error:g})."
    )


def _refuted_sentence(finding: Mapping[str, JsonValue], sealed_at: str) -> str:
    names = _labels(finding, "refuted_by")
    if not names:
        return ""
    return (
        f"Candidate {names} is called supported although it provably existed before {sealed_at}, the time that the "
        "owner states for the seal. Unless the owner's marked model had left the owner's hands before it was sealed, "
        "these keys are answered by a model that cannot derive from it, and the claim on the suspect has no basis."
    )


def _unproven_sentence(finding: Mapping[str, JsonValue]) -> str:
    names = _labels(finding, "unproven_before")
    if not names:
        return ""
    return (
        f"Candidate {names} is called supported and provably existed at a time at which only the owner's own clock "
        "says that the keys were sealed; no verified time stamp over the seal is as old."
    )


def _labels(finding: Mapping[str, JsonValue], name: str) -> str:
    found = finding.get(name)
    return ", ".join(str(label) for label in found) if isinstance(found, list) else ""
