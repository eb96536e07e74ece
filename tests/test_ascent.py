"""The ascent on inputs and the split batch normalisation, against finite differences and stock torch."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from auditor import models, training
from auditor.training.ascent import ascend
from auditor.training.normalisation import ordinary_statistics
from auditor.training.supplement import Pressure

PIXELS = torch.rand((4, 1, 6, 6), generator=torch.Generator().manual_seed(0)) * 0.6 + 0.2
LABELS = torch.tensor([0, 1, 2, 1])
ONE = Pressure(steps=1, step_size=0.01)


def network(seed=0, architecture="small-cnn"):
    description = models.describe(architecture, input_shape=(1, 6, 6), classes=("a", "b", "c"))
    return models.build(description, seed=seed)


def loss(net, pixels):
    return float(functional.cross_entropy(net(pixels), LABELS).detach())


def test_one_step_follows_the_sign_of_finite_differences():
    net = network(architecture="mlp").double().eval()
    pixels = PIXELS.double()
    moved = ascend(net, pixels, LABELS, pressure=ONE)
    for row, i, j in ((0, 0, 0), (1, 3, 2), (2, 5, 5), (3, 2, 4)):
        probe, back = pixels.clone(), pixels.clone()
        probe[row, 0, i, j] += 1e-6
        back[row, 0, i, j] -= 1e-6
        slope = loss(net, probe) - loss(net, back)
        assert abs(slope) > 0
        assert float(moved[row, 0, i, j] - pixels[row, 0, i, j]) == pytest.approx(np.sign(slope) * 0.01)


def test_ascent_raises_the_loss_and_leaves_the_network_as_it_was():
    net = network().train()
    before = copy.deepcopy(net.state_dict())
    net[0].weight.requires_grad_(False)
    moved = ascend(net, PIXELS, LABELS, pressure=Pressure(steps=5, step_size=0.02))
    assert net.training
    assert [p.requires_grad for p in net.parameters()] == [False] + [True] * (len(list(net.parameters())) - 1)
    assert all(p.grad is None for p in net.parameters())
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert not moved.requires_grad
    net.eval()
    assert loss(net, moved) > loss(net, PIXELS)


@pytest.mark.parametrize(("ball", "reach"), [(None, 0.06), (0.02, 0.02)])
def test_no_pixel_leaves_the_ball_or_the_pixel_range(ball, reach):
    pixels = torch.cat([PIXELS, torch.zeros_like(PIXELS[:1]), torch.ones_like(PIXELS[:1])])
    labels = torch.cat([LABELS, torch.tensor([0, 1])])
    start = torch.rand(pixels.shape, generator=torch.Generator().manual_seed(1)) * 2 - 1
    for begin in (None, start):
        pressure = Pressure(steps=3, step_size=0.02, ball=ball)
        moved = ascend(network().eval(), pixels, labels, pressure=pressure, start=begin)
        assert float((moved - pixels).abs().max()) <= reach + 1e-6
        assert 0.0 <= float(moved.min()) <= float(moved.max()) <= 1.0
        assert float((moved - pixels).abs().max()) > reach / 2


def test_no_pressure_is_the_very_same_image():
    for pressure in (Pressure(steps=0, step_size=0.1), Pressure(steps=5, step_size=0.0), replace(ONE, ball=0.0)):
        assert ascend(network().eval(), PIXELS, LABELS, pressure=pressure) is PIXELS
    assert ascend(network().eval(), PIXELS, LABELS, pressure=ONE, strength=0.0) is PIXELS


def test_strength_scales_the_radius():
    moved = ascend(network().eval(), PIXELS, LABELS, pressure=ONE, strength=0.5)
    assert float((moved - PIXELS).abs().max()) == pytest.approx(0.005, abs=1e-6)


@pytest.mark.parametrize("affine", [True, False])
def test_marked_rows_are_normalised_by_the_ordinary_ones(affine):
    torch.manual_seed(3)
    layer = nn.BatchNorm2d(3, affine=affine).train()
    if affine:
        nn.init.normal_(layer.weight)
        nn.init.normal_(layer.bias)
    stock = copy.deepcopy(layer)
    batch = torch.randn(12, 3, 4, 4)
    with ordinary_statistics(nn.Sequential(layer), n_ordinary=8):
        found = layer(batch)
    wanted = stock(batch[:8])
    assert torch.equal(found[:8], wanted)
    mean, std = batch[:8].mean((0, 2, 3)), (batch[:8].var((0, 2, 3), correction=0) + layer.eps).sqrt()
    marked = (batch[8:] - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    if affine:
        marked = marked * layer.weight.view(1, 3, 1, 1) + layer.bias.view(1, 3, 1, 1)
    assert torch.allclose(found[8:], marked, atol=1e-5)
    assert torch.equal(layer.running_mean, stock.running_mean)
    assert torch.equal(layer.running_var, stock.running_var)
    assert layer(batch[:2]).shape == (2, 3, 4, 4)
    assert "forward" not in vars(layer)


def test_running_statistics_carry_no_trace_of_marked_samples():
    class Loud:
        n_natural = 3
        apart = True

        def draw(self, generator):
            inputs = np.full((5, 1, 6, 6), 255, dtype=np.uint8)
            zeros = np.zeros(5, dtype=np.int64)
            # Weight 0: only the statistics could tell that these samples were there.
            return training.SupplementBatch(
                inputs=inputs, labels=zeros, weights=np.zeros(5, dtype=np.float32), codes=zeros - 1, code_weight=0.0,
                pressure=Pressure(steps=2, step_size=0.1),
            )  # fmt: skip

    generator = np.random.default_rng(0)
    inputs = generator.integers(0, 256, (60, 1, 6, 6), dtype=np.uint8)
    labels = generator.integers(0, 3, 60)
    plan = training.TrainingPlan(epochs=2, batch_size=20, learning_rate=0.01, threads=1)
    states = []
    for supplement in (None, Loud()):
        net = network()
        training.fit(net, inputs=inputs, labels=labels, plan=plan, supplement=supplement)
        states.append(net.state_dict())
    assert all(torch.allclose(states[0][k], states[1][k], atol=1e-5) for k in states[0])
