"""Ensembling: the thief lets several models answer together, so that what only one of them learned is outvoted."""

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from auditor.attacks.base import Attack
from auditor.attacks.imitate import SAME, SURROGATE_PLAN, Lesson, train_surrogate
from auditor.attacks.settings import Presets
from auditor.attacks.victims import OpenVictim
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.training import TrainingPlan
from auditor.wrapped import MAX_MEMBERS, Combination, Wrapping, wrap


class Others(StrEnum):
    """What joins the ensemble."""

    TRAINED = "trained"
    """Models trained on the attacker's labelled images; they owe the victim nothing."""
    EXTRACTED = "extracted"
    """Surrogates trained on the victim's answers to the attacker's images."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ensemble(Attack):
    """Answer with the mean or the majority of the victim and further models of the thief."""

    name: ClassVar[str] = "ensemble"
    presets: ClassVar[Presets] = {
        "diluted": {"others": "trained", "n_others": 2, "combination": "mean"},
        "outvoted": {"others": "trained", "n_others": 2, "combination": "majority"},
        "surrogates": {"others": "extracted", "n_others": 3, "with_victim": False},
    }

    plan: TrainingPlan = SURROGATE_PLAN
    """Of each further model; their seeds follow the plan's."""
    others: Others = Others.TRAINED
    n_others: int = 2
    with_victim: bool = True
    combination: Combination = Combination.MEAN
    architecture: str = SAME
    """Of the further models."""

    def __post_init__(self) -> None:
        if not 1 <= self.n_others < MAX_MEMBERS:
            raise UsageError(f"an ensemble has between 1 and {MAX_MEMBERS - 1} further models")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        description = victim.description
        probabilities = None
        if self.others is Others.EXTRACTED:
            probabilities = OpenVictim(victim).ask(own.inputs, progress).probabilities
        lesson = Lesson(inputs=own.inputs, labels=own.labels, probabilities=probabilities)
        further = [
            train_surrogate(
                lesson,
                architecture=description.architecture if self.architecture == SAME else self.architecture,
                names=description.classes,
                plan=replace(self.plan, seed=self.plan.seed + number),
                progress=progress,
            )
            for number in range(self.n_others)
        ]
        members = [victim, *further] if self.with_victim else further
        return wrap(members, Wrapping(combination=self.combination))
