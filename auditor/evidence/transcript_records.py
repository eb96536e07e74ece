"""What a transcript tells, as records: its batches, its stops and resumptions, and its closing counts."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from operator import add
from typing import NamedTuple

from auditor.canonical import JsonValue
from auditor.errors import Attempt, Wire
from auditor.records import Answer

DOMAIN = b"auditor/1 transcript line\x00"
SCHEMA = "mlaudit.transcript/1"
WHAT = "transcript.jsonl"
MAX_BATCH = 1_000_000
MAX_LABEL = 2**31 - 1
MAX_SCORES = 1_000_000
MAX_TEXT = 500
MAX_INLINE_BODY = 16 * 1024
"""Longest raw body, in characters, that is kept in the line of its response."""
MAX_RETRIES = 3
"""Times that one batch may be asked again after a stop; a batch lost more often stays unanswered."""


class Loss(StrEnum):
    """Why a batch has no usable answer; only the first kind may be asked again."""

    NO_ANSWER = "no-answer"
    """No complete answer arrived: a fault of network or service, or a limit on the rate of questions."""
    REFUSED = "refused"
    """The suspect answered that it will not answer."""
    UNUSABLE = "unusable"
    """A complete answer arrived that is none, such as a page of text; the first answer counts."""


class Stop(StrEnum):
    """How an audit had stopped that was resumed."""

    UNCLOSED = "unclosed"
    """The record ended without a closing line: the process, the machine or the disk gave up."""
    INTERRUPTED = "interrupted"
    """The user stopped it."""
    FAILED = "failed"
    """The suspect had withdrawn."""


FailedAttempt = Attempt
"""An attempt to get a batch answered that brought no complete answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRecord:
    """One batch as the transcript tells it."""

    batch: int
    positions: tuple[int, ...]
    """Places in the drawn order, in the order they were asked."""
    body_sha256: str
    """SHA-256 of the batch's inputs as asked: raw uint8 values, C order."""
    asked_at: str
    answers: tuple[Answer, ...] | None = None
    """One answer per position; None when no response was logged."""
    response_sha256: str | None = None
    """SHA-256 of the raw response body; None without a body."""
    body: str | None = None
    """The raw response body; None where it is kept under ``raw/``."""
    wire: Wire | None = None
    """How the answer arrived; None where it is not on record. Its headers leave out a date that is ``server_date``."""
    status: int | None = None
    elapsed_ms: int | None = None
    server_date: str | None = None
    answered_at: str | None = None
    error: str | None = None
    """Why the batch failed; None when it was answered or nothing more was logged."""
    loss: Loss | None = None
    """Kind of that failure; None when it was answered or not said."""
    failed_attempts: tuple[FailedAttempt, ...] = ()
    retried_at: tuple[str, ...] = ()
    """When the batch was asked again after a stop, because its answer was not on record."""

    @property
    def retryable(self) -> bool:
        """True when no complete answer is on record and another asking chooses nothing."""
        lost = self.error is None or self.loss is Loss.NO_ANSWER
        return self.answers is None and lost and len(self.retried_at) < MAX_RETRIES


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumption:
    """One continuation of an audit that had stopped."""

    at: str
    stop: Stop
    tool_version: str
    suspect: Mapping[str, JsonValue]
    """The suspect as it described itself when the audit went on."""
    torn_bytes: int
    """Length of a last line that had been cut short; its bytes are kept under ``raw/``."""
    torn_sha256: str
    """Digest of those bytes; empty without any."""
    n_lines_before: int
    """Lines that were on record before."""
    head_before: str
    """Hash of the last of them."""
    n_answered_before: int
    """Batches whose answer was on record before."""
    n_batches_before: int
    n_retried: int = 0
    """Batches that were asked again after this stop."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Transcript:
    """A transcript whose chain, pairing and counts were verified."""

    preamble: Mapping[str, JsonValue]
    batches: tuple[BatchRecord, ...]
    """In the order of their requests."""
    closed_reason: str | None
    """None: the recording ended without a closing line, as after a crash."""
    n_lines: int
    head: str
    """Hash of the last line, hex; stands for all lines."""
    opened_at: str
    closed_at: str
    """Time of the last line."""
    resumptions: tuple[Resumption, ...] = ()
    """Every continuation after a stop, in order."""
    lost: tuple[int, ...] = ()
    """Batches whose answer is not on record and that a resumed audit asks again, ascending."""
    wires: tuple[Wire, ...] = ()
    """Every way in which answers arrived, in the order of first use; headers are those of the first answer."""
    most_in_flight: int = 0
    """Most batches that were asked and not ended at one time."""


class Counts(NamedTuple):
    """What happened so far; the closing line repeats it."""

    batches: int = 0
    questions: int = 0
    responses: int = 0
    answers: int = 0
    failed_attempts: int = 0
    failed_batches: int = 0
    resumptions: int = 0
    retries: int = 0
    wires: int = 0

    def plus(self, other: "Counts") -> "Counts":
        """Return the sum, field by field."""
        return Counts(*map(add, self, other))

    def as_object(self) -> dict[str, JsonValue]:
        """Return the counts as they are written; the last three are left out where they are 0."""
        found: dict[str, JsonValue] = self._asdict()
        for name in ("resumptions", "retries", "wires"):
            if not found[name]:
                del found[name]
        return found
