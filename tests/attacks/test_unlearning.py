"""Attacks that know the scheme: what they change and what they leave."""

import numpy as np
import pytest
import torch

from auditor import models
from auditor.attacks import build_attack
from auditor.attacks.base import AttackData
from auditor.attacks.invert import Invert
from auditor.attacks.overwrite import with_another_output
from auditor.attacks.unlearn import without_extra_outputs
from auditor.datasets import Part
from auditor.errors import SuspectAnswerError, UsageError

FAST = {"epochs": 1, "batch_size": 50, "threads": 1}


@pytest.fixture(scope="module")
def data(digits):
    return AttackData(own=digits.train.take(np.arange(300)), evaluation=digits.test)


def test_an_extra_output_goes_and_the_others_stay(victim, digits):
    more = with_another_output(victim, seed=1)
    again = without_extra_outputs(more, n_outputs=10)
    assert again.description.classes == victim.description.classes
    images = digits.test.inputs
    assert np.array_equal(models.predict(again.network, images), models.predict(victim.network, images))
    assert without_extra_outputs(victim, n_outputs=10) is victim


def test_dropping_outputs_is_part_of_unlearning(victim, data):
    more = with_another_output(victim, seed=1)
    settings = {**FAST, "copies": 0, "drop_outputs": True}
    assert build_attack("unlearn", settings).run(victim=more, data=data).model.description.n_outputs == 10
    kept = build_attack("unlearn", {**settings, "copies": 1, "drop_outputs": False}).run(victim=more, data=data)
    assert kept.model.description.n_outputs == 11


def a_network_with_a_back_door(pattern, target):
    """Return a linear network whose answer is the target where the pattern is, and else the first class."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(pattern.size, 3))
    with torch.no_grad():
        network[1].weight.zero_()
        network[1].bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        network[1].weight[target] = torch.from_numpy(pattern.ravel()).float() * 4
    return network


def test_inversion_finds_the_planted_class_and_its_pattern():
    rng = np.random.default_rng(2)
    pattern = np.where(rng.random((1, 8, 8)) < 0.2, 1.0, 0.0)
    network = a_network_with_a_back_door(pattern, 2)
    images = rng.integers(100, 156, (60, 1, 8, 8), dtype=np.uint8)
    dim = np.where(pattern > 0, 0, images).astype(np.uint8)
    part = Part(inputs=dim, labels=np.zeros(60, dtype=np.int64))
    found = Invert().suspected(network, part, n_outputs=3, seed=0)
    assert found.target == 2
    assert found.share == 1.0
    inside, outside = np.abs(found.pattern[pattern > 0]).mean(), np.abs(found.pattern[pattern == 0]).mean()
    assert inside > 5 * outside


def test_extraction_learns_from_confident_answers_only(victim, data):
    attack = build_attack("extract", {**FAST, "confident": 0.999999})
    with pytest.raises(SuspectAnswerError, match="probability of"):
        attack.run(victim=victim, data=data)
    surrogate = build_attack("extract", {**FAST, "confident": 0.5}).run(victim=victim, data=data)
    assert surrogate.queries == 300
    with pytest.raises(SuspectAnswerError, match="labels only"):
        build_attack("extract", {**FAST, "taught": "hard", "confident": 0.5})._believed(
            type("A", (), {"probabilities": None})(), data.own.inputs
        )


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("unlearn", {"copies": 99}, "up to 16 copies"),
        ("unlearn", {"beta": 0}, "beta in"),
        ("invert", {"rounds": 0}, "1 to 16 rounds"),
        ("invert", {"epochs": 0}, "at least one epoch"),
        ("extract", {"confident": 1.0}, "lies in"),
    ],
)
def test_impossible_settings_are_usage_errors(name, settings, message):
    with pytest.raises(UsageError, match=message):
        build_attack(name, settings)
