"""The network of a wrapped suspect; see :mod:`auditor.wrapped`. The one module besides models with torch at its top."""

from collections.abc import Sequence

import numpy as np
import torch

from auditor.transforms import AnswerChange, InputChange, change_answers, change_inputs

VOTE_TIE_WEIGHT = 1e-3
"""Weight of the mean probability next to one vote; it decides between labels with equally many votes."""


class ActivationGrid:
    """A forward hook that rounds a layer's outputs to 2^bits evenly spaced levels, one of which is 0."""

    def __init__(self, *, low: float, high: float, bits: int) -> None:
        self._steps = 2**bits - 1
        self._scale = (high - low) / self._steps
        self._zero = round(-low / self._scale)

    def __call__(self, module: torch.nn.Module, given: tuple[torch.Tensor, ...], out: torch.Tensor) -> torch.Tensor:
        """Return the outputs on the grid."""
        levels = torch.round(out / self._scale) + self._zero
        return torch.mul(levels.clamp(0, self._steps) - self._zero, self._scale)


class WrappedNetwork(torch.nn.Module):
    """Maps float images in [0, 1] to logarithms of the wrapped answer, whose softmax is that answer.

    Args:
        networks: the members; they belong to this network from now on.
        inputs: changes of the images, in order.
        answers: changes of the combined probabilities, in order.
        majority: whether each member has one vote; otherwise probabilities are averaged.
    """

    def __init__(
        self,
        networks: Sequence[torch.nn.Module],
        *,
        inputs: Sequence[InputChange],
        answers: Sequence[AnswerChange],
        majority: bool,
    ) -> None:
        super().__init__()
        self.networks = torch.nn.ModuleList(networks)
        self._inputs = tuple(inputs)
        self._answers = tuple(answers)
        self._majority = majority

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return log p; labels with probability 0 get minus infinity."""
        batch = images
        if self._inputs:
            changed = change_inputs(images.detach().cpu().numpy(), self._inputs)
            batch = torch.from_numpy(changed).to(images.device)
        each = np.stack(
            [torch.softmax(network(batch).double(), dim=1).detach().cpu().numpy() for network in self.networks]
        )
        combined = each.mean(axis=0)
        if self._majority:
            votes = np.eye(each.shape[2])[each.argmax(axis=2)].sum(axis=0)
            combined = (votes + VOTE_TIE_WEIGHT * combined) / (len(each) + VOTE_TIE_WEIGHT)
        return torch.from_numpy(change_answers(combined, self._answers)).log().float().to(images.device)
