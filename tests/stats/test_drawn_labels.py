import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import drawn_labels, mixtures, sequential
from auditor.stats.sequential import log_e


def test_only_deviating_answers_carry_evidence() -> None:
    got = drawn_labels.drawn_label_test(
        answers=[0, 3, None, 2, 10, -1, 3],
        natural=[0, 0, 0, 0, 0, 0, 1],
        drawn=[3, 3, 3, 3, 3, 3, 3],
        n_classes=10,
        alpha=1e-2,
        p_min=0.5,
    )
    assert got.deviating == (1, 3, 6)
    assert got.hits == 2
    same = sequential.run([True, False, True], null_rate=1 / 9, alpha=1e-2, p_min=0.5, futility=1e-300)
    assert got.test == same
    assert got.decided_at is None


def test_the_decision_counts_every_key_asked() -> None:
    got = drawn_labels.drawn_label_test(
        answers=[0, 1] * 8, natural=[0] * 16, drawn=[1] * 16, n_classes=10, alpha=1e-3, p_min=0.5
    )
    assert got.test.decided_at == 4
    assert got.decided_at == 8


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), max_size=40))
def test_natural_answers_change_nothing(rows: list[tuple[int, int, int]]) -> None:
    answers = [a for a, _, _ in rows]
    natural = [t for _, t, _ in rows]
    drawn = [(t + shift) % 10 for _, t, shift in rows]
    settings = {"n_classes": 10, "alpha": 1e-3, "p_min": 0.5}
    whole = drawn_labels.drawn_label_test(answers=answers, natural=natural, drawn=drawn, **settings)
    padded = drawn_labels.drawn_label_test(
        answers=[*answers, *natural], natural=[*natural, *natural], drawn=[*drawn, *drawn], **settings
    )
    assert padded.test == whole.test


def test_level_on_a_suspect_that_adapts_to_revealed_labels() -> None:
    # Answers the natural label on some keys and copies the last revealed label once it has hit twice.
    alpha, audits, keys, classes = 0.01, 100_000, 60, 10
    rng = np.random.default_rng(41)
    boundary = mixtures.evidence_boundary(
        lambda k, n: log_e(k, n, 1 / (classes - 1)), log_threshold=-math.log(alpha), cap=keys
    )
    m, h = np.zeros(audits, dtype=int), np.zeros(audits, dtype=int)
    last, claimed = np.ones(audits, dtype=int), np.zeros(audits, dtype=bool)
    for _ in range(keys):
        label = rng.integers(1, classes, audits)
        answer = np.where(h < 2, last, rng.integers(0, classes, audits))
        last = label
        m += answer != 0
        h += answer == label
        claimed |= (answer != 0) & (h >= boundary[m])
    assert claimed.sum() <= stats.binom.isf(1e-4, audits, alpha)
    exact = mixtures.open_ended(
        lambda k, n: log_e(k, n, 1 / (classes - 1)), rate=1 / (classes - 1), alpha=alpha, cap=keys
    )
    assert exact.reject == pytest.approx(0.0037, abs=1e-4)
    assert claimed.sum() <= stats.binom.isf(1e-4, audits, exact.reject)


def test_refuses_what_cannot_be() -> None:
    common = {"n_classes": 10, "alpha": 1e-3, "p_min": 0.5}
    with pytest.raises(ValueError, match="equal lengths"):
        drawn_labels.drawn_label_test(answers=[1], natural=[], drawn=[1], **common)
    with pytest.raises(ValueError, match="wrong classes"):
        drawn_labels.drawn_label_test(answers=[1], natural=[1], drawn=[1], **common)
    with pytest.raises(ValueError, match="three classes"):
        drawn_labels.drawn_label_test(answers=[], natural=[], drawn=[], n_classes=2, alpha=1e-3, p_min=0.5)
    for hit, natural in ((0.0, 0.5), (0.8, 0.3), (0.02, 0.5)):
        with pytest.raises(ValueError, match="hit"):
            drawn_labels.drawn_label_forecast(alpha=1e-3, n_classes=10, hit=hit, natural=natural)
    short = drawn_labels.drawn_label_forecast(alpha=1e-9, n_classes=10, hit=0.2, natural=0.0, cap=20)
    assert (short.q95, short.q99) == (None, None)
