"""Step 11 of the re-check: seal, transcript, signed head, custody log and signature tell one story in one order."""

from auditor.canonical import parse_canonical_object
from auditor.errors import SealError, TranscriptError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Bundle
from auditor.evidence.custody import CustodyAct, actor_of, read_custody
from auditor.evidence.head import SignedHead
from auditor.evidence.manifest import Endorsement
from auditor.evidence.open_custody import read_log
from auditor.evidence.seal import Seal
from auditor.evidence.transcript import Transcript


def check_order(
    bundle: Bundle, *, seal: Seal, transcript: Transcript, head: SignedHead, endorsement: Endorsement
) -> str:
    """Compare the custody log with the objects it names and their times with one another; return what was found.

    Raises:
        EvidenceError: the log is broken, names other objects, or the times contradict the order of an audit.
    """
    contents = bundle.contents
    events = read_custody(contents[paths.CUSTODY])
    for event in events:
        if bundle.sha256(event.path) != event.sha256:
            raise SealError(f"the custody log names another {event.path[:80]}")
    owner = actor_of("owner", endorsement.owner_fingerprint)
    examiner = actor_of("examiner", endorsement.examiner_fingerprint)
    wanted = [
        (CustodyAct.SEALED, owner, paths.SEAL),
        (CustodyAct.QUERIED, examiner, paths.TRANSCRIPT),
        (CustodyAct.OPENED, examiner, paths.OPENINGS),
        (CustodyAct.ANALYSED, examiner, paths.RESULTS),
    ]
    if [(event.act, event.actor, event.path) for event in events] != wanted:
        raise TranscriptError("the custody log does not tell the acts of an audit in their order")
    if events[0].at != seal.sealed_at or events[1].at != transcript.closed_at:
        raise TranscriptError("the custody log and the objects state different times")
    if not seal.sealed_at <= transcript.opened_at or not events[-1].at <= endorsement.signed_at:
        raise TranscriptError("the key set was not sealed before the first question, or signed before the analysis")
    if not transcript.closed_at <= head.signed_at <= events[-1].at:
        raise TranscriptError("the transcript's head was not signed between the last answer and the analysis")
    _check_keyset_log(bundle, seal=seal, endorsement=endorsement)
    parse_canonical_object(contents[paths.ENVIRONMENT], what=paths.ENVIRONMENT)
    if bundle.sha256(paths.ENVIRONMENT) != transcript.preamble.get("environment_sha256"):
        raise TranscriptError(f"{paths.ENVIRONMENT} is not the one recorded before the first question")
    return f"sealed {seal.sealed_at}, asked {transcript.opened_at} to {transcript.closed_at}, in this order"


def _check_keyset_log(bundle: Bundle, *, seal: Seal, endorsement: Endorsement) -> None:
    """Verify the key set's own custody log, where the examiner was given one."""
    data = bundle.contents.get(paths.KEYSET_CUSTODY)
    if data is None:
        return
    log = read_log(data, anchor=endorsement.seal_sha256, what=paths.KEYSET_CUSTODY)
    if any(event.path for event in log.events):
        raise TranscriptError(f"{paths.KEYSET_CUSTODY} names files, which a key set's log never does")
    if not seal.sealed_at <= log.events[0].at <= log.events[-1].at <= endorsement.signed_at:
        raise TranscriptError(f"{paths.KEYSET_CUSTODY} states times before the seal or after the manifest")
