"""Quantisation: the thief deploys the model with coarse weights and, if wanted, coarse activations.

The surrogate stays a model folder: its weights are written as the floats that the integers stand for. Activations
are rounded while it computes, in ranges measured on the attacker's images; such a surrogate is a wrapped suspect.

*References.* Jacob et al., CVPR 2018 (ranges and zero points; weights per output channel, symmetric).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from auditor.attacks.base import Attack, changed
from auditor.attacks.settings import Presets
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import PREDICT_BATCH, LoadedModel
from auditor.records import Inputs, Progress
from auditor.wrapped import ActivationRange, Wrapping, wrap

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantize(Attack):
    """Round weights to integers per output channel, and activations to a grid per layer."""

    name: ClassVar[str] = "quantize"
    needs_labels: ClassVar[bool] = False
    presets: ClassVar[Presets] = {
        "int8": {"bits": 8, "activation_bits": 8},
        "weights-8": {"bits": 8},
        "weights-4": {"bits": 4},
    }

    bits: int = 8
    """Of each weight, sign included, in [2, 16]."""
    activation_bits: int = 0
    """Of each output of convolutions and linear layers, in [2, 16]; 0 leaves activations as they are."""

    def __post_init__(self) -> None:
        if not 2 <= self.bits <= 16 or (self.activation_bits and not 2 <= self.activation_bits <= 16):
            raise UsageError("weights and activations are quantised to between 2 and 16 bits")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        import torch

        with torch.no_grad():
            for value in victim.network.parameters():
                if value.ndim >= 2:
                    value.copy_(quantised(value, bits=self.bits))
        surrogate = changed(victim)
        if self.activation_bits == 0:
            return surrogate
        ranges = activation_ranges(surrogate.network, own.inputs)
        return wrap([surrogate], Wrapping(activations=ranges, activation_bits=self.activation_bits))


def quantised(weight: "torch.Tensor", *, bits: int) -> "torch.Tensor":
    """Return the weight on its grid: per output channel, the whole multiples of max |w| / (2^(bits−1) − 1)."""
    import torch

    limit = 2 ** (bits - 1) - 1
    largest = weight.abs().flatten(1).amax(dim=1).reshape(-1, *[1] * (weight.ndim - 1))
    scale = torch.where(largest > 0, largest / limit, torch.ones_like(largest))
    return (weight / scale).round().clamp(-limit, limit) * scale


def activation_ranges(network: "torch.nn.Module", inputs: Inputs) -> Mapping[str, ActivationRange]:
    """Return the smallest ranges that hold 0 and every output of convolutions and linear layers on these images."""
    import torch
    from torch import nn

    found: dict[str, tuple[float, float]] = {}

    def watch(module: "torch.nn.Module", given: object, out: "torch.Tensor", *, name: str) -> None:
        low, high = found.get(name, (0.0, 0.0))
        found[name] = (min(low, float(out.min())), max(high, float(out.max())))

    watched = [(name, m) for name, m in network.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    hooks = [module.register_forward_hook(partial(watch, name=name)) for name, module in watched]
    network.eval()
    with torch.no_grad():
        for start in range(0, len(inputs), PREDICT_BATCH):
            network(torch.from_numpy(inputs[start : start + PREDICT_BATCH].astype("float32")) / 255.0)
    for hook in hooks:
        hook.remove()
    # A layer that answered nothing but 0 has no range and needs no grid.
    return {name: ActivationRange(low=low, high=high) for name, (low, high) in found.items() if low < high}
