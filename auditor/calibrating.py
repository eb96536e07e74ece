"""Asks a suspect about ordinary inputs before any key, and fixes what its labels mean."""

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from auditor.errors import UsageError
from auditor.evidence.bundle import store_raw
from auditor.evidence.calibration import Calibration, OwnLabels, mapped_reading
from auditor.evidence.keyset import OpenedKeySet
from auditor.evidence.storage import need_space
from auditor.records import Inputs, Progress
from auditor.suspects.base import Suspect

PER_CLASS = 20
"""Ordinary inputs of each class that are asked; a label needs ten or more that agree."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class OrdinaryInputs:
    """Labelled inputs that a calibration asks; none of them is a sealed sample."""

    inputs: Inputs
    """uint8, shape (n, channels, height, width)."""
    labels: npt.NDArray[np.int64]
    """Their classes, from 0, shape (n,)."""
    source: str
    """Where they come from, for the record."""


def choose_inputs(
    inputs: Inputs, labels: npt.NDArray[np.int64], *, opened: OpenedKeySet, source: str, per_class: int = PER_CLASS
) -> OrdinaryInputs:
    """Return the first inputs of each class that are no sealed samples, in their own order.

    Raises:
        UsageError: another shape, a class that the task does not have, or no inputs.
    """
    spec = opened.seal.spec
    if inputs.shape[1:] != spec.shape or len(labels) != len(inputs):
        raise UsageError(f"{source}: its inputs do not have the key set's shape, {spec.shape}")
    if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < len(spec.classes):
        raise UsageError(f"{source}: it names a class that the key set's task does not have")
    sealed = {opened.keys.data(sample.index) for sample in opened.keys.samples}
    left = dict.fromkeys(range(len(spec.classes)), per_class)
    rows: list[int] = []
    for row, label in enumerate(labels.tolist()):
        if left[label] and inputs[row].tobytes() not in sealed:
            left[label] -= 1
            rows.append(row)
    if not rows:
        raise UsageError(f"{source}: it holds no ordinary input that is not a sealed sample")
    return OrdinaryInputs(inputs=inputs[rows], labels=labels[rows], source=source)


def calibrate(
    suspect: Suspect, ordinary: OrdinaryInputs, *, folder: Path, n_classes: int, progress: Progress
) -> Calibration:
    """Ask ordinary inputs, keep the raw answers in the bundle, and have the suspect read with the map that follows.

    Raises:
        UsageError: the suspect's labels cannot be mapped, a profile has mapped them already, or the budget does not
            permit so many inputs.
        SuspectError: an input stays without a usable answer; nothing else was asked.
        OSError: an answer cannot be kept.
    """
    if not suspect.reserve(len(ordinary.inputs)):
        raise UsageError(f"the budget does not permit the {len(ordinary.inputs)} inputs of the calibration")
    plain = suspect.reading()
    names = OwnLabels()
    suspect.read_with(replace(plain, label_map=names))
    told: list[str] = []
    bodies: list[str] = []
    progress.begin("asking ordinary inputs, to learn what the labels mean", len(ordinary.inputs))
    for start in range(0, len(ordinary.inputs), suspect.batch_size):
        batch = np.ascontiguousarray(ordinary.inputs[start : start + suspect.batch_size])
        need_space(folder)
        reply = suspect.query(batch).reply
        bodies.append(store_raw(folder, reply.body))
        told += [names.told(answer.label) for answer in reply.answers]
        progress.advance(len(batch))
    progress.end()
    found = Calibration(
        source=ordinary.source,
        reading=plain.as_text(),
        truth=tuple(ordinary.labels.tolist()),
        told=tuple(told),
        inputs_sha256=tuple(hashlib.sha256(each.tobytes()).hexdigest() for each in ordinary.inputs),
        bodies_sha256=tuple(bodies),
    )
    suspect.read_with(mapped_reading(plain, found.fitted(n_classes), n_classes=n_classes))
    return found


def read_again(suspect: Suspect, calibration: Calibration, *, n_classes: int) -> None:
    """Have a suspect read with a recorded map, so that an audit goes on without asking ordinary inputs again.

    Raises:
        UsageError: the suspect is spoken to in another way than when the map was made.
    """
    if suspect.reading().as_text() != calibration.reading:
        raise UsageError("the suspect is read in another way than when its labels were calibrated")
    suspect.read_with(calibration.mapped(n_classes))
