"""Reading raw answer bodies a second time, so that a transcript's answers need not be believed.

The adapters that talk to suspects lie above the evidence; this reader knows the package's own form - an object with
``answers``, each an object with an integer ``label`` and perhaps ``scores`` - and the reading that a preamble records.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from auditor.canonical import sha256_hex
from auditor.errors import SealError, SuspectAnswerError, TranscriptError
from auditor.evidence.bundle_folder import read_file
from auditor.evidence.calibration import Calibration, own_labels
from auditor.evidence.manifest import RAW_FOLDER
from auditor.evidence.reading import Reading, read_answers, reading_of
from auditor.evidence.transcript import Transcript
from auditor.records import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """One answer as the body states it."""

    label: int
    scores: Sequence[float] | None
    top: tuple[tuple[int, float], ...] | None = None


def read_raw_answers(body: bytes, reading: Reading | None = None) -> tuple[RawAnswer, ...] | None:
    """Return the answers of a body, or None where it is not in the form this reader knows.

    Args:
        body: the bytes as received.
        reading: how the transcript says they are to be read; None for the package's own form.
    """
    if reading is not None:
        try:
            return tuple(
                RawAnswer(label=found.label, scores=found.scores, top=found.top)
                for found in read_answers(body, reading)
            )
        except SuspectAnswerError:
            return None
    try:
        value = json.loads(body.decode("utf-8"))
    except (ValueError, RecursionError):
        return None
    items = value.get("answers") if isinstance(value, dict) else None
    if not isinstance(items, list):
        return None
    answers = [_answer(item) for item in items]
    known = tuple(answer for answer in answers if answer is not None)
    return known if len(known) == len(answers) else None


def same_answers(raw: Sequence[RawAnswer], recorded: Sequence[Answer], *, lists_kept: bool = True) -> bool:
    """Return whether recorded answers are those of the body.

    Args:
        raw: what the body states.
        recorded: what the transcript says that it states.
        lists_kept: False for records of earlier versions, which left lists of some labels out.
    """
    return len(raw) == len(recorded) and all(
        ours.label == theirs.label and _same_scores(theirs, ours, lists_kept=lists_kept)
        for ours, theirs in zip(recorded, raw, strict=True)
    )


def _same_scores(raw: RawAnswer, recorded: Answer, *, lists_kept: bool) -> bool:
    if raw.scores is not None:
        return recorded.scores == raw.scores
    if recorded.scores is not None:
        # A list that names every label became scores.
        return raw.top is not None and tuple(score for _, score in sorted(raw.top)) == recorded.scores
    return recorded.top == raw.top or (recorded.top is None and not lists_kept)


def compare_raw_answers(
    folder: Path, transcript: Transcript, *, calibration: Calibration | None = None
) -> tuple[int, int]:
    """Read every raw body of a bundle again and compare it with the recorded answers.

    Returns:
        How many answers agree, and how many bodies are in a form this reader does not know.

    Raises:
        SealError: a raw body changed since the manifest was checked.
        TranscriptError: an answer differs.
    """
    n_read = n_unknown = 0
    reading = recorded_reading(transcript)
    lists_kept = any(answer.top is not None for batch in transcript.batches for answer in batch.answers or ())
    if calibration is not None:
        n_read += _compare_calibration(folder, calibration)
    for batch in transcript.batches:
        if batch.answers is None:
            continue
        # A body inside the transcript is covered by its chain.
        body = (
            batch.body.encode()
            if batch.body is not None
            else read_file(folder, f"{RAW_FOLDER}/{batch.response_sha256}")
        )
        if sha256_hex(body) != batch.response_sha256:
            raise SealError("a raw body changed while it was checked")
        raw = read_raw_answers(body, reading)
        if raw is None:
            n_unknown += 1
        elif not same_answers(raw, batch.answers, lists_kept=lists_kept):
            raise TranscriptError(f"batch {batch.batch}: the recorded answers are not those of the raw body")
        else:
            n_read += len(raw)
    return n_read, n_unknown


def _compare_calibration(folder: Path, calibration: Calibration) -> int:
    reading = reading_of(calibration.reading)
    told: list[str] = []
    for digest in calibration.bodies_sha256:
        body = read_file(folder, f"{RAW_FOLDER}/{digest}")
        if sha256_hex(body) != digest:
            raise SealError("a raw body changed while it was checked")
        try:
            told += own_labels(body, reading)
        except SuspectAnswerError as error:
            raise TranscriptError("a raw body of the calibration holds no answers") from error
    if tuple(told) != calibration.told:
        raise TranscriptError("the calibration's recorded labels are not those of the raw bodies")
    return len(told)


def recorded_reading(transcript: Transcript) -> Reading | None:
    """Return how the preamble says answers are read, None for the package's own form.

    Raises:
        MalformedError: it says something that is no reading.
    """
    suspect = transcript.preamble.get("suspect")
    text = suspect.get("reading") if isinstance(suspect, Mapping) else None
    return reading_of(text) if isinstance(text, str) and text else None


def _answer(item: object) -> RawAnswer | None:
    label = item.get("label") if isinstance(item, dict) else None
    if not isinstance(item, dict) or isinstance(label, bool) or not isinstance(label, int):
        return None
    stated = item.get("scores")
    if stated is None:
        top = _top(item.get("top"))
        return None if top is None else RawAnswer(label=label, scores=None, top=top or None)
    if not isinstance(stated, list):
        return None
    scores = [_score(score) for score in stated]
    known = tuple(score for score in scores if score is not None)
    return RawAnswer(label=label, scores=known) if len(known) == len(scores) else None


def _top(stated: object) -> tuple[tuple[int, float], ...] | None:
    """Return the labels and scores of a list of some labels, nothing where there is none, None where it is no list."""
    if stated is None:
        return ()
    if not isinstance(stated, list):
        return None
    found = []
    for entry in stated:
        label, score = (entry.get("label"), _score(entry.get("score"))) if isinstance(entry, dict) else (None, None)
        if isinstance(label, bool) or not isinstance(label, int) or score is None:
            return None
        found.append((label, score))
    return tuple(found)


def _score(value: object) -> float | None:
    # Services send numbers; renderings of local models hold decimal strings.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
