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
    # The missing answer is a miss; labels outside the task and natural ones are not bet on.
    assert got.deviating == (1, 2, 3, 6)
    assert got.hits == 2
    same = sequential.run([True, False, False, True], null_rate=1 / 9, alpha=1e-2, p_min=0.5, futility=1e-300)
    assert got.test.log10_e_max == same.log10_e_max
    assert [step.log10_e for step in got.test.steps if step.n in (2, 3, 4, 7)] == [s.log10_e for s in same.steps]
    assert got.test.decided_at is None


def test_the_decision_counts_every_key_asked() -> None:
    got = drawn_labels.drawn_label_test(
        answers=[0, 1] * 8, natural=[0] * 16, drawn=[1] * 16, n_classes=10, alpha=1e-3, p_min=0.5
    )
    assert got.test.decided_at == 8
    assert got.test.steps[7].bets == 4


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), st.integers(1, 9)), max_size=40))
def test_natural_answers_change_no_evidence(rows: list[tuple[int, int, int]]) -> None:
    answers = [a for a, _, _ in rows]
    natural = [t for _, t, _ in rows]
    drawn = [(t + shift) % 10 for _, t, shift in rows]
    settings = {"n_classes": 10, "alpha": 1e-3, "p_min": 0.5}
    whole = drawn_labels.drawn_label_test(answers=answers, natural=natural, drawn=drawn, **settings)
    padded = drawn_labels.drawn_label_test(
        answers=[*answers, *natural], natural=[*natural, *natural], drawn=[*drawn, *drawn], **settings
    )
    assert padded.deviating == whole.deviating
    assert padded.test.log10_e_max == whole.test.log10_e_max


def boundary(null_rate: float, alpha: float, cap: int) -> np.ndarray:
    return mixtures.evidence_boundary(lambda k, n: log_e(k, n, null_rate), log_threshold=-math.log(alpha), cap=cap)


class TestFutility:
    def test_a_suspect_that_never_deviates_is_excluded(self) -> None:
        got = drawn_labels.drawn_label_test(
            answers=[0] * 40, natural=[0] * 40, drawn=[1] * 40, n_classes=10, alpha=1e-6, p_min=0.3, futility=0.01
        )
        assert got.test.decision is sequential.Decision.FUTILE
        # The first n with (8/9 / 0.7)^n ≥ 100.
        assert got.test.decided_at == math.ceil(math.log(100) / math.log(8 / 9 / 0.7))

    @pytest.mark.parametrize("n_classes", [3, 4, 10, 100])
    @pytest.mark.parametrize("natural_share", [0.0, 0.5, 1.0])
    def test_level_at_the_promised_rate(self, n_classes: int, natural_share: float) -> None:
        # Exactly p_min of all keys hit; the others are natural answers by the stated share.
        p_min, futility, keys, audits = 0.3, 0.05, 120, 20_000
        rng = np.random.default_rng(3)
        hit = rng.random((audits, keys)) < p_min
        k, n = np.cumsum(hit, axis=1), np.arange(1, keys + 1)
        m = np.cumsum(hit | (rng.random((audits, keys)) >= natural_share), axis=1)
        null_rate = drawn_labels.drawn_rate(n_classes)
        reverse = sequential.log_futility(k, n, drawn_labels.innocent_rate(null_rate, p_min), p_min)
        rejected = k >= boundary(null_rate, 1e-6, keys)[m]
        futile = reverse <= math.log(futility)
        first = np.where(futile.any(axis=1), futile.argmax(axis=1), keys)
        stopped = futile.any(axis=1) & ~(rejected & (np.arange(keys) <= first[:, None])).any(axis=1)
        assert stopped.sum() <= stats.binom.isf(1e-4, audits, futility)

    def test_defined_where_chance_exceeds_the_promised_rate(self) -> None:
        # Three classes: an independent suspect hits half of its deviating answers.
        assert drawn_labels.innocent_rate(0.5, 0.3) == 0.15
        assert drawn_labels.innocent_rate(1 / 9, 0.3) == 1 / 9


@pytest.mark.parametrize("natural_share", [0.0, 0.4, 1.0])
def test_the_forecast_is_the_worst_case_over_natural_answers(natural_share: float) -> None:
    rate, alpha, cap, audits = 0.6, 1e-4, 40, 20_000
    law = drawn_labels.drawn_label_operating(rate=rate, n_classes=10, alpha=alpha, p_min=0.3, futility=0.01, cap=cap)
    rng = np.random.default_rng(9)
    hit = rng.random((audits, cap)) < rate
    k, n = np.cumsum(hit, axis=1), np.arange(1, cap + 1)
    m = np.cumsum(hit | (rng.random((audits, cap)) >= natural_share), axis=1)
    reject = k >= boundary(1 / 9, alpha, cap)[m]
    futile = sequential.log_futility(k, n, 1 / 9, 0.3) <= math.log(0.01) + 1e-12
    first = np.where((reject | futile).any(axis=1), (reject | futile).argmax(axis=1), cap)
    found = np.array([first[i] < cap and bool(reject[i, first[i]]) for i in range(audits)]).mean()
    slack = 4 * math.sqrt(law.reject * (1 - law.reject) / audits)
    assert found >= law.reject - slack
    if natural_share == 0.0:
        assert found == pytest.approx(law.reject, abs=slack)
        assert np.minimum(first + 1, cap).mean() == pytest.approx(law.mean, rel=0.02)


def test_information_limit_lies_below_every_forecast() -> None:
    for rate in (0.3, 0.6, 0.95):
        limit = drawn_labels.information_limit(alpha=1e-6, power=0.99, rate=rate, n_classes=10)
        best = drawn_labels.drawn_label_forecast(alpha=1e-6, n_classes=10, hit=rate, natural=1 - rate)
        assert 0.98 * best.limit < limit < best.limit
        assert limit < best.mean


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
    with pytest.raises(ValueError, match="no keys"):
        drawn_labels.drawn_label_test(answers=[1], natural=[], drawn=[1], **common)
    with pytest.raises(ValueError, match="natural label"):
        drawn_labels.drawn_label_test(answers=[1], natural=[1], drawn=[1], **common)
    with pytest.raises(ValueError, match="three classes"):
        drawn_labels.drawn_label_test(answers=[], natural=[], drawn=[], n_classes=2, alpha=1e-3, p_min=0.5)
    for hit, natural in ((0.0, 0.5), (0.8, 0.3), (0.02, 0.5)):
        with pytest.raises(ValueError, match="hit"):
            drawn_labels.drawn_label_forecast(alpha=1e-3, n_classes=10, hit=hit, natural=natural)
    short = drawn_labels.drawn_label_forecast(alpha=1e-9, n_classes=10, hit=0.2, natural=0.0, cap=20)
    assert (short.q95, short.q99) == (None, None)
