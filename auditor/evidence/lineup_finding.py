"""What a checked line-up shows: verdicts, the suspect's rank, false claims on innocents, and what a date refutes."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from auditor.canonical import JsonValue, decimal_string
from auditor.evidence.checks.base import CheckReport
from auditor.evidence.lineup import Candidate, CandidateRole, by_label
from auditor.evidence.lineup_check import VerifiedLineUp
from auditor.evidence.signing import fingerprint
from auditor.evidence.whole_bundle import TrustedTime, WholeBundle
from auditor.records import Reason, Status
from auditor.stats import exact
from auditor.stats.lineup import LineUpRank, lineup_rank

SCHEMA = "mlaudit.lineup-finding/1"
COMPARABLE = frozenset(
    {
        Reason.NULL_REJECTED,
        Reason.HIT_RATE_EXCLUDED,
        Reason.NULL_NOT_REJECTED,
        Reason.BUDGET_EXHAUSTED,
        Reason.CONTESTABLE,
    }
)
"""Reasons of audits that were valid as far as the answers go, so that their evidence can be compared."""
UPPER_ERROR = 0.05


class LineUpOutcome(StrEnum):
    """What the line-up says of the claim."""

    STANDS_OUT = "the suspect alone stands out"
    NOT_ALONE = "other candidates carry the mark too"
    DOES_NOT_STAND_OUT = "the suspect does not stand out"
    INCONCLUSIVE = "inconclusive"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """One opened candidate with what its audit found."""

    candidate: Candidate
    audit: WholeBundle
    dated: TrustedTime | None
    replayed: bool

    @property
    def status(self) -> Status:
        """The audit's own outcome."""
        return self.audit.headline.status

    @property
    def evidence(self) -> float | None:
        """log10 of the e-value; None where the audit was not valid."""
        return self.audit.log10_e if self.audit.headline.reason in COMPARABLE else None

    @property
    def precedes_seal(self) -> bool:
        """True when the model provably existed before the time that the owner states for the seal."""
        return self.dated is not None and self.dated.at < self.audit.seal.sealed_at

    @property
    def precedes_proof(self) -> bool:
        """True when the model provably existed before the first time stamp over the seal, or there is none."""
        proof = self.audit.seal_time
        return self.dated is not None and (proof is None or self.dated.at < proof.at)


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUpFinding:
    """The finding of a line-up whose steps did not fail."""

    places: tuple[Place, ...]
    """In the order of their labels."""
    rank: LineUpRank | None
    """None where the suspect's audit was not valid."""
    outcome: LineUpOutcome
    false_claims: int
    """Candidates other than the suspect that the audits call supported."""
    false_claims_upper: float
    """Upper bound of the rate of false claims at error 0.05, if these candidates were drawn independently."""
    refuted_by: tuple[str, ...]
    """Labels of candidates, the suspect included, that carry the mark although they existed before the seal."""
    unproven_before: tuple[str, ...]
    """Labels of candidates that carry the mark and existed when nothing but the owner's word says the seal did."""

    @property
    def suspect(self) -> Place:
        """The accused model."""
        return next(place for place in self.places if place.candidate.role is CandidateRole.SUSPECT)

    @property
    def n_innocents(self) -> int:
        """Candidates other than the suspect."""
        return len(self.places) - 1


def draw_finding(verified: VerifiedLineUp) -> LineUpFinding:
    """Return what a checked line-up shows."""
    candidates = by_label(verified.opened)
    places = tuple(
        Place(
            candidate=candidates[label],
            audit=audit,
            dated=verified.dated.get(label),
            replayed=label in verified.replayed,
        )
        for label, audit in verified.audits.items()
    )
    suspect = next(place for place in places if place.candidate.role is CandidateRole.SUSPECT)
    others = [place for place in places if place is not suspect]
    rank = None if suspect.evidence is None else lineup_rank(suspect.evidence, [place.evidence for place in others])
    marked = [place for place in places if place.status is Status.SUPPORTED]
    claimed = [place for place in marked if place is not suspect]
    return LineUpFinding(
        places=places,
        rank=rank,
        outcome=_outcome(suspect, n_claimed=len(claimed), rank=rank),
        false_claims=len(claimed),
        false_claims_upper=exact.upper_bound_at(hits=len(claimed), trials=len(others), error=UPPER_ERROR),
        refuted_by=tuple(place.candidate.label for place in marked if place.precedes_seal),
        unproven_before=tuple(
            place.candidate.label for place in marked if place.precedes_proof and not place.precedes_seal
        ),
    )


def _outcome(suspect: Place, *, n_claimed: int, rank: LineUpRank | None) -> LineUpOutcome:
    if n_claimed:
        return LineUpOutcome.NOT_ALONE
    if suspect.status is Status.NOT_SUPPORTED:
        return LineUpOutcome.DOES_NOT_STAND_OUT
    if suspect.status is Status.SUPPORTED and rank is not None and rank.at_least_as_high == 1:
        return LineUpOutcome.STANDS_OUT
    return LineUpOutcome.INCONCLUSIVE


def finding_object(finding: LineUpFinding, verified: VerifiedLineUp, report: CheckReport) -> dict[str, JsonValue]:
    """Return the finding as JSON; fractions are decimal strings."""
    first = finding.places[0].audit
    rank = finding.rank
    return {
        "schema": SCHEMA,
        "outcome": finding.outcome.value,
        "lineup": {
            "custodian_fingerprint": fingerprint(bytes.fromhex(verified.lineup.custodian_public_key)),
            "committed_at": verified.lineup.committed_at,
            "committed_trusted": time_object(verified.committed),
            "opened_at": verified.opened.opened_at,
            "revealed": verified.lineup.revealed.value,
        },
        "keyset": {
            "id": first.seal.keyset_id,
            "seal_sha256": first.seal_sha256,
            "owner_fingerprint": first.owner_fingerprint,
            "sealed_at": first.seal.sealed_at,
            "sealed_trusted": time_object(first.seal_time),
        },
        "examiner_fingerprint": first.examiner_fingerprint,
        "family": first.family,
        "candidates": [_place_object(place) for place in finding.places],
        "rank": None
        if rank is None
        else {
            "at_least_as_high": rank.at_least_as_high,
            "candidates": rank.candidates,
            "p_value": decimal_string(rank.p_value),
            "smallest_possible": decimal_string(rank.smallest),
        },
        "innocents": {
            "candidates": finding.n_innocents,
            "false_claims": finding.false_claims,
            "upper_bound": decimal_string(finding.false_claims_upper),
            "error": decimal_string(UPPER_ERROR),
        },
        "refuted_by": list(finding.refuted_by),
        "unproven_before": list(finding.unproven_before),
        "steps": steps_object(report),
    }


def steps_object(report: CheckReport) -> list[JsonValue]:
    """Return the steps of a check as JSON."""
    return [
        {"number": step.number, "title": step.title, "outcome": step.outcome.value, "detail": step.detail}
        for step in report.steps
    ]


def time_object(time: TrustedTime | None) -> Mapping[str, JsonValue] | None:
    """Return a trusted time as JSON."""
    return None if time is None else {"at": time.at, "accuracy_ms": time.accuracy_ms}


def _place_object(place: Place) -> dict[str, JsonValue]:
    line = place.audit.headline
    return {
        "label": place.candidate.label,
        "name": place.candidate.name,
        "role": place.candidate.role.value,
        "artefact_sha256": place.candidate.artefact_sha256,
        "address": place.candidate.address,
        "dated": time_object(place.dated),
        "precedes_seal": place.precedes_seal,
        "asked_again": place.replayed,
        "status": line.status.value,
        "reason": line.reason.value,
        "hits": line.hits,
        "trials": line.trials,
        "log10_e": decimal_string(place.audit.log10_e),
        "comparable": place.evidence is not None,
        "log10_p": decimal_string(line.log10_p),
        "manifest_sha256": place.audit.manifest_sha256,
    }
