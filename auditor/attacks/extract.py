"""Extraction: the thief buys answers to its own images and trains a model of its own on them.

*Differences from the papers.* Every image is bought once, before training; the published code of margin-based
watermarking asks the teacher again about each augmented view in each epoch, which no paid service would be asked.
The surrogate of the last epoch is returned: the attacker has no labels to select another one with.

*References.* Kim et al., ICML 2023 (margin); Orekondy et al., CVPR 2019 (foreign data); Tramèr et al., 2016 (rounded).
"""

from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import ClassVar, assert_never

import numpy as np

from auditor.attacks.base import Attack, AttackData, Surrogate
from auditor.attacks.imitate import SAME, SURROGATE_PLAN, Lesson, output_names, train_surrogate, without_new_labels
from auditor.attacks.published import MARGIN_TRAINING
from auditor.attacks.settings import Presets, require_possible
from auditor.attacks.victims import Answers, AskedVictim, OpenVictim, Victim, chosen_rows, kept_answers
from auditor.datasets import Part
from auditor.errors import SuspectAnswerError, UsageError
from auditor.models import SMALL_CNN, LoadedModel, build, describe
from auditor.records import Inputs, Progress, Silent
from auditor.suspects.base import Suspect
from auditor.training import TrainingPlan, accuracy
from auditor.transforms import AnswerChange, AnswerKind, Probabilities


class Taught(StrEnum):
    """What of an answer the surrogate is trained on."""

    SOFT = "soft"
    """All probabilities (KL divergence)."""
    HARD = "hard"
    """The label (cross-entropy)."""
    TOP_K = "top-k"
    """The k largest probabilities, normalised (KL divergence)."""
    ROUNDED = "rounded"
    """Probabilities rounded to some decimals, normalised (KL divergence)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Extract(Attack):
    """Train a surrogate on the victim's answers; from a local model or from a service."""

    name: ClassVar[str] = "extract"
    needs_labels: ClassVar[bool] = False
    opens_victim: ClassVar[bool] = False
    presets: ClassVar[Presets] = {
        "margin-soft": {"taught": "soft", "architecture": "resnet34", **MARGIN_TRAINING},
        "margin-hard": {"taught": "hard", "architecture": "resnet34", **MARGIN_TRAINING},
        "soft": {"taught": "soft"},
        "hard": {"taught": "hard"},
        "top-1": {"taught": "top-k", "k": 1},
        "rounded": {"taught": "rounded", "decimals": 1},
        "filtered": {"taught": "soft", "confident": 0.9, "hide_new_labels": True},
        "smoothed": {"taught": "hard", "label_smoothing": 0.2, "hide_new_labels": True},
    }
    """``margin-soft`` and ``margin-hard`` are the settings of Kim et al.: ResNet-34, 200 epochs, temperature 1."""

    plan: TrainingPlan = SURROGATE_PLAN
    taught: Taught = Taught.SOFT
    k: int = 1
    """Probabilities that are kept where ``taught`` is top-k."""
    decimals: int = 1
    """Decimals that are kept where ``taught`` is rounded."""
    temperature: float = 1.0
    """Of teacher and student in the KL divergence."""
    architecture: str = SAME
    """Of the surrogate; ``same`` is the victim's own, or the small network where that is not known."""
    budget: int | None = None
    """Most images that are asked, drawn from the attacker's; None asks about all of them."""
    confident: float = 0.0
    """Answers whose largest probability is below this are thrown away after they were paid for; 0 keeps all."""
    hide_new_labels: bool = False
    """Drop outputs beyond the task's natural classes: an attacker who knows the task has no use for them."""

    def __post_init__(self) -> None:
        require_possible(self.plan)
        if self.k < 1 or not 0 <= self.decimals <= 9 or not self.temperature > 0:
            raise UsageError("k is at least 1, decimals lie in [0, 9], and the temperature is positive")
        if not 0 <= self.confident < 1:
            raise UsageError("the least confidence that is learned from lies in [0, 1)")
        if self.budget is not None and self.budget < 1:
            raise UsageError("a budget is at least one query")

    def run(
        self,
        *,
        victim: LoadedModel,
        data: AttackData,
        progress: Progress | None = None,
        answers_file: Path | None = None,
    ) -> Surrogate:
        """Return the surrogate of a local model, with task accuracy before and after.

        Args:
            victim: asked for its outputs; it is not opened otherwise.
            data: the attacker's images, and those that judge.
            progress: where to report.
            answers_file: where the answers are kept; read instead of asking where it exists.

        Raises:
            UsageError: the budget is larger than the data, or images and victim do not fit together.
            TrainingError: training diverged.
        """
        self._check(data)
        before = accuracy(victim.network, inputs=data.evaluation.inputs, labels=data.evaluation.labels)
        order = self._order(victim, n_natural=_n_natural(data))
        learned = self._learn(OpenVictim(victim), data.own, order, answers_file, progress or Silent())
        return self._measured(learned, data, before=before)

    def run_on_service(
        self,
        *,
        suspect: Suspect,
        data: AttackData,
        classes: tuple[str, ...],
        progress: Progress | None = None,
        answers_file: Path | None = None,
    ) -> Surrogate:
        """Return the surrogate of a suspect behind an adapter; only the attack's own questions are asked of it.

        The victim's accuracy on the evaluation images stays unknown: asking would cost queries of their own.

        Args:
            suspect: what is asked.
            data: the attacker's images, and those that judge the surrogate.
            classes: names of the task's natural classes.
            progress: where to report.
            answers_file: where the answers are kept; read instead of asking where it exists.

        Raises:
            UsageError: the budget is larger than the data, or images and victim do not fit together.
            SuspectError: the victim cannot be asked.
            TrainingError: training diverged.
        """
        self._check(data)
        architecture = SMALL_CNN if self.architecture == SAME else self.architecture
        order = _Order(architecture=architecture, names=classes, n_natural=_n_natural(data))
        learned = self._learn(AskedVictim(suspect), data.own, order, answers_file, progress or Silent())
        return self._measured(learned, data, before=None)

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        order = self._order(victim, n_natural=victim.description.n_outputs)
        return self._learn(OpenVictim(victim), own, order, None, progress).model

    def _order(self, victim: LoadedModel, *, n_natural: int) -> "_Order":
        description = victim.description
        architecture = description.architecture if self.architecture == SAME else self.architecture
        return _Order(architecture=architecture, names=description.classes, n_natural=n_natural)

    def _measured(self, learned: "_Learned", data: AttackData, *, before: float | None) -> Surrogate:
        right = float(np.mean(learned.answers.labels == learned.asked.labels)) if data.labelled else None
        surrogate = self._surrogate(learned.model, data, before=before)
        return replace(surrogate, queries=len(learned.answers), answers_right=right)

    def _learn(
        self, victim: Victim, own: Part, order: "_Order", answers_file: Path | None, progress: Progress
    ) -> "_Learned":
        _, channels, height, width = own.inputs.shape
        shape, names = (channels, height, width), order.names
        # Whatever cannot work is refused before any query is paid.
        if victim.input_shape not in (None, shape):
            raise UsageError(f"the victim takes inputs of shape {victim.input_shape}, not {shape}")
        asked = own.take(chosen_rows(len(own), budget=self.budget, seed=self.plan.seed))
        if not victim.may_score and self.taught is not Taught.HARD:
            raise self._unscored()
        build(describe(order.architecture, input_shape=shape, classes=names), seed=self.plan.seed)
        if answers_file is None:
            answers = victim.ask(asked.inputs, progress)
        else:
            answers = kept_answers(answers_file, victim=victim, inputs=asked.inputs, progress=progress)
        heard, inputs, declared = answers, asked.inputs, victim.n_outputs
        if self.hide_new_labels:
            natural = without_new_labels(answers, n_natural=order.n_natural)
            heard, inputs = natural.answers, inputs[natural.rows]
            names, declared = names[: order.n_natural], None
        if self.confident:
            heard, inputs = self._believed(heard, inputs)
        lesson = Lesson(
            inputs=inputs,
            labels=heard.labels,
            probabilities=None if self.taught is Taught.HARD else self._taught(heard),
            temperature=self.temperature,
        )
        model = train_surrogate(
            lesson,
            architecture=order.architecture,
            names=output_names(names, answers=heard, declared=declared),
            plan=self.plan,
            progress=progress,
        )
        return _Learned(model=model, asked=asked, answers=answers)

    def _believed(self, answers: Answers, inputs: Inputs) -> tuple[Answers, Inputs]:
        if answers.probabilities is None:
            raise self._unscored()
        rows = np.flatnonzero(answers.probabilities.max(axis=1) >= self.confident)
        if len(rows) == 0:
            raise SuspectAnswerError(f"the victim gave no answer with a probability of {self.confident:g} or more")
        return Answers(labels=answers.labels[rows], probabilities=answers.probabilities[rows]), inputs[rows]

    def _taught(self, answers: Answers) -> Probabilities:
        if answers.probabilities is None:
            raise self._unscored()
        match self.taught:
            case Taught.TOP_K:
                return AnswerChange(kind=AnswerKind.TOP_K, value=self.k).apply(answers.probabilities)
            case Taught.ROUNDED:
                return AnswerChange(kind=AnswerKind.ROUND, value=self.decimals).apply(answers.probabilities)
            case Taught.SOFT | Taught.HARD:
                return answers.probabilities
        assert_never(self.taught)

    def _unscored(self) -> SuspectAnswerError:
        text = f"the victim answers with labels only; {self.taught.value} extraction needs scores, use hard"
        return SuspectAnswerError(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """What surrogate is wanted."""

    architecture: str
    names: tuple[str, ...]
    """Of the victim's outputs, as far as they are known."""
    n_natural: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Learned:
    """A surrogate with what was paid for it."""

    model: LoadedModel
    asked: Part
    answers: Answers


def _n_natural(data: AttackData) -> int:
    return int(data.evaluation.labels.max()) + 1
