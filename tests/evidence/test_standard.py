"""The standard plan: an innocent suspect of drawn labels can be let go within the sealed keys."""

import numpy as np
import pytest

from auditor.evidence.standard import smallest_rate
from auditor.records import NullBasis
from auditor.stats.drawn_labels import drawn_label_test


@pytest.mark.parametrize("n_keys", [40, 60, 100, 200, 300])
@pytest.mark.parametrize("deviating", [0.0, 0.15])
def test_an_innocent_suspect_is_usually_excluded_before_the_keys_end(n_keys, deviating):
    rng = np.random.default_rng([n_keys, round(100 * deviating)])
    p_min = smallest_rate(NullBasis.DRAWN_LABELS, n_keys=n_keys)
    futile, audits = 0, 200
    for _ in range(audits):
        natural = rng.integers(0, 10, n_keys)
        drawn = (natural + rng.integers(1, 10, n_keys)) % 10
        # Answers that deviate are one of nine wrong classes, whatever was drawn.
        other = (natural + rng.integers(1, 10, n_keys)) % 10
        answers = np.where(rng.random(n_keys) < deviating, other, natural)
        found = drawn_label_test(
            answers=answers.tolist(), natural=natural.tolist(), drawn=drawn.tolist(), n_classes=10, alpha=1e-6,
            p_min=p_min, futility=0.01,
        )  # fmt: skip
        futile += found.test.decision == "futile"
    assert futile / audits > 0.8


def test_other_plans_keep_their_rate():
    assert {smallest_rate(basis, n_keys=40) for basis in (NullBasis.SHAMS, NullBasis.DRAWN_TABLE)} == {0.3}
