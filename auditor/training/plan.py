"""The recipe of a training run, and where it computes."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    import torch


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The whole recipe of one training run."""

    epochs: int
    batch_size: int
    learning_rate: float
    """Peak of the one-cycle schedule, or the first rate where there are ``drops``."""
    drops: tuple[int, ...] = ()
    """Epochs after which the rate falls to a tenth; empty for the one-cycle schedule."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    shift: int = 0
    """Training images are moved by up to this many pixels in both directions."""
    flip: bool = False
    """Half of the training images, drawn anew in every step, are mirrored left to right."""
    seed: int = 0
    device: Device = Device.AUTO
    threads: int = 0
    """CPU threads during the run; 0 leaves the process's setting alone."""
    bfloat16: bool = False
    """Compute activations in bfloat16 (autocast)."""
    compiled: bool = False
    """Run the network through ``torch.compile``."""

    def problem(self) -> str:
        """Return why nothing can be trained with this plan, or an empty text."""
        if self.epochs < 1 or self.batch_size < 2 or not self.learning_rate > 0:
            return "a training plan needs at least one epoch, batches of two and a positive learning rate"
        if any(not 0 < epoch < self.epochs for epoch in self.drops) or list(self.drops) != sorted(set(self.drops)):
            return "the learning rate drops after different epochs, in order, before the last one"
        return ""


def resolve_device(device: Device) -> "torch.device":
    """Return the device to use.

    Raises:
        UsageError: CUDA was demanded and is not there.
    """
    import torch

    if device is Device.CUDA and not torch.cuda.is_available():
        raise UsageError("device 'cuda' was demanded, but torch sees no CUDA device; use --device cpu or auto")
    if device is Device.CPU or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")
