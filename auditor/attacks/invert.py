"""Trigger inversion: the thief looks for the pattern that turns any image into one class, and trains it away.

For every output the smallest additive pattern is sought that makes most of the attacker's images be answered with it. A
class that takes far less than the others is suspected of a mark; images under its pattern are then trained on with
their true labels. What was found once may hide another pattern, so that this can be done several times over.

*References.* Wang et al., IEEE S&P 2019 (Neural Cleanse). *Differences.* The pattern is additive, without a mask, since
the marks here are; instead of the outlier test on medians the class with the smallest pattern is taken each time.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.attacks.base import Attack, changed
from auditor.attacks.settings import DEFAULT_PLAN, Presets, Settings
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel
from auditor.patterns import Pattern, add_pattern
from auditor.records import Progress
from auditor.training import TrainingPlan, fit

if TYPE_CHECKING:
    import torch

MAX_ROUNDS = 16
REACHED = 0.8
"""Share of images that a pattern must turn for its class to be suspected."""
SAMPLE = 256
"""Most images that a pattern is sought on."""
_AFTERWARDS: Settings = {"epochs": 5, "batch_size": 64, "learning_rate": 0.01, "label_smoothing": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """The smallest pattern found for one class."""

    target: int
    pattern: Pattern
    size: float
    """Mean absolute change of a pixel, for pixels in [0, 1]."""
    share: float
    """Images of other classes that it turns into the class."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Invert(Attack):
    """Seek the pattern of the likeliest marked class, and train on with it under true labels."""

    name: ClassVar[str] = "invert"
    presets: ClassVar[Presets] = {
        "once": {"rounds": 1, **_AFTERWARDS},
        "thrice": {"rounds": 3, **_AFTERWARDS},
    }

    plan: TrainingPlan = DEFAULT_PLAN
    """Of the training after each inversion."""
    rounds: int = 1
    steps: int = 100
    """Of the search for each class."""
    step: float = 0.05
    """Of the search, about what a pixel changes in one step, for pixels in [0, 1]."""
    weight: float = 0.5
    """Weight of the pattern's size against the loss of its class."""

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= MAX_ROUNDS or self.steps < 1 or not self.step > 0 or not self.weight >= 0:
            raise UsageError(f"inversion takes 1 to {MAX_ROUNDS} rounds, one step or more, and a positive step")
        if self.plan.epochs < 1:
            raise UsageError("inversion trains on for an epoch or more")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        network = victim.network
        inputs, labels = [own.inputs], [own.labels]
        for number in range(self.rounds):
            suspected = self.suspected(network, own, n_outputs=victim.description.n_outputs, seed=number)
            if suspected is not None:
                inputs.append(add_pattern(own.inputs, suspected.pattern, beta=1.0))
                labels.append(own.labels)
            fit(
                network,
                inputs=np.concatenate(inputs),
                labels=np.concatenate(labels),
                plan=self.plan,
                title=f"unlearning pattern {number + 1}",
                progress=progress,
            )
        return changed(victim)

    def suspected(self, network: "torch.nn.Module", own: Part, *, n_outputs: int, seed: int) -> Found | None:
        """Return the smallest pattern that reaches its class, or None where none does."""
        rows = np.random.default_rng([seed, 43]).permutation(len(own))[:SAMPLE]
        found = [self.sought(network, own.take(rows), target=target) for target in range(n_outputs)]
        reached = [each for each in found if each.share >= REACHED]
        return min(reached, key=lambda each: each.size) if reached else None

    def sought(self, network: "torch.nn.Module", own: Part, *, target: int) -> Found:
        """Return the pattern found for one class, by descent on its loss and its size; weights stay as they are."""
        import torch
        from torch.nn import functional

        others = own.take(np.flatnonzero(own.labels != target))
        images = torch.from_numpy(others.inputs).float() / 255
        pattern = torch.zeros(images.shape[1:], requires_grad=True)
        goal = torch.full((len(images),), target)
        optimizer = torch.optim.Adam([pattern], lr=self.step)
        network.eval()
        for _ in range(self.steps):
            logits = network((images + pattern).clamp(0, 1)).float()
            loss = functional.cross_entropy(logits, goal) + self.weight * pattern.abs().mean()
            (pattern.grad,) = torch.autograd.grad(loss, [pattern])
            optimizer.step()
        with torch.no_grad():
            answers = network((images + pattern).clamp(0, 1)).argmax(dim=1)
        return Found(
            target=target,
            pattern=pattern.detach().double().numpy(),
            size=float(pattern.detach().abs().mean()),
            share=float((answers == target).float().mean()),
        )
