"""Pruning: the thief sets the smallest weights to zero, and may train on afterwards."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from auditor.attacks.base import Attack
from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.training import TrainingPlan, fit

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

MAX_RATE = 0.99


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Attack):
    """Global magnitude pruning of convolution and linear weights; biases and normalisation stay."""

    name: ClassVar[str] = "prune"

    rate: float
    """Share of those weights that become zero, over all layers together, in [0, 0.99]."""
    plan: TrainingPlan | None = None
    """Fine-tuning after pruning, or None; pruned weights stay zero throughout."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= MAX_RATE:
            raise UsageError(f"a pruning rate lies in [0, {MAX_RATE}]")

    @property
    def settings(self) -> Mapping[str, JsonValue]:
        """Return the hyper-parameters, for the record."""
        return {"rate": decimal_string(self.rate), "epochs_after": self.plan.epochs if self.plan else 0}

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        network = victim.network
        masks = magnitude_masks(network, rate=self.rate)
        _zero(network, masks)
        if self.plan is not None:
            hooks = _freeze(network, masks)
            fit(network, inputs=own.inputs, labels=own.labels, plan=self.plan, title="fine-tuning", progress=progress)
            for hook in hooks:
                hook.remove()
        return LoadedModel(network=network, description=replace(victim.description, weights_sha256=""))


def magnitude_masks(network: "torch.nn.Module", *, rate: float) -> Mapping[str, "torch.Tensor"]:
    """Return which weights go, by parameter name: exactly round(rate · n) of the smallest by magnitude."""
    import torch

    weights = {name: value.detach() for name, value in network.named_parameters() if value.ndim >= 2}
    magnitudes = torch.cat([value.abs().flatten() for value in weights.values()])
    gone = torch.zeros(len(magnitudes), dtype=torch.bool)
    # A stable sort decides between equal magnitudes, so that the fraction is exact.
    gone[torch.argsort(magnitudes, stable=True)[: round(rate * len(magnitudes))]] = True
    parts = torch.split(gone, [value.numel() for value in weights.values()])
    return {name: part.reshape(weights[name].shape) for name, part in zip(weights, parts, strict=True)}


def _zero(network: "torch.nn.Module", masks: Mapping[str, "torch.Tensor"]) -> None:
    import torch

    with torch.no_grad():
        for name, value in network.named_parameters():
            if name in masks:
                value[masks[name]] = 0.0


def _freeze(network: "torch.nn.Module", masks: Mapping[str, "torch.Tensor"]) -> list["RemovableHandle"]:
    """Keep pruned weights where they are: without gradient, momentum and decay leave a zero at zero."""
    return [
        value.register_hook(partial(_masked, mask=masks[name]))  # type: ignore[no-untyped-call]
        for name, value in network.named_parameters()
        if name in masks
    ]


def _masked(gradient: "torch.Tensor", *, mask: "torch.Tensor") -> "torch.Tensor":
    return gradient.masked_fill(mask.to(gradient.device), 0.0)
