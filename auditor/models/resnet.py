"""Residual networks for small images: no pooling at the entry, four stages that halve the image three times.

With 64 channels in the first stage they are the usual CIFAR variants. The entry takes any number of channels and any
size of image; the last map is averaged over whatever is left of it.

References:
    K. He, X. Zhang, S. Ren, J. Sun: Deep Residual Learning for Image Recognition. CVPR 2016.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

RESNET18 = "resnet18"
RESNET34 = "resnet34"
RESNET50 = "resnet50"
NAMES = (RESNET18, RESNET34, RESNET50)

STAGES: Mapping[str, tuple[int, int, int, int]] = {
    RESNET18: (2, 2, 2, 2),
    RESNET34: (3, 4, 6, 3),
    RESNET50: (3, 4, 6, 3),
}
"""Blocks in each stage; the deepest has blocks of three convolutions."""
SCALE = 10_000
"""Means and spreads of the input normalisation are whole numbers of this fraction of the pixel range."""
MAX_NORMALISED = 4
"""Inputs with more channels than this are not normalised."""


def default_options(*, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the settings for inputs of the given shape: 64 channels at first, inputs as they are."""
    options = {"width": 64}
    if input_shape[0] <= MAX_NORMALISED:
        for channel in range(1, input_shape[0] + 1):
            options |= {f"mean{channel}": 0, f"spread{channel}": SCALE}
    return options


def assemble(
    architecture: str, *, input_shape: tuple[int, int, int], options: Mapping[str, int], n_outputs: int
) -> "torch.nn.Module":
    """Return the network with fresh weights; the head is made last."""
    from auditor.models.residual import ResNet

    n_normalised = input_shape[0] if input_shape[0] <= MAX_NORMALISED else 0
    return ResNet(
        in_channels=input_shape[0],
        width=options["width"],
        stages=STAGES[architecture],
        deep_blocks=architecture == RESNET50,
        means=tuple(options[f"mean{c + 1}"] / SCALE for c in range(n_normalised)),
        spreads=tuple(options[f"spread{c + 1}"] / SCALE for c in range(n_normalised)),
        n_outputs=n_outputs,
    )
