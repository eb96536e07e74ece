"""Services that find keys by their looks: what a nearest neighbour or an autoencoder sees, and what that is worth."""

import evaders
import numpy as np
import pytest

from auditor import datasets
from auditor.patterns import add_pattern


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def test_the_scores_are_those_of_their_definitions():
    rng = np.random.default_rng(1)
    own, asked = (rng.integers(0, 256, (n, 1, 4, 4), dtype=np.uint8) for n in (30, 7))
    near = evaders.nearest_neighbour(own)(asked)
    flat, others = asked.reshape(7, -1).astype(float), own.reshape(30, -1).astype(float)
    assert near == pytest.approx([min(((x - y) ** 2).sum() for y in others) for x in flat])
    assert evaders.nearest_neighbour(own)(own) == pytest.approx(np.zeros(30), abs=1e-6)
    whole = evaders.autoencoder(own, n_components=16)
    assert whole(asked) == pytest.approx(np.zeros(7), abs=1e-6)
    errors = [evaders.autoencoder(own, n_components=n)(own).sum() for n in (1, 4, 8, 15)]
    assert errors == sorted(errors, reverse=True)


@pytest.mark.parametrize("make", [evaders.nearest_neighbour, lambda own: evaders.autoencoder(own, n_components=20)])
def test_strong_patterns_are_recognised_and_ordinary_triggers_are_not(digits, make):
    own, ordinary = digits.test.halves()
    odd = evaders.oddity_detector(make(own.inputs), ordinary.inputs, false_alarms=0.05)
    carriers = digits.carriers.inputs
    rng = np.random.default_rng(4)
    keys = add_pattern(carriers, rng.standard_normal((1, 8, 8)), beta=0.4)
    assert odd(keys).mean() > 0.95
    # The keys of the margin scheme are ordinary held-out images: no score tells them from other questions.
    assert odd(carriers).mean() < 0.15
