"""The conversation with a suspect: batches out, answers on disk, stop by the sealed rule, go on after a stop.

Where the suspect permits several exchanges at a time, batches are sent in the drawn order and answers are written down
as they arrive, each before anything else is sent. The sealed rule only ever looks at the longest beginning of the drawn
order to which all is known, so that its stopping does not depend on which answer came first (docs/adr/0015).
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from auditor.analysis import (
    Decided,
    Null,
    Replies,
    basis_of,
    code_is_open,
    gather_facts,
    label_code,
    sort_replies,
)
from auditor.canonical import sha256_hex
from auditor.errors import (
    SuspectError,
    SuspectRefusedError,
)
from auditor.evidence.bundle import store_raw
from auditor.evidence.calibration import LabelSpace
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.recompute import issued_replies
from auditor.evidence.schedule import draw_schedule, opening_length
from auditor.evidence.storage import need_space
from auditor.evidence.transcript import Loss, Transcript, TranscriptWriter
from auditor.evidence.transcript_records import MAX_INLINE_BODY
from auditor.interruption import Shield
from auditor.issued import Issued
from auditor.lanes import Arrival, Lanes, loss_of
from auditor.records import Inputs, Probe, Progress, Reason, Reply, SampleKind
from auditor.suspects.base import Exchange, Suspect
from auditor.verdict import decide
from auditor.watching import Watch as Watch

logger = logging.getLogger(__name__)

STAGE_2_BATCH = 16
"""Keys per exchange after stage 1: small, because every key beyond the decision is paid for nothing."""
MAX_FAILED_BATCHES = 5
"""Batches in a row without an answer that mean withdrawal; those that were on their way together count once, and
those in which nothing ordinary was refused not at all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sealed plan with the request's tightenings."""

    alpha: float
    max_keys: int
    deviations: tuple[str, ...]
    judge: bytes | None = None
    """Seed of the order that the judge's nonce draws; None for the sealed order."""
    panel_rate: float = 0.0
    """Bound from a panel that a measured null rate is not set below."""
    family: int = 1
    """Questions that the level is divided by."""

    @property
    def charged_alpha(self) -> float:
        """Level of the claim after the charge for the family."""
        return self.alpha / self.family


_Batch = tuple[int | None, tuple[Probe, ...]]
"""Number of a batch that is asked again, None for a new one; and its probes."""


class Asking:
    """One conversation.

    Args:
        opened: the sealed key set.
        suspect: what is asked.
        writer: the transcript, which is open.
        folder: the bundle that keeps raw answers.
        plan: the plan in force.
        progress: where to report how far it is.
        earlier: what is on record already, when the audit goes on after a stop. Batches with an answer are never
            asked again; those without one that may be are asked first, with the same inputs (docs/adr/0012).
    """

    def __init__(
        self,
        *,
        opened: OpenedKeySet,
        suspect: Suspect,
        writer: TranscriptWriter,
        folder: Path,
        plan: Plan,
        progress: Progress,
        earlier: Transcript | None = None,
    ) -> None:
        self._opened = opened
        self._suspect = suspect
        self._writer = writer
        self._folder = folder
        self._plan = plan
        self._progress = progress
        self._planned = draw_schedule(opened.seal.protocol, judge=plan.judge)
        self._n_opening = opening_length(opened.seal.protocol)
        self._samples = {sample.index: sample for sample in opened.keys.samples}
        self._basis = basis_of(opened.seal.protocol, opened.seal.spec, panel_rate=plan.panel_rate)
        self._shield = Shield()
        self._claimed: frozenset[int] | None = None
        self._failed_in_a_row = 0
        self._withdrawn_in_a_row = 0
        """Those of them that show withdrawal from everything, not only from some questions."""
        self._counted_to = 0
        """Questions sent when a loss last counted: one that was on its way then does not count again."""
        self._n_sent = 0
        self._sent_as: dict[int, int] = {}
        self._in_flight: dict[int, tuple[Probe, ...]] = {}
        self._n_batches = 0
        self._lost: tuple[_Batch, ...] = ()
        self.replies = Issued(self._planned, folder=folder)
        self.last_error: SuspectError | None = None
        self._code_open: bool | None = None
        """Whether the first look at the label code calls for all keys; None before that look."""
        if earlier is not None:
            self._n_batches = len(earlier.batches)
            self._take(issued_replies(earlier, self._planned, max_keys=plan.max_keys))
            self._lost = tuple(
                (number, tuple(self._planned[position] for position in earlier.batches[number].positions))
                for number in earlier.lost
            )

    @property
    def anything_answered(self) -> bool:
        """True once the suspect gave one usable answer."""
        return self.replies.any_answer

    @property
    def _cut_off(self) -> bool:
        return self._failed_in_a_row > 0 and self.last_error is not None and loss_of(self.last_error) is Loss.NO_ANSWER

    def _take(self, replies: Sequence[Reply]) -> None:
        self.replies.issue(len(replies))
        for reply in replies:
            if reply.answer is not None:
                self.replies.answered(reply.probe.position, reply.answer)

    def set_label_space(self, space: LabelSpace) -> bool:
        """Take what a calibration found, and return whether it leaves too much in doubt to ask any key."""
        self._claimed = space.claimed
        return space.unclear

    def run(self) -> str:
        """Ask in the drawn order and return why the asking ended.

        Raises:
            OSError: a question or an answer cannot be written down; nothing more was asked after that.
        """
        self._lanes = Lanes(self._suspect)
        with self._shield.raised():
            try:
                return self._ask_in_stages()
            except KeyboardInterrupt:
                with self._shield, self._writer.together():
                    for arrival in self._lanes.last():
                        self._record(arrival)
                return "interrupted"
            finally:
                self._lanes.close()
                self._progress.end()

    def _ask_in_stages(self) -> str:
        n_opening = self._n_opening
        permitted = n_opening + self._plan.max_keys - self._opened.seal.protocol.opening_keys
        self._progress.begin("asking keys, shams, controls and repeats", n_opening)
        self._progress.advance(min(len(self.replies), n_opening))
        lost = iter(self._lost)
        stayed = self._converse(lambda: next((b for b in lost if self._suspect.reserve(len(b[1]))), None))
        stayed = stayed and self._converse(lambda: self._next(n_opening, size=self._suspect.batch_size))
        if not stayed or not self.anything_answered or len(self.replies) < n_opening:
            return "failed"
        opening = sort_replies(self.replies[:n_opening])
        null = self._basis.measure_null(opening, self._samples, self._basis.levels(self._plan.charged_alpha))
        if self._invalid(opening, null):
            # Where the last batches got no answer at all, the line was cut and the audit may go on later.
            return "failed" if self._cut_off else "invalid"
        self._opening = opening
        self._watch = Watch(
            self._basis, self._samples, self._plan.charged_alpha, null=null, planned=self._planned[:permitted]
        )
        self._progress.begin("asking further keys", max(permitted - n_opening, 1))
        self._progress.advance(len(self.replies) - n_opening)
        size = min(STAGE_2_BATCH, self._suspect.batch_size)
        if not self._converse(lambda: self._next_key(permitted, size=size)):
            return "failed"
        return "decided" if self._watch.decided(self.replies, last=True) else "exhausted"

    def _settled(self) -> bool:
        """True when no further key can change the outcome: test over, and no label code stays suspicious."""
        known = self.replies.until(self._n_known)
        if not self._watch.decided(known):
            return False
        if self._code_open is None:
            seal = self._opened.seal
            first = label_code(self._opening, self._samples, seal.spec, seal.protocol)
            self._code_open = code_is_open(first, seal.protocol)
        return not (self._code_open and not self._watch.any_hit(known))

    @property
    def _n_known(self) -> int:
        """Length of the drawn order's beginning to which nothing is on its way; answers beyond it wait for a look."""
        return min((batch[0].position for batch in self._in_flight.values()), default=len(self.replies))

    def _next_key(self, end: int, *, size: int) -> _Batch | None:
        """Return the next batch of stage 2, None where nothing more is to be asked, or not yet."""
        # A batch that comes back late must not let the others run ahead: they might be paid for nothing.
        ahead = len(self.replies) - self._n_known
        if ahead >= size * self._suspect.concurrency or self._settled():
            return None
        return self._next(end, size=size)

    def _next(self, end: int, *, size: int) -> _Batch | None:
        """Return the next batch, None where ``end`` questions were issued or the budget permits no more."""
        start = len(self.replies)
        batch = self._planned[start : min(start + size, end)]
        return (None, batch) if batch and self._suspect.reserve(len(batch)) else None

    def _converse(self, next_batch: Callable[[], _Batch | None]) -> bool:
        """Keep the lanes full, answers and the requests after them one write; False when the suspect has withdrawn."""
        while True:
            sent: list[tuple[int, Inputs]] = []
            with self._shield:
                with self._writer.together():
                    for arrival in self._lanes.take():
                        self._record(arrival)
                    # After a loss one batch goes ahead, until one is answered again.
                    room = 1 - self._lanes.n_in_flight if self._failed_in_a_row else self._lanes.n_free
                    while len(sent) < room and not self._withdrawn() and (batch := next_batch()) is not None:
                        sent.append(self._announce(*batch))
                for number, inputs in sent:
                    self._lanes.send(number, inputs)
            if not self._lanes.n_in_flight:
                return not self._withdrawn()
            self._lanes.wait()

    def _withdrawn(self) -> bool:
        if self._withdrawn_in_a_row >= MAX_FAILED_BATCHES:
            return True
        # A suspect that never answered is down or speaks another language; one that *refuses* may be choosing
        # what to refuse, and only further questions can show that.
        refused = isinstance(self.last_error, SuspectRefusedError)
        return self._withdrawn_in_a_row > 0 and not self.anything_answered and not refused

    def _holds_ordinary(self, batch: Sequence[Probe]) -> bool:
        """Whether a lost batch shows that nothing is answered, and not only what the suspect may have picked out.

        Giving up before would spare it the controls, and with them the comparison that shows what it does. There are
        none after the opening stage.
        """
        ordinary = any(probe.kind is SampleKind.CONTROL for probe in batch)
        return ordinary or batch[0].position >= self._n_opening

    def _announce(self, again: int | None, batch: tuple[Probe, ...]) -> tuple[int, Inputs]:
        """Write down that a batch is asked, or asked ``again`` under its number; return number and inputs."""
        inputs: Inputs = np.ascontiguousarray(self._opened.keys.inputs[[probe.index for probe in batch]])
        inputs_sha256 = sha256_hex(inputs.tobytes())
        # An answer that cannot be kept is not asked for.
        need_space(self._folder)
        if again is None:
            number = self._n_batches
            self._n_batches += 1
            self._writer.request(number, tuple(p.position for p in batch), inputs_sha256)
            # Once the request line is on disk, these probes count as issued, answered or not.
            self.replies.issue(len(batch))
        else:
            number = again
            self._writer.retry(number, inputs_sha256)
        self._in_flight[number] = batch
        self._sent_as[number] = self._n_sent
        self._n_sent += 1
        return number, inputs

    def _record(self, arrival: Arrival) -> None:
        batch = self._in_flight.pop(arrival.number)
        if arrival.exchange is None:
            self._record_loss(arrival.number, batch, arrival.error or SuspectError("no answer"))
        else:
            self._record_answer(arrival.number, arrival.exchange)
            self._failed_in_a_row = self._withdrawn_in_a_row = 0
            for probe, answer in zip(batch, arrival.exchange.reply.answers, strict=True):
                self.replies.answered(probe.position, answer)
        del self._sent_as[arrival.number]
        self._progress.advance(len(batch))

    def _record_answer(self, number: int, exchange: Exchange) -> None:
        reply = exchange.reply
        body = _inline(reply.body)
        self._writer.response(
            number,
            status=reply.status,
            elapsed_ms=reply.elapsed_ms,
            # A body that is kept apart is on disk before the line that names it.
            body_sha256=store_raw(self._folder, reply.body) if body is None else None,
            body=body,
            server_date=reply.server_date,
            answers=reply.answers,
            attempts=exchange.failed_attempts,
            wire=reply.wire,
        )

    def _record_loss(self, number: int, batch: Sequence[Probe], error: SuspectError) -> None:
        loss = loss_of(error)
        unusable = error.body if loss is Loss.UNUSABLE else None
        self._writer.batch_failed(
            number,
            str(error),
            loss=loss,
            body_sha256=None if unusable is None else store_raw(self._folder, unusable),
            attempts=error.attempts,
            wire=error.wire,
        )
        if self._sent_as[number] >= self._counted_to:
            self._failed_in_a_row += 1
            self._withdrawn_in_a_row += not _spoke(error) or self._holds_ordinary(batch)
            self._counted_to = self._n_sent
        self.last_error = error
        logger.warning("batch %d stayed without an answer: %s", number, error)

    def _invalid(self, opening: Replies, null: Null) -> bool:
        """True when stage 1 already shows that no further key can help: failed controls, obstruction and the like."""
        protocol = self._opened.seal.protocol
        facts = gather_facts(
            opening,
            self._samples,
            protocol,
            null=null,
            # None of these reasons depends on what the test says.
            decided=Decided(rejected=False, futile=False, outcome=None),
            code=None,
            closed_reason="open",
            claimed=self._claimed,
        )
        return decide(facts, protocol) in (
            Reason.OBSTRUCTED,
            Reason.TOO_FEW_ANSWERS,
            Reason.CONTROLS_FAILED,
            Reason.ANSWERS_UNSTABLE,
            Reason.NULL_UNCALIBRATED,
        )


def _spoke(error: SuspectError) -> bool:
    """Return whether the suspect itself said that it will not answer, in whatever words or status."""
    last = error.attempts[-1].wire if error.attempts else None
    return loss_of(error) in (Loss.REFUSED, Loss.UNUSABLE) or error.wire is not None or last is not None


def _inline(body: bytes) -> str | None:
    """Return a body that may stand in its line: short text; None for any other."""
    if len(body) > MAX_INLINE_BODY:
        return None
    try:
        return body.decode("utf-8")
    except UnicodeDecodeError:
        return None
