"""Adversarial training: the thief trains the stolen model on with images that were moved against it.

*References.* Madry et al., ICLR 2018 (projected gradient ascent in a ball of the maximum norm).
"""

from dataclasses import dataclass
from typing import ClassVar

from auditor.attacks.base import Attack, changed
from auditor.attacks.objectives import WorstCase
from auditor.attacks.settings import DEFAULT_PLAN, Presets
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.records import Progress
from auditor.training import TrainingPlan, fit


@dataclass(frozen=True, slots=True, kw_only=True)
class AdversarialTraining(Attack):
    """Fine-tune on the worst images within a radius, found anew in every step; label smoothing is not used."""

    name: ClassVar[str] = "adversarial"
    presets: ClassVar[Presets] = {
        "madry": {"radius": 8 / 255, "step": 2 / 255, "steps": 7},
        "grey": {"radius": 0.1, "step": 0.025, "steps": 5, "clean_share": 0.5},
    }
    """``madry`` is the published radius for colour images; ``grey`` suits small grey ones."""

    plan: TrainingPlan = DEFAULT_PLAN
    radius: float = 8 / 255
    """Largest change of a pixel, for pixels in [0, 1]."""
    step: float = 2 / 255
    steps: int = 7
    """Of ascent per image and training step."""
    clean_share: float = 0.0
    """Weight of the unchanged images, in [0, 1]."""

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= 1 or not 0 < self.step <= 1 or self.steps < 1 or not 0 <= self.clean_share <= 1:
            raise UsageError("radius and clean share lie in [0, 1], the step in (0, 1], and there is one step or more")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        objective = WorstCase(radius=self.radius, step=self.step, steps=self.steps, clean_share=self.clean_share)
        fit(
            victim.network,
            inputs=own.inputs,
            labels=own.labels,
            plan=self.plan,
            objective=objective,
            title="adversarial training",
            progress=progress,
        )
        return changed(victim)
