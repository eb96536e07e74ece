"""One claim against one suspect: the numbered main flow of ``auditor verify``."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from pathlib import Path

from auditor import __version__
from auditor.analysis import basis_of, panel_rate
from auditor.asking import Asking, Plan
from auditor.calibrating import OrdinaryInputs, calibrate, read_again
from auditor.canonical import JsonValue, canonical_bytes, decimal_string, sha256_hex
from auditor.errors import SuspectError, SuspectRefusedError, UsageError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.calibration import FIELD as CALIBRATION
from auditor.evidence.calibration import Calibration, calibration_object, calibration_of, label_space
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.panel import Panel, panel_object, require_foreign
from auditor.evidence.recompute import PREAMBLE_SCHEMA, issued_replies, planned_probes, recompute_results
from auditor.evidence.schedule import judge_seed
from auditor.evidence.signing import SigningKey
from auditor.evidence.times import utc_text
from auditor.evidence.timestamps import read_token
from auditor.evidence.transcript import TranscriptWriter, read_transcript
from auditor.records import Design, InputSpec, Progress, Protocol, Silent
from auditor.resumption import Stopped, check_same_suspect, drop_torn_line, reopen
from auditor.suspects.base import Description, Suspect

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
    panel: Panel | None = None
    """How independent models answered the key set; recorded before the first question."""
    calibration: OrdinaryInputs | None = None
    """Ordinary labelled inputs that are asked first, to learn what the suspect's labels mean; None takes them as they
    are. An audit that goes on takes what its record says."""
    family: int = 1
    """Questions of the same matter, this one included, that might have been reported instead; the level is divided by
    it. Never less than the seal's serial number."""
    environment: dict[str, JsonValue] = field(default_factory=dict)
    """Versions and platform, written to env.json."""


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
    stopped: Stopped | None = None,
) -> Audit:
    """Ask the suspect, decide and write the evidence up to ``results.json``; rendering and signing follow.

    Steps: 1 the seal was checked by the caller (``open_sealed``) · 2 forecast power · 3 identify the suspect ·
    4 open the transcript, or go on with one that had stopped · 5 ask in the drawn order · 6 close and sign the
    transcript's head · 7 recompute the results from what was written.

    ``seal_tokens`` are time stamps over the seal, for the bundle; ``stamp`` has the transcript's head time-stamped.
    ``stopped`` is an audit in ``folder`` that goes on under its own terms, which ``request`` repeats; where its asking
    is over, the suspect is left alone and only what is missing is written. The caller keeps other processes out.

    Raises:
        UsageError: the request loosens the plan, a clock contradicts the seal, suspect and key set do not fit, or the
            suspect is not the one that the audit was begun with.
        SuspectError: the suspect gave no answer at all.
    """
    progress = progress or Silent()
    plan = _plan(opened, request, stopped)
    if stopped is None or not stopped.over:
        closed_reason = _ask(
            opened=opened,
            suspect=suspect,
            folder=folder,
            request=request,
            plan=plan,
            clock=clock,
            progress=progress,
            seal_tokens=seal_tokens,
            stopped=stopped,
        )
    else:
        closed_reason = (stopped.transcript and stopped.transcript.closed_reason) or ""
    # What was answered is signed, and time-stamped where an authority was named, before anything is computed from it.
    bundle_files.write_head(folder, examiner=examiner, clock=clock, stamp=stamp)

    # 7. The results come from the written bytes, through the path that `check` repeats.
    results = _write_results(folder, opened, plan, examiner=examiner, clock=clock)
    return Audit(folder=folder, results=results, closed_reason=closed_reason)


def _plan(opened: OpenedKeySet, request: Request, stopped: Stopped | None) -> Plan:
    plan = tighten(opened.seal.protocol, request)
    if stopped is not None and stopped.transcript is not None:
        # The record names its own departures from the seal already.
        plan = replace(plan, deviations=stopped.terms.deviations)
    if request.judge_nonce:
        plan = replace(plan, judge=judge_seed(request.judge_nonce, opened.seal.merkle_root))
    return replace(plan, family=max(plan.family, opened.seal.serial))


def _ask(
    *,
    opened: OpenedKeySet,
    suspect: Suspect,
    folder: Path,
    request: Request,
    plan: Plan,
    clock: Clock,
    progress: Progress,
    seal_tokens: Sequence[bytes],
    stopped: Stopped | None,
) -> str:
    """Take steps 2 to 6 and return why the transcript was closed."""
    earlier = None if stopped is None else stopped.transcript
    _check_clocks(opened, seal_tokens, now=utc_text(clock()))

    # 2. A plan that cannot decide is refused before money is spent.
    underpowered = forecast_power(opened.seal.protocol, plan, opened.seal.spec) < MIN_FORECAST_POWER

    # 3. What is under test is fixed before the first key; with a calibration that includes what its labels mean.
    n_classes = len(opened.seal.spec.classes)
    recorded = None if earlier is None else calibration_of(earlier.preamble, n_classes=n_classes)
    if recorded is not None:
        read_again(suspect, recorded, n_classes=n_classes)
    description = suspect.describe()
    _check_fit(description, opened, mapped=recorded is not None or request.calibration is not None)
    if request.panel is not None:
        require_foreign(
            request.panel,
            artefact_sha256=description.suspect.artefact_sha256,
            owner_model_sha256=opened.seal.model_sha256,
        )

    # 4. The preamble is on disk before the first question; what was asked before a stop stays on record.
    if stopped is not None and earlier is not None:
        check_same_suspect(earlier, asdict(description.suspect))
        writer = reopen(stopped, clock, suspect=asdict(description.suspect))
    else:
        again = stopped is not None
        if stopped is not None:
            drop_torn_line(stopped)
        bundle_files.create(
            folder, seal_envelope=opened.envelope, environment=request.environment, seal_tokens=seal_tokens, again=again
        )
        if request.calibration is not None and not underpowered:
            recorded = calibrate(suspect, request.calibration, folder=folder, n_classes=n_classes, progress=progress)
            description = suspect.describe()
        writer = TranscriptWriter(folder / "transcript.jsonl", clock)
        writer.opened(_preamble(opened, description, plan, request, batch_size=suspect.batch_size, found=recorded))

    # 5. and 6. Ask until the sealed rule stops the audit; whatever happens, the transcript is closed.
    asking = Asking(
        opened=opened,
        suspect=suspect,
        writer=writer,
        folder=folder,
        plan=plan,
        progress=progress,
        earlier=earlier,
    )
    try:
        unclear = recorded is not None and asking.set_label_space(
            label_space(recorded, n_classes=n_classes, protocol=opened.seal.protocol)
        )
        closed_reason = "underpowered" if underpowered else "unmapped" if unclear else asking.run()
        writer.closed(closed_reason)
    except BaseException:
        writer.abandon()
        raise
    if closed_reason == "failed" and not asking.anything_answered:
        error = asking.last_error or SuspectError("the suspect gave no answer")
        if isinstance(error, SuspectRefusedError) and suspect.batch_size > 1:
            # A request that holds one key among other questions is refused with all of them.
            raise SuspectRefusedError(f"{error}; asked one at a time it may show which questions it refuses") from error
        raise error
    return closed_reason


def tighten(protocol: Protocol, request: Request) -> Plan:
    """Return the plan in force; raises UsageError when the request would loosen the seal."""
    alpha = protocol.alpha if request.alpha is None else request.alpha
    max_keys = protocol.n_asked if request.max_keys is None else request.max_keys
    if not 0 < alpha <= protocol.alpha:
        raise UsageError(f"the sealed level is {protocol.alpha:g}; it may be tightened, not loosened to {alpha:g}")
    if not 1 <= max_keys <= protocol.n_asked:
        raise UsageError(f"the seal permits 1 to {protocol.n_asked} keys, not {max_keys}")
    if max_keys < protocol.opening_keys:
        raise UsageError(f"the first stage alone asks {protocol.opening_keys} keys; {max_keys} do not suffice")
    if protocol.design is Design.FIXED and max_keys != protocol.n_asked:
        raise UsageError("the sealed fixed design asks all its keys")
    deviations = list(request.deviations)
    if alpha != protocol.alpha:
        deviations.append(f"level tightened from {protocol.alpha:g} to {alpha:g} before the first question")
    if max_keys != protocol.n_asked:
        deviations.append(f"keys limited from {protocol.n_asked} to {max_keys} before the first question")
    if request.family > 1:
        deviations.append(f"level divided by a family of {request.family} questions before the first question")
    bound = 0.0 if request.panel is None else panel_rate(request.panel.members, protocol)
    return Plan(alpha=alpha, max_keys=max_keys, deviations=tuple(deviations), panel_rate=bound, family=request.family)


def forecast_power(protocol: Protocol, plan: Plan, spec: InputSpec) -> float:
    """Return the chance of *supported* on an unchanged copy at the sealed hit rate.

    A measured null rate is taken at its best, when no sham hits; with drawn labels every answer that is not the drawn
    label is taken to deviate, which is the copy's worst case.
    """
    basis = basis_of(protocol, spec, panel_rate=plan.panel_rate)
    return basis.forecast_power(levels=basis.levels(plan.charged_alpha), cap=plan.max_keys)


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
        data={index: opened.keys.data(index) for index in samples},
    )
    # Whatever the transcript says was asked is opened: Ctrl-C may strike between its request line and our memory.
    issued = issued_replies(transcript, planned_probes(opened.seal, transcript), max_keys=plan.max_keys)
    asked = sorted({reply.probe.index for reply in issued})
    bundle_files.write_findings(
        folder,
        opened=opened,
        asked=asked,
        queried_at=transcript.closed_at,
        results=results,
        clock=clock,
        examiner=examiner,
    )
    return results


def _check_clocks(opened: OpenedKeySet, seal_tokens: Sequence[bytes], *, now: str) -> None:
    what = "a time stamp over the seal"
    stamped = [read_token(raw, data=opened.envelope, what=what).stamped_at for raw in seal_tokens]
    if max(opened.seal.sealed_at, min(stamped, default="")) > now:
        raise UsageError("the key set was sealed or time-stamped in the future; one of the two clocks is wrong")


def _check_fit(description: Description, opened: OpenedKeySet, *, mapped: bool) -> None:
    shape, spec = description.input_shape, opened.seal.spec
    if shape is not None and shape != spec.shape:
        raise UsageError(f"the suspect takes inputs of shape {shape}, the key set holds {spec.shape}")
    if not mapped and description.n_labels is not None and description.n_labels < len(spec.classes):
        raise UsageError(
            f"the suspect declares {description.n_labels} labels, the key set's task has {len(spec.classes)}"
        )


def _preamble(
    opened: OpenedKeySet,
    description: Description,
    plan: Plan,
    request: Request,
    *,
    batch_size: int,
    found: Calibration | None,
) -> dict[str, JsonValue]:
    preamble: dict[str, JsonValue] = {
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
    if plan.family > opened.seal.serial:
        preamble["family"] = plan.family
    if found is not None:
        preamble[CALIBRATION] = calibration_object(found)
    if request.panel is not None:
        preamble["panel"] = panel_object(request.panel)
    return preamble
