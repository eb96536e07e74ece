"""The re-check of a blind line-up: fixed steps in a fixed order, none of which believes what a party says.

 1 commitment: signed by the custodian that it names
 2 expected keys: custodian, examiner and owner are those the caller names
 3 opening: by the same custodian; every candidate is the committed one, none dropped, added or changed
 4 every candidate was audited, and nothing else
 5 the bundles are whole, by one examiner and of the committed key set
 6 asked after the commitment: its digest drew the questions of every audit, which are the same for all
 7 terms: one level and limit for all, the level divided by at least the number of candidates
 8 asked at the committed places, or of the committed files
 9 the relay's record and the bundles tell the same answers
10 the opened candidates, asked again, give the recorded answers
11 trusted time of the commitment
12 trusted time of candidates

A step that fails leaves those that build on it unchecked, and no finding is drawn from a line-up with a failed step.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from auditor.canonical import sha256_hex
from auditor.errors import AuditorError, EvidenceError, MalformedError, SealError, TranscriptError
from auditor.evidence import lineup as lists
from auditor.evidence import manifest as paths
from auditor.evidence.checks.base import CheckOutcome, CheckReport, CheckStep, NotCheckedError
from auditor.evidence.lineup import Candidate, LineUp, OpenedLineUp
from auditor.evidence.openings import read_openings
from auditor.evidence.recompute import judge_nonce, planned_probes
from auditor.evidence.relay_record import read_record
from auditor.evidence.signing import fingerprint
from auditor.evidence.timestamps import TokenState, verify_digest_token
from auditor.evidence.whole_bundle import TrustedTime, WholeBundle, earliest_time, read_whole
from auditor.records import Inputs

if TYPE_CHECKING:
    from cryptography.x509 import Certificate

Replay = Callable[[Candidate, Inputs], Sequence[int] | None]
"""Asks an opened candidate again and returns its labels; None where it cannot be asked here."""

MAX_ROUNDING_SHARE = 0.01
"""Up to this share of other answers may be another machine's rounding: then nothing is concluded from a replay."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUpFiles:
    """What is checked; nothing of it is trusted."""

    commitment: bytes
    commitment_tokens: Mapping[str, bytes]
    opening: bytes
    record: bytes
    """Bytes of the relay's record; empty without one."""
    audits: Mapping[str, Path]
    """Bundle folders by the label they are said to be of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUpExpected:
    """What the caller brings along."""

    custodian_fingerprint: str | None = None
    examiner_fingerprint: str | None = None
    owner_fingerprint: str | None = None
    tsa_roots: Sequence["Certificate"] = ()
    replay: Replay | None = None
    """None leaves the opened candidates unasked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LineUpCheck:
    """What the steps found."""

    report: CheckReport
    verified: "VerifiedLineUp | None"
    """None where a step failed."""


@dataclass(slots=True, kw_only=True)
class VerifiedLineUp:
    """What the steps have verified so far; each part is set by one step."""

    files: LineUpFiles
    expected: LineUpExpected
    lineup: LineUp = field(init=False)
    opened: OpenedLineUp = field(init=False)
    audits: Mapping[str, WholeBundle] = field(init=False)
    committed: TrustedTime | None = None
    dated: dict[str, TrustedTime] = field(default_factory=dict)
    """Verified times of candidates' model files, by label."""
    replayed: tuple[str, ...] = ()
    """Labels of the candidates that gave the recorded answers again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Step:
    title: str
    work: Callable[[VerifiedLineUp], str]
    needs: tuple[int, ...] = ()


def check_lineup(files: LineUpFiles, *, expected: LineUpExpected) -> LineUpCheck:
    """Carry out every step; broken evidence never raises."""
    case = VerifiedLineUp(files=files, expected=expected)
    done: list[CheckStep] = []
    failed: set[int] = set()
    for number, step in enumerate(STEPS, start=1):
        broken = sorted(failed.intersection(step.needs))
        outcome, detail = CheckOutcome.NOT_CHECKED, f"step {broken[0]} failed" if broken else ""
        if not broken:
            outcome, detail = _carry_out(step, case)
        if broken or outcome is CheckOutcome.FAIL:
            failed.add(number)
        done.append(CheckStep(number=number, title=step.title, outcome=outcome, detail=detail))
    report = CheckReport(steps=tuple(done))
    return LineUpCheck(report=report, verified=case if report.intact else None)


def _carry_out(step: _Step, case: VerifiedLineUp) -> tuple[CheckOutcome, str]:
    try:
        return CheckOutcome.PASS, step.work(case)
    except NotCheckedError as reason:
        return CheckOutcome.NOT_CHECKED, str(reason)
    except EvidenceError as error:
        return CheckOutcome.FAIL, str(error)
    except AuditorError as error:
        return CheckOutcome.FAIL, f"the step ended with an error: {error}"


def _commitment(case: VerifiedLineUp) -> str:
    case.lineup = lists.open_lineup(case.files.commitment)
    signer = fingerprint(bytes.fromhex(case.lineup.custodian_public_key))
    return f"{len(case.lineup.placed)} candidates committed to by custodian {signer}"


def _expected_custodian(case: VerifiedLineUp) -> str:
    wanted = case.expected.custodian_fingerprint
    found = fingerprint(bytes.fromhex(case.lineup.custodian_public_key))
    if wanted is not None and wanted != found:
        raise SealError(f"the custodian's key is {found[:16]}…, not the expected one")
    left = [
        role
        for role, given in (
            ("custodian", wanted),
            ("examiner", case.expected.examiner_fingerprint),
            ("owner", case.expected.owner_fingerprint),
        )
        if given is None
    ]
    if left:
        raise NotCheckedError(f"no fingerprint was given for: {', '.join(left)}")
    return "custodian, examiner and owner are the expected ones"


def _opening(case: VerifiedLineUp) -> str:
    case.opened = lists.read_opening(case.files.opening, commitment=case.files.commitment, lineup=case.lineup)
    return f"all {len(case.opened.candidates)} candidates are the committed ones"


def _all_audited(case: VerifiedLineUp) -> str:
    wanted, found = {each.label for each in case.lineup.placed}, set(case.files.audits)
    missing, extra = sorted(wanted - found), sorted(found - wanted)
    if missing:
        raise MalformedError(f"no bundle of candidate {', '.join(missing)}")
    if extra:
        raise MalformedError(f"there is a bundle of {extra[0]}, which is no candidate")
    return f"one bundle for each of the {len(wanted)} candidates"


def _whole_bundles(case: VerifiedLineUp) -> str:
    case.audits = {
        label: read_whole(
            case.files.audits[label],
            what=f"the bundle of candidate {label}",
            owner_fingerprint=case.expected.owner_fingerprint,
            examiner_fingerprint=case.expected.examiner_fingerprint,
            tsa_roots=case.expected.tsa_roots,
        )
        for label in sorted(case.files.audits, key=lambda label: (len(label), label))
    }
    audits = case.audits.values()
    for label, audit in case.audits.items():
        if audit.seal_sha256 != case.lineup.seal_sha256:
            raise SealError(f"candidate {label} was asked another key set than the committed one")
    if len({audit.examiner_fingerprint for audit in audits}) != 1:
        raise SealError("the bundles are signed by different examiners")
    if len({audit.manifest_sha256 for audit in audits}) != len(case.audits):
        raise MalformedError("one bundle stands for two candidates")
    unchecked = max(audit.n_unchecked for audit in audits)
    return f"{len(case.audits)} bundles intact, at most {unchecked} steps of one not checked"


def _after_commitment(case: VerifiedLineUp) -> str:
    wanted = lists.nonce_of(case.files.commitment)
    for label, audit in case.audits.items():
        if judge_nonce(audit.transcript) != wanted:
            raise TranscriptError(f"the questions to candidate {label} were not drawn with the commitment's digest")
    return "the digest of the commitment drew the questions of every audit, which are the same for all"


def _terms(case: VerifiedLineUp) -> str:
    k = len(case.audits)
    first = next(iter(case.audits.values())).transcript.preamble
    for label, audit in case.audits.items():
        if audit.family < k:
            raise TranscriptError(f"candidate {label}: the level was divided by {audit.family}, not by {k} or more")
        for name in ("alpha", "max_keys"):
            if audit.transcript.preamble.get(name) != first.get(name):
                raise TranscriptError(f"candidate {label} was audited under other terms ({name})")
    families = sorted({audit.family for audit in case.audits.values()})
    if len(families) > 1:
        raise TranscriptError("the level was divided by another number for some candidates than for others")
    return f"one level for all, divided by {families[0]}"


def _places(case: VerifiedLineUp) -> str:
    by_label = lists.by_label(case.opened)
    for label, audit in case.audits.items():
        candidate, suspect = by_label[label], audit.suspect
        at_place = suspect.kind == "http" and suspect.uri.rsplit("/", 1)[-1] == candidate.place
        same_file = suspect.kind == "file" and suspect.artefact_sha256 == candidate.artefact_sha256
        if not (at_place or (same_file and candidate.artefact_sha256)):
            raise SealError(f"the bundle of candidate {label} is of something else than the committed place or file")
    return "every bundle names its candidate's committed place or file"


def _relay_record(case: VerifiedLineUp) -> str:
    over_relay = {label: audit for label, audit in case.audits.items() if audit.suspect.kind == "http"}
    if not case.files.record:
        if case.opened.record_sha256:
            raise MalformedError(f"{lists.RECORD} is missing, though the custodian signed its digest")
        raise NotCheckedError("no relay kept a record")
    if sha256_hex(case.files.record) != case.opened.record_sha256:
        raise SealError(f"{lists.RECORD} is not the record whose digest the custodian signed")
    record = read_record(case.files.record, commitment_sha256=sha256_hex(case.files.commitment))
    told = Counter((line.label, line.inputs_sha256, line.answers) for line in record)
    # An answer that got lost on the way was asked for again: as often as the transcript says.
    allowed: Counter[tuple[str, str]] = Counter()
    n_compared = 0
    for label, audit in over_relay.items():
        for batch in audit.transcript.batches:
            allowed[(label, batch.body_sha256)] += 1 + len(batch.failed_attempts) + len(batch.retried_at)
            if batch.answers is None:
                continue
            answers = tuple(answer.label for answer in batch.answers)
            if not told[(label, batch.body_sha256, answers)]:
                raise TranscriptError(f"candidate {label}: the relay did not give the answers of batch {batch.batch}")
            n_compared += 1
    hidden = Counter((line.label, line.inputs_sha256) for line in record) - allowed
    if hidden:
        label = min(label for label, _ in hidden)
        n = sum(count for (asked, _), count in hidden.items() if asked == label)
        raise TranscriptError(f"the relay answered {n} batches for candidate {label} that no bundle reports")
    return f"{n_compared} answered batches stand in both, and the relay answered no others"


def _replayed(case: VerifiedLineUp) -> str:
    if case.expected.replay is None:
        raise NotCheckedError("the opened models were not given; that each stood at its place rests on the custodian")
    by_label = lists.by_label(case.opened)
    same: list[str] = []
    absent: list[str] = []
    unclear: list[str] = []
    for label, audit in case.audits.items():
        inputs, recorded = _asked(audit)
        again = case.expected.replay(by_label[label], inputs)
        if again is None:
            absent.append(label)
            continue
        n_other = sum(one != other for one, other in zip(again, recorded, strict=True))
        if n_other > MAX_ROUNDING_SHARE * len(recorded):
            raise TranscriptError(
                f"candidate {label}, asked again, gives {n_other} of {len(recorded)} answers otherwise: "
                "another model stood at its place"
            )
        (unclear if n_other else same).append(label)
    case.replayed = tuple(same)
    told = f"same answers again from {', '.join(same) or 'none'}"
    if absent or unclear:
        told += f"; not asked again: {', '.join(absent)}" if absent else ""
        told += f"; a few answers differ, as by another machine's rounding: {', '.join(unclear)}" if unclear else ""
        raise NotCheckedError(told)
    return told


def _asked(audit: WholeBundle) -> tuple[Inputs, list[int]]:
    """Return the inputs of every answered question with the recorded labels."""
    openings = read_openings(audit.bundle.contents[paths.OPENINGS], seal=audit.seal)
    planned = planned_probes(audit.seal, audit.transcript)
    rows, labels = [], []
    for batch in audit.transcript.batches:
        for position, answer in zip(batch.positions, batch.answers or (), strict=batch.answers is not None):
            data = openings[planned[position].index].data
            rows.append(np.frombuffer(data, dtype=np.uint8).reshape(audit.seal.spec.shape))
            labels.append(answer.label)
    if not rows:
        raise NotCheckedError("an audit has no answers")
    return np.stack(rows), labels


def _time_of_commitment(case: VerifiedLineUp) -> str:
    roots, tokens = case.expected.tsa_roots, case.files.commitment_tokens
    case.committed = earliest_time(tokens, data=case.files.commitment, roots=roots)
    first = min(audit.transcript.opened_at for audit in case.audits.values())
    if case.committed is not None and case.committed.at > first:
        raise SealError(f"the commitment was time-stamped at {case.committed.at}, only after the first audit began")
    if case.committed is None:
        why = "no time stamp verifies under the given roots" if tokens and roots else "no time stamp and root"
        raise NotCheckedError(f"{why}; the order rests on step 6 alone")
    return f"the list existed at {case.committed.at}, before the first question"


def _time_of_candidates(case: VerifiedLineUp) -> str:
    stamped = [candidate for candidate in case.opened.candidates if candidate.tokens]
    if not stamped:
        raise NotCheckedError("no candidate is time-stamped")
    open_labels = []
    for candidate in stamped:
        what = f"a time stamp of candidate {candidate.label}"
        found = [
            verify_digest_token(raw, sha256=candidate.artefact_sha256, what=what, roots=case.expected.tsa_roots)
            for raw in candidate.tokens
        ]
        times = [each.token for each in found if each.state is TokenState.VERIFIED]
        if times:
            first = min(times, key=lambda token: token.stamped_at)
            case.dated[candidate.label] = TrustedTime(at=first.stamped_at, accuracy_ms=first.accuracy_ms)
        else:
            open_labels.append(candidate.label)
    told = "; ".join(f"{label} existed at {time.at}" for label, time in case.dated.items())
    if open_labels:
        raise NotCheckedError(
            f"{told + '; ' if told else ''}not verified under the given roots: {', '.join(open_labels)}"
        )
    return told


STEPS = (
    _Step(title="commitment", work=_commitment),
    _Step(title="expected keys", work=_expected_custodian, needs=(1,)),
    _Step(title="opened list equals the commitment", work=_opening, needs=(1,)),
    _Step(title="every candidate audited", work=_all_audited, needs=(1,)),
    _Step(title="bundles whole", work=_whole_bundles, needs=(4,)),
    _Step(title="asked after the commitment", work=_after_commitment, needs=(5,)),
    _Step(title="terms equal, family counted", work=_terms, needs=(5,)),
    _Step(title="committed places", work=_places, needs=(3, 5)),
    _Step(title="relay's record", work=_relay_record, needs=(3, 5)),
    _Step(title="candidates asked again", work=_replayed, needs=(3, 5)),
    _Step(title="trusted time of the commitment", work=_time_of_commitment, needs=(5,)),
    _Step(title="trusted time of candidates", work=_time_of_candidates, needs=(3,)),
)
"""All steps; the place in this list, from 1, is the step's number."""
