"""What a prediction service sends, as records; nothing in it is believed before it is checked."""

from dataclasses import dataclass

from auditor.canonical import canonical_bytes, parse_object, sha256_hex
from auditor.errors import MalformedError, SuspectAnswerError
from auditor.evidence.reading import JsonData, finite, load_json, printable
from auditor.records import Answer
from auditor.suspects.base import MAX_SCORES

MAX_DESCRIPTION_BYTES = 4 * 1024 * 1024
MAX_SIDE = 65536


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a service says about itself; every field but the digest may be absent."""

    sha256: str
    """Digest of the description's canonical form."""
    name: str
    """Printable and short; empty when not declared."""
    answers: str
    """``labels``, ``top-k``, ``scores``, another short text, or empty when not declared."""
    input_shape: tuple[int, int, int] | None
    n_labels: int | None
    max_batch: int | None


def parse_description(body: bytes) -> Declared:
    """Return the content of a service description; unknown fields are part of its digest and otherwise ignored.

    Raises:
        SuspectAnswerError: not a JSON object without floats, or a known field has a wrong type or range.
    """
    try:
        value = parse_object(body, what="service description", max_bytes=MAX_DESCRIPTION_BYTES)
        digest = sha256_hex(canonical_bytes(value))
    except (MalformedError, ValueError) as error:
        reason = str(error) if isinstance(error, MalformedError) else "service description: not acceptable text"
        raise SuspectAnswerError(reason) from error
    classes = value.get("classes")
    if classes is not None and not (isinstance(classes, list) and 2 <= len(classes) <= MAX_SCORES):
        raise SuspectAnswerError("service description: classes must be a list of two names or more")
    shape = value.get("input_shape")
    if shape is not None and not (isinstance(shape, list) and len(shape) == 3 and all(map(_is_side, shape))):
        raise SuspectAnswerError("service description: input_shape must be three positive integers")
    max_batch = value.get("max_batch")
    if max_batch is not None and (not isinstance(max_batch, int) or isinstance(max_batch, bool) or max_batch < 1):
        raise SuspectAnswerError("service description: max_batch must be a positive integer")
    return Declared(
        sha256=digest,
        name=printable(value.get("name")),
        answers=printable(value.get("answers")),
        input_shape=(int(shape[0]), int(shape[1]), int(shape[2])) if isinstance(shape, list) else None,
        n_labels=len(classes) if isinstance(classes, list) else None,
        max_batch=max_batch if isinstance(max_batch, int) else None,
    )


def parse_answers(body: bytes, *, n_labels: int | None) -> tuple[Answer, ...]:
    """Return the answers of a prediction, in order.

    Args:
        body: the bytes of a complete 2xx answer.
        n_labels: how many labels the service declares; a ``top`` list that names all of them becomes scores.

    Raises:
        SuspectAnswerError: not JSON of the expected form, or a number that cannot be one.
    """
    value = load_json(body)
    items = value.get("answers") if isinstance(value, dict) else None
    if not isinstance(items, list):
        raise SuspectAnswerError("the suspect's answer is not an object with a list of answers")
    answers = tuple(_answer(item, n_labels=n_labels) for item in items)
    if len({len(answer.scores) for answer in answers if answer.scores is not None}) > 1:
        raise SuspectAnswerError("the suspect gave different numbers of scores in one answer")
    return answers


def _answer(item: JsonData, *, n_labels: int | None) -> Answer:
    if not isinstance(item, dict):
        raise SuspectAnswerError("the suspect gave an answer that is not an object")
    top = _top(item["top"]) if item.get("top") is not None else None
    label = item.get("label")
    if label is None and top is not None:
        # The first of the best, as services list them in order.
        label = max(top, key=lambda candidate: top[candidate])
    if isinstance(label, bool) or not isinstance(label, int) or label < 0:
        raise SuspectAnswerError("the suspect gave an answer without a label that is an integer from 0")
    scores = _scores(item["scores"]) if item.get("scores") is not None else None
    if scores is None and top is not None and n_labels is not None and set(top) == set(range(n_labels)):
        scores = tuple(top[candidate] for candidate in range(n_labels))
    if scores is not None and label >= len(scores):
        raise SuspectAnswerError("the suspect gave a label that has no score")
    return Answer(label=label, scores=scores, top=tuple(top.items()) if scores is None and top is not None else None)


def _scores(value: JsonData) -> tuple[float, ...]:
    if not isinstance(value, list) or not 2 <= len(value) <= MAX_SCORES:
        raise SuspectAnswerError("the suspect gave scores that are not a list of numbers")
    return finite(value)


def _top(value: JsonData) -> dict[int, float]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_SCORES:
        raise SuspectAnswerError("the suspect gave a top list that is not a list")
    found: dict[int, float] = {}
    for entry in value:
        label, score = (entry.get("label"), entry.get("score")) if isinstance(entry, dict) else (None, None)
        if isinstance(label, bool) or not isinstance(label, int) or label < 0 or label in found:
            raise SuspectAnswerError("the suspect gave a top list without distinct labels from 0")
        (found[label],) = finite([score])
    return found


def _is_side(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_SIDE
