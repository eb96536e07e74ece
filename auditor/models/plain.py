"""The small reference networks: a three-block convolutional one and a perceptron with one hidden layer."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

SMALL_CNN = "small-cnn"
MLP = "mlp"
NAMES = (SMALL_CNN, MLP)


def default_options(architecture: str, *, input_shape: tuple[int, int, int]) -> dict[str, int]:
    """Return the settings of one of ``NAMES`` that suit inputs of the given shape."""
    if architecture == MLP:
        return {"hidden": 128}
    # Images of a few pixels must not be pooled away: the last map keeps at least 4 x 4 positions.
    pools = 2 if min(input_shape[1:]) >= 16 else 1
    return {"width1": 16, "width2": 32, "width3": 64, "pools": pools}


def fit_problem(architecture: str, *, input_shape: tuple[int, int, int], options: Mapping[str, int]) -> str:
    """Return why the inputs do not fit the architecture, or an empty text."""
    if architecture == SMALL_CNN and min(input_shape[1:]) >> min(options["pools"], 3) < 1:
        return f"{options['pools']} poolings leave nothing of {input_shape[1]} x {input_shape[2]} pixels"
    return ""


def assemble(
    architecture: str, *, input_shape: tuple[int, int, int], options: Mapping[str, int], n_outputs: int
) -> "torch.nn.Module":
    """Return the network with fresh weights; the head is made last."""
    from torch import nn

    channels, height, width = input_shape
    if architecture == MLP:
        hidden = options["hidden"]
        return nn.Sequential(
            nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.ReLU(), nn.Linear(hidden, n_outputs)
        )
    layers: list[nn.Module] = []
    for block, name in enumerate(("width1", "width2", "width3")):
        layers += [
            nn.Conv2d(channels, options[name], kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(options[name]),
            nn.ReLU(),
        ]
        channels = options[name]
        if block < options["pools"]:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
    layers += [nn.Flatten(), nn.Linear(channels * height * width, n_outputs)]
    return nn.Sequential(*layers)
