import numpy as np
import pytest
from scipy import stats

from auditor.stats.placebo_labels import CELLS, FEWEST_DRAWS, MOST_DRAWS, placebo_draws, placebo_labels
from auditor.stats.redraw import redraw_labels
from auditor.stats.sequential import operating, run

SETTINGS = {"n_classes": 10, "p_min": 0.3, "futility": 0.01, "futility_rate": 1 / 9, "seed": b"\x01" * 32}


def answers_of(rng: np.random.Generator, n: int) -> tuple[list[int | None], list[int]]:
    return rng.integers(0, 11, size=n).tolist(), rng.integers(0, 10, size=n).tolist()


def test_share_of_claims_is_that_of_the_exact_recursion() -> None:
    # Every answer deviates, so a placebo audit is an audit of a suspect with hit rate exactly 1/9.
    natural = [0] * 40
    got = placebo_labels(answers=[3] * 40, natural=natural, alpha=0.05, fixed=False, own_hits=0, **SETTINGS)
    law = operating(rate=1 / 9, null_rate=1 / 9, alpha=0.05, p_min=0.3, futility=0.01, cap=40)
    assert got.draws == MOST_DRAWS
    assert stats.binomtest(got.claims, got.draws, law.reject).pvalue > 1e-3
    assert got.within_level


def test_the_same_rule_as_the_audits_draw_by_draw() -> None:
    rng = np.random.default_rng(8)
    answers, natural = answers_of(rng, 30)
    answers[4] = answers[11] = None
    got = placebo_labels(answers=answers, natural=natural, alpha=0.2, fixed=False, own_hits=0, **SETTINGS)
    claims = 0
    for labels in redraw_labels(natural=natural, n_classes=10, seed=SETTINGS["seed"], draws=got.draws)[:1500]:
        outcomes = [
            False if a is None else None if a == t or a > 9 else bool(a == y)
            for a, t, y in zip(answers, natural, labels, strict=True)
        ]
        claims += run(outcomes, null_rate=1 / 9, alpha=0.2, p_min=0.3, futility=0.01).decision == "reject"
    first = placebo_labels(answers=answers, natural=natural, alpha=0.2, fixed=False, own_hits=0, **SETTINGS)
    assert first == got
    assert claims > 20
    assert stats.binomtest(claims, 1500, got.share).pvalue > 1e-3


def test_fixed_design_claims_by_the_binomial_tail() -> None:
    got = placebo_labels(answers=[3] * 50, natural=[0] * 50, alpha=0.05, fixed=True, own_hits=50, **SETTINGS)
    critical = int(stats.binom.isf(0.05, 50, 1 / 9)) + 1
    assert stats.binomtest(got.claims, got.draws, stats.binom.sf(critical - 1, 50, 1 / 9)).pvalue > 1e-3
    assert got.p_value == 1 / (got.draws + 1)


def test_answers_that_cannot_hit_are_never_claimed() -> None:
    got = placebo_labels(answers=[0, 10, None] * 10, natural=[0] * 30, alpha=0.5, fixed=False, own_hits=0, **SETTINGS)
    assert got.claims == 0


@pytest.mark.parametrize("keys", [1, 60, 200, 1400, 20_000])
def test_work_stays_bounded(keys: int) -> None:
    assert FEWEST_DRAWS <= placebo_draws(keys) <= MOST_DRAWS
    assert placebo_draws(keys) * keys <= max(CELLS, FEWEST_DRAWS * keys)


def test_no_answers_show_nothing() -> None:
    with pytest.raises(ValueError, match="answers"):
        placebo_labels(answers=[], natural=[], alpha=0.05, fixed=False, own_hits=0, **SETTINGS)
