"""How the answers of a service are read from its bytes; ``verify`` reads them so, and ``check`` reads them again.

A reading is fixed before the first question and stands in the transcript: JMESPath expressions that find one item per
input, and a map from the service's own labels to the labels of the task. One item may be

- a whole number or a name: the label, and nothing else is revealed,
- a list of two numbers or more: one score per label,
- an object with ``label`` and perhaps ``score``, ``scores`` or ``top``, or with ``labels`` and ``scores``,
- a list of objects with ``label`` and ``score``, or an object of numbers by name: the best labels with their scores.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_object
from auditor.errors import MalformedError, SuspectAnswerError
from auditor.records import Answer

if TYPE_CHECKING:
    import jmespath.parser

NO_LABEL = 999_999
"""Stands for a label that the map leaves out: never natural, never a hit."""
MAX_SCORES = 100_000
MAX_NAMES = 100_000
MAX_EXPRESSION = 1000
MAX_NAME = 80
MAX_DIGITS = 19
EXPRESSIONS = ("answers", "labels", "scores", "shape")

JsonData = str | int | float | bool | None | list["JsonData"] | dict[str, "JsonData"]
"""A JSON value that may hold floats: outside data, never signed as it is."""


_NUMBERS = frozenset({int, float})


class Unknown(StrEnum):
    """What becomes of a label that the map does not hold."""

    EXTRA = "extra"
    """All of them count as one label outside the task's own: the first number after the mapped ones."""
    NO_LABEL = "no-label"
    """It counts as no label at all: never natural, never a hit."""
    REFUSE = "refuse"
    """The answer cannot be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reading:
    """Where a body holds its answers, and what their labels mean; empty expressions are not used."""

    answers: str = ""
    """JMESPath to a list with one item per input; excludes ``labels`` and ``scores``."""
    labels: str = ""
    """JMESPath to a list with one label, or one list of labels, per input."""
    scores: str = ""
    """JMESPath to a list with one list of scores per input, in the order of ``labels`` where those are lists."""
    shape: str = ""
    """JMESPath to the dimensions of a flat list of numbers; the first is the number of inputs."""
    label_map: Mapping[str, int] = field(default_factory=dict)
    """Label of the task by the service's own; numbers are written as text. Empty: numbers stay as they are."""
    unknown: Unknown = Unknown.EXTRA
    n_classes: int = 0
    """Classes of the task, below which no unknown label may fall; 0 leaves them to the map."""

    def as_text(self) -> str:
        """Return the one spelling that a transcript records."""
        content: dict[str, JsonValue] = {name: getattr(self, name) for name in EXPRESSIONS}
        content["label_map"] = dict(self.label_map)
        content["unknown"] = self.unknown.value
        if self.n_classes:
            content["n_classes"] = self.n_classes
        return canonical_bytes(content).decode("utf-8")


def reading_of(text: str) -> Reading:
    """Return the reading that a transcript records.

    Raises:
        MalformedError: not such a text, an expression that is none, or a map with labels out of range.
    """
    what = "reading of the answers"
    fields = Fields(parse_object(text.encode("utf-8", "replace"), what=what), what=what)
    expressions = {name: fields.text(name, max_length=MAX_EXPRESSION) for name in EXPRESSIONS}
    found = fields.raw("label_map")
    unknown = fields.text("unknown")
    n_classes = fields.integer("n_classes", low=1, high=NO_LABEL - 1) if fields.has("n_classes") else 0
    fields.finish()
    if not isinstance(found, Mapping) or not all(_is_label(label) for label in found.values()):
        raise MalformedError(f"{what}: the label map must hold whole numbers from 0")
    for name, expression in expressions.items():
        check_expression(expression, what=f"{what}: {name}")
    if unknown not in tuple(Unknown):
        raise MalformedError(f"{what}: unknown rule for unknown labels")
    label_map = {name: label for name, label in found.items() if isinstance(label, int)}
    return Reading(
        answers=expressions["answers"],
        labels=expressions["labels"],
        scores=expressions["scores"],
        shape=expressions["shape"],
        label_map=label_map,
        unknown=Unknown(unknown),
        n_classes=n_classes,
    )


def check_expression(expression: str, *, what: str) -> None:
    """Refuse text that is no JMESPath; the empty text passes.

    Raises:
        MalformedError: not an expression.
    """
    if expression:
        try:
            _compiled(expression)
        except ValueError as error:
            raise MalformedError(f"{what}: not a JMESPath expression") from error


def search(expression: str, value: JsonData) -> JsonData:
    """Return what a JMESPath expression finds, None when it finds nothing.

    Raises:
        SuspectAnswerError: the value does not suit the expression.
    """
    try:
        found: JsonData = _compiled(expression).search(value)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise SuspectAnswerError("the suspect's answer does not suit the profile's expression") from error
    return found


def read_answers(body: bytes, reading: Reading) -> tuple[Answer, ...]:
    """Return the answers of a complete body, in order.

    Raises:
        SuspectAnswerError: not JSON, no answers where the reading looks for them, or numbers that cannot be answers.
    """
    value = load_json(body)
    if reading.answers:
        items = _reshaped(_listed(value, reading.answers), value, reading)
        answers = tuple(_answer(item, reading) for item in items)
    else:
        answers = _paired(value, reading)
    if len({len(answer.scores) for answer in answers if answer.scores is not None}) > 1:
        raise SuspectAnswerError("the suspect gave different numbers of scores in one answer")
    return answers


def load_json(body: bytes) -> JsonData:
    """Return the value of a body, floats allowed.

    Raises:
        SuspectAnswerError: a page, not UTF-8, not JSON, too deep, with duplicate keys or numbers that are none.
    """
    if body.lstrip()[:1] == b"<":
        raise SuspectAnswerError("the suspect answered with a page instead of JSON")
    try:
        value: JsonData = json.loads(
            body.decode("utf-8"),
            object_pairs_hook=_unique_pairs,
            parse_constant=_refuse_constant,
            parse_int=_short_int,
        )
    except json.JSONDecodeError as error:
        raise SuspectAnswerError(f"the suspect's answer is not JSON ({error.msg} at byte {error.pos})") from error
    except UnicodeDecodeError as error:
        raise SuspectAnswerError("the suspect's answer is not UTF-8 text") from error
    except RecursionError as error:
        raise SuspectAnswerError("the suspect's answer is nested too deeply") from error
    except ValueError as error:
        raise SuspectAnswerError(f"the suspect's answer is not acceptable JSON ({error})") from error
    return value


def finite(values: Sequence[JsonData]) -> tuple[float, ...]:
    """Return numbers as floats; anything else, and anything not finite, is refused."""
    # A boolean is an integer to Python, but not of that very type.
    if not _NUMBERS.issuperset(map(type, values)) or not all(map(math.isfinite, values)):  # type: ignore[arg-type]
        raise SuspectAnswerError("the suspect gave scores that are not finite numbers")
    return tuple(map(float, values))  # type: ignore[arg-type]


def printable(value: object, *, limit: int = MAX_NAME) -> str:
    """Return outside text without control characters and cut to ``limit`` characters; empty for anything else."""
    if not isinstance(value, str):
        return ""
    beginning = value[: 4 * limit]
    if not beginning.isprintable():
        beginning = "".join(character for character in beginning if character.isprintable())
    return beginning[:limit]


def _listed(value: JsonData, expression: str) -> list[JsonData]:
    found = search(expression, value)
    if not isinstance(found, list):
        raise SuspectAnswerError("the suspect's answer holds no list where the profile looks for answers")
    return found


def _reshaped(items: list[JsonData], value: JsonData, reading: Reading) -> list[JsonData]:
    """Cut a flat list of numbers into rows, where the service states its dimensions."""
    if not reading.shape or any(isinstance(item, list | dict) for item in items):
        return items
    sides = search(reading.shape, value)
    if not isinstance(sides, list) or not all(_is_label(side) for side in sides) or not 1 <= len(sides) <= 8:
        raise SuspectAnswerError("the suspect states no shape of its answers")
    dimensions = [side for side in sides if isinstance(side, int)]
    width = math.prod(dimensions[1:])
    if dimensions[0] < 1 or width < 1 or dimensions[0] * width != len(items):
        raise SuspectAnswerError("the suspect's answers do not fill the shape it states")
    return items if width == 1 else [items[start : start + width] for start in range(0, len(items), width)]


def _paired(value: JsonData, reading: Reading) -> tuple[Answer, ...]:
    if not reading.labels or not reading.scores:
        items = _reshaped(_listed(value, reading.labels or reading.scores), value, reading)
        return tuple(_answer(item, reading) for item in items)
    labels, scores = _listed(value, reading.labels), _listed(value, reading.scores)
    if len(labels) != len(scores):
        raise SuspectAnswerError("the suspect gave labels and scores of different numbers")
    items = [
        {"labels" if isinstance(name, list) else "label": name, "scores": row}
        for name, row in zip(labels, scores, strict=True)
    ]
    return tuple(_answer(item, reading) for item in items)


def _answer(item: JsonData, reading: Reading) -> Answer:
    if isinstance(item, list) and len(item) == 1 and not isinstance(item[0], list | dict):
        item = item[0]
    if isinstance(item, list):
        if item and all(isinstance(entry, dict) for entry in item):
            return _best(_pairs(item), reading)
        return _scored(item, None, reading)
    if isinstance(item, dict):
        return _from_object(item, reading)
    return Answer(label=_label(item, reading))


def _from_object(item: dict[str, JsonData], reading: Reading) -> Answer:
    scores, labels, top = item.get("scores"), item.get("labels"), item.get("top")
    if isinstance(labels, list) and isinstance(scores, list):
        if len(labels) != len(scores):
            raise SuspectAnswerError("the suspect gave labels and scores of different numbers")
        return _best(list(zip(labels, finite(scores), strict=True)), reading)
    if isinstance(top, list):
        return _best(_pairs(top), reading, stated=item.get("label"))
    if isinstance(scores, list):
        return _scored(scores, item.get("label"), reading)
    if item.get("label") is not None:
        score = item.get("score")
        if isinstance(score, float) or type(score) is int:
            return _best([(item["label"], finite([score])[0])], reading)
        return Answer(label=_label(item["label"], reading))
    if item and all(type(value) in (int, float) for value in item.values()):
        return _best(list(zip(item, finite(list(item.values())), strict=True)), reading)
    raise SuspectAnswerError("the suspect gave an answer that holds neither a label nor scores")


def _pairs(entries: list[JsonData]) -> list[tuple[JsonData, float]]:
    pairs: list[tuple[JsonData, float]] = []
    for entry in entries:
        if not isinstance(entry, dict) or entry.get("label") is None:
            raise SuspectAnswerError("the suspect gave a list of labels in which one has no label")
        (score,) = finite([entry.get("score")])
        pairs.append((entry["label"], score))
    return pairs


def _scored(values: list[JsonData], stated: JsonData, reading: Reading) -> Answer:
    """One score per label of the service, in its own order."""
    if not 2 <= len(values) <= MAX_SCORES:
        raise SuspectAnswerError("the suspect gave scores that are not a list of numbers")
    scores = finite(values)
    if not _maps_numbers(reading):
        best = _label(stated, reading) if stated is not None else scores.index(max(scores))
        if stated is not None and best >= len(scores):
            raise SuspectAnswerError("the suspect gave a label that has no score")
        return Answer(label=best, scores=scores)
    return _best(list(zip(range(len(scores)), scores, strict=True)), reading, stated=stated)


def _best(pairs: Sequence[tuple[JsonData, float]], reading: Reading, *, stated: JsonData = None) -> Answer:
    """The best of some labels with scores; all scores in the task's order where none is missing, else those shown."""
    if not 1 <= len(pairs) <= MAX_SCORES:
        raise SuspectAnswerError("the suspect gave a list of labels that is empty or too long")
    labels = [_label(name, reading) for name, _ in pairs]
    # The first of the best, as services list them in order.
    best = max(range(len(pairs)), key=lambda row: pairs[row][1])
    label = labels[best] if stated is None else _label(stated, reading)
    n_known = _n_mapped(reading)
    whole = 2 <= n_known <= len(labels) and sorted(labels) == list(range(len(labels)))
    by_label: dict[int, float] = {}
    for known, (_, score) in zip(labels, pairs, strict=True):
        # Several labels that the map does not hold may stand for one; the best of them speaks for it.
        by_label[known] = max(score, by_label.get(known, score))
    if whole:
        return Answer(label=label, scores=tuple(by_label[j] for j in range(len(labels))))
    shown = tuple((known, score) for known, score in by_label.items() if known != NO_LABEL)
    return Answer(label=label, top=shown or None)


def _label(value: JsonData, reading: Reading) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int | str) or (isinstance(value, int) and value < 0):
        raise SuspectAnswerError("the suspect gave an answer without a label that is a name or a whole number from 0")
    text = str(value)
    if text in reading.label_map:
        return reading.label_map[text]
    if _is_number(text) and not _maps_numbers(reading):
        return int(text)
    match reading.unknown:
        case Unknown.NO_LABEL:
            return NO_LABEL
        case Unknown.EXTRA if reading.label_map:
            return _n_mapped(reading)
    known = f"{len(reading.label_map)} names" if reading.label_map else "no names"
    raise SuspectAnswerError(f"the suspect gave the label {printable(text, limit=40)!r}; the label map holds {known}")


def _n_mapped(reading: Reading) -> int:
    mapped = max((label for label in reading.label_map.values() if label != NO_LABEL), default=-1) + 1
    return max(mapped, reading.n_classes)


def _maps_numbers(reading: Reading) -> bool:
    return any(_is_number(name) for name in reading.label_map)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS


def _is_label(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= NO_LABEL


@lru_cache(maxsize=64)
def _compiled(expression: str) -> "jmespath.parser.ParsedResult":
    import jmespath
    from jmespath.exceptions import JMESPathError

    try:
        return jmespath.compile(expression)
    except (JMESPathError, RecursionError) as error:
        raise ValueError(expression) from error


def _unique_pairs(pairs: list[tuple[str, JsonData]]) -> dict[str, JsonData]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("duplicate key")
    return found


def _refuse_constant(text: str) -> float:
    raise ValueError("a number that is not finite")


def _short_int(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError("an integer too large to be a label or a score")
    return int(text)
