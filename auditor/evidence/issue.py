"""Later revisions of the report: a person's declarations, signed by the examiner over the same manifest.

Revision 1 is the draft that the manifest covers. Each later one adds ``issued/N.declarations.dsse.json``, which names
the revision before it by digest, and the report made from bundle and declarations. Nothing that exists is changed.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from auditor.canonical import JsonValue, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence.declarations import Declarations, declarations_object, declarations_of
from auditor.evidence.manifest import ISSUED_FOLDER, MANIFEST
from auditor.evidence.signing import SigningKey, envelope, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc

PREDICATE_TYPE = "https://model-ownership-auditor.example/issued-report/v1"
FIRST = 2
LAST = 99


@dataclass(frozen=True, slots=True, kw_only=True)
class Issue:
    """What the examiner signs when issuing a revision of the report."""

    revision: int
    """From 2; revision 1 is the draft that the manifest covers."""
    declarations: Declarations
    previous_sha256: str
    """Digest of the envelope of the revision before, hex; empty for revision 2."""
    report_certificate_sha256: str
    """Digest (DER) of the certificate that signs this revision's PDF, hex."""
    signed_at: str
    """The examiner's clock, RFC 3339 UTC with milliseconds."""
    tool_version: str


def issued_path(revision: int, name: str) -> str:
    """Return where a revision's file lies, such as ``issued/2.report.html``."""
    return f"{ISSUED_FOLDER}/{revision}.{name}"


def envelope_path(revision: int) -> str:
    """Return where a revision's signed declarations lie."""
    return issued_path(revision, "declarations.dsse.json")


def sign_issue(manifest: bytes, issue: Issue, *, examiner: SigningKey) -> bytes:
    """Return the bytes of a revision's signed declarations."""
    predicate: dict[str, JsonValue] = {
        "revision": issue.revision,
        "declarations": declarations_object(issue.declarations),
        "previous_sha256": issue.previous_sha256,
        "report_certificate_sha256": issue.report_certificate_sha256,
        "signed_at": issue.signed_at,
        "tool_version": issue.tool_version,
    }
    payload = statement_bytes(
        subject_name=MANIFEST,
        subject_sha256=sha256_hex(manifest),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    return envelope(payload, payload_type=PAYLOAD_TYPE, keys=[examiner])


def verify_issues(
    files: Mapping[str, bytes], *, manifest: bytes, examiner_public: bytes, report: str
) -> tuple[Issue, ...]:
    """Verify all issued revisions of a bundle, in order; their reports are not looked at here.

    Args:
        files: the bundle's later files by path.
        manifest: bytes of ``manifest.json``.
        examiner_public: the key that signed the manifest, raw.
        report: name of the bundle's report.

    Raises:
        EvidenceError: a revision is malformed, not signed by the examiner, over another manifest, missing in between,
            about another report, or incomplete.
    """
    issues: list[Issue] = []
    previous = ""
    revision = FIRST
    while (data := files.get(envelope_path(revision))) is not None:
        issue = _verify(data, manifest=manifest, examiner_public=examiner_public, revision=revision)
        if issue.previous_sha256 != previous:
            raise SealError(f"{envelope_path(revision)}: does not follow the revision before it")
        missing = issue.declarations.missing(report)
        if missing:
            raise SealError(f"{envelope_path(revision)}: was issued without {missing[0]!r}")
        if issues and issue.signed_at < issues[-1].signed_at:
            raise SealError(f"{envelope_path(revision)}: states an earlier time than the revision before it")
        issues.append(issue)
        previous = sha256_hex(data)
        revision += 1
    known = tuple(f"{ISSUED_FOLDER}/{number}." for number in range(FIRST, revision))
    stray = [path for path in files if path.startswith(f"{ISSUED_FOLDER}/") and not path.startswith(known)]
    if stray:
        raise SealError(f"{stray[0]}: belongs to no issued revision")
    return tuple(issues)


def _verify(data: bytes, *, manifest: bytes, examiner_public: bytes, revision: int) -> Issue:
    what = envelope_path(revision)
    payload = verify_envelope(data, payload_type=PAYLOAD_TYPE, public_keys=[examiner_public], what=what)
    found = read_statement(payload, predicate_type=PREDICATE_TYPE, what=what)
    if (found.subject_name, found.subject_sha256) != (MANIFEST, sha256_hex(manifest)):
        raise SealError(f"{what}: is over another manifest")
    predicate = found.predicate
    declared = predicate.raw("declarations")
    if not isinstance(declared, Mapping):
        raise MalformedError(f"{what}: field 'declarations' must be an object")
    issue = Issue(
        revision=predicate.integer("revision", low=revision, high=revision),
        declarations=declarations_of(declared, what=what),
        previous_sha256=predicate.hex("previous_sha256"),
        report_certificate_sha256=predicate.hex("report_certificate_sha256", n_bytes=32),
        signed_at=check_utc(predicate.text("signed_at"), what=what),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    return issue
