"""The border to an attack: a victim and the attacker's data in, a surrogate and what it cost in.

An attack never sees keys, patterns or seals; whether the mark survived is measured by whoever holds the keys.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar

from auditor.attacks import ATTACKS
from auditor.attacks.settings import Presets, recorded
from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.plugins import find_class
from auditor.records import Progress, Silent
from auditor.training import accuracy
from auditor.wrapped import WrappedModel

if TYPE_CHECKING:
    import torch

ENTRY_POINT_GROUP = "auditor.attacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackData:
    """What the attacker has, and what the result is judged on."""

    own: Part
    """The attacker's labelled images."""
    evaluation: Part
    """Images of neither party, for task accuracy."""
    labelled: bool = True
    """Whether the labels of ``own`` are those of the victim's task; False for images of another task."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """What came out of an attack."""

    model: LoadedModel
    attack: str
    settings: Mapping[str, JsonValue]
    accuracy_before: float | None
    """Task accuracy of the victim on the evaluation images; None where the victim was not asked about them."""
    accuracy_after: float
    """Task accuracy of the surrogate on the same images."""
    queries: int = 0
    """Images that the attack itself asked the victim about; measuring accuracies is not counted."""
    answers_right: float | None = None
    """Share of those answers that are the images' labels; None without answers or without labels of the task."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record for ``attack.json``."""
        return {
            "attack": self.attack,
            "settings": dict(self.settings),
            "accuracy_before": _decimal(self.accuracy_before),
            "accuracy_after": decimal_string(self.accuracy_after),
            "queries": self.queries,
            "answers_right": _decimal(self.answers_right),
        }


class Attack(ABC):
    """One way to disguise a model; hyper-parameters are constructor arguments of the variant."""

    name: ClassVar[str]
    presets: ClassVar[Presets] = {}
    """Named settings, such as a paper's; what a preset leaves out keeps its default."""
    needs_labels: ClassVar[bool] = True
    """Whether the attacker's images must carry labels of the victim's task."""
    opens_victim: ClassVar[bool] = True
    """Whether the attack reads or changes the victim's weights, which a wrapped suspect does not allow."""

    @property
    def settings(self) -> Mapping[str, JsonValue]:
        """Return the hyper-parameters, for the record; :func:`auditor.attacks.settings.build_attack` reads them."""
        return recorded(self)

    @abstractmethod
    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        """Turn the private copy ``victim`` into the surrogate."""

    def run(self, *, victim: LoadedModel, data: AttackData, progress: Progress | None = None) -> Surrogate:
        """Return the surrogate with task accuracy before and after; the victim stays as it is.

        Raises:
            UsageError: the attack cannot be made with these images or on this victim.
            TrainingError: training diverged.
        """
        self._check(data)
        if self.opens_victim and isinstance(victim, WrappedModel):
            raise UsageError(f"{self.name} changes a model's weights; this victim is a wrapped service")
        before = accuracy(victim.network, inputs=data.evaluation.inputs, labels=data.evaluation.labels)
        surrogate = self._apply(copy.deepcopy(victim), data.own, progress or Silent())
        return self._surrogate(surrogate, data, before=before)

    def _check(self, data: AttackData) -> None:
        if len(data.own) == 0 or len(data.evaluation) == 0:
            raise UsageError("an attack needs images of its own and images to be judged on")
        if self.needs_labels and not data.labelled:
            raise UsageError(f"{self.name} needs images with labels of the victim's task; foreign images have none")

    def _surrogate(self, model: LoadedModel, data: AttackData, *, before: float | None) -> Surrogate:
        after = accuracy(model.network, inputs=data.evaluation.inputs, labels=data.evaluation.labels)
        return Surrogate(
            model=model, attack=self.name, settings=self.settings, accuracy_before=before, accuracy_after=after
        )


def changed(victim: LoadedModel, network: "torch.nn.Module | None" = None) -> LoadedModel:
    """Return the victim with other weights: no digest names them yet."""
    return LoadedModel(network=network or victim.network, description=replace(victim.description, weights_sha256=""))


def half_test(test: Part) -> AttackData:
    """Return the split of Zhang et al.: the attacker has one half of the test images, the other half judges."""
    own, evaluation = test.halves()
    return AttackData(own=own, evaluation=evaluation)


def attack_class(name: str) -> type[Attack]:
    """Return the class of an attack, built in or registered under the entry-point group ``auditor.attacks``.

    Raises:
        UsageError: no attack of that name, or its plug-in cannot be loaded.
    """
    return find_class(name, kind="attack", built_in=ATTACKS, group=ENTRY_POINT_GROUP, base=Attack)


def _decimal(value: float | None) -> str | None:
    return None if value is None else decimal_string(value)
