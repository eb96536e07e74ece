"""Trigger images that fool models nobody showed the accuser, in the style of Liu et al. (USENIX Security 2024).

The accuser trains models of its own, moves ordinary images towards chosen wrong classes against all of them at once,
and keeps what also fools models that took no part. It needs neither the suspect nor any marked model.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from auditor.datasets import Dataset, Part
from auditor.models import LoadedModel, labels_of
from auditor.training import TrainingPlan, train_unmarked

PLANS = {
    "digits": TrainingPlan(epochs=10, batch_size=64, learning_rate=0.05, threads=1),
    "fashion-mnist": TrainingPlan(epochs=2, batch_size=256, learning_rate=0.2, bfloat16=True, threads=1),
}
"""How an independent model is trained, by data set."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How far the images are moved."""

    radius: float
    """Largest change of a pixel, in levels of 255."""
    steps: int = 40


EFFORTS = {"digits": Effort(radius=72), "fashion-mnist": Effort(radius=32)}


@dataclass(frozen=True, kw_only=True)
class Triggers:
    """Crafted images with what they were made from and for."""

    inputs: np.ndarray
    naturals: np.ndarray
    wanted: np.ndarray
    """The class that independent models should answer."""

    def __len__(self) -> int:
        return len(self.inputs)

    def take(self, rows: np.ndarray) -> "Triggers":
        return Triggers(inputs=self.inputs[rows], naturals=self.naturals[rows], wanted=self.wanted[rows])

    def rate(self, model: LoadedModel) -> float:
        """Return the share of images that the model answers as the accuser wants."""
        return float(np.mean(labels_of(model.network, self.inputs) == self.wanted))


def independent(dataset: Dataset, *, seed: int, part: Part | None = None, architecture: str = "mlp") -> LoadedModel:
    """Return a model that never met an owner: other seed, and other images where ``part`` says so."""
    chosen = dataset.train if part is None else part
    return train_unmarked(
        architecture=architecture, spec=dataset.spec, inputs=chosen.inputs, labels=chosen.labels,
        plan=replace(PLANS[dataset.name], seed=seed),
    )  # fmt: skip


def craft(
    references: Sequence[LoadedModel], *, inputs: np.ndarray, naturals: np.ndarray, wanted: np.ndarray, effort: Effort
) -> Triggers:
    """Return the images moved towards the wanted classes within a ball, by signed steps against all references."""
    import torch

    start = torch.from_numpy(inputs).float() / 255
    goal = torch.from_numpy(np.asarray(wanted, dtype=np.int64))
    radius, step = effort.radius / 255, 2.5 * effort.radius / 255 / effort.steps
    moved = start.clone()
    for _ in range(effort.steps):
        moved.requires_grad_(True)
        loss = sum(torch.nn.functional.cross_entropy(model.network(moved).float(), goal) for model in references)
        (slope,) = torch.autograd.grad(loss, moved)
        with torch.no_grad():
            moved = (moved - step * slope.sign()).clamp(start - radius, start + radius).clamp(0, 1)
    pixels = np.rint(255 * moved.detach().numpy()).astype(np.uint8)
    return Triggers(inputs=pixels, naturals=np.asarray(naturals), wanted=np.asarray(wanted))


def kept(triggers: Triggers, held_out: Sequence[LoadedModel]) -> Triggers:
    """Return the images that fool every held-out model too."""
    fooled = np.all([labels_of(model.network, triggers.inputs) == triggers.wanted for model in held_out], axis=0)
    return triggers.take(np.flatnonzero(fooled))


def wrong_classes(naturals: np.ndarray, *, n_classes: int, seed: int) -> np.ndarray:
    """Return a wrong class of the accuser's choice for every image."""
    offsets = np.random.default_rng(seed).integers(1, n_classes, size=len(naturals))
    return (naturals + offsets) % n_classes


def runner_up(model: LoadedModel, inputs: np.ndarray, naturals: np.ndarray) -> np.ndarray:
    """Return the likeliest class but the natural one."""
    from auditor.models import predict

    scores = predict(model.network, inputs).copy()
    scores[np.arange(len(inputs)), naturals] = -1
    return scores.argmax(axis=1)
