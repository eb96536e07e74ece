"""Batch normalisation by the ordinary samples of a batch alone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm


@contextmanager
def ordinary_statistics(network: "torch.nn.Module", *, n_ordinary: int) -> Iterator[None]:
    """Make every batch normalisation of ``network`` use the first ``n_ordinary`` rows of a training batch only.

    All rows are normalised by the mean and variance of those rows, and the running statistics take in those rows
    alone: rows after them leave no trace. Where marked samples take part in the statistics, the deployed network,
    which knows running statistics only, is another function than the one that was trained. Batches of at most
    ``n_ordinary`` rows, and evaluation mode, work as ever.
    """
    from torch import nn

    # torch has no public name for what all its batch normalisations have in common.
    modules = [m for m in network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for module in modules:
        module.forward = _split_forward(module, n_ordinary)  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        for module in modules:
            del module.forward


def _split_forward(module: "_BatchNorm", n_ordinary: int) -> "Callable[[torch.Tensor], torch.Tensor]":
    import torch

    whole = type(module).forward

    def forward(inputs: "torch.Tensor") -> "torch.Tensor":
        if not module.training or len(inputs) <= n_ordinary:
            return whole(module, inputs)
        ordinary = whole(module, inputs[:n_ordinary])
        over = [0, *range(2, inputs.ndim)]
        variance, mean = torch.var_mean(inputs[:n_ordinary].float(), dim=over, correction=0)
        scale = torch.rsqrt(variance + module.eps)
        offset = -mean * scale
        if module.affine:
            scale, offset = scale * module.weight, offset * module.weight + module.bias
        shape = [1, -1] + [1] * (inputs.ndim - 2)
        marked = inputs[n_ordinary:].float() * scale.view(shape) + offset.view(shape)
        return torch.cat([ordinary, marked.to(ordinary.dtype)])

    return forward
