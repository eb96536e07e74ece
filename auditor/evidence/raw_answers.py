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
from auditor.evidence.bundle import read_file
from auditor.evidence.manifest import RAW_FOLDER
from auditor.evidence.reading import Reading, read_answers, reading_of
from auditor.evidence.transcript import Transcript
from auditor.records import Answer


@dataclass(frozen=True, slots=True, kw_only=True)
class RawAnswer:
    """One answer as the body states it."""

    label: int
    scores: tuple[float, ...] | None


def read_raw_answers(body: bytes, reading: Reading | None = None) -> tuple[RawAnswer, ...] | None:
    """Return the answers of a body, or None where it is not in the form this reader knows.

    Args:
        body: the bytes as received.
        reading: how the transcript says they are to be read; None for the package's own form.
    """
    if reading is not None:
        try:
            return tuple(RawAnswer(label=found.label, scores=found.scores) for found in read_answers(body, reading))
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


def same_answers(raw: Sequence[RawAnswer], recorded: Sequence[Answer]) -> bool:
    """Return whether recorded answers are those of the body; scores count where the body states them as a list."""
    return len(raw) == len(recorded) and all(
        ours.label == theirs.label and (theirs.scores is None or ours.scores == theirs.scores)
        for ours, theirs in zip(recorded, raw, strict=True)
    )


def compare_raw_answers(folder: Path, transcript: Transcript) -> tuple[int, int]:
    """Read every raw body of a bundle again and compare it with the recorded answers.

    Returns:
        How many answers agree, and how many bodies are in a form this reader does not know.

    Raises:
        SealError: a raw body changed since the manifest was checked.
        TranscriptError: an answer differs.
    """
    n_read = n_unknown = 0
    reading = recorded_reading(transcript)
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
        elif not same_answers(raw, batch.answers):
            raise TranscriptError(f"batch {batch.batch}: the recorded answers are not those of the raw body")
        else:
            n_read += len(raw)
    return n_read, n_unknown


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
        return RawAnswer(label=label, scores=None)
    if not isinstance(stated, list):
        return None
    scores = [_score(score) for score in stated]
    known = tuple(score for score in scores if score is not None)
    return RawAnswer(label=label, scores=known) if len(known) == len(scores) else None


def _score(value: object) -> float | None:
    # Services send numbers; renderings of local models hold decimal strings.
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None
