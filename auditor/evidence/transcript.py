"""The transcript: every question before it is sent, every answer after it came, in one hash-chained file.

Lines, by ``entry``:

==================  =================================================================================
``open``            schema and preamble: what was fixed before the first question
``request``         batch number, positions asked, digest of their inputs; on disk before anything is sent
``wire``            a way in which answers arrive: network address, certificates, redirects, headers
``response``        status, latency, raw body or its digest, the server's date, one answer per position, and the
                    ``wire`` it arrived by with what differs from it
``attempt-failed``  one attempt without a complete answer: why, its status and ``wire`` if any, the wait after it
``batch-failed``    the batch stays without an answer: why, the kind of loss, the digest of an unusable body
``close``           why the asking ended, with counts of everything above
``resumed``         the audit goes on after a stop: how it had stopped, suspect, tool, bytes of a torn last line
``retry``           a batch whose answer is not on record is asked again, before anything new is asked
==================  =================================================================================

Requests stand in the order in which they were sent, responses in the order in which they arrived. Where several
requests are on their way at a time (docs/adr/0015) the two orders differ.

A batch with a request but neither a response nor a failure was issued and counts as unanswered. What may be asked
again after a stop, and why, is said in docs/adr/0012.
"""

import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from auditor.canonical import JsonValue, decimal_string, decimal_strings
from auditor.errors import StorageError, Wire
from auditor.evidence.chain import link_hash, make_line
from auditor.evidence.times import utc_text
from auditor.evidence.transcript_reader import read_transcript, read_with_counts
from auditor.evidence.transcript_records import (
    DOMAIN,
    MAX_TEXT,
    SCHEMA,
    BatchRecord,
    Counts,
    FailedAttempt,
    Loss,
    Resumption,
    Stop,
    Transcript,
)
from auditor.evidence.wires import WireLog
from auditor.records import Answer

__all__ = [
    "DOMAIN",
    "SCHEMA",
    "BatchRecord",
    "FailedAttempt",
    "Loss",
    "Resumption",
    "Stop",
    "Transcript",
    "TranscriptWriter",
    "read_transcript",
    "recoverable_prefix",
]


class TranscriptWriter:
    """Appends to a transcript; every line is on disk before the call returns.

    The clock is asked once per line. Should it step back, the line repeats the time before it, because a transcript
    whose times run backwards could not be read again.

    Raises:
        FileExistsError: ``path`` exists.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        # Unbuffered, so that the file's size tells after an interruption whether the lines at hand were written.
        self._file = _append_only(path, os.O_CREAT | os.O_EXCL)
        self._clock = clock
        self._state = _State(seq=0, head=link_hash(DOMAIN, b""), latest="", size=0, counts=Counts())
        self._next: tuple[_State, ...] = ()
        self._held: list[_Line] | None = None
        self._wires = WireLog()

    @classmethod
    def reopen(cls, path: Path, clock: Callable[[], datetime]) -> "TranscriptWriter":
        """Return a writer that goes on after the last line of an existing transcript.

        Raises:
            EvidenceError: what is on record does not verify, or its last line is cut.
        """
        data = path.read_bytes()
        transcript, counts = read_with_counts(data)
        writer = cls.__new__(cls)
        writer._file = _append_only(path, 0)
        writer._clock = clock
        writer._state = _State(
            seq=transcript.n_lines, head=transcript.head, latest=transcript.closed_at, size=len(data), counts=counts
        )
        writer._next = ()
        writer._held = None
        writer._wires = WireLog(transcript.wires)
        return writer

    @contextmanager
    def together(self) -> Iterator[None]:
        """Bring the lines of a block to disk in one write when it ends, however it ends."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                self._append(*lines)

    def opened(self, preamble: Mapping[str, JsonValue]) -> None:
        """Write line 0: everything that is fixed before the first question."""
        self._append(_Line("open", {"schema": SCHEMA, "preamble": dict(preamble)}, Counts()))

    def request(self, batch: int, positions: tuple[int, ...], body_sha256: str) -> None:
        """Record a batch before it is sent; ``body_sha256`` is the digest of its raw inputs."""
        content: dict[str, JsonValue] = {"batch": batch, "positions": list(positions), "body_sha256": body_sha256}
        self._append(_Line("request", content, Counts(batches=1, questions=len(positions))))

    def response(
        self,
        batch: int,
        *,
        status: int,
        elapsed_ms: int,
        server_date: str,
        answers: Sequence[Answer],
        attempts: Sequence[FailedAttempt] = (),
        body_sha256: str | None = None,
        body: str | None = None,
        wire: Wire | None = None,
    ) -> None:
        """Record what came back, and in the same write the failed attempts before it.

        Args:
            batch: its number.
            status: of the answer.
            elapsed_ms: latency of the attempt that brought it.
            server_date: its Date header, or empty.
            answers: one per position.
            attempts: the attempts before it that brought no complete answer.
            body_sha256: digest of the raw body, which is kept under ``raw/``; None where ``body`` is given.
            body: the raw body itself, kept in the line.
            wire: how the answer arrived; None where nothing is known.
        """
        if (body is None) == (body_sha256 is None):
            raise ValueError("a response has a body or the digest of one")
        content: dict[str, JsonValue] = {
            "batch": batch,
            "status": status,
            "elapsed_ms": elapsed_ms,
            "server_date": _plain_text(server_date),
            "answers": [_answer_object(answer) for answer in answers],
        }
        content |= {"body_sha256": body_sha256} if body is None else {"body": body}
        first = [line for attempt in attempts for line in self._attempt_lines(batch, attempt)]
        if wire is not None:
            first += self._refer(content, wire, server_date=_plain_text(server_date))
        self._append(*first, _Line("response", content, Counts(responses=1, answers=len(answers))))

    def attempt_failed(self, batch: int, error: str, waited_ms: int, *, status: int | None = None) -> None:
        """Record an attempt that brought no complete answer; ``waited_ms`` is the wait before the next one."""
        self._append(*self._attempt_lines(batch, FailedAttempt(error=error, waited_ms=waited_ms, status=status)))

    def batch_failed(
        self,
        batch: int,
        error: str,
        *,
        loss: Loss | None = None,
        body_sha256: str | None = None,
        attempts: Sequence[FailedAttempt] = (),
        wire: Wire | None = None,
    ) -> None:
        """Record that a batch stays without an answer, and in the same write the attempts to get one.

        Args:
            batch: its number.
            error: why, in one line.
            loss: kind of loss; None where it is not known, which forbids asking again.
            body_sha256: digest of the raw body of an unusable answer.
            attempts: the attempts that brought no complete answer.
            wire: how an answer that is none arrived; None when there was none.
        """
        content: dict[str, JsonValue] = {"batch": batch, "error": _told(error)}
        if loss is not None:
            content["loss"] = loss.value
        if body_sha256 is not None:
            content["body_sha256"] = body_sha256
        first = [line for attempt in attempts for line in self._attempt_lines(batch, attempt)]
        if wire is not None:
            first += self._refer(content, wire)
        self._append(*first, _Line("batch-failed", content, Counts(failed_batches=1)))

    def resumed(
        self,
        stop: Stop,
        *,
        suspect: Mapping[str, JsonValue],
        tool_version: str,
        torn_bytes: int = 0,
        torn_sha256: str = "",
    ) -> None:
        """Record that the audit goes on after it had stopped; ``torn_…`` describe a last line that was cut short."""
        content: dict[str, JsonValue] = {
            "stop": stop.value,
            "suspect": dict(suspect),
            "tool_version": tool_version,
            "torn_bytes": torn_bytes,
            "torn_sha256": torn_sha256,
        }
        self._append(_Line("resumed", content, Counts(resumptions=1)))

    def retry(self, batch: int, body_sha256: str) -> None:
        """Record, before it is sent, that a batch whose answer is not on record is asked again with the same inputs."""
        self._append(_Line("retry", {"batch": batch, "body_sha256": body_sha256}, Counts(retries=1)))

    def closed(self, reason: str) -> str:
        """Write the closing line with its counts, close the file, and return the head."""
        self._settle()
        self._append(_Line("close", {"reason": _told(reason), "counts": self._state.counts.as_object()}, Counts()))
        self._file.close()
        return self._state.head

    def abandon(self) -> None:
        """Close the file as it stands, without a closing line; does nothing after :meth:`closed`."""
        self._file.close()

    def _attempt_lines(self, batch: int, attempt: FailedAttempt) -> tuple["_Line", ...]:
        content: dict[str, JsonValue] = {"batch": batch, "error": _told(attempt.error), "waited_ms": attempt.waited_ms}
        if attempt.status is not None:
            content["status"] = attempt.status
        first = () if attempt.wire is None else self._refer(content, attempt.wire)
        return (*first, _Line("attempt-failed", content, Counts(failed_attempts=1)))

    def _refer(self, content: dict[str, JsonValue], wire: Wire, *, server_date: str = "") -> tuple["_Line", ...]:
        """Add to a line how its answer arrived, and return the line that has to come before it, if any."""
        noted = self._wires.note(wire, server_date=server_date)
        content |= noted.fields
        return () if noted.line is None else (_Line("wire", noted.line, Counts(wires=1)),)

    def _append(self, *lines: "_Line") -> None:
        if self._held is not None:
            self._held += lines
            return
        self._settle()
        data, states = b"", [self._state]
        for line in lines:
            last = states[-1]
            at = max(utc_text(self._clock()), last.latest)
            made = make_line(seq=last.seq, prev=last.head, at=at, content={"entry": line.entry, **line.content})
            data += made + b"\n"
            states.append(
                _State(
                    seq=last.seq + 1,
                    head=link_hash(DOMAIN, made),
                    latest=at,
                    size=last.size + len(made) + 1,
                    counts=last.counts.plus(line.counts),
                )
            )
        self._next = tuple(states[1:])
        try:
            self._write(data)
        except OSError:
            self._cut()
            raise
        self._state, self._next = states[-1], ()

    def _write(self, data: bytes) -> None:
        left = memoryview(data)
        while left:
            # A disk that fills up takes part of a line before it refuses the rest.
            left = left[self._file.write(left) or 0 :]
        os.fsync(self._file.fileno())
        if not os.fstat(self._file.fileno()).st_nlink:
            raise StorageError("the transcript is gone: it was removed while it was written")

    def _cut(self) -> None:
        """Take half a line back after a failed write, which needs no space; whole lines stay."""
        # Where that fails too, the torn line stays; whoever reads on resumption sets it aside.
        with suppress(OSError):
            self._settle()

    def _settle(self) -> None:
        """Take note of the lines at hand that are on disk, and take half a line back.

        Ctrl-C may strike between writing and noting, and a disk may take part of what it was given.
        """
        if self._next:
            size = os.fstat(self._file.fileno()).st_size
            self._state = next((state for state in reversed(self._next) if state.size <= size), self._state)
            if size > self._state.size:
                os.truncate(self._file.fileno(), self._state.size)
            self._next = ()


def recoverable_prefix(data: bytes) -> bytes:
    """Return the complete lines of a transcript whose writing was cut short, such as by a power failure."""
    return data[: data.rfind(b"\n") + 1]


class _Line(NamedTuple):
    """One line to be written."""

    entry: str
    content: Mapping[str, JsonValue]
    counts: Counts


class _State(NamedTuple):
    """Where a writer stands after a line."""

    seq: int
    head: str
    latest: str
    size: int
    counts: Counts


def _append_only(path: Path, flags: int) -> io.FileIO:
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | getattr(os, "O_CLOEXEC", 0) | flags, 0o666)
    return io.FileIO(descriptor, "ab")


def _answer_object(answer: Answer) -> dict[str, JsonValue]:
    if answer.scores is not None:
        return {"label": answer.label, "scores": decimal_strings(answer.scores)}
    if answer.top is not None:
        return {"label": answer.label, "top": [[label, decimal_string(score)] for label, score in answer.top]}
    return {"label": answer.label}


def _plain_text(text: str) -> str:
    """Cut outside text and replace what UTF-8 cannot hold; an unreadable header must not stop the record."""
    return text.encode("utf-8", "replace").decode("utf-8")[:MAX_TEXT]


def _told(text: str) -> str:
    """Return a reason that is never empty."""
    return _plain_text(text) or "unspecified"
