"""The exception tree and its exit codes.

AuditorError
├─ UsageError                 2   options or plan contradict each other
├─ EvidenceError              5
│  ├─ MalformedError              cannot be parsed, or unknown field or version
│  ├─ SignatureError              wrong key or altered bytes
│  ├─ SealError                   digest or commitment differs
│  ├─ TimestampError              time stamp malformed, over other bytes, or too late
│  ├─ TranscriptError             chain broken, or recomputation differs
│  └─ StorageError                disk full, read-only or gone while evidence is written
├─ SuspectError               6
│  ├─ SuspectLoadError            not a model we may load
│  ├─ SuspectUnavailableError     no answer after retries
│  ├─ SuspectRefusedError         authentication, policy
│  │  └─ SuspectThrottledError        rate limit, after all retries
│  └─ SuspectAnswerError          wrong shape, label out of range, NaN
├─ MissingPartError           7   names what to install
├─ TrainingError              8   mark or attack did not reach its target
└─ InterruptedAuditError    130   the user stopped a run; what was paid for is kept

A negative finding is a value (see auditor.verdict), never an exception. Messages are one line for a person
and never contain key samples, expected labels, secrets or credentials.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

DISTRIBUTION = "model-ownership-auditor"
EXTRAS: Mapping[str, str] = {
    "torch": "train",
    "safetensors": "train",
    "sklearn": "train",
    "PIL": "images",
    "onnxruntime": "onnx",
    "skops": "sklearn",
    "ray": "ray",
    "matplotlib": "report",
    "weasyprint": "report",
    "pyhanko": "report",
    "pyhanko_certvalidator": "report",
    "starlette": "serve",
    "uvicorn": "serve",
    "scipy": "statistics",
    "statsmodels": "statistics",
}
"""The extra that installs a package which the base installation goes without."""


class AuditorError(Exception):
    """Base of every error this package raises on purpose."""

    exit_code: ClassVar[int] = 1


class UsageError(AuditorError):
    """Options, files or plan contradict each other."""

    exit_code = 2


class EvidenceError(AuditorError):
    """Evidence is broken: malformed, altered or not what it says it is."""

    exit_code = 5


class MalformedError(EvidenceError):
    """Outside bytes cannot be parsed, exceed a limit, or carry an unknown field or version."""


class SignatureError(EvidenceError):
    """A signature does not verify, or not under the expected key."""


class SealError(EvidenceError):
    """A digest or commitment of the seal differs from the material."""


class TimestampError(EvidenceError):
    """A time stamp is malformed, over other bytes, not verifiable, or out of order."""


class TranscriptError(EvidenceError):
    """The transcript's chain is broken, or a recomputation differs from what is recorded."""


class StorageError(EvidenceError):
    """Evidence cannot be written: the disk is full, read-only or gone; what was written before stays."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Wire:
    """What the transport showed with an answer, apart from the answer itself."""

    address: str = ""
    """Network address that answered; empty where it is not known, as behind a proxy."""
    certificates: tuple[str, ...] = ()
    """SHA-256 of every TLS certificate that was shown (DER), the service's own first; empty without TLS."""
    redirects: tuple[str, ...] = ()
    """Where the question was sent on to before this answer came, status and address without query, in order."""
    headers: tuple[tuple[str, str], ...] = ()
    """Response headers by lower-case name, sorted, without those that may carry secrets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt to get an answer from a suspect that brought none."""

    error: str
    """A short description without credentials or request content."""
    waited_ms: int
    """Wait before the next attempt; 0 after the last one."""
    status: int | None = None
    """Status of an answer that asked for patience; None when no answer came."""
    wire: Wire | None = None
    """How that answer arrived; None when none came."""


class SuspectError(AuditorError):
    """The suspect cannot be examined.

    Attributes:
        attempts: every attempt of the exchange that brought no complete answer, in order.
        body: raw bytes of a complete answer that cannot be used; None when there was none.
        wire: how a complete answer arrived; None when there was none.
    """

    exit_code = 6

    def __init__(self, *args: object, attempts: Sequence[Attempt] = (), body: bytes | None = None) -> None:
        super().__init__(*args)
        self.attempts = tuple(attempts)
        self.body = body
        self.wire: Wire | None = None


class SuspectLoadError(SuspectError):
    """The suspect's file is not a model this package may load."""


class SuspectUnavailableError(SuspectError):
    """The suspect gave no answer after all retries."""


class SuspectRefusedError(SuspectError):
    """The suspect refused: authentication, rate limit or policy."""


class SuspectThrottledError(SuspectRefusedError):
    """The suspect asked for patience until the retries were used up."""


class SuspectAnswerError(SuspectError):
    """The suspect's answer has a wrong shape, a label out of range, or a score that is not a number."""


class MissingPartError(AuditorError):
    """An optional part is not installed; the message names what to install."""

    exit_code = 7


class TrainingError(AuditorError):
    """A mark or an attack did not reach its target."""

    exit_code = 8


class InterruptedAuditError(AuditorError):
    """The user interrupted an audit; the transcript is closed and kept."""

    exit_code = 130


def missing_part(error: ImportError) -> MissingPartError | None:
    """Return what to install for an import that failed, or None when no extra would bring it."""
    package = (error.name or "").partition(".")[0]
    extra = EXTRAS.get(package)
    if extra is None:
        return None
    return MissingPartError(f"this needs the package {package}: pip install '{DISTRIBUTION}[{extra}]'")
