"""Fine-tuning: the thief trains the stolen model on, with labels of the natural classes only.

Whose images are used is up to the caller: the attacker's own, or the owner's where they leaked too.

*References.* Adi et al., USENIX Security 2018 (the four variants of last or all layers, kept or fresh head).
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

from auditor.attacks.base import Attack, changed
from auditor.attacks.published import ADI_TRAINING, MAT_TRAINING
from auditor.attacks.settings import DEFAULT_PLAN, Presets
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel, build
from auditor.records import Progress
from auditor.training import TrainingPlan, fit

if TYPE_CHECKING:
    import torch


class Layers(StrEnum):
    """Which weights are trained on."""

    ALL = "all"
    LAST = "last"
    """The classification head only. Normalisation statistics follow the attacker's data in either case."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FineTune(Attack):
    """Train on with the attacker's data; the label space stays as it is."""

    name: ClassVar[str] = "finetune"
    presets: ClassVar[Presets] = {
        "ftll": {**ADI_TRAINING, "layers": "last"},
        "ftal": {**ADI_TRAINING, "layers": "all"},
        "rtll": {**ADI_TRAINING, "layers": "last", "fresh_head": True},
        "rtal": {**ADI_TRAINING, "layers": "all", "fresh_head": True},
        "long": MAT_TRAINING,
    }
    """``ftll`` to ``rtal`` are the settings of Adi et al. (rate 0.001, 20 epochs); ``long`` is that of MAT."""

    plan: TrainingPlan = DEFAULT_PLAN
    layers: Layers = Layers.ALL
    fresh_head: bool = False
    """Whether the classification head starts from fresh weights, drawn from the plan's seed."""

    def __post_init__(self) -> None:
        if self.plan.epochs < 1:
            raise UsageError("fine-tuning needs at least one epoch")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        network = victim.network
        head = head_name(network)
        if self.fresh_head:
            fresh = build(victim.description, seed=self.plan.seed).get_submodule(head)
            network.get_submodule(head).load_state_dict(fresh.state_dict())
        parameters = dict(network.named_parameters())
        for name, value in parameters.items():
            value.requires_grad_(self.layers is Layers.ALL or name.rpartition(".")[0] == head)
        fit(network, inputs=own.inputs, labels=own.labels, plan=self.plan, title="fine-tuning", progress=progress)
        for value in parameters.values():
            value.requires_grad_(True)
        return changed(victim)


def head_name(network: "torch.nn.Module") -> str:
    """Return the name of the classification head: the module of the last weight matrix."""
    return [name for name, value in network.named_parameters() if value.ndim == 2][-1].rpartition(".")[0]
