"""The record of a calibration: what ordinary inputs were asked before any key, and the label map that follows.

It stands in the transcript's first line, so that the map is fixed before the first key is asked. ``check`` reads the
suspect's own labels from the raw bodies again, fits the map again and compares both; nothing here is believed.

A label whose class is beyond doubt stands for it. One that was answered without such a class counts as no label at all:
never natural, never a hit. One that no ordinary input was answered with counts as the first label outside the task,
which is where the new label of a marked model is to be found under whatever name. A map that is wrong cannot raise the
error of the sealed test: it is a function of answers to ordinary inputs, so that drawn labels and patterns are as
independent of it as of the suspect.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from auditor.canonical import Fields, JsonValue, decimal_string
from auditor.errors import TranscriptError
from auditor.evidence.reading import NO_LABEL, Reading, read_answers, reading_of
from auditor.records import Protocol
from auditor.stats.label_map import FittedMap, fit_label_map

FIELD = "calibration"
SCHEMA = "mlaudit.calibration/1"
MAX_INPUTS = 100_000
CONFIDENCE = 0.99
FIRST_NAME = 500_000
"""Names are counted from here, above every number that stands for itself."""
MIN_CLAIMED = 0.5
"""Smallest share of the task's classes that some label must stand for."""


class OwnLabels(dict[str, int]):
    """A label map that takes in every name it is asked about; numbers stay numbers."""

    def __contains__(self, name: object) -> bool:
        if isinstance(name, str) and not name.isdigit():
            self.setdefault(name, FIRST_NAME + len(self))
        return super().__contains__(name)

    def told(self, label: int) -> str:
        """Return the suspect's own label for what a reading with this map gave."""
        return next((name for name, number in self.items() if number == label), str(label))


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Ordinary inputs with what the suspect called them."""

    source: str
    """Where the inputs come from, as the examiner names it."""
    reading: str
    """How the suspect's own labels are read from its bodies: a reading without a label map."""
    truth: tuple[int, ...]
    """Class of each input, from 0."""
    told: tuple[str, ...]
    """The suspect's own label for each."""
    inputs_sha256: tuple[str, ...]
    """Digest of each input's uint8 values, C order."""
    bodies_sha256: tuple[str, ...]
    """Digest of the raw body of each batch, in order."""

    def fitted(self, n_classes: int) -> FittedMap:
        """Return the map that the answers support."""
        return fit_label_map(truth=self.truth, answered=self.told, n_classes=n_classes, confidence=CONFIDENCE)

    def mapped(self, n_classes: int) -> Reading:
        """Return the reading with the fitted map in it."""
        return mapped_reading(reading_of(self.reading), self.fitted(n_classes), n_classes=n_classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelSpace:
    """What a calibration says about a suspect's labels, as far as verdict and results need it."""

    source: str
    inputs: int
    fitted: FittedMap
    claimed: frozenset[int]
    """Classes that some label stands for."""
    agreement: float
    """Share of the inputs of claimed classes that were answered with their own class."""
    unclear: bool
    """True where the map is too uncertain to ask any key."""

    def as_json(self, classes: Sequence[str]) -> dict[str, JsonValue]:
        """Return the section of the results."""
        return {
            "source": self.source,
            "inputs": self.inputs,
            "confidence": decimal_string(CONFIDENCE),
            "labels": dict(self.fitted.label_map),
            "left_out": list(self.fitted.unmapped),
            "classes_without_label": [classes[each] for each in self.fitted.unclaimed],
            "agreement": decimal_string(self.agreement),
            "unclear": self.unclear,
        }


def mapped_reading(reading: Reading, fitted: FittedMap, *, n_classes: int) -> Reading:
    """Return a reading in which labels mean what a fitted map says."""
    label_map = {**fitted.label_map, **dict.fromkeys(fitted.unmapped, NO_LABEL)}
    return replace(reading, label_map=label_map, n_classes=n_classes)


def label_space(calibration: Calibration, *, n_classes: int, protocol: Protocol) -> LabelSpace:
    """Return what a calibration says about the suspect's labels.

    It is unclear where fewer than half of the classes have a label, or where the inputs of those that have one are
    answered with it less often than the sealed plan demands of controls.
    """
    fitted = calibration.fitted(n_classes)
    claimed = frozenset(range(n_classes)) - set(fitted.unclaimed)
    pairs = [(own, label) for own, label in zip(calibration.truth, calibration.told, strict=True) if own in claimed]
    right = sum(fitted.label_map.get(label) == own for own, label in pairs)
    agreement = right / len(pairs) if pairs else 0.0
    unclear = len(claimed) < MIN_CLAIMED * n_classes or agreement < protocol.min_control_accuracy
    return LabelSpace(
        source=calibration.source,
        inputs=len(calibration.truth),
        fitted=fitted,
        claimed=claimed,
        agreement=agreement,
        unclear=unclear,
    )


def own_labels(body: bytes, reading: Reading) -> tuple[str, ...]:
    """Return the suspect's own labels in a body, numbers as text.

    Raises:
        SuspectAnswerError: the body holds no answers in that form.
    """
    names = OwnLabels()
    answers = read_answers(body, replace(reading, label_map=names))
    return tuple(names.told(answer.label) for answer in answers)


def calibration_object(calibration: Calibration) -> dict[str, JsonValue]:
    """Return a calibration as JSON."""
    return {
        "schema": SCHEMA,
        "source": calibration.source,
        "reading": calibration.reading,
        "truth": list(calibration.truth),
        "told": list(calibration.told),
        "inputs_sha256": list(calibration.inputs_sha256),
        "bodies_sha256": list(calibration.bodies_sha256),
    }


def n_calibration_inputs(preamble: Mapping[str, JsonValue]) -> int:
    """Return how many ordinary inputs a preamble records as asked, 0 without a calibration."""
    found = preamble.get(FIELD)
    told = found.get("told") if isinstance(found, Mapping) else None
    return len(told) if isinstance(told, Sequence) and not isinstance(told, str) else 0


def calibration_of(preamble: Mapping[str, JsonValue], *, n_classes: int) -> Calibration | None:
    """Return the calibration that a preamble records, None where it records none.

    Raises:
        MalformedError: the record cannot be read.
        TranscriptError: its parts do not fit, or the suspect's recorded reading is not the one that follows.
    """
    if FIELD not in preamble:
        return None
    what = "transcript preamble.calibration"
    fields = Fields(preamble[FIELD], what=what)
    schema = fields.text("schema")
    found = Calibration(
        source=fields.text("source"),
        reading=fields.text("reading", max_length=1 << 22),
        truth=tuple(_class(each, n_classes) for each in fields.items("truth", max_items=MAX_INPUTS)),
        told=fields.texts("told", max_items=MAX_INPUTS),
        inputs_sha256=fields.texts("inputs_sha256", max_items=MAX_INPUTS),
        bodies_sha256=fields.texts("bodies_sha256", max_items=MAX_INPUTS),
    )
    fields.finish()
    if schema != SCHEMA or not len(found.truth) == len(found.told) == len(found.inputs_sha256) > 0:
        raise TranscriptError("the calibration's record is not whole")
    suspect = preamble.get("suspect")
    recorded = suspect.get("reading") if isinstance(suspect, Mapping) else None
    if reading_of(found.reading).label_map or recorded != found.mapped(n_classes).as_text():
        raise TranscriptError("the recorded meaning of the suspect's labels does not follow from the calibration")
    return found


def _class(value: JsonValue, n_classes: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < n_classes:
        raise TranscriptError("the calibration names a class that the task does not have")
    return value
