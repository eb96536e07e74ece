"""What a report may see: the bundle's files, and nothing else."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from auditor.canonical import JsonValue, parse_object, sha256_hex
from auditor.errors import MalformedError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import certificate_digest
from auditor.evidence.bundle_folder import read_file
from auditor.evidence.custody import CustodyEvent, read_custody
from auditor.evidence.declarations import Declarations, read_declarations, report_name
from auditor.evidence.open_custody import LaterEvent, read_log
from auditor.evidence.seal import Seal, open_seal
from auditor.evidence.signing import fingerprint, public_from_pem
from auditor.evidence.timestamps import MAX_TOKENS, read_tokens
from auditor.evidence.token_files import token_path, tokens_among
from auditor.evidence.transcript import read_transcript
from auditor.evidence.transport import Transport, transport_of

REQUIRED = (paths.RESULTS, paths.SEAL, paths.PROTOCOL, paths.CUSTODY, paths.ENVIRONMENT, paths.TRANSCRIPT)
STAMPED = (paths.SEAL, paths.HEAD_ENVELOPE)
"""Files that may be time-stamped before the report is made."""
OPTIONAL = (
    paths.HEAD_ENVELOPE,
    paths.OPENINGS,
    paths.EXAMINER_KEY,
    paths.REPORT_CERTIFICATE,
    paths.KEYSET_CUSTODY,
    paths.DECLARATIONS,
    *paths.ANNEXES,
)
DIGESTED = (*REQUIRED, paths.OPENINGS, paths.KEYSET_CUSTODY, paths.DECLARATIONS, *paths.ANNEXES)
RESULTS_SCHEMA = "mlaudit.results/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReportInput:
    """Everything a report is made from; two equal inputs render to equal bytes."""

    report_id: str
    """Derived from the digest of results.json."""
    revision: int
    """Counts issued versions of this report, from 1."""
    results: Mapping[str, JsonValue]
    protocol: Mapping[str, JsonValue]
    seal: Seal
    custody: Sequence[CustodyEvent]
    environment: Mapping[str, JsonValue]
    transcript_head: str
    """SHA-256 of the last transcript line, hex; stands for all lines before it."""
    preamble: Mapping[str, JsonValue]
    """First record of the transcript: what was fixed before the first question."""
    closed_reason: str
    """Why the transcript was closed; empty when it was not."""
    counts: Mapping[str, int]
    """``lines``, ``batches``, ``batches_unanswered`` and ``failed_attempts`` of the transcript."""
    transport: Transport
    """How the answers arrived."""
    opened_at: str
    """RFC 3339 UTC time of the transcript's first record."""
    closed_at: str
    """RFC 3339 UTC time of its last record; the date of issue of the report's first revision."""
    digests: Mapping[str, str]
    """SHA-256 in hex of the bundle's files, by path."""
    examiner_fingerprint: str
    """SHA-256 of the raw Ed25519 public key in hex, or empty when the bundle holds no such key."""
    certificate_sha256: str
    """SHA-256 of the certificate that signs the PDF, or empty."""
    time_stamps: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Times that tokens state, by the path of the file they are over; not verified against any root."""
    keyset_custody: Sequence[LaterEvent] = ()
    """What happened to the key set between sealing and this examination, by its own log."""
    declarations: Declarations | None = None
    """What a person declared, or None."""
    issued_at: str = ""
    """RFC 3339 UTC time of issue of a later revision; empty for the first one, which bears that of ``closed_at``."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Typed reading of nested JSON by pointer; a missing or mistyped value is a :class:`MalformedError`."""

    root: Mapping[str, JsonValue]
    what: str

    def at(self, pointer: str) -> JsonValue:
        """Return the value at ``/a/b``; what lies below a null is null."""
        value: JsonValue = self.root
        for part in pointer.strip("/").split("/"):
            if value is None:
                return None
            if not isinstance(value, Mapping) or part not in value:
                raise MalformedError(f"{self.what}: {pointer} is missing")
            value = value[part]
        return value

    def text(self, pointer: str) -> str:
        """Return text; null reads as empty."""
        value = self.at(pointer)
        if value is None:
            return ""
        if not isinstance(value, str):
            raise MalformedError(f"{self.what}: {pointer} must be text")
        return value

    def integer(self, pointer: str) -> int:
        """Return an integer."""
        value = self.at(pointer)
        if isinstance(value, bool) or not isinstance(value, int):
            raise MalformedError(f"{self.what}: {pointer} must be an integer")
        return value

    def optional_integer(self, pointer: str) -> int | None:
        """Return an integer or null."""
        return None if self.at(pointer) is None else self.integer(pointer)

    def number(self, pointer: str) -> float:
        """Return an integer or a decimal string as a float; infinities are allowed, NaN is not."""
        value = self.at(pointer)
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise MalformedError(f"{self.what}: {pointer} must be a decimal string")
        try:
            number = float(value)
        except ValueError as error:
            raise MalformedError(f"{self.what}: {pointer} must be a decimal string") from error
        if math.isnan(number):
            raise MalformedError(f"{self.what}: {pointer} must be a decimal string")
        return number

    def optional_number(self, pointer: str) -> float | None:
        """Return a number or null."""
        return None if self.at(pointer) is None else self.number(pointer)

    def has(self, pointer: str) -> bool:
        """Return whether the value exists and is not null."""
        try:
            return self.at(pointer) is not None
        except MalformedError:
            return False

    def items(self, pointer: str) -> Sequence[JsonValue]:
        """Return an array."""
        value = self.at(pointer)
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise MalformedError(f"{self.what}: {pointer} must be an array")
        return value


def read_folder(folder: Path) -> ReportInput:
    """Read a bundle folder into a :class:`ReportInput`.

    Neither the manifest nor the report itself is read, so that the same call works before and after they exist. The
    certificate that will sign the PDF must be in its place already, because the report prints its digest.

    Raises:
        EvidenceError: a file is missing, too large, a link, or not what its name says.
    """
    stamps = [token_path(path, number) for path in STAMPED for number in range(1, MAX_TOKENS + 1)]
    names = [*REQUIRED, *(name for name in (*OPTIONAL, *stamps) if (folder / name).exists())]
    return from_files({name: read_file(folder, name) for name in names})


def from_files(files: Mapping[str, bytes]) -> ReportInput:
    """Build a :class:`ReportInput` from a bundle's files by path; see :func:`read_folder`."""
    for name in REQUIRED:
        if name not in files:
            raise MalformedError(f"{name}: missing from the bundle")
    results = parse_object(files[paths.RESULTS], what=paths.RESULTS)
    if results.get("schema") != RESULTS_SCHEMA:
        raise MalformedError(f"{paths.RESULTS}: unknown schema, expected {RESULTS_SCHEMA}")
    transcript = read_transcript(files[paths.TRANSCRIPT])
    examiner, certificate = files.get(paths.EXAMINER_KEY), files.get(paths.REPORT_CERTIFICATE)
    declared = files.get(paths.DECLARATIONS)
    return ReportInput(
        report_id=report_name(sha256_hex(files[paths.RESULTS])),
        revision=1,
        results=results,
        protocol=parse_object(files[paths.PROTOCOL], what=paths.PROTOCOL),
        seal=open_seal(files[paths.SEAL]),
        custody=read_custody(files[paths.CUSTODY]),
        environment=parse_object(files[paths.ENVIRONMENT], what=paths.ENVIRONMENT),
        transcript_head=transcript.head,
        preamble=transcript.preamble,
        closed_reason=transcript.closed_reason or "",
        counts={
            "lines": transcript.n_lines,
            "batches": len(transcript.batches),
            "batches_unanswered": sum(batch.answers is None for batch in transcript.batches),
            "failed_attempts": sum(len(batch.failed_attempts) for batch in transcript.batches),
        },
        transport=transport_of(transcript),
        opened_at=transcript.opened_at,
        closed_at=transcript.closed_at,
        digests={name: sha256_hex(files[name]) for name in DIGESTED if name in files},
        examiner_fingerprint=fingerprint(public_from_pem(examiner, what=paths.EXAMINER_KEY)) if examiner else "",
        certificate_sha256=certificate_digest(certificate) if certificate else "",
        time_stamps={path: _stamped(files, path) for path in STAMPED},
        keyset_custody=_keyset_custody(files),
        declarations=read_declarations(declared, what=paths.DECLARATIONS) if declared is not None else None,
    )


def _keyset_custody(files: Mapping[str, bytes]) -> tuple[LaterEvent, ...]:
    data = files.get(paths.KEYSET_CUSTODY)
    if data is None:
        return ()
    return read_log(data, anchor=sha256_hex(files[paths.SEAL]), what=paths.KEYSET_CUSTODY).events


def _stamped(files: Mapping[str, bytes], path: str) -> tuple[str, ...]:
    tokens = tokens_among(files, path)
    if not tokens:
        return ()
    if path not in files:
        raise MalformedError(f"{path}: missing from the bundle")
    return tuple(token.stamped_at for token in read_tokens(tokens, data=files[path]).values())
