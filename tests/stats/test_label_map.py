"""The label map against enumeration and simulation."""

import itertools
from fractions import Fraction
from math import comb

import numpy as np
import pytest

from auditor.stats.label_map import fit_label_map


def tail(hits, trials):
    """P[Bin(trials, 1/2) >= hits], exactly."""
    return Fraction(sum(comb(trials, k) for k in range(hits, trials + 1)), 2**trials)


@pytest.mark.parametrize("confidence", [0.9, 0.99, 0.999])
def test_a_label_is_mapped_exactly_when_the_binomial_tail_allows_it(confidence):
    for trials in range(1, 25):
        for hits in range((trials + 1) // 2, trials + 1):
            truth = [1] * hits + [0] * (trials - hits) + [0] * 40
            answered = ["x"] * trials + ["y"] * 40
            found = fit_label_map(truth=truth, answered=answered, n_classes=2, confidence=confidence)
            # Two labels share the error; the bound exceeds one half when the tail at one half is smaller than that.
            assert ("x" in found.label_map) == (tail(hits, trials) < (1 - Fraction(str(confidence))) / 2)


def test_permuted_renamed_split_merged_and_missing_classes():
    truth = [0] * 60 + [1] * 60 + [2] * 60 + [3] * 60
    answered = ["zero"] * 60 + ["one-a", "one-b"] * 30 + ["mixed"] * 60 + ["mixed"] * 60
    found = fit_label_map(truth=truth, answered=answered, n_classes=4)
    assert found.label_map == {"zero": 0, "one-a": 1, "one-b": 1}
    assert found.unmapped == ("mixed",)
    assert found.unclaimed == (2, 3)
    assert found.agreement == 0.5


def test_every_order_of_few_labels_is_found():
    truth = [c for c in range(4) for _ in range(15)]
    for order in itertools.permutations(range(4)):
        found = fit_label_map(truth=truth, answered=[f"n{order[c]}" for c in truth], n_classes=4)
        assert found.label_map == {f"n{order[c]}": c for c in range(4)}
        assert found.agreement == 1.0


def test_wrong_maps_stay_within_the_error():
    # The hardest case for a rule about majorities: a label whose answers come from two classes evenly.
    generator = np.random.default_rng(7)
    wrong = runs = 0
    for _ in range(4000):
        truth = generator.integers(0, 2, 40)
        runs += 1
        wrong += bool(fit_label_map(truth=truth.tolist(), answered=["x"] * 40, n_classes=2, confidence=0.9).label_map)
    # Either class may win by chance, each with at most a tenth; Hoeffding allows 0.03 at 1e-3.
    assert wrong / runs <= 2 * 0.1 + 0.03


def test_too_few_answers_map_nothing():
    found = fit_label_map(truth=[0, 1], answered=["a", "b"], n_classes=2)
    assert found.label_map == {}
    assert found.unmapped == ("a", "b")


@pytest.mark.parametrize(
    "changes",
    [{"truth": []}, {"truth": [0]}, {"truth": [0, 2]}, {"truth": [0, -1]}, {"n_classes": 1}, {"confidence": 1.0}],
)
def test_what_is_no_calibration(changes):
    with pytest.raises(ValueError, match=r"\w"):
        fit_label_map(**({"truth": [0, 1], "answered": ["a", "b"], "n_classes": 2} | changes))
