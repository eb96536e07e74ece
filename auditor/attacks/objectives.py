"""What a thief's training minimises: the teacher's answers, the labels, both, or the worst images nearby."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.training.ascent import ascend
from auditor.training.supplement import Pressure
from auditor.transforms import Probabilities, at_temperature

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Imitation:
    """(1 − mix)·CE(student, label) + mix·KL(teacher^(1/T) ‖ student at T), mean over the batch."""

    answers: Probabilities
    """The teacher's probabilities, one row per training image."""
    mix: float = 1.0
    temperature: float = 1.0
    temperature_squared: bool = False
    """Whether the second term is multiplied by T², as in Hinton et al."""

    def loss(
        self, network: "torch.nn.Module", images: "torch.Tensor", rows: npt.NDArray[np.intp], labels: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the loss of one batch; see :class:`auditor.training.Objective`."""
        import torch

        logits = network(images).float()
        answers = torch.from_numpy(at_temperature(self.answers[rows], temperature=self.temperature))
        return imitation_loss(
            logits,
            answers.float().to(logits.device),
            labels,
            mix=self.mix,
            temperature=self.temperature,
            factor=self.temperature**2 if self.temperature_squared else 1.0,
        )


def imitation_loss(
    logits: "torch.Tensor",
    answers: "torch.Tensor",
    labels: "torch.Tensor",
    *,
    mix: float,
    temperature: float,
    factor: float = 1.0,
) -> "torch.Tensor":
    """Return (1 − mix)·CE(logits, labels) + factor·mix·KL(answers ‖ softmax(logits / temperature)).

    Args:
        logits: shape (n, outputs).
        answers: probabilities of the teacher, at the temperature already, same shape; rows sum to one.
        labels: shape (n,); read where ``mix`` is below 1 only.
        mix: weight of the teacher, in [0, 1].
        temperature: divides the student's logits in the second term.
        factor: multiplies the second term.
    """
    from torch.nn import functional

    imitated = functional.kl_div(functional.log_softmax(logits / temperature, dim=1), answers, reduction="batchmean")
    if mix == 1:
        return factor * imitated
    return (1 - mix) * functional.cross_entropy(logits, labels) + factor * mix * imitated


@dataclass(frozen=True, slots=True, kw_only=True)
class WorstCase:
    """Cross-entropy on images moved by projected gradient ascent within a ball of the maximum norm (Madry et al.)."""

    radius: float
    """Largest change of a pixel, for pixels in [0, 1]."""
    step: float
    steps: int
    clean_share: float
    """Weight of the unchanged images' loss, in [0, 1]."""

    def loss(
        self, network: "torch.nn.Module", images: "torch.Tensor", rows: npt.NDArray[np.intp], labels: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the loss of one batch; see :class:`auditor.training.Objective`."""
        from torch.nn import functional

        pressure = Pressure(steps=self.steps, step_size=self.step, ball=self.radius)
        worst = ascend(network, images, labels, pressure=pressure)
        loss = functional.cross_entropy(network(worst).float(), labels)
        if self.clean_share == 0:
            return loss
        clean = functional.cross_entropy(network(images).float(), labels)
        return (1 - self.clean_share) * loss + self.clean_share * clean
