"""Torch modules of the residual networks; imported only where such a network is made."""

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional

DEEP_EXPANSION = 4
"""Output channels of a deep block in widths of its middle convolution."""


class Block(nn.Module):
    """Two or three convolutions around which the input is carried, by a projection where its shape changes."""

    def __init__(self, in_channels: int, width: int, *, stride: int, deep: bool) -> None:
        super().__init__()
        out_channels = DEEP_EXPANSION * width if deep else width
        if deep:
            layers = [*_conv(in_channels, width, kernel=1), nn.ReLU(), *_conv(width, width, stride=stride), nn.ReLU()]
            layers += _conv(width, out_channels, kernel=1)
        else:
            layers = [*_conv(in_channels, width, stride=stride), nn.ReLU(), *_conv(width, width)]
        self.main = nn.Sequential(*layers)
        same = stride == 1 and in_channels == out_channels
        self.shortcut = nn.Sequential(*([] if same else _conv(in_channels, out_channels, kernel=1, stride=stride)))
        self.out_channels = out_channels

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return relu(main(x) + shortcut(x))."""
        return functional.relu(self.main(inputs) + self.shortcut(inputs))


class ResNet(nn.Module):
    """Entry convolution, four stages, mean over positions, one linear layer; inputs in [0, 1]."""

    def __init__(
        self,
        *,
        in_channels: int,
        width: int,
        stages: Sequence[int],
        deep_blocks: bool,
        means: tuple[float, ...],
        spreads: tuple[float, ...],
        n_outputs: int,
    ) -> None:
        super().__init__()
        self.means, self.spreads = means, spreads
        layers = [*_conv(in_channels, width), nn.ReLU()]
        channels = width
        for number, n_blocks in enumerate(stages):
            for position in range(n_blocks):
                stride = 2 if number > 0 and position == 0 else 1
                block = Block(channels, width << number, stride=stride, deep=deep_blocks)
                channels = block.out_channels
                layers.append(block)
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(channels, n_outputs)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits, shape (n, n_outputs)."""
        if any(self.means) or any(spread != 1.0 for spread in self.spreads):
            # Not buffers: the constants belong to the description, and weights files hold weights only.
            means, spreads = (inputs.new_tensor(each).view(1, -1, 1, 1) for each in (self.means, self.spreads))
            inputs = (inputs - means) / spreads
        maps = self.features(inputs)
        logits: torch.Tensor = self.head(maps.mean(dim=(2, 3)))
        return logits


def _conv(in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1) -> list[nn.Module]:
    convolution = nn.Conv2d(
        in_channels, out_channels, kernel_size=kernel, stride=stride, padding=kernel // 2, bias=False
    )
    return [convolution, nn.BatchNorm2d(out_channels)]
