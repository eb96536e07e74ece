import math
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from auditor.draws import DrawStream
from auditor.stats import placebo, redraw
from auditor.stats.deviating import deviating_test
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.placebo import Decided

SEED = bytes(range(32))
N_CLASSES = 10
NATURAL = [i % N_CLASSES for i in range(40)]


def draw_labels(stream: DrawStream) -> tuple[int, ...]:
    drawn = [stream.integer(N_CLASSES - 1) for _ in NATURAL]
    return tuple(label + (label >= own) for label, own in zip(drawn, NATURAL, strict=True))


def decision(answers: list[int], alpha: float) -> Callable[[tuple[int, ...]], Decided]:
    def decide(labels: tuple[int, ...]) -> Decided:
        got = deviating_test(natural=NATURAL, answers=answers, labels=labels, n_classes=N_CLASSES)
        return Decided(claim=got.log10_p <= math.log10(alpha), evidence=-got.log10_p)

    return decide


def test_a_guilty_suspect_is_claimed_and_its_placebo_keys_are_not() -> None:
    sealed = draw_labels(DrawStream(b"\x01" * 32))
    answers = [label if i % 2 else own for i, (label, own) in enumerate(zip(sealed, NATURAL, strict=True))]
    decide = decision(answers, 0.05)
    got = placebo.placebo(sealed=sealed, redraw=draw_labels, decide=decide, alpha=0.05, seed=SEED, draws=2_000)
    assert decide(sealed).claim
    assert got.within_level
    assert got.share <= 0.07
    assert (got.at_least_as_high, got.p_value) == (0, 1 / 2_001)
    assert got.interval.low <= got.share <= got.interval.high


def test_deterministic_from_the_seed() -> None:
    sealed = draw_labels(DrawStream(b"\x01" * 32))
    outcomes = [
        placebo.placebo(
            sealed=sealed,
            redraw=draw_labels,
            decide=decision([(c + 1) % N_CLASSES for c in NATURAL], 0.05),
            alpha=0.05,
            seed=seed,
            draws=300,
        )
        for seed in (SEED, SEED, bytes(32))
    ]
    assert outcomes[0] == outcomes[1]
    assert outcomes[0].claims != outcomes[2].claims or outcomes[0].at_least_as_high != outcomes[2].at_least_as_high


@pytest.mark.parametrize("habit", ["next class", "constant", "half truth"])
def test_many_at_a_time_within_the_level_for_odd_suspects(habit: str) -> None:
    answers = {
        "next class": [(c + 1) % N_CLASSES for c in NATURAL],
        "constant": [4] * len(NATURAL),
        "half truth": [c if i % 2 else (3 * c + i) % N_CLASSES for i, c in enumerate(NATURAL)],
    }[habit]
    labels = redraw.redraw_labels(natural=NATURAL, n_classes=N_CLASSES, seed=SEED, draws=100_000)
    given = np.asarray(answers)
    m = int(np.sum(given != np.asarray(NATURAL)))
    tails = np.asarray([binomial_tail_log10(hits=k, trials=m, rate=1 / 9) for k in range(m + 1)])
    log10_p = tails[(labels == given).sum(axis=1)]
    for alpha in (0.05, 0.01, 0.001):
        got = placebo.summarise(
            own_evidence=-float(log10_p[0]), claims=log10_p <= math.log10(alpha), evidence=-log10_p, alpha=alpha
        )
        assert got.within_level
        assert got.p_value >= 10 ** float(log10_p[0]) * 0.8


def test_the_slow_and_the_vectorised_way_agree() -> None:
    answers = [(c + 1) % N_CLASSES for c in NATURAL]
    labels = redraw.redraw_labels(natural=NATURAL, n_classes=N_CLASSES, seed=SEED, draws=200)
    decide = decision(answers, 0.1)
    made = [decide(tuple(row)) for row in labels.tolist()]
    sealed = draw_labels(DrawStream(b"\x05" * 32))
    slow = placebo.placebo(sealed=sealed, redraw=draw_labels, decide=decide, alpha=0.1, seed=SEED, draws=200)
    fast = placebo.summarise(
        own_evidence=decide(sealed).evidence,
        claims=np.asarray([d.claim for d in made]),
        evidence=np.asarray([d.evidence for d in made]),
        alpha=0.1,
    )
    assert slow == fast


def test_a_procedure_above_its_level_is_caught() -> None:
    rng = np.random.default_rng(0)
    p = rng.random(60_000)
    got = placebo.summarise(own_evidence=1.0, claims=p <= 0.002, evidence=-np.log10(p), alpha=0.001)
    assert not got.within_level
    assert got.share == pytest.approx(0.002, rel=0.3)


@pytest.mark.parametrize(("draws", "alpha"), [(1, 0.05), (100, 1e-6), (10_000, 1e-3), (1_000_000, 1e-6), (500, 0.5)])
def test_band(draws: int, alpha: float) -> None:
    claims = np.zeros(draws, dtype=np.bool_)
    got = placebo.summarise(own_evidence=0.0, claims=claims, evidence=np.zeros(draws), alpha=alpha)
    assert got.most_expected == stats.binom.isf(1e-3, draws, alpha)
    assert got.p_value == 1.0


def test_refusals() -> None:
    none, one = np.zeros(0, dtype=np.bool_), np.zeros(1, dtype=np.bool_)
    for claims, evidence, alpha, own in (
        (none, np.zeros(0), 0.1, 0.0),
        (one, np.zeros(2), 0.1, 0.0),
        (one, np.zeros(1), 0.0, 0.0),
        (one, np.zeros(1), 0.1, math.nan),
        (one, np.full(1, math.nan), 0.1, 0.0),
    ):
        with pytest.raises(ValueError, match=r"placebo|alpha|evidence"):
            placebo.summarise(own_evidence=own, claims=claims, evidence=evidence, alpha=alpha)
