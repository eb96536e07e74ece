"""One claim against one suspect: the numbered main flow of ``auditor verify``."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

import numpy as np

from auditor import __version__
from auditor.analysis import basis_of, decide_keys, gather_facts, measure_null, sort_replies, spend
from auditor.canonical import JsonValue, canonical_bytes, decimal_string, sha256_hex
from auditor.errors import SuspectError, SuspectRefusedError, UsageError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.recompute import PREAMBLE_SCHEMA, issued_replies, planned_probes, recompute_results
from auditor.evidence.schedule import draw_schedule, judge_seed, opening_length
from auditor.evidence.signing import SigningKey
from auditor.evidence.times import utc_text
from auditor.evidence.timestamps import read_token
from auditor.evidence.transcript import TranscriptWriter, read_transcript
from auditor.records import Design, InputSpec, Probe, Progress, Protocol, Reason, Reply, Silent
from auditor.suspects.base import Description, Suspect
from auditor.verdict import decide

logger = logging.getLogger(__name__)

STAGE_2_BATCH = 16
"""Keys per exchange after stage 1: small, because every key beyond the decision is paid for nothing."""
MAX_FAILED_BATCHES = 5
"""Consecutive batches without an answer after which the suspect counts as withdrawn."""
MIN_FORECAST_POWER = 0.5
"""Below this chance of a decision on an unchanged copy an audit is refused before anything is sent."""

Clock = Callable[[], datetime]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What the examiner asks for beyond the sealed plan; it may tighten the plan, never loosen it."""

    alpha: float | None = None
    """Level of the claim; None takes the sealed one."""
    max_keys: int | None = None
    """Keys that may be asked; None takes the sealed number."""
    judge_nonce: bytes = b""
    """Draws which keys are asked and in what order; empty takes the sealed order."""
    deviations: tuple[str, ...] = ()
    """Departures from the sealed plan that the examiner declares beforehand."""
    operator: str = ""
    """Who runs the audit, for the record; may be empty."""
    environment: dict[str, JsonValue] = field(default_factory=dict)
    """Versions and platform, written to env.json."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The sealed plan with the request's tightenings."""

    alpha: float
    max_keys: int
    deviations: tuple[str, ...]
    judge: bytes | None = None
    """Seed of the order that the judge's nonce draws; None for the sealed order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Audit:
    """What an audit left behind."""

    folder: Path
    results: dict[str, JsonValue]
    closed_reason: str


def run_audit(
    *,
    opened: OpenedKeySet,
    suspect: Suspect,
    folder: Path,
    examiner: SigningKey,
    request: Request,
    clock: Clock,
    progress: Progress | None = None,
    seal_tokens: Sequence[bytes] = (),
    stamp: bundle_files.Stamp = bundle_files.no_stamp,
) -> Audit:
    """Ask the suspect, decide and write the evidence up to ``results.json``; rendering and signing follow.

    Steps: 1 the seal was checked by the caller (``open_sealed``) · 2 forecast power · 3 identify the suspect ·
    4 open the transcript · 5 ask in the drawn order · 6 close and sign the transcript's head · 7 recompute the results
    from what was written.

    ``seal_tokens`` are time stamps over the seal, for the bundle; ``stamp`` has the transcript's head time-stamped.

    Raises:
        UsageError: the request loosens the plan, a clock contradicts the seal, or suspect and key set do not fit.
        SuspectError: the suspect gave no answer at all.
    """
    progress = progress or Silent()
    protocol = opened.seal.protocol
    plan = tighten(protocol, request)
    if request.judge_nonce:
        plan = replace(plan, judge=judge_seed(request.judge_nonce, opened.seal.merkle_root))
    stamped = [
        read_token(raw, data=opened.envelope, what="a time stamp over the seal").stamped_at for raw in seal_tokens
    ]
    if max(opened.seal.sealed_at, min(stamped, default="")) > utc_text(clock()):
        raise UsageError("the key set was sealed or time-stamped in the future; one of the two clocks is wrong")

    # 2. A plan that cannot decide is refused before money is spent.
    underpowered = forecast_power(protocol, plan, opened.seal.spec) < MIN_FORECAST_POWER

    # 3. What is under test is fixed before the first question.
    description = suspect.describe()
    _check_fit(description, opened)

    # 4. The preamble is on disk before the first question.
    bundle_files.create(folder, seal_envelope=opened.envelope, environment=request.environment, seal_tokens=seal_tokens)
    writer = TranscriptWriter(folder / "transcript.jsonl", clock)
    writer.opened(_preamble(opened, description, plan, request, batch_size=suspect.batch_size))

    # 5. and 6. Ask until the sealed rule stops the audit; whatever happens, the transcript is closed.
    asking = _Asking(opened=opened, suspect=suspect, writer=writer, folder=folder, plan=plan, progress=progress)
    try:
        closed_reason = "underpowered" if underpowered else asking.run()
    except BaseException:
        writer.abandon()
        raise
    writer.closed(closed_reason)
    if closed_reason == "failed" and not asking.anything_answered:
        raise asking.last_error or SuspectError("the suspect gave no answer")
    # What was answered is signed, and time-stamped where an authority was named, before anything is computed from it.
    bundle_files.write_head(folder, examiner=examiner, clock=clock, stamp=stamp)

    # 7. The results come from the written bytes, through the path that `check` repeats.
    results = _write_results(folder, opened, plan, examiner=examiner, clock=clock)
    return Audit(folder=folder, results=results, closed_reason=closed_reason)


def tighten(protocol: Protocol, request: Request) -> Plan:
    """Return the plan in force; raises UsageError when the request would loosen the seal."""
    alpha = protocol.alpha if request.alpha is None else request.alpha
    max_keys = protocol.n_keys if request.max_keys is None else request.max_keys
    if not 0 < alpha <= protocol.alpha:
        raise UsageError(f"the sealed level is {protocol.alpha:g}; it may be tightened, not loosened to {alpha:g}")
    if not 1 <= max_keys <= protocol.n_keys:
        raise UsageError(f"the seal permits 1 to {protocol.n_keys} keys, not {max_keys}")
    if max_keys < protocol.opening_keys:
        raise UsageError(f"the first stage alone asks {protocol.opening_keys} keys; {max_keys} do not suffice")
    if protocol.design is Design.FIXED and max_keys != protocol.n_keys:
        raise UsageError("the sealed fixed design asks all its keys")
    deviations = list(request.deviations)
    if alpha != protocol.alpha:
        deviations.append(f"level tightened from {protocol.alpha:g} to {alpha:g} before the first question")
    if max_keys != protocol.n_keys:
        deviations.append(f"keys limited from {protocol.n_keys} to {max_keys} before the first question")
    return Plan(alpha=alpha, max_keys=max_keys, deviations=tuple(deviations))


def forecast_power(protocol: Protocol, plan: Plan, spec: InputSpec) -> float:
    """Return the chance of *supported* on an unchanged copy at the sealed hit rate.

    A measured null rate is taken at its best, when no sham hits; with drawn labels every answer that is not the drawn
    label is taken to deviate, which is the copy's worst case.
    """
    basis = basis_of(protocol, spec)
    return basis.forecast_power(levels=basis.levels(plan.alpha), cap=plan.max_keys)


class _Asking:
    """The conversation with the suspect: batches out, answers on disk, stop by the sealed rule."""

    def __init__(
        self,
        *,
        opened: OpenedKeySet,
        suspect: Suspect,
        writer: TranscriptWriter,
        folder: Path,
        plan: Plan,
        progress: Progress,
    ) -> None:
        self._opened = opened
        self._suspect = suspect
        self._writer = writer
        self._folder = folder
        self._plan = plan
        self._progress = progress
        self._samples = {sample.index: sample for sample in opened.keys.samples}
        self._failed_in_a_row = 0
        self._n_batches = 0
        self.replies: list[Reply] = []
        self.last_error: SuspectError | None = None

    @property
    def anything_answered(self) -> bool:
        """True once the suspect gave one usable answer."""
        return any(reply.answer is not None for reply in self.replies)

    def run(self) -> str:
        """Ask in the drawn order and return why the asking ended."""
        protocol = self._opened.seal.protocol
        planned = draw_schedule(protocol, judge=self._plan.judge)
        n_opening = opening_length(protocol)
        permitted = n_opening + self._plan.max_keys - protocol.opening_keys
        try:
            self._progress.begin("asking keys, shams, controls and repeats", n_opening)
            stayed = self._ask_all(planned[:n_opening], batch_size=self._suspect.batch_size)
            if not stayed or not self.anything_answered:
                return "failed"
            if self._invalid():
                return "invalid"
            self._progress.begin("asking further keys", max(permitted - n_opening, 1))
            position = n_opening
            while not self._decided() and position < permitted:
                size = min(STAGE_2_BATCH, self._suspect.batch_size, permitted - position)
                if not self._ask_all(planned[position : position + size], batch_size=size):
                    return "failed"
                position += size
            return "decided" if self._decided() else "exhausted"
        except KeyboardInterrupt:
            return "interrupted"
        finally:
            self._progress.end()

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

    def _ask(self, batch: tuple[Probe, ...]) -> None:
        inputs = np.ascontiguousarray(self._opened.keys.inputs[[probe.index for probe in batch]])
        number = self._n_batches
        self._n_batches += 1
        self._writer.request(number, tuple(p.position for p in batch), sha256_hex(inputs.tobytes()))
        # The request line is on disk: from here on these probes count as issued, answered or not.
        first = len(self.replies)
        self.replies += [Reply(probe=probe, answer=None) for probe in batch]
        try:
            exchange = self._suspect.query(inputs)
        except SuspectError as error:
            self._writer.batch_failed(number, str(error))
            self._failed_in_a_row += 1
            self.last_error = error
            logger.warning("batch %d stayed without an answer: %s", number, error)
            return
        for attempt in exchange.failed_attempts:
            self._writer.attempt_failed(number, attempt.error, attempt.waited_ms)
        body_sha256 = bundle_files.store_raw(self._folder, exchange.reply.body)
        self._writer.response(
            number,
            status=exchange.reply.status,
            elapsed_ms=exchange.reply.elapsed_ms,
            body_sha256=body_sha256,
            server_date=exchange.reply.server_date,
            answers=exchange.reply.answers,
        )
        self._failed_in_a_row = 0
        self.replies[first:] = [
            Reply(probe=probe, answer=answer) for probe, answer in zip(batch, exchange.reply.answers, strict=True)
        ]

    def _decided(self) -> bool:
        protocol = self._opened.seal.protocol
        grouped = sort_replies(self.replies)
        spec = self._opened.seal.spec
        levels = spend(self._plan.alpha, protocol, spec)
        null = measure_null(grouped, self._samples, levels, protocol, spec)
        decided = decide_keys(grouped, self._samples, null, levels, protocol, spec)
        return decided.rejected or decided.futile

    def _invalid(self) -> bool:
        """True when stage 1 already shows that no further key can help: failed controls, obstruction and the like."""
        protocol = self._opened.seal.protocol
        grouped = sort_replies(self.replies)
        spec = self._opened.seal.spec
        levels = spend(self._plan.alpha, protocol, spec)
        null = measure_null(grouped, self._samples, levels, protocol, spec)
        decided = decide_keys(grouped, self._samples, null, levels, protocol, spec)
        facts = gather_facts(
            grouped, self._samples, protocol, null=null, decided=decided, code=None, closed_reason="open"
        )
        return decide(facts, protocol) in (
            Reason.OBSTRUCTED,
            Reason.TOO_FEW_ANSWERS,
            Reason.CONTROLS_FAILED,
            Reason.ANSWERS_UNSTABLE,
            Reason.NULL_UNCALIBRATED,
        )


def _write_results(
    folder: Path, opened: OpenedKeySet, plan: Plan, *, examiner: SigningKey, clock: Clock
) -> dict[str, JsonValue]:
    """Compute the results from the written transcript and write everything that belongs to them."""
    transcript = read_transcript((folder / "transcript.jsonl").read_bytes())
    samples = {sample.index: sample for sample in opened.keys.samples}
    results = recompute_results(
        seal=opened.seal,
        seal_sha256=sha256_hex(opened.envelope),
        transcript=transcript,
        samples=samples,
        guard=opened.keys.guard,
        data={index: opened.keys.data(index) for index in samples} if opened.keys.guard else None,
    )
    # Whatever the transcript says was asked is opened: Ctrl-C may strike between its request line and our memory.
    issued = issued_replies(transcript, planned_probes(opened.seal, transcript), max_keys=plan.max_keys)
    asked = sorted({reply.probe.index for reply in issued})
    bundle_files.write_findings(folder, opened=opened, asked=asked, results=results, clock=clock, examiner=examiner)
    return results


def _check_clocks(opened: OpenedKeySet, seal_tokens: Sequence[bytes], *, now: str) -> None:
    what = "a time stamp over the seal"
    stamped = [read_token(raw, data=opened.envelope, what=what).stamped_at for raw in seal_tokens]
    if max(opened.seal.sealed_at, min(stamped, default="")) > now:
        raise UsageError("the key set claims a time in the future; one of the two clocks is wrong")


def _check_fit(description: Description, opened: OpenedKeySet) -> None:
    shape, spec = description.input_shape, opened.seal.spec
    if shape is not None and shape != spec.shape:
        raise UsageError(f"the suspect takes inputs of shape {shape}, the key set holds {spec.shape}")
    if description.n_labels is not None and description.n_labels < len(spec.classes):
        raise UsageError(
            f"the suspect declares {description.n_labels} labels, the key set's task has {len(spec.classes)}"
        )


def _preamble(
    opened: OpenedKeySet, description: Description, plan: Plan, request: Request, *, batch_size: int
) -> dict[str, JsonValue]:
    return {
        "schema": PREAMBLE_SCHEMA,
        "keyset_id": opened.seal.keyset_id,
        "seal_sha256": sha256_hex(opened.envelope),
        "suspect": asdict(description.suspect),
        "alpha": decimal_string(plan.alpha),
        "max_keys": plan.max_keys,
        "batch_size": batch_size,
        "deviations": list(plan.deviations),
        "judge_nonce": request.judge_nonce.hex(),
        "tool_version": __version__,
        "operator": request.operator,
        "clock": "system clock of the examiner, not independently attested",
        "environment_sha256": sha256_hex(canonical_bytes(request.environment) + b"\n"),
    }
