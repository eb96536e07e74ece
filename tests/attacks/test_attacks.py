from dataclasses import replace

import numpy as np
import pytest
import torch

from auditor import datasets, models, training
from auditor.attacks.base import AttackData, attack_class, half_test
from auditor.attacks.finetune import FineTune, Layers
from auditor.attacks.prune import Prune, magnitude_masks
from auditor.errors import UsageError

PLAN = training.TrainingPlan(epochs=1, batch_size=50, learning_rate=0.02, seed=1, threads=1)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def victim(digits):
    part = digits.train
    return training.train_unmarked(
        architecture="small-cnn", spec=digits.spec, inputs=part.inputs, labels=part.labels, plan=replace(PLAN, epochs=6)
    )


def prunable(network):
    return {n: p.detach() for n, p in network.named_parameters() if p.ndim >= 2}


@pytest.mark.parametrize("rate", [0.0, 0.1, 0.5, 0.77, 0.9])
def test_pruning_zeroes_exactly_the_stated_share_of_the_smallest_weights(victim, digits, rate):
    before = torch.cat([p.flatten() for p in prunable(victim.network).values()])
    surrogate = Prune(rate=rate).run(victim=victim, data=half_test(digits.test))
    after = torch.cat([p.flatten() for p in prunable(surrogate.model.network).values()])
    gone = after == 0
    assert int(gone.sum()) == round(rate * len(before))
    assert torch.equal(after[~gone], before[~gone])
    if rate > 0:
        assert before[gone].abs().max() <= before[~gone].abs().min()


def test_equal_magnitudes_are_pruned_to_the_exact_share():
    network = torch.nn.Linear(10, 10)
    torch.nn.init.constant_(network.weight, 0.5)
    assert int(magnitude_masks(network, rate=0.33)["weight"].sum()) == 33


def test_fine_tuning_after_pruning_keeps_the_zeros(victim, digits):
    surrogate = Prune(rate=0.7, plan=PLAN).run(victim=victim, data=half_test(digits.test))
    pruned = Prune(rate=0.7).run(victim=victim, data=half_test(digits.test))
    for name, value in prunable(surrogate.model.network).items():
        zeros = prunable(pruned.model.network)[name] == 0
        assert bool((value[zeros] == 0).all())
        assert bool((value[~zeros] != prunable(pruned.model.network)[name][~zeros]).any())
    assert surrogate.accuracy_after > pruned.accuracy_after - 0.02


def test_fine_tuning_all_layers_moves_all_and_last_only_the_head(victim, digits):
    data = half_test(digits.test)
    for layers in Layers:
        surrogate = FineTune(plan=PLAN, layers=layers).run(victim=victim, data=data)
        moved = {
            n
            for (n, a), b in zip(victim.network.named_parameters(), surrogate.model.network.parameters(), strict=True)
            if not torch.equal(a, b)
        }
        everything = {n for n, _ in victim.network.named_parameters()}
        assert moved == (everything if layers is Layers.ALL else {"11.weight", "11.bias"})
        assert all(p.requires_grad for p in surrogate.model.network.parameters())


def test_accuracies_are_those_of_the_evaluation_half(victim, digits):
    data = half_test(digits.test)
    surrogate = FineTune(plan=PLAN).run(victim=victim, data=data)
    for model, told in ((victim, surrogate.accuracy_before), (surrogate.model, surrogate.accuracy_after)):
        answers = models.labels_of(model.network, data.evaluation.inputs)
        assert told == np.mean(answers == data.evaluation.labels)


def test_attacks_are_deterministic_and_leave_the_victim_alone(victim, digits):
    before = {n: v.clone() for n, v in victim.network.state_dict().items()}
    one, two = (FineTune(plan=PLAN).run(victim=victim, data=half_test(digits.test)) for _ in range(2))
    assert all(torch.equal(v, victim.network.state_dict()[n]) for n, v in before.items())
    states = one.model.network.state_dict(), two.model.network.state_dict()
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])


def test_surrogates_can_be_saved_and_loaded(victim, digits, tmp_path):
    surrogate = Prune(rate=0.3).run(victim=victim, data=half_test(digits.test))
    models.save_model(tmp_path, surrogate.model.network, surrogate.model.description)
    loaded = models.load_model(tmp_path)
    assert np.array_equal(
        models.predict(loaded.network, digits.test.inputs), models.predict(surrogate.model.network, digits.test.inputs)
    )


def test_impossible_attacks_are_usage_errors(victim, digits):
    for rate in (-0.1, 1.0, float("nan")):
        with pytest.raises(UsageError):
            Prune(rate=rate)
    with pytest.raises(UsageError):
        FineTune(plan=replace(PLAN, epochs=0))
    empty = digits.test.take(np.arange(0))
    with pytest.raises(UsageError):
        Prune(rate=0.1).run(victim=victim, data=AttackData(own=empty, evaluation=digits.test))
    with pytest.raises(UsageError, match="finetune"):
        attack_class("hypnosis")
    assert attack_class("prune") is Prune
