"""Weight noise: the thief adds random numbers to every weight."""

from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks.base import Attack, changed
from auditor.attacks.settings import Presets
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightNoise(Attack):
    """Add Gaussian noise to convolution and linear weights, in units of each tensor's own standard deviation."""

    name: ClassVar[str] = "noise"
    needs_labels: ClassVar[bool] = False
    presets: ClassVar[Presets] = {"light": {"scale": 0.05}, "strong": {"scale": 0.2}}

    scale: float = 0.1
    """Standard deviation of the noise over that of the weights it is added to, in [0, 10]."""
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.scale <= 10:
            raise UsageError("the scale of weight noise lies in [0, 10]")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        import torch

        generator = torch.Generator().manual_seed(self.seed)
        with torch.no_grad():
            for value in victim.network.parameters():
                if value.ndim >= 2:
                    noise = torch.randn(value.shape, generator=generator)
                    value.add_(self.scale * value.std() * noise)
        return changed(victim)
