"""Projected gradient ascent on inputs: the worst case, within a small ball, for the label a sample must keep."""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from auditor.training.supplement import Pressure

if TYPE_CHECKING:
    import torch


def ascend(
    network: "torch.nn.Module",
    pixels: "torch.Tensor",
    labels: "torch.Tensor",
    *,
    pressure: Pressure,
    strength: float = 1.0,
    start: "torch.Tensor | None" = None,
    precision: AbstractContextManager[object] | None = None,
) -> "torch.Tensor":
    """Return perturbed images: q ← Π(q + a · sign ∇ mean ℓ(f(q), r)), repeated; no gradient leads back from them.

    The network is asked as it would be deployed, in evaluation mode, so that running statistics are used and not
    changed; no gradient of a parameter is computed. Afterwards it is in the mode in which it came.

    Args:
        network: maps float images in [0, 1] to logits.
        pixels: float, shape (n, channels, height, width), values in [0, 1].
        labels: the labels to be kept, shape (n,).
        pressure: steps and radius.
        strength: factor of step size and ball, in [0, 1].
        start: offsets in [-1, 1], in balls, at which the ascent begins.
        precision: an autocast that the forward passes run under.

    References:
        A. Madry, A. Makelov, L. Schmidt, D. Tsipras, A. Vladu: Towards Deep Learning Models Resistant to Adversarial
        Attacks. ICLR 2018.
    """
    import torch
    from torch.nn import functional

    if pressure.steps < 1 or pressure.radius <= 0 or strength <= 0:
        return pixels
    size, radius = strength * pressure.step_size, strength * pressure.radius
    low, high = (pixels - radius).clamp_(min=0.0), (pixels + radius).clamp_(max=1.0)
    moved = pixels if start is None else (pixels + radius * start).clamp(0.0, 1.0)
    was_training = network.training
    trained = [p for p in network.parameters() if p.requires_grad]
    network.eval()
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        for _ in range(pressure.steps):
            moved = moved.detach().requires_grad_(True)
            with precision or torch.autocast(pixels.device.type, enabled=False):
                loss = functional.cross_entropy(network(moved).float(), labels)
            (gradient,) = torch.autograd.grad(loss, moved)
            # Between `low` and `high` a pixel is both inside the ball and inside the pixel range.
            moved = torch.maximum(torch.minimum(moved.detach() + size * gradient.sign(), high), low)
    finally:
        for parameter in trained:
            parameter.requires_grad_(True)
        network.train(was_training)
    return moved.detach()
