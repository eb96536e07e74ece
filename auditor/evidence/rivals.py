"""Two claims on one suspect: what audits, cross-tests and trusted time say of their order, alike for both sides.

The decisive cross-test asks one claimant's keys of the other claimant's own model, the one whose digest stands in that
claimant's seal. Who marks a model over somebody else's mark leaves that mark in it: the earlier mark is then found in
the later claimant's model, and the later mark is not found in the earlier one's.

Time counts only where an authority under the caller's roots stamped the seal; what an owner states never decides.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.canonical import JsonValue, decimal_string
from auditor.errors import SignatureError, UsageError
from auditor.evidence.whole_bundle import TrustedTime, WholeBundle, read_whole
from auditor.records import Status, SuspectId

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

SCHEMA = "mlaudit.rivals/1"


class Side(StrEnum):
    """One of two claimants, in the order they were named."""

    A = "a"
    B = "b"

    @property
    def other(self) -> "Side":
        """The opponent."""
        return Side.B if self is Side.A else Side.A


class Ruling(StrEnum):
    """What can be said of two claims."""

    NEITHER = "neither claim is supported"
    ONE = "one claim is supported"
    UNDERNEATH = "one mark lies underneath the other"
    EARLIER = "both claims are supported, one sealed earlier by trusted time"
    CONTRADICTION = "cross-test and trusted time contradict each other"
    CROSSED = "each mark is found in the other claimant's model"
    UNORDERED = "both claims are supported, and nothing orders them"


@dataclass(frozen=True, slots=True, kw_only=True)
class Standing:
    """What the order of two claims may depend on, for one side."""

    status: Status
    """Outcome of the audit of the suspect."""
    sealed: TrustedTime | None
    """Verified time of the seal; None without one."""
    in_other: Status | None
    """Outcome of asking this side's keys of the other side's model; None where that was not done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """The ruling with the side it favours."""

    ruling: Ruling
    favoured: Side | None
    """None where the ruling favours nobody."""

    @property
    def decided(self) -> bool:
        """True when one side is favoured."""
        return self.favoured is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """One side's evidence."""

    audit: WholeBundle
    """The suspect, asked this side's keys."""
    cross: WholeBundle | None
    """The other side's model, asked this side's keys; None where that was not done."""

    @property
    def standing(self) -> Standing:
        """What the order of the claims may depend on."""
        return Standing(
            status=self.audit.headline.status,
            sealed=self.audit.seal_time,
            in_other=None if self.cross is None else self.cross.headline.status,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Rivals:
    """Two claims on one suspect."""

    claims: Mapping[Side, Claim]
    decision: Decision

    @property
    def suspect(self) -> SuspectId:
        """What both claim."""
        return self.claims[Side.A].audit.suspect


def decide_rivals(a: Standing, b: Standing) -> Decision:
    """Return what can be said; exchanging the arguments exchanges the favoured side and changes nothing else."""
    sides = {Side.A: a, Side.B: b}
    supported = [side for side in Side if sides[side].status is Status.SUPPORTED]
    if not supported:
        return Decision(ruling=Ruling.NEITHER, favoured=None)
    if len(supported) == 1:
        return Decision(ruling=Ruling.ONE, favoured=supported[0])
    earlier = earlier_side(a.sealed, b.sealed)
    if earlier is not None and sides[earlier.other].in_other is Status.SUPPORTED:
        # The later seal's mark is found in a model whose digest was fixed before that seal.
        return Decision(ruling=Ruling.CONTRADICTION, favoured=None)
    found = [side for side in Side if sides[side].in_other is Status.SUPPORTED]
    if len(found) == 2:
        return Decision(ruling=Ruling.CROSSED, favoured=None)
    if len(found) == 1 and sides[found[0].other].in_other is Status.NOT_SUPPORTED:
        return Decision(ruling=Ruling.UNDERNEATH, favoured=found[0])
    if earlier is not None:
        return Decision(ruling=Ruling.EARLIER, favoured=earlier)
    return Decision(ruling=Ruling.UNORDERED, favoured=None)


def earlier_side(a: TrustedTime | None, b: TrustedTime | None) -> Side | None:
    """Return whose verified time is earlier by more than both authorities' accuracies; None where none is."""
    if a is None or b is None:
        return None
    if _moment(a, 1) < _moment(b, -1):
        return Side.A
    return Side.B if _moment(b, 1) < _moment(a, -1) else None


def _moment(time: TrustedTime, sign: int) -> datetime:
    return datetime.fromisoformat(time.at) + sign * timedelta(milliseconds=time.accuracy_ms)


def read_rivals(
    audits: Mapping[Side, Path],
    *,
    crosses: Mapping[Side, Path],
    owner_fingerprints: Sequence[str] = (),
    examiner_fingerprints: Sequence[str] = (),
    tsa_roots: Sequence["Certificate"] = (),
) -> Rivals:
    """Check all bundles and that they belong together, and decide.

    Args:
        audits: the suspect asked by each side's keys.
        crosses: each side's keys asked of the other side's model; may lack one or both.
        owner_fingerprints: keys that the owners' must be among; empty leaves that unchecked.
        examiner_fingerprints: keys that the examiners' must be among; empty leaves that unchecked.
        tsa_roots: trusted certificates of time authorities; without them nothing is ordered by time.

    Raises:
        UsageError: the bundles are of different suspects, of one key set or owner, or a cross-test is of something
            else than the other side's sealed model.
        EvidenceError: a bundle does not check out, or is signed by an unexpected key.
    """

    def read(path: Path, what: str) -> WholeBundle:
        found = read_whole(path, what=what, tsa_roots=tsa_roots)
        for role, fingerprint, accepted in (
            ("owner", found.owner_fingerprint, owner_fingerprints),
            ("examiner", found.examiner_fingerprint, examiner_fingerprints),
        ):
            if accepted and fingerprint not in accepted:
                raise SignatureError(f"{what}: the {role}'s key is {fingerprint[:16]}…, not an expected one")
        return found

    found = {side: read(audits[side], f"the bundle of claim {side.upper()}") for side in Side}
    _check_rivalry(found[Side.A], found[Side.B])
    tested = {side: read(path, f"the cross-test of claim {side.upper()}") for side, path in sorted(crosses.items())}
    for side, cross in tested.items():
        _check_cross(cross, side=side, own=found[side], other=found[side.other])
    claims = {side: Claim(audit=found[side], cross=tested.get(side)) for side in Side}
    return Rivals(claims=claims, decision=decide_rivals(claims[Side.A].standing, claims[Side.B].standing))


def _check_rivalry(a: WholeBundle, b: WholeBundle) -> None:
    if a.seal.keyset_id == b.seal.keyset_id or a.seal.merkle_root == b.seal.merkle_root:
        raise UsageError("both bundles are of one key set; rival claims rest on two")
    if a.owner_fingerprint == b.owner_fingerprint:
        raise UsageError("one owner's key sealed both key sets; these are not rival claims")
    if not _same_suspect(a.suspect, b.suspect):
        raise UsageError("the bundles are of different suspects; rival claims are about one model")


def _same_suspect(a: SuspectId, b: SuspectId) -> bool:
    if a.kind == b.kind == "file":
        return a.artefact_sha256 == b.artefact_sha256
    return (a.kind, a.uri, a.artefact_sha256) == (b.kind, b.uri, b.artefact_sha256)


def _check_cross(cross: WholeBundle, *, side: Side, own: WholeBundle, other: WholeBundle) -> None:
    what = f"the cross-test of claim {side.upper()}"
    if cross.seal_sha256 != own.seal_sha256:
        raise UsageError(f"{what} was asked another key set than the claim's")
    if cross.suspect.kind != "file" or cross.suspect.artefact_sha256 != other.seal.model_sha256:
        raise UsageError(f"{what} is not of the model file whose digest stands in the other claimant's seal")


def rivals_object(rivals: Rivals) -> dict[str, JsonValue]:
    """Return the comparison as JSON; exchanging the sides exchanges ``a`` and ``b`` and changes nothing else."""
    suspect, decision = rivals.suspect, rivals.decision
    return {
        "schema": SCHEMA,
        "suspect": {"uri": suspect.uri, "kind": suspect.kind, "artefact_sha256": suspect.artefact_sha256},
        "claims": {side.value: _claim_object(rivals.claims[side]) for side in Side},
        "ruling": decision.ruling.value,
        "favoured": None if decision.favoured is None else decision.favoured.value,
    }


def _claim_object(claim: Claim) -> dict[str, JsonValue]:
    audit = claim.audit
    time = audit.seal_time
    return {
        "keyset_id": audit.seal.keyset_id,
        "seal_sha256": audit.seal_sha256,
        "scheme": audit.seal.protocol.scheme,
        "owner_fingerprint": audit.owner_fingerprint,
        "model_sha256": audit.seal.model_sha256,
        "sealed_at_stated": audit.seal.sealed_at,
        "sealed_trusted": None if time is None else {"at": time.at, "accuracy_ms": time.accuracy_ms},
        "on_suspect": _audit_object(audit),
        "on_other_model": None if claim.cross is None else _audit_object(claim.cross),
    }


def _audit_object(audit: WholeBundle) -> dict[str, JsonValue]:
    line = audit.headline
    return {
        "status": line.status.value,
        "reason": line.reason.value,
        "hits": line.hits,
        "trials": line.trials,
        "log10_e": decimal_string(audit.log10_e),
        "log10_p": decimal_string(line.log10_p),
        "examiner_fingerprint": audit.examiner_fingerprint,
        "manifest_sha256": audit.manifest_sha256,
        "steps_not_checked": audit.n_unchecked,
    }
