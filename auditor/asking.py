"""The conversation with a suspect: batches out, answers on disk, stop by the sealed rule, go on after a stop."""

import logging
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import log10
from pathlib import Path

import numpy as np

from auditor.analysis import (
    Basis,
    Null,
    basis_of,
    code_is_open,
    count_hits,
    gather_facts,
    is_hit,
    label_code,
    sort_replies,
)
from auditor.canonical import sha256_hex
from auditor.errors import (
    Attempt,
    SuspectAnswerError,
    SuspectError,
    SuspectRefusedError,
    SuspectThrottledError,
    SuspectUnavailableError,
)
from auditor.evidence.bundle import store_raw
from auditor.evidence.calibration import LabelSpace
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.recompute import issued_replies
from auditor.evidence.schedule import draw_schedule, opening_length
from auditor.evidence.storage import need_space
from auditor.evidence.transcript import FailedAttempt, Loss, Transcript, TranscriptWriter
from auditor.records import Design, Inputs, NullBasis, Probe, Progress, Reason, Reply, Sample, SampleKind
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.sequential import crosses
from auditor.suspects.base import Exchange, Suspect
from auditor.verdict import decide

logger = logging.getLogger(__name__)

STAGE_2_BATCH = 16
"""Keys per exchange after stage 1: small, because every key beyond the decision is paid for nothing."""
MAX_FAILED_BATCHES = 5
"""Consecutive batches without an answer after which the suspect counts as withdrawn."""


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


class Watch:
    """The sealed rule while keys are answered: looks at each answer once, so that long audits stay cheap.

    Args:
        basis: the null basis of the sealed plan.
        samples: the sealed metadata by index.
        alpha: level of the claim.
    """

    def __init__(self, basis: Basis, samples: Mapping[int, Sample], alpha: float) -> None:
        self._basis = basis
        self._samples = samples
        self._levels = basis.levels(alpha)
        self._null: Null | None = None
        self._n_seen = 0
        self._n_keys = 0
        self._n_hits = 0
        self._decided = False

    def decided(self, replies: Sequence[Reply]) -> bool:
        """Return whether the replies so far reach a boundary.

        Args:
            replies: all replies in asked order, stage 1 complete; every call gets those of the call before, unchanged,
                and perhaps more.
        """
        basis, protocol = self._basis, self._basis.protocol
        if protocol.null_basis is not NullBasis.SHAMS:
            grouped = sort_replies(replies)
            null = basis.measure_null(grouped, self._samples, self._levels)
            found = basis.decide(grouped, self._samples, null, self._levels)
            return found.rejected or found.futile
        if self._null is None:
            # Shams are asked in stage 1 only, so that their bound stands from here on.
            self._null = basis.measure_null(sort_replies(replies), self._samples, self._levels)
        new = [r for r in replies[self._n_seen :] if r.probe.kind is SampleKind.KEY and not r.probe.repeat]
        hits = self._n_hits + np.cumsum([is_hit(reply, self._samples) for reply in new], dtype=np.int64)
        trials = self._n_keys + np.arange(1, len(new) + 1)
        self._n_seen, self._n_keys = len(replies), self._n_keys + len(new)
        self._n_hits = int(hits[-1]) if len(new) else self._n_hits
        if self._null.rate >= protocol.p_min:
            return False
        if protocol.design is Design.FIXED:
            if self._n_keys < protocol.n_keys:
                return False
            tail = binomial_tail_log10(hits=self._n_hits, trials=self._n_keys, rate=self._null.rate)
            return tail <= log10(self._levels.test)
        self._decided = self._decided or crosses(
            hits,
            trials,
            null_rate=self._null.rate,
            alpha=self._levels.test,
            p_min=protocol.p_min,
            futility=protocol.futility,
        )
        return self._decided


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
        self._samples = {sample.index: sample for sample in opened.keys.samples}
        self._basis = basis_of(opened.seal.protocol, opened.seal.spec, panel_rate=plan.panel_rate)
        self._watch = Watch(self._basis, self._samples, plan.charged_alpha)
        self._claimed: frozenset[int] | None = None
        self._failed_in_a_row = 0
        self._n_batches = 0
        self._lost: tuple[tuple[int, tuple[Probe, ...]], ...] = ()
        self.replies: list[Reply] = []
        self.last_error: SuspectError | None = None
        self._code_open: bool | None = None
        """Whether the first look at the label code calls for all keys; None before that look."""
        if earlier is not None:
            self._n_batches = len(earlier.batches)
            self.replies += issued_replies(earlier, self._planned, max_keys=plan.max_keys)
            self._lost = tuple(
                (number, tuple(self._planned[position] for position in earlier.batches[number].positions))
                for number in earlier.lost
            )

    @property
    def anything_answered(self) -> bool:
        """True once the suspect gave one usable answer."""
        return any(reply.answer is not None for reply in self.replies)

    @property
    def _cut_off(self) -> bool:
        return self._failed_in_a_row > 0 and self.last_error is not None and _loss(self.last_error) is Loss.NO_ANSWER

    def set_label_space(self, space: LabelSpace) -> bool:
        """Take what a calibration found, and return whether it leaves too much in doubt to ask any key."""
        self._claimed = space.claimed
        return space.unclear

    def run(self) -> str:
        """Ask in the drawn order and return why the asking ended.

        Raises:
            OSError: a question or an answer cannot be written down; nothing more was asked after that.
        """
        protocol = self._opened.seal.protocol
        n_opening = opening_length(protocol)
        permitted = n_opening + self._plan.max_keys - protocol.opening_keys
        try:
            self._progress.begin("asking keys, shams, controls and repeats", n_opening)
            self._progress.advance(min(len(self.replies), n_opening))
            stayed = self._ask_lost() and self._ask_all(
                self._planned[len(self.replies) : n_opening], batch_size=self._suspect.batch_size
            )
            if not stayed or not self.anything_answered:
                return "failed"
            if self._invalid(self.replies[:n_opening]):
                # Where the last batches got no answer at all, the line was cut and the audit may go on later.
                return "failed" if self._cut_off else "invalid"
            self._progress.begin("asking further keys", max(permitted - n_opening, 1))
            while not self._settled(n_opening) and len(self.replies) < permitted:
                position = len(self.replies)
                size = min(STAGE_2_BATCH, self._suspect.batch_size, permitted - position)
                if not self._ask_all(self._planned[position : position + size], batch_size=size):
                    return "failed"
            return "decided" if self._watch.decided(self.replies) else "exhausted"
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            self._progress.end()

    def _settled(self, n_opening: int) -> bool:
        """True when no further key can change the outcome: the test has ended, and no label code stays suspicious."""
        if not self._watch.decided(self.replies):
            return False
        if self._code_open is None:
            opened = self._opened.seal
            first = label_code(sort_replies(self.replies[:n_opening]), self._samples, opened.spec, opened.protocol)
            self._code_open = code_is_open(first, opened.protocol)
        return not (self._code_open and self._without_hits())

    def _without_hits(self) -> bool:
        return count_hits(sort_replies(self.replies).keys, self._samples) == 0

    def _ask_lost(self) -> bool:
        """Ask again what stayed without an answer before a stop; False when the suspect has withdrawn."""
        for number, batch in self._lost:
            self._ask(batch, again=number)
            if self._withdrawn():
                return False
        return True

    def _ask_all(self, probes: tuple[Probe, ...], *, batch_size: int) -> bool:
        """Ask probes batch by batch; False when the suspect has withdrawn."""
        for start in range(0, len(probes), batch_size):
            batch = probes[start : start + batch_size]
            self._ask(batch)
            self._progress.advance(len(batch))
            if self._withdrawn():
                return False
        return True

    def _withdrawn(self) -> bool:
        if self._failed_in_a_row >= MAX_FAILED_BATCHES:
            return True
        # A suspect that never answered is down or speaks another language; one that *refuses* may be choosing
        # what to refuse, and only further questions can show that.
        refused = isinstance(self.last_error, SuspectRefusedError)
        return self.last_error is not None and not self.anything_answered and not refused

    def _ask(self, batch: tuple[Probe, ...], *, again: int | None = None) -> None:
        inputs: Inputs = np.ascontiguousarray(self._opened.keys.inputs[[probe.index for probe in batch]])
        inputs_sha256 = sha256_hex(inputs.tobytes())
        # An answer that cannot be kept is not asked for.
        need_space(self._folder)
        if again is None:
            number = self._n_batches
            self._n_batches += 1
            self._writer.request(number, tuple(p.position for p in batch), inputs_sha256)
            # The request line is on disk: from here on these probes count as issued, answered or not.
            self.replies += [Reply(probe=probe, answer=None) for probe in batch]
        else:
            number = again
            self._writer.retry(number, inputs_sha256)
        try:
            exchange = self._suspect.query(inputs)
        except SuspectError as error:
            with uninterrupted():
                self._record_loss(number, error)
            return
        with uninterrupted():
            self._record_answer(number, exchange)
        self._failed_in_a_row = 0
        for probe, answer in zip(batch, exchange.reply.answers, strict=True):
            self.replies[probe.position] = Reply(probe=probe, answer=answer)

    def _record_answer(self, number: int, exchange: Exchange) -> None:
        # The body is on disk before the line that names it, so that the line alone says that the answer is kept.
        body_sha256 = store_raw(self._folder, exchange.reply.body)
        self._writer.response(
            number,
            status=exchange.reply.status,
            elapsed_ms=exchange.reply.elapsed_ms,
            body_sha256=body_sha256,
            server_date=exchange.reply.server_date,
            answers=exchange.reply.answers,
            attempts=_attempts(exchange.failed_attempts),
        )

    def _record_loss(self, number: int, error: SuspectError) -> None:
        loss = _loss(error)
        unusable = error.body if loss is Loss.UNUSABLE else None
        self._writer.batch_failed(
            number,
            str(error),
            loss=loss,
            body_sha256=None if unusable is None else store_raw(self._folder, unusable),
            attempts=_attempts(error.attempts),
        )
        self._failed_in_a_row += 1
        self.last_error = error
        logger.warning("batch %d stayed without an answer: %s", number, error)

    def _invalid(self, opening: Sequence[Reply]) -> bool:
        """True when stage 1 already shows that no further key can help: failed controls, obstruction and the like."""
        protocol = self._opened.seal.protocol
        grouped = sort_replies(opening)
        levels = self._basis.levels(self._plan.charged_alpha)
        null = self._basis.measure_null(grouped, self._samples, levels)
        decided = self._basis.decide(grouped, self._samples, null, levels)
        facts = gather_facts(
            grouped,
            self._samples,
            protocol,
            null=null,
            decided=decided,
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


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Hold Ctrl-C back until the block has ended: an answer that was paid for is written down first."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return
    held: list[int] = []
    signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
        if held:
            previous(signal.SIGINT, None)


def _attempts(attempts: Sequence[Attempt]) -> tuple[FailedAttempt, ...]:
    return tuple(FailedAttempt(error=a.error, waited_ms=a.waited_ms, status=a.status) for a in attempts)


def _loss(error: SuspectError) -> Loss | None:
    match error:
        case SuspectUnavailableError() | SuspectThrottledError():
            return Loss.NO_ANSWER
        case SuspectRefusedError():
            return Loss.REFUSED
        case SuspectAnswerError():
            return Loss.UNUSABLE
        case _:
            return None
