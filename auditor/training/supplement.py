"""What schemes and attacks put into every training step."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from auditor.records import Inputs

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True, kw_only=True)
class Pressure:
    """How marked samples are moved, before each step, to where the network least gives their label.

    Gradient ascent on the loss by sign steps, in evaluation mode, inside the pixel range.
    """

    steps: int
    step_size: float
    """Length of one step on the [0, 1] pixel scale."""
    ball: float | None = None
    """No pixel moves further than this from where it started, on the same scale; None: ``steps`` · ``step_size``."""
    random_start: bool = False
    """Begin at a point drawn uniformly from the ball instead of at its centre."""
    ramp: float = 0.0
    """Share of the training over which step size and ball grow from 0 to their full size."""

    @property
    def radius(self) -> float:
        """Return the largest change of a pixel, on the [0, 1] scale."""
        return self.steps * self.step_size if self.ball is None else self.ball


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplementBatch:
    """Marked samples that join one step's ordinary batch."""

    inputs: Inputs
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    """Weight of each sample's loss; an ordinary sample weighs 1."""
    codes: npt.NDArray[np.int64]
    """Second label per sample, wanted among the natural classes; -1 for none."""
    code_weight: float
    """Weight of the second label's loss relative to the first's."""
    pressure: Pressure | None = None
    """How the samples are perturbed first; None leaves them as they are."""
    start: npt.NDArray[np.float32] | None = None
    """Where a random start lies in the ball: shape of ``inputs``, values in [-1, 1]; None for its centre."""


class Supplement(Protocol):
    """Where marked samples come from; schemes provide it."""

    @property
    def n_natural(self) -> int:
        """Return the number of natural classes, over which the second label's loss is taken."""

    @property
    def apart(self) -> bool:
        """Return whether marked samples stay out of the statistics of batch normalisation.

        They are then normalised by the ordinary samples' statistics, and leave no trace in the running ones.
        """

    def draw(self, generator: np.random.Generator) -> SupplementBatch:
        """Return the marked samples of the next step."""


class Objective(Protocol):
    """What a step minimises instead of cross-entropy on the given labels; attacks provide it."""

    def loss(
        self, network: "torch.nn.Module", images: "torch.Tensor", rows: npt.NDArray[np.intp], labels: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the scalar loss of one batch.

        Args:
            network: in training mode; it must be left in training mode.
            images: float in [0, 1], shape (n, channels, height, width), on the device of the network.
            rows: which of the inputs they are.
            labels: shape (n,), on the same device.
        """


class Watch(Protocol):
    """What is said about a network after every epoch."""

    def __call__(self, network: "torch.nn.Module") -> str:
        """Return one line about a network in evaluation mode."""
