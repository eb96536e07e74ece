"""Fine-tuning: the thief trains the stolen model on, with labels of the natural classes only."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import ClassVar

from auditor.attacks.base import Attack
from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.training import TrainingPlan, fit


class Layers(StrEnum):
    """Which weights are trained on."""

    ALL = "all"
    LAST = "last"
    """The classification head only. Normalisation statistics follow the attacker's data in either case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(Attack):
    """Train on with the attacker's data; the label space stays as it is."""

    name: ClassVar[str] = "finetune"

    plan: TrainingPlan
    layers: Layers = Layers.ALL

    def __post_init__(self) -> None:
        if self.plan.epochs < 1:
            raise UsageError("fine-tuning needs at least one epoch")

    @property
    def settings(self) -> Mapping[str, JsonValue]:
        """Return the hyper-parameters, for the record."""
        return {
            "layers": self.layers.value,
            "epochs": self.plan.epochs,
            "batch_size": self.plan.batch_size,
            "learning_rate": decimal_string(self.plan.learning_rate),
            "seed": self.plan.seed,
        }

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        network = victim.network
        parameters = dict(network.named_parameters())
        head = [name for name, value in parameters.items() if value.ndim == 2][-1].rpartition(".")[0]
        for name, value in parameters.items():
            value.requires_grad_(self.layers is Layers.ALL or name.rpartition(".")[0] == head)
        fit(network, inputs=own.inputs, labels=own.labels, plan=self.plan, title="fine-tuning", progress=progress)
        for value in parameters.values():
            value.requires_grad_(True)
        return LoadedModel(network=network, description=replace(victim.description, weights_sha256=""))
