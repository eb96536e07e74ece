import math

import numpy as np
import pytest
from guard_cases import SHAPE, random_answers, random_inputs
from scipy import stats

from auditor.errors import UsageError
from auditor.guards.coswm import CosWM, cosine_test, project, signal_to_noise
from auditor.guards.dawn import Dawn, false_claim_log10, planted_test

KEY = bytes(range(1, 33))


def test_dawn_changes_the_nominal_share_to_the_planted_class() -> None:
    guard = Dawn(client_key=KEY, n_classes=5, shape=SHAPE, share=0.02)
    inputs, clean = random_inputs(20_000), random_answers(20_000)
    answers = guard(clean, inputs)
    first = clean.argmax(axis=1)
    chosen, planted = guard.planted(inputs, first)
    assert np.array_equal(answers.argmax(axis=1) != first, chosen)
    assert np.array_equal(answers.argmax(axis=1)[chosen], planted[chosen])
    assert np.array_equal(np.sort(answers, axis=1), np.sort(clean, axis=1))
    assert abs(chosen.mean() - 0.02) < 4 * math.sqrt(0.02 / 20_000)
    counts = np.bincount((planted - first) % 5, minlength=5)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-4


def test_planted_answers_are_tested_against_the_drawn_classes() -> None:
    planted = np.array([1, 2, 3, 4, 0, 1, 2, 3])
    answers = planted.copy()
    answers[:3] = (answers[:3] + 1) % 5
    found = planted_test(answers=answers, planted=planted, n_classes=5)
    assert (found.hits, found.trials) == (5, 8)
    assert found.log10_p == pytest.approx(math.log10(stats.binom.sf(4, 8, 1 / 4)))
    with pytest.raises(UsageError):
        planted_test(answers=answers[:2], planted=planted, n_classes=5)


@pytest.mark.parametrize(
    ("classes", "tolerated", "smallest"),
    [(10, 0.5, 81), (10, 0.4, 56), (10, 0.2, 31), (43, 0.5, 35), (100, 0.5, 25), (256, 0.4, 16), (1000, 0.2, 8)],
)
def test_the_published_bound_needs_as_many_queries_as_the_reference_table(
    classes: int, tolerated: float, smallest: int
) -> None:
    limit = -64 * math.log10(2)
    enough = [
        n for n in range(1, 100) if false_claim_log10(n_logged=n, n_classes=classes, tolerated=tolerated) <= limit
    ]
    assert enough[0] == smallest


def test_coswm_follows_the_published_formula() -> None:
    guard = CosWM(client_key=KEY, n_classes=5, shape=SHAPE)
    inputs, clean = random_inputs(200), random_answers(200)
    found = guard.answer(clean, inputs)
    key = guard.key
    assert np.linalg.norm(key.direction) == pytest.approx(1.0)
    for image, p, answer in zip(inputs, clean, found.probabilities, strict=True):
        angle = 30.0 * float((image.reshape(-1) / 255.0) @ key.direction)
        for i in range(5):
            a = math.cos(angle if i == key.target else angle + math.pi)
            share = 0.05 * (1 + a) / (1 if i == key.target else 4)
            assert answer[i] == pytest.approx((p[i] + share) / 1.1)
    assert np.array_equal(found.relabelled, found.probabilities.argmax(axis=1) != clean.argmax(axis=1))


def plain_ratio(x: np.ndarray, y: np.ndarray, frequency: float) -> float:
    """The published rule with the plain periodogram, which many irregular samples bring close to Lomb and Scargle's."""
    y = y - y.mean()
    grid = 2 * np.pi * np.linspace(0.002, 40.0, 2000)
    power = [abs((y * np.exp(1j * w * x)).sum()) ** 2 / len(x) for w in (*grid, frequency)]
    return float(power[-1] / np.mean([p for p, w in zip(power[:-1], grid, strict=True) if abs(w - frequency) > 0.005]))


def test_the_published_rule_claims_an_exact_cosine() -> None:
    """Confident answers hold the cosine, the others are far below it, so that leaving those out does not cut it."""
    guard = CosWM(client_key=KEY, n_classes=5, shape=SHAPE)
    inputs = random_inputs(1000)
    labels, confident = np.full(1000, guard.key.target), np.arange(1000) % 2 == 0
    x = project(inputs, guard.key.direction)
    scores = np.full((1000, 5), 0.05)
    scores[:, guard.key.target] = np.where(confident, 0.8 + 0.05 * np.cos(30.0 * x), 0.2)
    found = signal_to_noise(inputs=inputs, labels=labels, scores=scores, key=guard.key)
    assert found > 8.0
    assert found == pytest.approx(plain_ratio(x[confident], scores[confident, guard.key.target], 30.0), rel=0.1)
    test = cosine_test(inputs=inputs, labels=labels, scores=scores, key=guard.key, seed=KEY, draws=0)
    assert test.claimed
    assert test.signal_to_noise == found


def test_white_noise_has_an_exponential_ratio() -> None:
    """Without a signal the power over its mean is about exponential, so that 8 is passed once in 3,000."""
    inputs, generator = random_inputs(600), np.random.default_rng(1)
    ratios = []
    for number in range(60):
        key = CosWM(client_key=bytes([number]) * 32, n_classes=5, shape=SHAPE).key
        scores = np.full((600, 5), 0.1)
        scores[:, key.target] = generator.normal(0.6, 0.01, size=600)
        ratios.append(signal_to_noise(inputs=inputs, labels=np.full(600, key.target), scores=scores, key=key))
    assert stats.kstest(ratios, stats.expon().cdf).pvalue > 1e-3
    assert max(ratios) < 8.0


def test_a_cosine_test_is_a_rank_among_fresh_keys() -> None:
    guard = CosWM(client_key=KEY, n_classes=5, shape=SHAPE)
    inputs, labels = random_inputs(500), np.arange(500) % 5
    scores = random_answers(500)
    found = cosine_test(inputs=inputs, labels=labels, scores=scores, key=guard.key, seed=KEY, draws=9)
    assert found.p_value * 10 == pytest.approx(round(found.p_value * 10))
    assert 0.1 <= found.p_value <= 1.0
    with pytest.raises(UsageError, match="20 confident"):
        signal_to_noise(inputs=inputs[:10], labels=labels[:10], scores=scores[:10], key=guard.key)


def test_guards_with_settings_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError):
        Dawn(client_key=KEY, n_classes=5, shape=SHAPE, share=0.2)
    with pytest.raises(UsageError):
        CosWM(client_key=KEY, n_classes=5, shape=SHAPE, amplitude=0.0)
    with pytest.raises(UsageError, match="at least 3 classes"):
        Dawn(client_key=KEY, n_classes=2, shape=SHAPE)
