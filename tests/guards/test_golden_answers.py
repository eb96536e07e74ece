"""No answer of a guard may change by a bit between versions, whether it is asked for alone or in a batch."""

import hashlib

import numpy as np
import pytest
from guard_cases import random_inputs, small_keys

from auditor.guard_keys import GuardSettings
from auditor.guards.dynamarks import DynaMarks

N = 400


def distributions(classes: int) -> np.ndarray:
    """Rows from whole numbers and one division, which every platform rounds alike; a third of them nearly certain."""
    numbers = np.random.default_rng(1).integers(1, 1000, size=(N, classes)).astype(np.float64) ** 2
    numbers[::3, 2] *= 1000.0
    numbers[1::7, 0] = numbers[1::7, 1] = 10.0**6
    return np.asarray(numbers / numbers.sum(axis=1, keepdims=True))


CASES = {
    "default": (GuardSettings(), (1, 28, 28), 10, np.float32),
    "two-channels": (GuardSettings(mu=0.2, sigma=0.1, bits=2, depth=0.8), (3, 32, 32), 6, np.float64),
    "no-bits": (GuardSettings(mu=0.02, sigma=0.01, bits=0), (1, 8, 8), 3, np.float32),
    "labels": (GuardSettings(label_share=0.005, bits=4), (1, 28, 20), 5, np.float32),
    "many-classes": (GuardSettings(), (1, 8, 8), 300, np.float32),
    "half": (GuardSettings(mu=0.45, sigma=0.3), (1, 8, 8), 10, np.float16),
}
GOLDEN = {
    "default": "b7702f6bc85dc1ce0682aa53b7104c28",
    "two-channels": "5b119bb947235531fe17f339c03817b1",
    "no-bits": "f2e31909152487231bd222c5bd34c212",
    "labels": "c50332481129c22d91fc0c69a1b9481a",
    "many-classes": "3196b013c213da01fa0c09f84ca86bfe",
    "half": "b862f59a14f7aeb9e2311358b108e3de",
}


def digest(answers: np.ndarray) -> str:
    # In single precision: the last bit of a double may depend on the platform's logarithm.
    return hashlib.sha256(answers.astype("<f4").tobytes()).hexdigest()[:32]


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_the_first_version_in_batches_and_one_by_one(name: str) -> None:
    settings, shape, classes, precision = CASES[name]
    keys = small_keys(settings=settings, classes=classes, shape=shape)
    guard = DynaMarks(keys, client_id="alice")
    clean, inputs = distributions(classes).astype(precision), random_inputs(N, seed=3, shape=shape)
    whole = guard(clean, inputs)
    assert digest(whole) == GOLDEN[name]
    guarded = guard.answer(clean, inputs)
    ones = [guard(clean[i : i + 1], inputs[i : i + 1]) for i in range(N)]
    assert np.array_equal(np.concatenate(ones), whole)
    single = [guard.answer(clean[i : i + 1], inputs[i : i + 1]) for i in range(N)]
    assert np.array_equal(np.concatenate([one.probabilities for one in single]), guarded.probabilities)
    assert np.array_equal(np.concatenate([one.relabelled for one in single]), guarded.relabelled)
    twos = [guard(clean[i : i + 2], inputs[i : i + 2]) for i in range(0, N, 2)]
    assert np.array_equal(np.concatenate(twos), whole)
