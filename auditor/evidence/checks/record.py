"""Steps that follow the record: transcript, raw answers, order of the questions, judge's randomness, custody."""

import hashlib

from auditor.canonical import sha256_hex
from auditor.errors import SealError, TranscriptError
from auditor.evidence import manifest as paths
from auditor.evidence.calibration import calibration_of
from auditor.evidence.checks.base import NotCheckedError, Verified
from auditor.evidence.order_of_events import check_order
from auditor.evidence.raw_answers import compare_raw_answers
from auditor.evidence.recompute import issued_replies, judge_nonce, planned_probes
from auditor.evidence.signing import public_from_pem
from auditor.evidence.superseded import check_superseded
from auditor.evidence.transcript import read_transcript
from auditor.evidence.transport import transport_of


def recorded_answers(case: Verified) -> str:
    """Chain, pairing and counts of the transcript, its signed head, and a raw body for every response."""
    bundle = case.bundle
    transcript = read_transcript(bundle.contents[paths.TRANSCRIPT])
    if transcript.head != case.endorsement.transcript_head:
        raise TranscriptError("the transcript's head is not the one that was signed")
    signed = (case.head.transcript_sha256, case.head.head, case.head.n_lines)
    if signed != (bundle.sha256(paths.TRANSCRIPT), transcript.head, transcript.n_lines):
        raise TranscriptError("the transcript is not the one whose head was signed before the analysis")
    apart = (batch for batch in transcript.batches if batch.body is None)
    recorded = {batch.response_sha256 for batch in apart if batch.response_sha256 is not None}
    calibration = calibration_of(transcript.preamble, n_classes=len(case.seal.spec.classes))
    recorded |= set() if calibration is None else set(calibration.bodies_sha256)
    raw = {entry.sha256 for path, entry in bundle.entries.items() if path.startswith(f"{paths.RAW_FOLDER}/")}
    if recorded - raw:
        raise TranscriptError("the raw body of an answer is missing")
    case.transcript = transcript
    answered = sum(batch.answers is not None for batch in transcript.batches)
    ending = f"closed: {transcript.closed_reason}" if transcript.closed_reason else "not closed, read as interrupted"
    unrecorded = f", {len(raw - recorded)} raw bodies without a line" if raw - recorded else ""
    batches = f"{answered} of {len(transcript.batches)} batches answered"
    examiner = public_from_pem(bundle.contents[paths.EXAMINER_KEY], what=paths.EXAMINER_KEY)
    resumed = check_superseded(bundle, transcript, examiner_public=examiner)
    way = f"{transport_of(transcript).as_text()}; " if transcript.wires else ""
    return f"{transcript.n_lines} lines, {batches}{unrecorded}; {way}{resumed}{ending}"


def raw_answers(case: Verified) -> str:
    """The recorded answers are those in the raw bodies."""
    calibration = calibration_of(case.transcript.preamble, n_classes=len(case.seal.spec.classes))
    n_read, n_unknown = compare_raw_answers(case.path, case.transcript, calibration=calibration)
    if n_unknown:
        raise NotCheckedError(f"{n_unknown} raw bodies are in a form this version cannot read; {n_read} answers agree")
    return f"{n_read} answers equal those in the raw bodies"


def questions(case: Verified) -> str:
    """Asked in the drawn order, with the sealed inputs; opened are exactly the asked."""
    protocol = case.seal.protocol
    replies = issued_replies(case.transcript, planned_probes(case.seal, case.transcript), max_keys=protocol.n_keys)
    asked = {reply.probe.index for reply in replies}
    if asked != set(case.openings):
        raise SealError("the opened samples are not exactly those that were asked")
    sample_of = {reply.probe.position: reply.probe.index for reply in replies}
    for batch in case.transcript.batches:
        digest = hashlib.sha256()
        for position in batch.positions:
            digest.update(case.openings[sample_of[position]].data)
        if digest.hexdigest() != batch.body_sha256:
            raise TranscriptError(f"batch {batch.batch} was not asked with the sealed inputs")
    calibration = calibration_of(case.transcript.preamble, n_classes=len(case.seal.spec.classes))
    opened = {sha256_hex(opening.data) for opening in case.openings.values()}
    if calibration is not None and opened & set(calibration.inputs_sha256):
        raise TranscriptError("a sealed sample was among the inputs that the labels were calibrated with")
    drawn = "judge's nonce" if judge_nonce(case.transcript) else "sealed seed"
    return f"{len(replies)} questions in the order drawn from the {drawn}, with the sealed inputs"


def judges_randomness(case: Verified) -> str:
    """The judge's own nonce drew the order."""
    nonce, own = judge_nonce(case.transcript), case.expected.judge_nonce
    if own is not None and nonce != own:
        raise TranscriptError("the order was not drawn from the judge's nonce")
    if not nonce:
        raise NotCheckedError("no judge's nonce was used; the order was drawn from the owner's sealed seed")
    if own is None:
        raise NotCheckedError(f"drawn from the nonce {nonce.hex()}; the judge's own was not given for comparison")
    return "the judge's nonce and the sealed root drew which keys were asked, and in what order"


def order_of_events(case: Verified) -> str:
    """Seal, transcript, head, custody log, environment and signature tell one story in one order."""
    return check_order(
        case.bundle, seal=case.seal, transcript=case.transcript, head=case.head, endorsement=case.endorsement
    )
