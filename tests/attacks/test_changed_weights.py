"""Attacks that change weights or what surrounds them: oracles on the numbers, one fast run each."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch

from auditor import models, wrapped
from auditor.attacks import build_attack
from auditor.attacks.base import AttackData, half_test
from auditor.attacks.finetune import head_name
from auditor.attacks.objectives import WorstCase
from auditor.attacks.overwrite import with_another_output
from auditor.attacks.prune import channel_masks
from auditor.attacks.quantize import activation_ranges, quantised
from auditor.errors import UsageError
from auditor.patterns import add_pattern
from auditor.training.ascent import ascend
from auditor.training.supplement import Pressure

FAST = {"epochs": 2, "batch_size": 50, "threads": 1}
CASES = {
    "adversarial": {**FAST, "steps": 2},
    "answers": {"kind": "round", "value": 1},
    "distill": FAST,
    "ensemble": {**FAST, "n_others": 1},
    "extract": FAST,
    "finetune": {**FAST, "fresh_head": True},
    "invert": {**FAST, "steps": 10},
    "noise": {"scale": 0.1},
    "overwrite": FAST,
    "preprocess": {"kind": "noise", "strength": 0.02},
    "prune": {**FAST, "structure": "channel-activation", "rate": 0.25},
    "quantize": {"bits": 6, "activation_bits": 8},
    "unlearn": {**FAST, "copies": 1, "beta": 0.1},
}


@pytest.fixture(scope="module")
def data(digits):
    return AttackData(own=digits.train, evaluation=digits.test)


def weights(network):
    return {name: value.detach() for name, value in network.named_parameters() if value.ndim >= 2}


@pytest.mark.parametrize("name", sorted(CASES))
def test_every_attack_is_deterministic_keeps_the_task_and_survives_the_disk(victim, digits, data, tmp_path, name):
    before = copy.deepcopy(victim.network.state_dict())
    attack = build_attack(name, CASES[name])
    one, two = (attack.run(victim=victim, data=data) for _ in range(2))
    scores = models.predict(one.model.network, digits.test.inputs)
    assert np.array_equal(scores, models.predict(two.model.network, digits.test.inputs))
    assert all(torch.equal(value, before[name]) for name, value in victim.network.state_dict().items())
    assert one.accuracy_before > 0.9
    assert one.accuracy_after > 0.6
    assert one.accuracy_after == np.mean(scores.argmax(axis=1) == digits.test.labels)
    assert set(CASES[name]) <= set(one.as_json()["settings"])
    wrapped.save(tmp_path, one.model)
    assert np.array_equal(models.predict(wrapped.load(tmp_path).network, digits.test.inputs), scores)


@pytest.mark.parametrize("name", ["noise", "overwrite", "finetune", "adversarial", "extract"])
def test_another_seed_is_another_surrogate(victim, digits, data, name):
    one, two = (
        build_attack(name, {**CASES[name], "epochs": 1, "seed": seed} if "epochs" in CASES[name] else {"seed": seed})
        .run(victim=victim, data=half_test(digits.test))
        .model
        for seed in (1, 2)
    )
    assert any(not torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_quantised_weights_are_few_multiples_of_one_step_per_channel(victim, data, bits):
    surrogate = build_attack("quantize", {"bits": bits}).run(victim=victim, data=data)
    assert not isinstance(surrogate.model, wrapped.WrappedModel)
    for (name, value), old in zip(
        weights(surrogate.model.network).items(), weights(victim.network).values(), strict=True
    ):
        for channel, plain in zip(value, old, strict=True):
            step = plain.abs().max().double() / (2 ** (bits - 1) - 1)
            levels = channel.double() / step
            assert channel.unique().numel() <= 2**bits - 1, name
            assert float((levels - levels.round()).abs().max()) < 1e-4
            assert float((channel - plain).abs().max()) <= float(step) * 0.5001


def test_eight_bits_agree_with_torchs_per_channel_quantisation():
    weight = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(1))
    weight[2] = 0
    scales = weight.abs().amax(dim=(1, 2, 3)) / 127
    scales[2] = 1.0
    wanted = torch.fake_quantize_per_channel_affine(weight, scales, torch.zeros(6, dtype=torch.int32), 0, -127, 127)
    torch.testing.assert_close(quantised(weight, bits=8), wanted, atol=1e-7, rtol=1e-6)


def test_activations_lie_on_their_grid(victim, data, digits):
    surrogate = build_attack("quantize", {"activation_bits": 4}).run(victim=victim, data=data)
    assert isinstance(surrogate.model, wrapped.WrappedModel)
    ranges = surrogate.model.wrapping.activations
    assert set(ranges) == {
        name for name, m in victim.network.named_modules() if hasattr(m, "weight") and m.weight.ndim > 1
    }
    seen = {}
    for name in ranges:
        surrogate.model.members[0].network.get_submodule(name).register_forward_hook(
            lambda m, given, out, name=name: seen.update({name: out.detach()})
        )
    surrogate.model.network(torch.from_numpy(digits.test.inputs / np.float32(255)))
    for name, scope in ranges.items():
        assert seen[name].unique().numel() <= 16
        # One level is 0, so that the grid lies up to half a step beside the measured range.
        half = (scope.high - scope.low) / 15 / 2
        assert (
            scope.low - half * 1.001 <= float(seen[name].min()) <= float(seen[name].max()) <= scope.high + half * 1.001
        )
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 3))
    found = activation_ranges(network, digits.test.inputs)["1"]
    out = network(torch.from_numpy(digits.test.inputs / np.float32(255))).detach()
    assert (found.low, found.high) == pytest.approx((min(0, float(out.min())), max(0, float(out.max()))), rel=1e-5)


def test_weight_noise_has_the_stated_size(victim, data):
    surrogate = build_attack("noise", {"scale": 0.3, "seed": 4}).run(victim=victim, data=data)
    for name, old in weights(victim.network).items():
        added = surrogate.model.network.get_parameter(name).detach() - old
        if old.numel() > 400:
            assert float(added.std() / old.std()) == pytest.approx(0.3, rel=0.15)
    for (name, one), two in zip(victim.network.named_parameters(), surrogate.model.network.parameters(), strict=True):
        assert torch.equal(one, two) == (one.ndim < 2), name


@pytest.mark.parametrize("structure", ["channel-norm", "channel-activation"])
@pytest.mark.parametrize("rate", [0.0, 0.25, 0.5])
def test_pruned_channels_are_the_stated_share_and_silent(victim, data, digits, structure, rate):
    attack = build_attack("prune", {"structure": structure, "rate": rate})
    network = attack.run(victim=victim, data=data).model.network
    images = torch.from_numpy(digits.test.inputs[:50] / np.float32(255))
    for conv, norm in (("0", "1"), ("4", "5"), ("7", "8")):
        weight = network.get_parameter(f"{conv}.weight").detach()
        silent = (weight.abs().flatten(1).sum(dim=1) == 0).nonzero().flatten()
        assert len(silent) == round(rate * len(weight))
        seen = []
        hook = network.get_submodule(norm).register_forward_hook(lambda m, given, out, seen=seen: seen.append(out))
        with torch.no_grad():
            network(images)
        hook.remove()
        assert float(seen[0][:, silent].abs().sum()) == 0
        if structure == "channel-norm" and rate > 0:
            norms = victim.network.get_parameter(f"{conv}.weight").detach().abs().sum(dim=(1, 2, 3))
            assert set(silent.tolist()) == set(norms.argsort()[: len(silent)].tolist())


def test_activity_ranks_channels_by_what_they_answer(digits):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 1, bias=False), torch.nn.Flatten(), torch.nn.Linear(256, 2))
    with torch.no_grad():
        network[0].weight[:] = torch.tensor([3.0, -1.0, 2.0, -4.0]).reshape(4, 1, 1, 1)
    gone = channel_masks(network, rate=0.5, last_only=True, inputs=digits.test.inputs[:20])
    assert gone["0.weight"].flatten().tolist() == [False, True, True, False]


def test_tuning_after_channel_pruning_keeps_channels_silent(victim, data):
    settings = {"structure": "channel-norm", "rate": 0.5}
    pruned = build_attack("prune", settings).run(victim=victim, data=data).model.network
    tuned = build_attack("prune", {**settings, **FAST, "epochs": 1}).run(victim=victim, data=data).model.network
    for name, value in pruned.named_parameters():
        gone = value == 0
        if value.ndim == 4:
            assert bool((tuned.get_parameter(name)[gone] == 0).all())
            assert bool((tuned.get_parameter(name)[~gone] != value[~gone]).any())


def test_the_last_convolution_alone(victim, data):
    attack = build_attack("prune", {"structure": "channel-norm", "rate": 0.9, "last_only": True})
    network = attack.run(victim=victim, data=data).model.network
    touched = {
        name
        for (name, a), b in zip(victim.network.named_parameters(), network.parameters(), strict=True)
        if not torch.equal(a, b)
    }
    assert touched == {"7.weight", "8.weight", "8.bias"}


def test_a_network_without_convolutions_has_no_channels(digits, data):
    description = models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes)
    dense = models.LoadedModel(network=models.build(description, seed=1), description=description)
    with pytest.raises(UsageError, match="no channels"):
        build_attack("prune", {"structure": "channel-norm"}).run(victim=dense, data=data)


@pytest.mark.parametrize("layers", ["all", "last"])
def test_a_fresh_head_owes_the_victim_nothing(victim, digits, layers):
    settings = {"layers": layers, "fresh_head": True, "epochs": 1, "learning_rate": 1e-12, "threads": 1}
    network = build_attack("finetune", settings).run(victim=victim, data=half_test(digits.test)).model.network
    head = head_name(network)
    fresh = models.build(victim.description, seed=0)
    torch.testing.assert_close(network.get_submodule(head).weight, fresh.get_submodule(head).weight)
    torch.testing.assert_close(network.get_parameter("0.weight"), victim.network.get_parameter("0.weight"))


def ascended(network, images, labels, *, radius, step, steps):
    return ascend(network, images, labels, pressure=Pressure(steps=steps, step_size=step, ball=radius))


def test_moved_images_stay_in_the_ball_and_cost_more(victim, digits):
    images = torch.from_numpy(digits.test.inputs[:100] / np.float32(255))
    labels = torch.from_numpy(digits.test.labels[:100])
    moved = ascended(victim.network, images, labels, radius=0.1, step=0.03, steps=5)
    assert float((moved - images).abs().max()) <= 0.1 + 1e-6
    assert 0 <= float(moved.min()) <= float(moved.max()) <= 1
    loss = torch.nn.functional.cross_entropy
    with torch.no_grad():
        assert float(loss(victim.network(moved), labels)) > 1.5 * float(loss(victim.network(images), labels))
    one = ascended(victim.network, images, labels, radius=0.5, step=0.02, steps=1)
    again = images.clone().requires_grad_(True)
    (gradient,) = torch.autograd.grad(loss(victim.network(again), labels), [again])
    torch.testing.assert_close(one, (images + 0.02 * gradient.sign()).clamp(0, 1))


def test_moved_images_do_not_enter_running_statistics(victim, digits):
    network = copy.deepcopy(victim.network).train()
    before = {name: value.clone() for name, value in network.named_buffers()}
    images = torch.from_numpy(digits.test.inputs[:50] / np.float32(255))
    labels = torch.from_numpy(digits.test.labels[:50])
    ascended(network, images, labels, radius=0.1, step=0.03, steps=3)
    assert all(torch.equal(value, before[name]) for name, value in network.named_buffers())
    WorstCase(radius=0.1, step=0.03, steps=2, clean_share=0.5).loss(network, images, np.arange(50), labels)
    assert network.training


def test_adversarial_training_makes_the_victim_robust(victim, digits, data):
    settings = {"radius": 0.1, "step": 0.03, "steps": 4, "clean_share": 0.5, "epochs": 3, "learning_rate": 0.02}
    robust = build_attack("adversarial", {**settings, "threads": 1}).run(victim=victim, data=data).model
    images = torch.from_numpy(digits.test.inputs / np.float32(255))
    labels = torch.from_numpy(digits.test.labels)

    def right(network):
        moved = ascended(network, images, labels, radius=0.1, step=0.03, steps=4)
        return float((network(moved).argmax(dim=1) == labels).float().mean())

    assert right(robust.network) > right(victim.network) + 0.05


@pytest.mark.parametrize("mark", ["wrong-label", "new-label"])
def test_overwriting_leaves_a_second_mark(victim, digits, data, mark, monkeypatch):
    from auditor.attacks import overwrite

    drawn = []
    for name in ("wrong_label_mark", "new_label_mark"):
        real = getattr(overwrite, name)
        monkeypatch.setattr(overwrite, name, lambda *a, real=real, **k: drawn.append(real(*a, **k)) or drawn[-1])
    settings = {"mark": mark, "beta": 0.4, "epochs": 6, "learning_rate": 0.05, "threads": 1}
    model = build_attack("overwrite", settings).run(victim=victim, data=data).model
    target = 10 if mark == "new-label" else drawn[0].target
    carriers = digits.test.take(np.flatnonzero(digits.test.labels != target))
    keys = add_pattern(carriers.inputs, drawn[0].pattern, beta=0.4)
    assert np.mean(models.labels_of(model.network, keys) == target) > 0.6
    assert np.mean(models.labels_of(model.network, carriers.inputs) == target) < 0.1
    assert model.description.n_outputs == (11 if mark == "new-label" else 10)


def test_another_output_leaves_the_others_alone(victim, digits):
    wider = with_another_output(victim, seed=3)
    images = torch.from_numpy(digits.test.inputs[:30] / np.float32(255))
    torch.testing.assert_close(wider.network.eval()(images)[:, :10], victim.network.eval()(images))
    assert wider.description.classes == (*digits.classes, "output-10")


@pytest.mark.parametrize("name", ["finetune", "prune", "noise", "preprocess", "ensemble"])
def test_a_wrapped_victim_cannot_be_opened(victim, data, name):
    service = wrapped.wrap([copy.deepcopy(victim)], wrapped.Wrapping())
    with pytest.raises(UsageError, match="wrapped"):
        build_attack(name, CASES[name]).run(victim=service, data=data)


def test_no_images_no_attack(victim, digits):
    nothing = digits.test.take(np.arange(0))
    for own, evaluation in ((nothing, digits.test), (digits.test, nothing)):
        with pytest.raises(UsageError):
            build_attack("noise", {}).run(victim=victim, data=AttackData(own=own, evaluation=evaluation))


def test_a_second_mark_needs_carriers_of_another_class(victim, digits, monkeypatch):
    from auditor.attacks import overwrite

    one_class = digits.train.take(np.flatnonzero(digits.train.labels == 0))
    monkeypatch.setattr(
        overwrite, "wrong_label_mark", lambda *a, real=overwrite.wrong_label_mark, **k: replace(real(*a, **k), target=0)
    )
    with pytest.raises(UsageError, match="second mark's class"):
        build_attack("overwrite", FAST).run(victim=victim, data=AttackData(own=one_class, evaluation=digits.test))
