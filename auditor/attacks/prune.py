"""Pruning: the thief sets the smallest weights or the quietest channels to zero, and may train on afterwards.

*References.* Han et al., 2015 (by magnitude); Li et al., 2017 (channels by norm); Liu et al., 2018 (fine-pruning).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import TYPE_CHECKING, ClassVar, assert_never

from auditor.attacks.base import Attack, changed
from auditor.attacks.published import MAT_TRAINING
from auditor.attacks.settings import Presets, Settings
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import PREDICT_BATCH, LoadedModel
from auditor.records import Inputs, Progress
from auditor.training import TrainingPlan, fit

if TYPE_CHECKING:
    import torch
    from torch.utils.hooks import RemovableHandle

MAX_RATE = 0.99
_AFTERWARDS: Settings = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01}


class Structure(StrEnum):
    """What is pruned together."""

    WEIGHTS = "weights"
    """Single weights, the smallest over all layers."""
    CHANNEL_NORM = "channel-norm"
    """In each convolution the channels whose filters have the smallest L1 norm."""
    CHANNEL_ACTIVATION = "channel-activation"
    """In each convolution the channels that answer the attacker's images least, by mean activation."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prune(Attack):
    """Prune convolution and linear weights globally, or whole channels of convolutions."""

    name: ClassVar[str] = "prune"
    presets: ClassVar[Presets] = {
        "global-50": {"rate": 0.5},
        "global-80-tuned": {"rate": 0.8, **_AFTERWARDS},
        "channels": {"rate": 0.3, "structure": "channel-norm", **_AFTERWARDS},
        "fine-pruning": {
            "rate": 0.95,
            "structure": "channel-activation",
            "last_only": True,
            **MAT_TRAINING,
        },
    }
    """``fine-pruning`` is the setting of MAT: 95 % of the last convolution's channels, then 100 epochs.

    *Difference.* MAT goes on pruning one by one until 20 points of accuracy are lost; here the share is fixed.
    """

    rate: float = 0.5
    """Share of the weights, or of each convolution's channels, that becomes zero, in [0, 0.99]."""
    structure: Structure = Structure.WEIGHTS
    last_only: bool = False
    """Prune channels of the last convolution only."""
    plan: TrainingPlan | None = None
    """Fine-tuning after pruning, or None; pruned weights stay zero throughout."""

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= MAX_RATE:
            raise UsageError(f"a pruning rate lies in [0, {MAX_RATE}]")
        if self.last_only and self.structure is Structure.WEIGHTS:
            raise UsageError("only channels can be pruned in the last convolution alone")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        network = victim.network
        match self.structure:
            case Structure.WEIGHTS:
                masks = magnitude_masks(network, rate=self.rate)
            case Structure.CHANNEL_NORM:
                masks = channel_masks(network, rate=self.rate, last_only=self.last_only, inputs=None)
            case Structure.CHANNEL_ACTIVATION:
                masks = channel_masks(network, rate=self.rate, last_only=self.last_only, inputs=own.inputs)
            case _:
                assert_never(self.structure)
        _zero(network, masks)
        if self.plan is not None:
            hooks = _freeze(network, masks)
            fit(network, inputs=own.inputs, labels=own.labels, plan=self.plan, title="fine-tuning", progress=progress)
            for hook in hooks:
                hook.remove()
        return changed(victim)


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


def channel_masks(
    network: "torch.nn.Module", *, rate: float, last_only: bool, inputs: Inputs | None
) -> Mapping[str, "torch.Tensor"]:
    """Return which weights go, by parameter name: round(rate · channels) channels of each convolution.

    With a channel go its filter and the scale and shift of the normalisation that follows the convolution, so that
    it is silent whatever the image.

    Args:
        network: a convolutional network.
        rate: share of each convolution's channels; at least one channel stays.
        last_only: whether only the last convolution is pruned.
        inputs: images that rank channels by mean |activation| after normalisation; None ranks by the filters' L1 norm.

    Raises:
        UsageError: the network has no convolutions.
    """
    import torch

    blocks = _convolutions(network)
    if not blocks:
        raise UsageError("a network without convolutions has no channels to prune")
    activity = _activity(network, blocks, inputs) if inputs is not None else {}
    masks: dict[str, torch.Tensor] = {}
    for block in blocks[-1:] if last_only else blocks:
        weight = network.get_parameter(f"{block.name}.weight").detach()
        rank = activity[block.output] if inputs is not None else weight.abs().flatten(1).sum(dim=1)
        n_gone = min(round(rate * len(rank)), len(rank) - 1)
        gone = torch.zeros(len(rank), dtype=torch.bool)
        gone[torch.argsort(rank, stable=True)[:n_gone]] = True
        for name, value in network.named_parameters():
            if name.rpartition(".")[0] in (block.name, block.output):
                masks[name] = gone.reshape(-1, *[1] * (value.ndim - 1)).expand(value.shape)
    return masks


@dataclass(frozen=True, slots=True, kw_only=True)
class _Convolution:
    name: str
    output: str
    """The module whose outputs are the block's channels: the normalisation where one follows."""


def _convolutions(network: "torch.nn.Module") -> list[_Convolution]:
    from torch import nn

    found: list[_Convolution] = []
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            found.append(_Convolution(name=name, output=name))
            channels = module.out_channels
        elif (
            isinstance(module, nn.BatchNorm2d)
            and found
            and found[-1].output == found[-1].name
            and module.num_features == channels
        ):
            # Reference architectures register a normalisation right after the convolution it belongs to.
            found[-1] = _Convolution(name=found[-1].name, output=name)
    return found


def _activity(network: "torch.nn.Module", blocks: list[_Convolution], inputs: Inputs) -> Mapping[str, "torch.Tensor"]:
    import torch

    sums: dict[str, torch.Tensor] = {}

    def add(module: "torch.nn.Module", given: object, out: "torch.Tensor", *, name: str) -> None:
        sums[name] = sums.get(name, torch.zeros(out.shape[1])) + out.abs().mean(dim=(2, 3)).sum(dim=0)

    hooks = [
        network.get_submodule(block.output).register_forward_hook(partial(add, name=block.output)) for block in blocks
    ]
    network.eval()
    with torch.no_grad():
        for start in range(0, len(inputs), PREDICT_BATCH):
            network(torch.from_numpy(inputs[start : start + PREDICT_BATCH].astype("float32")) / 255.0)
    for hook in hooks:
        hook.remove()
    return sums


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
