"""What a step minimises when it is not cross-entropy on the given labels."""

from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch


class Objective(Protocol):
    """What a step minimises instead of cross-entropy on the given labels; attacks provide it."""

    def loss(
        self, network: "torch.nn.Module", images: "torch.Tensor", rows: npt.NDArray[np.int64], labels: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the scalar loss of one batch.

        Args:
            network: in training mode; it must be left in training mode.
            images: float in [0, 1], shape (n, channels, height, width), on the device of the network.
            rows: which of the inputs they are.
            labels: shape (n,), on the same device.
        """
