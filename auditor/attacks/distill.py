"""Distillation: a thief who holds the model and labelled images trains a student on both.

*References.* Hinton et al., 2015; Kim et al., ICML 2023 (eq. 5: temperature 1, weight 0.7, no factor T²).
"""

from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks.base import Attack
from auditor.attacks.imitate import SAME, SURROGATE_PLAN, Lesson, train_surrogate
from auditor.attacks.published import MARGIN_TRAINING
from auditor.attacks.settings import Presets
from auditor.attacks.victims import OpenVictim
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.training import TrainingPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class Distill(Attack):
    """Train a student on (1 − mix)·CE(true label) + mix·KL(teacher) at a temperature."""

    name: ClassVar[str] = "distill"
    opens_victim: ClassVar[bool] = False
    presets: ClassVar[Presets] = {
        "margin": {"architecture": "resnet18", **MARGIN_TRAINING},
        "same-size": {},
        "hinton": {"mix": 0.9, "temperature": 4.0, "temperature_squared": True},
    }
    """``margin`` is the setting of Kim et al.: ResNet-18 student, mix 0.7, temperature 1, no factor T²."""

    plan: TrainingPlan = SURROGATE_PLAN
    mix: float = 0.7
    """Weight of the teacher's term, in [0, 1]."""
    temperature: float = 1.0
    temperature_squared: bool = False
    """Whether the teacher's term is multiplied by T²."""
    architecture: str = SAME

    def __post_init__(self) -> None:
        if not 0 <= self.mix <= 1 or not self.temperature > 0:
            raise UsageError("the mix of distillation lies in [0, 1], and its temperature is positive")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        description = victim.description
        answers = OpenVictim(victim).ask(own.inputs, progress)
        lesson = Lesson(
            inputs=own.inputs,
            labels=own.labels,
            probabilities=answers.probabilities,
            mix=self.mix,
            temperature=self.temperature,
            temperature_squared=self.temperature_squared,
        )
        return train_surrogate(
            lesson,
            architecture=description.architecture if self.architecture == SAME else self.architecture,
            names=description.classes,
            plan=self.plan,
            progress=progress,
        )
