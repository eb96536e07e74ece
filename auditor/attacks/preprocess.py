"""Input preprocessing: the thief serves the model behind a filter that may destroy what keys carry.

*References.* Xu et al., NDSS 2018 (feature squeezing: fewer bits, median filter); Guo et al., ICLR 2018 (JPEG).
"""

from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks.base import Attack
from auditor.attacks.settings import Presets
from auditor.datasets import Part
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.transforms import InputChange, InputKind
from auditor.wrapped import Wrapping, wrap


@dataclass(frozen=True, slots=True, kw_only=True)
class Preprocess(Attack):
    """Change every image on its way in, always in the same way; weights stay as they are."""

    name: ClassVar[str] = "preprocess"
    needs_labels: ClassVar[bool] = False
    presets: ClassVar[Presets] = {
        "noise": {"kind": "noise", "strength": 0.05},
        "blur": {"kind": "blur", "strength": 0.7},
        "median": {"kind": "median", "strength": 2},
        "jpeg": {"kind": "jpeg", "strength": 75},
        "bits": {"kind": "bits", "strength": 4},
    }

    kind: InputKind
    strength: float
    """Noise: standard deviation for pixels in [0, 1]; blur: pixels; median: side; JPEG: quality; bits: per channel."""
    seed: int = 0
    """Of the noise, which is a function of the seed and the image."""

    def __post_init__(self) -> None:
        self._change()

    def _change(self) -> InputChange:
        return InputChange(kind=self.kind, strength=self.strength, seed=self.seed)

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        return wrap([victim], Wrapping(inputs=(self._change(),)))
