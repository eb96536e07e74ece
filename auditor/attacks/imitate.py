"""Training a student from nothing on a teacher's answers: the part that extraction and distillation share."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from auditor.attacks.objectives import Imitation
from auditor.attacks.victims import Answers
from auditor.datasets import Labels
from auditor.errors import SuspectAnswerError
from auditor.models import LoadedModel, build, describe
from auditor.records import Inputs, Progress
from auditor.training import TrainingPlan, fit
from auditor.transforms import Probabilities

SAME = "same"
"""Stands for the victim's own architecture."""

SURROGATE_PLAN = TrainingPlan(epochs=30, batch_size=64, learning_rate=0.05, label_smoothing=0.0)
"""Training of a small surrogate where nothing else is said."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """What a student is trained on."""

    inputs: Inputs
    labels: Labels
    """The teacher's labels, or true ones where the student has them."""
    probabilities: Probabilities | None
    """The teacher's probabilities; None trains on the labels alone."""
    mix: float = 1.0
    """Weight of the probabilities against the labels, in [0, 1]."""
    temperature: float = 1.0
    temperature_squared: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class NaturalAnswers:
    """Answers over the task's natural classes only."""

    answers: Answers
    rows: npt.NDArray[np.intp]
    """Which of the images have such an answer."""
    n_natural: int


def without_new_labels(answers: Answers, *, n_natural: int) -> NaturalAnswers:
    """Return the answers without outputs beyond the natural classes.

    Probabilities are cut and normalised; an image that is answered with nothing but such an output is left out.

    Raises:
        SuspectAnswerError: no image is left.
    """
    if answers.probabilities is None:
        rows = _some(np.flatnonzero(answers.labels < n_natural))
        kept = Answers(labels=answers.labels[rows], probabilities=None)
        return NaturalAnswers(answers=kept, rows=rows, n_natural=n_natural)
    cut = answers.probabilities[:, :n_natural]
    rows = _some(np.flatnonzero(cut.sum(axis=1) > 0))
    cut = cut[rows] / cut[rows].sum(axis=1, keepdims=True)
    kept = Answers(labels=np.argmax(cut, axis=1), probabilities=cut)
    return NaturalAnswers(answers=kept, rows=rows, n_natural=n_natural)


def _some(rows: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    if len(rows) == 0:
        raise SuspectAnswerError("the victim answered no image with a natural class; nothing can be learned from that")
    return rows


def output_names(names: tuple[str, ...], *, answers: Answers, declared: int | None) -> tuple[str, ...]:
    """Return one name per output of the student: the given ones, then numbered ones for what the teacher has more."""
    seen = int(answers.labels.max()) + 1
    if answers.probabilities is not None:
        seen = max(seen, answers.probabilities.shape[1])
    width = max(len(names), declared or 0, seen)
    return names + tuple(f"output-{number}" for number in range(len(names), width))


def train_surrogate(
    lesson: Lesson, *, architecture: str, names: tuple[str, ...], plan: TrainingPlan, progress: Progress
) -> LoadedModel:
    """Return a student with one output per name, trained from weights drawn from the plan's seed.

    Raises:
        UsageError: the architecture is not known or does not fit the images.
        TrainingError: training diverged.
    """
    _, channels, height, width = lesson.inputs.shape
    description = describe(architecture, input_shape=(channels, height, width), classes=names)
    network = build(description, seed=plan.seed)
    objective = None
    if lesson.probabilities is not None:
        padded = np.zeros((len(lesson.inputs), len(names)))
        padded[:, : lesson.probabilities.shape[1]] = lesson.probabilities
        objective = Imitation(
            answers=padded,
            mix=lesson.mix,
            temperature=lesson.temperature,
            temperature_squared=lesson.temperature_squared,
        )
    fit(
        network,
        inputs=lesson.inputs,
        labels=lesson.labels,
        plan=plan,
        objective=objective,
        title="training the surrogate",
        progress=progress,
    )
    return LoadedModel(network=network, description=description)
