"""Where an audit stood when it stopped, and what a continued one must not change."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from auditor import __version__
from auditor.canonical import Fields, JsonValue, sha256_hex
from auditor.errors import SignatureError, TranscriptError, UsageError
from auditor.evidence import manifest as paths
from auditor.evidence.bundle import Clock, store_raw
from auditor.evidence.calibration import n_calibration_inputs
from auditor.evidence.head import verify_head
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.recompute import judge_nonce, same_suspect
from auditor.evidence.signing import SigningKey
from auditor.evidence.superseded import derived_files, set_aside
from auditor.evidence.transcript import Loss, Stop, Transcript, TranscriptWriter, read_transcript, recoverable_prefix
from auditor.suspects.base import may_be_charged

OPEN_ENDS = frozenset(stop.value for stop in Stop if stop is not Stop.UNCLOSED)
"""Closing reasons after which an audit may go on; after any other it is over."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What was fixed before the first question."""

    alpha: float
    max_keys: int
    judge_nonce: bytes
    deviations: tuple[str, ...]
    operator: str
    batch_size: int
    family: int
    """Questions that the level is divided by; 1 where none were declared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stopped:
    """An audit on disk that may not be finished."""

    folder: Path
    transcript: Transcript | None
    """Its whole lines; None when nothing was fixed yet, so that nothing can have been asked."""
    torn: bytes
    """A last line that was cut short."""
    signed: bool
    """True when manifest and signature are there: nothing in the folder changes any more, unless asking goes on."""

    @property
    def over(self) -> bool:
        """True when the sealed rule ended the asking, or the plan forbade it."""
        reason = None if self.transcript is None else self.transcript.closed_reason
        return reason is not None and reason not in OPEN_ENDS

    @property
    def terms(self) -> Terms:
        """The terms of the audit; only where a transcript is there.

        Raises:
            EvidenceError: the preamble does not state them.
        """
        if self.transcript is None:
            raise TranscriptError("nothing is on record yet")
        preamble = self.transcript.preamble
        fields = Fields(preamble, what="transcript preamble")
        return Terms(
            alpha=fields.decimal("alpha", low=0.0, high=1.0),
            max_keys=fields.integer("max_keys", low=1),
            judge_nonce=judge_nonce(self.transcript),
            deviations=fields.texts("deviations"),
            operator=fields.text("operator"),
            batch_size=fields.integer("batch_size", low=1),
            family=fields.integer("family", low=1) if "family" in preamble else 1,
        )


def read_stopped(folder: Path) -> Stopped:
    """Read where an audit stands; nothing is changed.

    Raises:
        UsageError: there is no such folder.
        EvidenceError: what is on record does not verify.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; an audit that left none starts without --resume")
    file = folder / paths.TRANSCRIPT
    data = file.read_bytes() if file.is_file() else b""
    whole = recoverable_prefix(data)
    return Stopped(
        folder=folder,
        transcript=read_transcript(whole) if whole else None,
        torn=data[len(whole) :],
        signed=(folder / paths.MANIFEST_ENVELOPE).exists(),
    )


def inputs_charged(transcript: Transcript) -> int:
    """Return how many inputs a service may have charged so far: answers, and attempts whose answer was lost."""
    total = n_calibration_inputs(transcript.preamble)
    for batch in transcript.batches:
        askings = sum(may_be_charged(attempt) for attempt in batch.failed_attempts) + len(batch.retried_at)
        # The attempts of a loss without any answer include its last one; all other batches had one more.
        askings += not (batch.error is not None and batch.loss is Loss.NO_ANSWER)
        total += askings * len(batch.positions)
    return total


def check_same_keys(stopped: Stopped, opened: OpenedKeySet) -> None:
    """Refuse to go on with another key set.

    Raises:
        UsageError: the audit was begun with other keys, or another seal over them.
    """
    found: Mapping[str, JsonValue] = {} if stopped.transcript is None else stopped.transcript.preamble
    seal = stopped.folder / paths.SEAL
    ours = (opened.seal.keyset_id, sha256_hex(opened.envelope))
    begun = (found.get("keyset_id"), found.get("seal_sha256")) if found else ours
    if begun != ours or (seal.is_file() and seal.read_bytes() != opened.envelope):
        raise UsageError(f"{stopped.folder}: the audit was begun with another key set or seal")


def check_same_suspect(stopped: Transcript, suspect: Mapping[str, JsonValue]) -> None:
    """Refuse to go on against another suspect; a service may have another network address than before.

    Raises:
        UsageError: what describes itself now is not what was under test.
    """
    begun = stopped.preamble.get("suspect")
    if not isinstance(begun, Mapping) or not same_suspect(begun, suspect):
        names = sorted(name for name in suspect if not isinstance(begun, Mapping) or begun.get(name) != suspect[name])
        raise UsageError(
            f"the suspect is not the one the audit was begun with (differs in: {', '.join(names)}); nothing was asked"
        )


def check_same_examiner(folder: Path, examiner: SigningKey) -> None:
    """Refuse to go on under another key than the one that signed before the stop.

    Raises:
        UsageError: something in the bundle was signed with another key.
    """
    heads = [folder / paths.HEAD_ENVELOPE, *sorted((folder / paths.SUPERSEDED_FOLDER).glob(f"*.{paths.HEAD_ENVELOPE}"))]
    public = folder / paths.EXAMINER_KEY
    try:
        same = not public.exists() or public.read_bytes() == examiner.public_pem()
        for head in heads:
            if head.exists():
                verify_head(head.read_bytes(), examiner_public=examiner.public)
    except SignatureError:
        same = False
    if not same:
        raise UsageError(f"{folder}: was signed with another examiner's key before it stopped; go on with that one")


def reopen(stopped: Stopped, clock: Clock, *, suspect: Mapping[str, JsonValue]) -> TranscriptWriter:
    """Set aside what was signed before the stop, record that the audit goes on, and return the open transcript.

    Raises:
        OSError: one of these steps cannot be written; the same call may be repeated.
    """
    transcript = stopped.transcript
    if transcript is None or stopped.over:
        raise ValueError("only an audit that was opened and is not over goes on")
    set_aside(stopped.folder, derived_files(stopped.folder), number=len(transcript.resumptions) + 1)
    drop_torn_line(stopped)
    writer = TranscriptWriter.reopen(stopped.folder / paths.TRANSCRIPT, clock)
    writer.resumed(
        Stop(transcript.closed_reason) if transcript.closed_reason else Stop.UNCLOSED,
        suspect=suspect,
        tool_version=__version__,
        torn_bytes=len(stopped.torn),
        torn_sha256=sha256_hex(stopped.torn) if stopped.torn else "",
    )
    return writer


def drop_torn_line(stopped: Stopped) -> None:
    """Take a last line that was cut short out of the transcript; its bytes are kept under ``raw/`` before.

    A transcript without a whole line is removed: nothing was asked before its first line was on disk.
    """
    file = stopped.folder / paths.TRANSCRIPT
    if stopped.transcript is None:
        file.unlink(missing_ok=True)
    elif stopped.torn:
        store_raw(stopped.folder, stopped.torn)
        os.truncate(file, file.stat().st_size - len(stopped.torn))
