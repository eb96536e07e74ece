"""The transcript: every question before it is sent, every answer after it came, in one hash-chained file.

Lines, by ``entry``:

==================  =================================================================================
``open``            schema and preamble: what was fixed before the first question
``request``         batch number, positions asked, digest of their inputs; on disk before anything is sent
``response``        status, latency, digest of the raw body, the server's date, one answer per position
``attempt-failed``  an attempt that was followed by another
``batch-failed``    the batch stays without an answer
``close``           why the asking ended, with counts of everything above
==================  =================================================================================

A batch with a request but neither a response nor a failure was issued and counts as unanswered.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path

from auditor.canonical import Fields, JsonValue, decimal_string
from auditor.errors import MalformedError, TranscriptError
from auditor.evidence.chain import Link, link_hash, make_line, read_chain
from auditor.evidence.times import utc_text
from auditor.records import Answer

DOMAIN = b"auditor/1 transcript line\x00"
SCHEMA = "mlaudit.transcript/1"
WHAT = "transcript.jsonl"
MAX_BATCH = 1_000_000
MAX_LABEL = 2**31 - 1
MAX_SCORES = 1_000_000
MAX_TEXT = 500


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
    """SHA-256 of the raw response body, kept under ``raw/``; None without a response."""
    status: int | None = None
    elapsed_ms: int | None = None
    server_date: str | None = None
    answered_at: str | None = None
    error: str | None = None
    """Why the batch failed; None when it was answered or nothing more was logged."""
    failed_attempts: tuple[tuple[str, int], ...] = ()
    """(error, milliseconds waited before the next attempt)."""


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


class TranscriptWriter:
    """Appends to a new transcript; every line is on disk before the call returns.

    The clock is asked once per line. Should it step back, the line repeats the time before it, because a transcript
    whose times run backwards could not be read again.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime]) -> None:
        # Unbuffered, so that the file's size tells after an interruption whether the line at hand was written.
        self._file = path.open("xb", buffering=0)
        self._clock = clock
        self._state = _State(seq=0, head=link_hash(DOMAIN, b""), latest="", size=0, counts=_Counts())
        self._next: _State | None = None

    def opened(self, preamble: Mapping[str, JsonValue]) -> None:
        """Write line 0: everything that is fixed before the first question."""
        self._append("open", {"schema": SCHEMA, "preamble": dict(preamble)}, _Counts())

    def request(self, batch: int, positions: tuple[int, ...], body_sha256: str) -> None:
        """Record a batch before it is sent; ``body_sha256`` is the digest of its raw inputs."""
        content: dict[str, JsonValue] = {"batch": batch, "positions": list(positions), "body_sha256": body_sha256}
        self._append("request", content, _Counts(batches=1, questions=len(positions)))

    def response(
        self,
        batch: int,
        *,
        status: int,
        elapsed_ms: int,
        body_sha256: str,
        server_date: str,
        answers: Sequence[Answer],
    ) -> None:
        """Record what came back; ``body_sha256`` is the digest of the raw body."""
        content: dict[str, JsonValue] = {
            "batch": batch,
            "status": status,
            "elapsed_ms": elapsed_ms,
            "body_sha256": body_sha256,
            "server_date": _plain_text(server_date),
            "answers": [_answer_object(answer) for answer in answers],
        }
        self._append("response", content, _Counts(responses=1, answers=len(answers)))

    def attempt_failed(self, batch: int, error: str, waited_ms: int) -> None:
        """Record a failed attempt that was followed by another."""
        content: dict[str, JsonValue] = {"batch": batch, "error": _told(error), "waited_ms": waited_ms}
        self._append("attempt-failed", content, _Counts(failed_attempts=1))

    def batch_failed(self, batch: int, error: str) -> None:
        """Record that a batch stays without an answer."""
        self._append("batch-failed", {"batch": batch, "error": _told(error)}, _Counts(failed_batches=1))

    def closed(self, reason: str) -> str:
        """Write the closing line with its counts, close the file, and return the head."""
        self._settle()
        self._append("close", {"reason": _told(reason), "counts": self._state.counts.as_object()}, _Counts())
        self._file.close()
        return self._state.head

    def abandon(self) -> None:
        """Close the file as it stands, without a closing line; does nothing after :meth:`closed`."""
        self._file.close()

    def _append(self, entry: str, content: Mapping[str, JsonValue], counts: "_Counts") -> None:
        self._settle()
        state = self._state
        at = max(utc_text(self._clock()), state.latest)
        line = make_line(seq=state.seq, prev=state.head, at=at, content={"entry": entry, **content})
        self._next = _State(
            seq=state.seq + 1,
            head=link_hash(DOMAIN, line),
            latest=at,
            size=state.size + len(line) + 1,
            counts=state.counts.plus(counts),
        )
        self._file.write(line + b"\n")
        os.fsync(self._file.fileno())
        self._settle()

    def _settle(self) -> None:
        """Take note of the line at hand if it is on disk; Ctrl-C may strike between writing and noting."""
        if self._next is not None and os.fstat(self._file.fileno()).st_size == self._next.size:
            self._state = self._next


def read_transcript(data: bytes) -> Transcript:
    """Read and verify a transcript: chain, numbering, times, pairing of requests and responses, closing counts.

    Raises:
        TranscriptError: the chain is broken, or lines contradict one another.
        MalformedError: a line is not canonical, or a field is missing, unknown or out of range.
    """
    reader = _Reader()
    head = read_chain(data, domain=DOMAIN, what=WHAT, each=reader.take)
    return reader.transcript(head)


def recoverable_prefix(data: bytes) -> bytes:
    """Return the complete lines of a transcript whose writing was cut short, such as by a power failure."""
    return data[: data.rfind(b"\n") + 1]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Counts:
    """What happened so far; the closing line repeats it."""

    batches: int = 0
    questions: int = 0
    responses: int = 0
    answers: int = 0
    failed_attempts: int = 0
    failed_batches: int = 0

    def plus(self, other: "_Counts") -> "_Counts":
        return _Counts(**{each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(_Counts)})

    def as_object(self) -> dict[str, JsonValue]:
        return {each.name: int(getattr(self, each.name)) for each in fields(_Counts)}


@dataclass(frozen=True, slots=True, kw_only=True)
class _State:
    """Where a writer stands after a line."""

    seq: int
    head: str
    latest: str
    size: int
    counts: _Counts


class _Reader:
    """Takes verified lines in order and only moves forward."""

    def __init__(self) -> None:
        self._preamble: Mapping[str, JsonValue] | None = None
        self._batches: list[BatchRecord] = []
        self._asked: set[int] = set()
        self._counts = _Counts()
        self._closed_reason: str | None = None
        self._n_lines = 0
        self._opened_at = ""
        self._latest = ""

    def take(self, link: Link) -> None:
        if self._closed_reason is not None:
            raise TranscriptError(f"{WHAT} line {link.seq}: follows the closing line")
        entry = link.fields.text("entry")
        if (entry == "open") != (link.seq == 0):
            raise TranscriptError(f"{WHAT} line {link.seq}: exactly the first line opens a transcript")
        match entry:
            case "open":
                self._open(link)
            case "request":
                self._request(link)
            case "response":
                self._response(link)
            case "attempt-failed":
                self._attempt_failed(link)
            case "batch-failed":
                self._batch_failed(link)
            case "close":
                self._close(link)
            case _:
                raise MalformedError(f"{WHAT} line {link.seq}: unknown entry")
        link.fields.finish()
        self._n_lines, self._latest = link.seq + 1, link.at

    def transcript(self, head: str) -> Transcript:
        if self._preamble is None:
            raise TranscriptError(f"{WHAT}: without an opening line")
        return Transcript(
            preamble=self._preamble,
            batches=tuple(self._batches),
            closed_reason=self._closed_reason,
            n_lines=self._n_lines,
            head=head,
            opened_at=self._opened_at,
            closed_at=self._latest,
        )

    def _open(self, link: Link) -> None:
        if link.fields.text("schema") != SCHEMA:
            raise MalformedError(f"{WHAT}: unknown schema")
        preamble = link.fields.raw("preamble")
        if not isinstance(preamble, Mapping):
            raise MalformedError(f"{WHAT}: the preamble must be an object")
        self._preamble, self._opened_at = preamble, link.at

    def _request(self, link: Link) -> None:
        positions = _positions(link)
        if link.fields.integer("batch") != len(self._batches):
            raise TranscriptError(f"{WHAT} line {link.seq}: batches must be numbered in order")
        if not self._asked.isdisjoint(positions) or len(set(positions)) != len(positions):
            raise TranscriptError(f"{WHAT} line {link.seq}: asks a position twice")
        self._asked.update(positions)
        body_sha256 = link.fields.hex("body_sha256", n_bytes=32)
        self._batches.append(
            BatchRecord(batch=len(self._batches), positions=positions, body_sha256=body_sha256, asked_at=link.at)
        )
        self._count(_Counts(batches=1, questions=len(positions)))

    def _response(self, link: Link) -> None:
        batch = self._pending(link)
        items = link.fields.items("answers", max_items=MAX_BATCH)
        if len(items) != len(batch.positions):
            raise TranscriptError(f"{WHAT} line {link.seq}: the number of answers is not that of the questions")
        self._batches[batch.batch] = replace(
            batch,
            answers=tuple(_answer(item, what=f"{WHAT} line {link.seq}") for item in items),
            response_sha256=link.fields.hex("body_sha256", n_bytes=32),
            status=link.fields.integer("status", high=999),
            elapsed_ms=link.fields.integer("elapsed_ms"),
            server_date=link.fields.text("server_date", max_length=MAX_TEXT),
            answered_at=link.at,
        )
        self._count(_Counts(responses=1, answers=len(items)))

    def _attempt_failed(self, link: Link) -> None:
        batch = self._pending(link)
        attempt = (_reason(link, "error"), link.fields.integer("waited_ms"))
        self._batches[batch.batch] = replace(batch, failed_attempts=(*batch.failed_attempts, attempt))
        self._count(_Counts(failed_attempts=1))

    def _batch_failed(self, link: Link) -> None:
        batch = self._pending(link)
        self._batches[batch.batch] = replace(batch, error=_reason(link, "error"))
        self._count(_Counts(failed_batches=1))

    def _count(self, counts: _Counts) -> None:
        self._counts = self._counts.plus(counts)

    def _close(self, link: Link) -> None:
        self._closed_reason = _reason(link, "reason")
        counts = link.fields.raw("counts")
        if counts != self._counts.as_object():
            raise TranscriptError(f"{WHAT}: the closing counts differ from the lines")

    def _pending(self, link: Link) -> BatchRecord:
        number = link.fields.integer("batch")
        if number >= len(self._batches):
            raise TranscriptError(f"{WHAT} line {link.seq}: belongs to no request")
        batch = self._batches[number]
        if batch.answers is not None or batch.error is not None:
            raise TranscriptError(f"{WHAT} line {link.seq}: belongs to a batch that has ended")
        return batch


def _positions(link: Link) -> tuple[int, ...]:
    items = link.fields.items("positions", max_items=MAX_BATCH)
    positions = tuple(
        item for item in items if isinstance(item, int) and not isinstance(item, bool) and 0 <= item < 2**53
    )
    if not positions or len(positions) != len(items):
        raise MalformedError(f"{WHAT} line {link.seq}: positions must be numbers from 0, at least one")
    return positions


def _reason(link: Link, name: str) -> str:
    text = link.fields.text(name, max_length=MAX_TEXT)
    if not text:
        raise MalformedError(f"{WHAT} line {link.seq}: field {name!r} must say something")
    return text


def _answer_object(answer: Answer) -> dict[str, JsonValue]:
    if answer.scores is None:
        return {"label": answer.label}
    return {"label": answer.label, "scores": [decimal_string(score) for score in answer.scores]}


def _answer(item: JsonValue, *, what: str) -> Answer:
    source = Fields(item, what=what)
    label = source.integer("label", high=MAX_LABEL)
    scores = None
    if isinstance(item, Mapping) and "scores" in item:
        texts = source.texts("scores", max_items=MAX_SCORES)
        scores = tuple(_score(text, what=what) for text in texts)
    source.finish()
    return Answer(label=label, scores=scores)


def _score(text: str, *, what: str) -> float:
    try:
        value = float(text) if len(text) <= 32 else float("nan")
    except ValueError as error:
        raise MalformedError(f"{what}: a score must be a decimal string") from error
    # repr of a float that is not finite never reads like a decimal; its canonical spelling is demanded as well.
    if repr(value) != text or text in ("nan", "inf", "-inf"):
        raise MalformedError(f"{what}: a score must be a finite decimal string")
    return value


def _plain_text(text: str) -> str:
    """Cut outside text and replace what UTF-8 cannot hold; an unreadable header must not stop the record."""
    return text.encode("utf-8", "replace").decode("utf-8")[:MAX_TEXT]


def _told(text: str) -> str:
    """Return a reason that is never empty."""
    return _plain_text(text) or "unspecified"
