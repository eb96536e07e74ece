"""Reading a transcript: chain, numbering, times, pairing, retries and counts are verified line by line."""

from collections.abc import Mapping
from dataclasses import replace

from auditor.canonical import Fields, JsonValue, sha256_hex
from auditor.errors import MalformedError, TranscriptError, Wire
from auditor.evidence.chain import Link, read_chain
from auditor.evidence.transcript_records import (
    DOMAIN,
    MAX_BATCH,
    MAX_INLINE_BODY,
    MAX_LABEL,
    MAX_SCORES,
    MAX_TEXT,
    SCHEMA,
    WHAT,
    BatchRecord,
    Counts,
    FailedAttempt,
    Loss,
    Resumption,
    Stop,
    Transcript,
)
from auditor.evidence.wires import read_reference, read_wire
from auditor.records import Answer


def read_transcript(data: bytes) -> Transcript:
    """Read and verify a transcript: chain, numbering, times, pairing of requests and responses, closing counts.

    Raises:
        TranscriptError: the chain is broken, or lines contradict one another.
        MalformedError: a line is not canonical, or a field is missing, unknown or out of range.
    """
    return read_with_counts(data)[0]


def read_with_counts(data: bytes) -> tuple[Transcript, Counts]:
    """Read a transcript as :func:`read_transcript` does, and return the counts that its closing line must state."""
    reader = _Reader()
    head = read_chain(data, domain=DOMAIN, what=WHAT, each=reader.take)
    return reader.transcript(head), reader.counts


class _Reader:
    """Takes verified lines in order and only moves forward."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._preamble: Mapping[str, JsonValue] | None = None
        self._batches: list[BatchRecord] = []
        self._asked: set[int] = set()
        self._resumptions: list[Resumption] = []
        self._in_flight: set[int] = set()
        self._n_sent = 0
        self._sent_as: dict[int, int] = {}
        """How many questions were sent before each batch was, the last time."""
        self._last_answered = -1
        self._lost_at: dict[int, int] = {}
        """How many questions had been sent when a batch was lost."""
        self._wires: list[Wire] = []
        self._most_in_flight = 0
        self._may_retry: tuple[int, ...] = ()
        self._closed_reason: str | None = None
        self._n_lines = 0
        self._opened_at = ""
        self._latest = ""

    def take(self, link: Link) -> None:
        entry = link.fields.text("entry")
        if self._closed_reason is not None and entry != "resumed":
            raise TranscriptError(f"{WHAT} line {link.seq}: follows the closing line")
        if (entry == "open") != (link.seq == 0):
            raise TranscriptError(f"{WHAT} line {link.seq}: exactly the first line opens a transcript")
        match entry:
            case "open":
                self._open(link)
            case "request":
                self._request(link)
            case "wire":
                self._wire(link)
            case "response":
                self._response(link)
            case "attempt-failed":
                self._attempt_failed(link)
            case "batch-failed":
                self._batch_failed(link)
            case "resumed":
                self._resumed(link)
            case "retry":
                self._retry(link)
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
            resumptions=tuple(self._resumptions),
            lost=self._lost(),
            wires=tuple(self._wires),
            most_in_flight=self._most_in_flight,
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
        self._send(self._batches[-1].batch)
        # What was lost is asked again before anything new, or never.
        self._may_retry = ()
        self._count(Counts(batches=1, questions=len(positions)))

    def _wire(self, link: Link) -> None:
        where = f"{WHAT} line {link.seq}"
        self._wires.append(read_wire(link.fields, n_before=len(self._wires), where=where))
        self._count(Counts(wires=1))

    def _send(self, number: int) -> None:
        self._in_flight.add(number)
        self._sent_as[number] = self._n_sent
        self._n_sent += 1
        self._most_in_flight = max(self._most_in_flight, len(self._in_flight))

    def _response(self, link: Link) -> None:
        batch = self._pending(link)
        body = link.fields.text("body", max_length=MAX_INLINE_BODY) if link.fields.has("body") else None
        items = link.fields.items("answers", max_items=MAX_BATCH)
        if len(items) != len(batch.positions):
            raise TranscriptError(f"{WHAT} line {link.seq}: the number of answers is not that of the questions")
        self._batches[batch.batch] = replace(
            batch,
            answers=tuple(_answer(item, what=f"{WHAT} line {link.seq}") for item in items),
            response_sha256=link.fields.hex("body_sha256", n_bytes=32) if body is None else sha256_hex(body.encode()),
            body=body,
            wire=self._arrived(link),
            status=link.fields.integer("status", high=999),
            elapsed_ms=link.fields.integer("elapsed_ms"),
            server_date=link.fields.text("server_date", max_length=MAX_TEXT),
            answered_at=link.at,
        )
        self._in_flight.discard(batch.batch)
        self._last_answered = max(self._last_answered, self._sent_as[batch.batch])
        self._count(Counts(responses=1, answers=len(items)))

    def _attempt_failed(self, link: Link) -> None:
        batch = self._pending(link)
        attempt = FailedAttempt(
            error=_reason(link, "error"),
            waited_ms=link.fields.integer("waited_ms"),
            status=link.fields.integer("status", low=100, high=999) if link.fields.has("status") else None,
            wire=self._arrived(link),
        )
        self._batches[batch.batch] = replace(batch, failed_attempts=(*batch.failed_attempts, attempt))
        self._count(Counts(failed_attempts=1))

    def _batch_failed(self, link: Link) -> None:
        batch = self._pending(link)
        try:
            loss = Loss(link.fields.text("loss")) if link.fields.has("loss") else None
        except ValueError as error:
            raise MalformedError(f"{WHAT} line {link.seq}: unknown kind of loss") from error
        body = link.fields.hex("body_sha256", n_bytes=32) if link.fields.has("body_sha256") else None
        if body is not None and loss is not Loss.UNUSABLE:
            raise TranscriptError(f"{WHAT} line {link.seq}: only an unusable answer has a body")
        self._batches[batch.batch] = replace(
            batch, error=_reason(link, "error"), loss=loss, response_sha256=body, wire=self._arrived(link)
        )
        self._in_flight.discard(batch.batch)
        self._lost_at[batch.batch] = self._n_sent
        self._count(Counts(failed_batches=1))

    def _resumed(self, link: Link) -> None:
        try:
            stop = Stop(link.fields.text("stop"))
        except ValueError as error:
            raise MalformedError(f"{WHAT} line {link.seq}: unknown kind of stop") from error
        suspect = link.fields.raw("suspect")
        torn_bytes = link.fields.integer("torn_bytes")
        torn_sha256 = link.fields.hex("torn_sha256")
        if not isinstance(suspect, Mapping) or len(torn_sha256) != (64 if torn_bytes else 0):
            raise MalformedError(f"{WHAT} line {link.seq}: a suspect or a digest is not one")
        if (self._closed_reason or Stop.UNCLOSED.value) != stop.value or (torn_bytes and stop is not Stop.UNCLOSED):
            raise TranscriptError(f"{WHAT} line {link.seq}: resumes an audit that had not stopped like that")
        self._resumptions.append(
            Resumption(
                at=link.at,
                stop=stop,
                tool_version=link.fields.text("tool_version", max_length=MAX_TEXT),
                suspect=suspect,
                torn_bytes=torn_bytes,
                torn_sha256=torn_sha256,
                n_lines_before=link.seq,
                head_before=link.prev,
                n_answered_before=self.counts.responses,
                n_batches_before=len(self._batches),
            )
        )
        self._closed_reason = None
        self._may_retry = self._lost()
        self._in_flight.clear()
        self._count(Counts(resumptions=1))

    def _retry(self, link: Link) -> None:
        number = link.fields.integer("batch")
        body_sha256 = link.fields.hex("body_sha256", n_bytes=32)
        if number not in self._may_retry:
            raise TranscriptError(f"{WHAT} line {link.seq}: asks again what may not be asked again")
        batch = self._batches[number]
        if batch.body_sha256 != body_sha256:
            raise TranscriptError(f"{WHAT} line {link.seq}: asks something else than the first time")
        self._may_retry = tuple(other for other in self._may_retry if other > number)
        self._send(number)
        self._batches[number] = replace(batch, error=None, loss=None, retried_at=(*batch.retried_at, link.at))
        last = self._resumptions[-1]
        self._resumptions[-1] = replace(last, n_retried=last.n_retried + 1)
        self._count(Counts(retries=1))

    def _lost(self) -> tuple[int, ...]:
        """Return the batches that may be asked again if the record stops here, ascending.

        These are batches in flight, those that an earlier stop left and that were not asked again yet, and those that
        were lost last: nothing that was sent after their loss was on record has an answer.
        """
        open_ends = {*self._in_flight, *self._may_retry}
        open_ends.update(number for number, n_sent in self._lost_at.items() if self._last_answered < n_sent)
        return tuple(number for number in sorted(open_ends) if self._batches[number].retryable)

    def _arrived(self, link: Link) -> Wire | None:
        return read_reference(link.fields, self._wires, where=f"{WHAT} line {link.seq}")

    def _count(self, counts: Counts) -> None:
        self.counts = self.counts.plus(counts)

    def _close(self, link: Link) -> None:
        self._closed_reason = _reason(link, "reason")
        counts = link.fields.raw("counts")
        if counts != self.counts.as_object():
            raise TranscriptError(f"{WHAT}: the closing counts differ from the lines")

    def _pending(self, link: Link) -> BatchRecord:
        number = link.fields.integer("batch")
        if number >= len(self._batches):
            raise TranscriptError(f"{WHAT} line {link.seq}: belongs to no request")
        batch = self._batches[number]
        if number not in self._in_flight:
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


def _answer(item: JsonValue, *, what: str) -> Answer:
    source = Fields(item, what=what)
    label = source.integer("label", high=MAX_LABEL)
    scores = None
    if isinstance(item, Mapping) and "scores" in item:
        texts = source.texts("scores", max_items=MAX_SCORES)
        scores = tuple(_score(text, what=what) for text in texts)
    top = _top(source, what=what) if scores is None and source.has("top") else None
    source.finish()
    return Answer(label=label, scores=scores, top=top)


def _top(source: Fields, *, what: str) -> tuple[tuple[int, float], ...]:
    found: dict[int, float] = {}
    items = source.items("top", max_items=MAX_SCORES)
    for item in items:
        label, text = item if isinstance(item, list) and len(item) == 2 else (None, None)
        if not isinstance(label, int) or isinstance(label, bool) or not 0 <= label <= MAX_LABEL:
            raise MalformedError(f"{what}: a list of the best labels must hold labels with scores")
        found[label] = _score(text if isinstance(text, str) else "", what=what)
    if not items or len(found) != len(items):
        raise MalformedError(f"{what}: a list of the best labels must hold distinct labels, at least one")
    return tuple(found.items())


def _score(text: str, *, what: str) -> float:
    try:
        value = float(text) if len(text) <= 32 else float("nan")
    except ValueError as error:
        raise MalformedError(f"{what}: a score must be a decimal string") from error
    # repr of a float that is not finite never reads like a decimal; its canonical spelling is demanded as well.
    if repr(value) != text or text in ("nan", "inf", "-inf"):
        raise MalformedError(f"{what}: a score must be a finite decimal string")
    return value
