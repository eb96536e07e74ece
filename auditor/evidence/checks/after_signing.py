"""Steps on what was added to a signed bundle: further signatures and the custody log that goes on."""

from auditor.canonical import sha256_hex
from auditor.errors import EvidenceError, SealError, SignatureError, TranscriptError
from auditor.evidence import manifest as paths
from auditor.evidence.acts import CommandAct
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.cosign import Cosignature, cosignatures_among, verify_cosignature
from auditor.evidence.declarations import read_declarations, report_name
from auditor.evidence.issue import verify_issues
from auditor.evidence.open_custody import ReadLog, describe, read_log
from auditor.evidence.signing import MAX_SIGNATURES, public_from_pem


def cosignatures(case: Verified) -> str:
    """Every further signature is over this manifest, and those that the caller demands are there."""
    wanted = {text.lower() for text in case.expected.witness_fingerprints}
    good: list[Cosignature] = []
    bad: list[str] = []
    found_files = cosignatures_among(case.bundle.later)
    if len(found_files) > MAX_SIGNATURES:
        raise SignatureError(f"more than {MAX_SIGNATURES} further signatures")
    for path, data in found_files.items():
        try:
            good.append(
                verify_cosignature(data, manifest=case.bundle.manifest, path=path, endorsement=case.endorsement)
            )
        except EvidenceError as error:
            bad.append(f"FAIL {error}")
    told = [_told(found, known=found.fingerprint in wanted, case=case) for found in good]
    missing = sorted(wanted - {found.fingerprint for found in good})
    if bad or missing:
        absent = [f"no valid signature by the demanded key {key[:16]}…" for key in missing]
        raise SignatureError("; ".join([*bad, *absent, *told]))
    if any("NOT CHECKED" in text for text in told):
        raise NotCheckedError("; ".join(told))
    return "; ".join(told) or "none is here, and none was demanded; that one was removed could not be told from here"


def _told(found: Cosignature, *, known: bool, case: Verified) -> str:
    named = known or found.fingerprint == (case.expected.owner_fingerprint or "").lower()
    who = "PASS" if named else "signature good, holder NOT CHECKED (--witness-key)"
    return f"{found.role.value} {found.fingerprint[:16]}… at {found.signed_at}: {who}"


def later_custody(case: Verified) -> str:
    """The log that goes on after signing is whole, belongs to this manifest, and what it names is still there."""
    data = case.bundle.later.get(paths.LATER_CUSTODY)
    if data is None:
        raise TranscriptError(f"{paths.LATER_CUSTODY} is gone; it was begun before the manifest was signed")
    log = read_log(data, anchor=sha256_hex(case.bundle.manifest), what=paths.LATER_CUSTODY)
    first = log.events[0]
    if (first.act, first.path, first.signer, first.at) != (
        CommandAct.SIGNED,
        paths.MANIFEST,
        case.endorsement.examiner_fingerprint,
        case.endorsement.signed_at,
    ):
        raise TranscriptError(f"{paths.LATER_CUSTODY} does not begin with the examiner's signing of the manifest")
    unnamed = _compare_files(case, log)
    head = case.expected.custody_head
    if head is not None and head.lower() not in log.heads:
        raise TranscriptError(f"{paths.LATER_CUSTODY} does not contain the head that was noted: entries are gone")
    known = [(case.endorsement.examiner_fingerprint, "the examiner"), (case.endorsement.owner_fingerprint, "the owner")]
    known += [(text.lower(), "a named witness") for text in case.expected.witness_fingerprints]
    parts = [describe(log, known=known)]
    parts += [f"not entered in the log: {', '.join(unnamed)}"] if unnamed else []
    parts += [
        "it goes on from the noted head"
        if head is not None
        else "that its latest entries were cut off cannot be told without a head noted elsewhere (--custody-head)"
    ]
    return "; ".join(parts)


def issued_reports(case: Verified) -> str:
    """Every issued revision is signed by the examiner and complete, and its report follows from it."""
    contents = case.bundle.contents
    issues = verify_issues(
        case.bundle.later,
        manifest=case.bundle.manifest,
        examiner_public=public_from_pem(contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY),
        report=report_name(sha256_hex(contents[paths.RESULTS])),
    )
    case.issues = issues
    if paths.DECLARATIONS in contents:
        read_declarations(contents[paths.DECLARATIONS], what=paths.DECLARATIONS)
    if not issues:
        raise NotCheckedError("no revision was issued: the report is a draft that no person has completed")
    if issues[0].signed_at < case.endorsement.signed_at:
        raise SealError("a revision of the report states a time before the manifest was signed")
    if case.expected.check_issued is None:
        raise NotCheckedError(f"{len(issues)} revisions signed by the examiner; rendering them was not asked for")
    return "; ".join(case.expected.check_issued(case.bundle, issue) for issue in issues)


def _compare_files(case: Verified, log: ReadLog) -> list[str]:
    """Compare the files that the log names with those that are here; return later files that it does not name."""
    present = {**case.bundle.later, paths.MANIFEST: case.bundle.manifest}
    named = set()
    for number, event in enumerate(log.events):
        if not event.path:
            continue
        if number and event.act is CommandAct.SIGNED:
            raise TranscriptError(f"{paths.LATER_CUSTODY} line {number}: the manifest is signed once")
        if event.path not in present:
            raise SealError(f"{event.path[:100]} is gone; {paths.LATER_CUSTODY} records it as {event.act.value}")
        if sha256_hex(present[event.path]) != event.sha256:
            raise SealError(f"{event.path[:100]} is not the file that {paths.LATER_CUSTODY} records")
        named.add(event.path)
    return sorted(set(case.bundle.later) - named - {paths.LATER_CUSTODY})
