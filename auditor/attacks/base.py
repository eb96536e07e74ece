"""The border to an attack: a victim and the attacker's data in, a surrogate and what it cost in.

An attack never sees keys, patterns or seals; whether the mark survived is measured by whoever holds the keys.
"""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks import ATTACKS
from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.plugins import find_class
from auditor.records import Progress, Silent
from auditor.training import accuracy

ENTRY_POINT_GROUP = "auditor.attacks"


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackData:
    """What the attacker has, and what the result is judged on."""

    own: Part
    """The attacker's labelled images."""
    evaluation: Part
    """Images of neither party, for task accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Surrogate:
    """What came out of an attack."""

    model: LoadedModel
    attack: str
    settings: Mapping[str, JsonValue]
    accuracy_before: float
    """Task accuracy of the victim on the evaluation images."""
    accuracy_after: float
    """Task accuracy of the surrogate on the same images."""

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record for ``attack.json``."""
        return {
            "attack": self.attack,
            "settings": dict(self.settings),
            "accuracy_before": decimal_string(self.accuracy_before),
            "accuracy_after": decimal_string(self.accuracy_after),
        }


class Attack(ABC):
    """One way to disguise a model; hyper-parameters are constructor arguments of the variant."""

    name: ClassVar[str]

    @property
    @abstractmethod
    def settings(self) -> Mapping[str, JsonValue]:
        """Return the hyper-parameters, for the record."""

    @abstractmethod
    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        """Turn the private copy ``victim`` into the surrogate."""

    def run(self, *, victim: LoadedModel, data: AttackData, progress: Progress | None = None) -> Surrogate:
        """Return the surrogate with task accuracy before and after; the victim stays as it is.

        Raises:
            TrainingError: training diverged.
        """
        if len(data.own) == 0 or len(data.evaluation) == 0:
            raise UsageError("an attack needs images of its own and images to be judged on")
        before = accuracy(victim.network, inputs=data.evaluation.inputs, labels=data.evaluation.labels)
        private = LoadedModel(network=copy.deepcopy(victim.network), description=victim.description)
        surrogate = self._apply(private, data.own, progress or Silent())
        after = accuracy(surrogate.network, inputs=data.evaluation.inputs, labels=data.evaluation.labels)
        return Surrogate(
            model=surrogate, attack=self.name, settings=self.settings, accuracy_before=before, accuracy_after=after
        )


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
