"""The manifest: every file of a bundle with its digest, and the examiner's signature over it.

``manifest.json`` lists the files; ``manifest.dsse.json`` is a signed in-toto statement whose subject is the digest of
``manifest.json`` and whose predicate names the identities and heads that the files must agree with.

What is made over a signed manifest comes later and cannot be listed in it: its own time stamps, further signatures
(``cosignatures/``), the custody log that goes on (``custody.later.jsonl``) and later revisions of the report
(``issued/``). Each of these is bound to the manifest's digest by a signature, a token or a hash chain.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object, sha256_hex
from auditor.errors import MalformedError, SealError
from auditor.evidence.signing import SigningKey, envelope, verify_envelope
from auditor.evidence.statements import PAYLOAD_TYPE, read_statement, statement_bytes
from auditor.evidence.times import check_utc
from auditor.evidence.token_files import is_token_of

MANIFEST = "manifest.json"
MANIFEST_ENVELOPE = "manifest.dsse.json"
SEAL = "seal/k.seal.json"
OPENINGS = "openings.json"
GUARD = "guard.json"
PROTOCOL = "protocol.json"
TRANSCRIPT = "transcript.jsonl"
HEAD_ENVELOPE = "transcript.head.dsse.json"
RESULTS = "results.json"
REPORT_HTML = "report.html"
REPORT_PDF = "report.pdf"
CUSTODY = "custody.jsonl"
ENVIRONMENT = "env.json"
OWNER_KEY = "certs/owner.pub.pem"
EXAMINER_KEY = "certs/examiner.pub.pem"
REPORT_CERTIFICATE = "certs/report.crt.pem"
BY_HAND = "CHECK.txt"
KEYSET_CUSTODY = "seal/k.custody.jsonl"
DECLARATIONS = "declarations.json"
CERTIFICATE_902 = "annexes/certificate-902.draft.html"
MAP_702 = "annexes/fre-702.html"
LATER_CUSTODY = "custody.later.jsonl"
RAW_FOLDER = "raw"
SUPERSEDED_FOLDER = "superseded"
COSIGNATURE_FOLDER = "cosignatures"
ISSUED_FOLDER = "issued"
ANNEXES = (CERTIFICATE_902, MAP_702)
FOLDERS = ("annexes", "certs", COSIGNATURE_FOLDER, ISSUED_FOLDER, RAW_FOLDER, "seal", SUPERSEDED_FOLDER)
"""Every folder that a bundle may hold; an empty one is allowed."""

SCHEMA = "mlaudit.manifest/1"
PREDICATE_TYPE = "https://model-ownership-auditor.example/audit-bundle/v1"
MAX_FILES = 100_000
MAX_FILE_BYTES = 256 * 1024 * 1024
MAX_TOTAL_BYTES = 2 * 1024 * 1024 * 1024

_RAW_PATH = re.compile(r"raw/[0-9a-f]{64}")
_SUPERSEDED_PATH = re.compile(r"superseded/[1-9][0-9]{0,5}\.[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_COSIGNATURE_PATH = re.compile(r"cosignatures/[0-9a-f]{64}\.dsse\.json")
_ISSUED_PATH = re.compile(
    r"issued/([2-9]|[1-9][0-9])\.(declarations\.dsse\.json|report\.(html|pdf|crt\.pem)|certificate-902\.draft\.html)"
)


class Role(StrEnum):
    """What a file of a bundle is for."""

    SEAL = "seal"
    OPENINGS = "openings"
    PROTOCOL = "protocol"
    TRANSCRIPT = "transcript"
    TRANSCRIPT_HEAD = "transcript-head"
    TIMESTAMP = "time-stamp"
    RAW_ANSWER = "raw-answer"
    RESULTS = "results"
    REPORT = "report"
    CUSTODY = "custody"
    ENVIRONMENT = "environment"
    PUBLIC_KEY = "public-key"
    CERTIFICATE = "certificate"
    INSTRUCTIONS = "instructions"
    SUPERSEDED = "superseded"
    """Signed before the audit stopped and went on."""
    DECLARATIONS = "declarations"
    ANNEX = "annex"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A path that a bundle may hold."""

    role: Role
    media_type: str
    required: bool = True


PLACES: Mapping[str, Place] = {
    SEAL: Place(role=Role.SEAL, media_type="application/json"),
    OPENINGS: Place(role=Role.OPENINGS, media_type="application/json"),
    GUARD: Place(role=Role.OPENINGS, media_type="application/json", required=False),
    PROTOCOL: Place(role=Role.PROTOCOL, media_type="application/json"),
    TRANSCRIPT: Place(role=Role.TRANSCRIPT, media_type="application/jsonl"),
    HEAD_ENVELOPE: Place(role=Role.TRANSCRIPT_HEAD, media_type="application/json"),
    RESULTS: Place(role=Role.RESULTS, media_type="application/json"),
    CUSTODY: Place(role=Role.CUSTODY, media_type="application/jsonl"),
    ENVIRONMENT: Place(role=Role.ENVIRONMENT, media_type="application/json"),
    OWNER_KEY: Place(role=Role.PUBLIC_KEY, media_type="application/x-pem-file"),
    EXAMINER_KEY: Place(role=Role.PUBLIC_KEY, media_type="application/x-pem-file"),
    BY_HAND: Place(role=Role.INSTRUCTIONS, media_type="text/plain"),
    REPORT_HTML: Place(role=Role.REPORT, media_type="text/html", required=False),
    REPORT_PDF: Place(role=Role.REPORT, media_type="application/pdf", required=False),
    REPORT_CERTIFICATE: Place(role=Role.CERTIFICATE, media_type="application/x-pem-file", required=False),
    KEYSET_CUSTODY: Place(role=Role.CUSTODY, media_type="application/jsonl", required=False),
    DECLARATIONS: Place(role=Role.DECLARATIONS, media_type="application/json", required=False),
    CERTIFICATE_902: Place(role=Role.ANNEX, media_type="text/html", required=False),
    MAP_702: Place(role=Role.ANNEX, media_type="text/html", required=False),
}
_RAW_PLACE = Place(role=Role.RAW_ANSWER, media_type="application/octet-stream", required=False)
_SUPERSEDED_PLACE = Place(role=Role.SUPERSEDED, media_type="application/octet-stream", required=False)
_TOKEN_PLACE = Place(role=Role.TIMESTAMP, media_type="application/timestamp-reply", required=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of the manifest."""

    path: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Endorsement:
    """What the examiner signs beside the manifest's digest."""

    owner_fingerprint: str
    examiner_fingerprint: str
    seal_sha256: str
    transcript_head: str
    report_certificate_sha256: str
    """Digest (DER) of the certificate that signs ``report.pdf``; empty without one."""
    signed_at: str
    """The examiner's clock, RFC 3339 UTC with milliseconds."""
    tool_version: str


def place_of(path: str) -> Place | None:
    """Return what a bundle may hold at ``path``, or None when it may hold nothing there."""
    if _RAW_PATH.fullmatch(path):
        return _RAW_PLACE
    if _SUPERSEDED_PATH.fullmatch(path):
        return _SUPERSEDED_PLACE
    if is_token_of(path, SEAL) or is_token_of(path, HEAD_ENVELOPE):
        return _TOKEN_PLACE
    return PLACES.get(path)


def is_unlisted(path: str) -> bool:
    """Return whether a bundle may hold ``path`` without listing it: the manifest and what is made over it."""
    return path in (MANIFEST, MANIFEST_ENVELOPE) or is_later(path)


def is_later(path: str) -> bool:
    """Return whether ``path`` is one of the files that are made over a signed manifest."""
    return (
        path == LATER_CUSTODY
        or is_token_of(path, MANIFEST_ENVELOPE)
        or _COSIGNATURE_PATH.fullmatch(path) is not None
        or _ISSUED_PATH.fullmatch(path) is not None
    )


def manifest_bytes(entries: Mapping[str, Entry]) -> bytes:
    """Return the bytes of ``manifest.json``.

    Raises:
        ValueError: a path that no bundle holds; a bug of the caller.
    """
    files: list[JsonValue] = []
    for path in sorted(entries):
        place, entry = place_of(path), entries[path]
        if place is None:
            raise ValueError(f"a bundle has no place for {path}")
        files.append(
            {
                "path": path,
                "size": entry.size,
                "sha256": entry.sha256,
                "role": place.role.value,
                "media_type": place.media_type,
            }
        )
    return canonical_bytes({"schema": SCHEMA, "files": files}) + b"\n"


def read_manifest(data: bytes) -> dict[str, Entry]:
    """Read ``manifest.json``; digests are not compared here.

    Raises:
        MalformedError: not canonical, an unknown or repeated path, a required file not listed, or a limit exceeded.
    """
    if not data.endswith(b"\n"):
        raise MalformedError(f"{MANIFEST}: without its final newline")
    fields = Fields(parse_canonical_object(data, what=MANIFEST), what=MANIFEST)
    if fields.text("schema") != SCHEMA:
        raise MalformedError(f"{MANIFEST}: unknown schema")
    items = fields.items("files", max_items=MAX_FILES)
    fields.finish()
    entries: dict[str, Entry] = {}
    previous = ""
    for item in items:
        source = Fields(item, what=f"{MANIFEST}.files")
        path = source.text("path", max_length=255)
        place = place_of(path)
        if place is None or path <= previous:
            raise MalformedError(f"{MANIFEST}: lists an unknown path, or paths out of order")
        if source.text("role") != place.role.value or source.text("media_type") != place.media_type:
            raise MalformedError(f"{MANIFEST}: {path} has another role or media type than its place")
        sha256 = source.hex("sha256", n_bytes=32)
        if place is _RAW_PLACE and path != f"{RAW_FOLDER}/{sha256}":
            raise MalformedError(f"{MANIFEST}: a raw answer's name is not its digest")
        entries[path] = Entry(path=path, size=source.integer("size", high=MAX_FILE_BYTES), sha256=sha256)
        source.finish()
        previous = path
    missing = [path for path, place in PLACES.items() if place.required and path not in entries]
    if missing:
        raise MalformedError(f"{MANIFEST}: does not list {missing[0]}")
    return entries


def sign_manifest(manifest: bytes, endorsement: Endorsement, *, examiner: SigningKey) -> bytes:
    """Return the bytes of ``manifest.dsse.json``."""
    if endorsement.examiner_fingerprint != examiner.fingerprint:
        raise ValueError("an endorsement is signed with the key it names")
    predicate: dict[str, JsonValue] = {
        "owner_fingerprint": endorsement.owner_fingerprint,
        "examiner_fingerprint": endorsement.examiner_fingerprint,
        "seal_sha256": endorsement.seal_sha256,
        "transcript_head": endorsement.transcript_head,
        "report_certificate_sha256": endorsement.report_certificate_sha256,
        "signed_at": endorsement.signed_at,
        "tool_version": endorsement.tool_version,
    }
    payload = statement_bytes(
        subject_name=MANIFEST,
        subject_sha256=sha256_hex(manifest),
        predicate_type=PREDICATE_TYPE,
        predicate=predicate,
    )
    return envelope(payload, payload_type=PAYLOAD_TYPE, keys=[examiner])


def verify_manifest(manifest: bytes, signature: bytes, *, examiner_public: bytes) -> Endorsement:
    """Verify the examiner's signature over a manifest and return what was signed beside it.

    Raises:
        MalformedError: not a signed manifest in the one accepted spelling.
        SignatureError: the signature does not verify under this key.
        SealError: the signature is over another manifest.
    """
    payload = verify_envelope(
        signature, payload_type=PAYLOAD_TYPE, public_keys=[examiner_public], what=MANIFEST_ENVELOPE
    )
    found = read_statement(payload, predicate_type=PREDICATE_TYPE, what=MANIFEST_ENVELOPE)
    if found.subject_name != MANIFEST or found.subject_sha256 != sha256_hex(manifest):
        raise SealError(f"{MANIFEST_ENVELOPE}: signs another manifest")
    predicate = found.predicate
    endorsement = Endorsement(
        owner_fingerprint=predicate.hex("owner_fingerprint", n_bytes=32),
        examiner_fingerprint=predicate.hex("examiner_fingerprint", n_bytes=32),
        seal_sha256=predicate.hex("seal_sha256", n_bytes=32),
        transcript_head=predicate.hex("transcript_head", n_bytes=32),
        report_certificate_sha256=predicate.hex("report_certificate_sha256"),
        signed_at=check_utc(predicate.text("signed_at"), what=MANIFEST_ENVELOPE),
        tool_version=predicate.text("tool_version", max_length=100),
    )
    predicate.finish()
    return endorsement
