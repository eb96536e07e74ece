"""Defects found in published ownership tools, each as a law our own code must keep.

Every test first computes the defect, so that it would notice if the comparison became vacuous.
"""

import math

import numpy as np
import pytest
from scipy import stats

from auditor.stats import panel
from auditor.stats.deviating import deviating_test
from auditor.stats.exact import binomial_tail_log10, critical_hits


def threshold_up_to_and_including(keys: int, rate: float, level: float) -> int:
    """The smallest h with P(X ≤ h) ≥ 1 - level, which must be used with "more than h" but is used with "≥ h"."""
    return int(np.flatnonzero(stats.binom.cdf(np.arange(keys + 1), keys, rate) >= 1 - level)[0])


class TestThresholdTypeOneErrorTwiceTheStated:
    @pytest.mark.parametrize(("keys", "real"), [(100, "1.98e-03"), (20, "2.39e-03")])
    def test_the_defect(self, keys: int, real: str) -> None:
        h = threshold_up_to_and_including(keys, 0.1, 1e-3)
        assert f"{10 ** binomial_tail_log10(hits=h, trials=keys, rate=0.1):.2e}" == real
        assert critical_hits(trials=keys, rate=0.1, alpha=1e-3) == h + 1

    def test_exact_tail_at_most_the_level_on_a_grid(self) -> None:
        for keys in (1, 5, 20, 50, 100, 333, 1000):
            for classes in (2, 3, 10, 43, 100, 1000):
                for alpha in (0.05, 1e-3, 1e-6, 1e-9, 2.0**-64):
                    hits = critical_hits(trials=keys, rate=1 / classes, alpha=alpha)
                    if hits is not None:
                        tail = stats.binom.logsf(hits - 1, keys, 1 / classes)
                        assert tail <= math.log(alpha) + 1e-9
                        assert stats.binom.logsf(hits - 2, keys, 1 / classes) > math.log(alpha) - 1e-9


class TestGaussianThresholdWithZeroVariance:
    def test_identical_panel_models_do_not_make_one_more_hit_conclusive(self) -> None:
        # Ten innocent models with 11 of 100 hits each: a fitted normal law has no spread, so 12 hits "prove" anything.
        totals = [11] * 10
        spread = float(np.std(totals))
        assert spread == 0.0
        got = panel.rank_p(statistic=12.0, panel=[float(t) for t in totals])
        assert got.p_value == 1 / 11
        assert panel.beta_binomial_log10_p(hits=12, keys=100, totals=totals) > -1
        assert panel.measure_panel(np.tile(np.arange(100) < 11, (10, 1))).mean_upper > 0.3

    def test_normal_tail_at_small_counts_is_not_the_exact_one(self) -> None:
        # 5 of 20 at p0 = 0.01: the z-test is wrong by 20 orders of magnitude in the owner's favour.
        z = (5 - 0.2) / math.sqrt(20 * 0.01 * 0.99)
        exact = binomial_tail_log10(hits=5, trials=20, rate=0.01)
        assert stats.norm.logsf(z) / math.log(10) < exact - 18
        assert 10**exact == pytest.approx(stats.binom.sf(4, 20, 0.01))


class TestDocumentedRateUnequalToTheFormulas:
    def test_ten_keys_with_two_hits_needed(self) -> None:
        assert f"{10 ** binomial_tail_log10(hits=2, trials=10, rate=1 / 256):.1e}" == "6.7e-04"
        # The documented 4.5e-5 belongs to a chance of 1/1000, fifteen times too small.
        assert f"{10 ** binomial_tail_log10(hits=2, trials=10, rate=1 / 1000):.1e}" == "4.5e-05"
        assert f"{10 ** binomial_tail_log10(hits=9, trials=10, rate=0.1):.1e}" == "9.1e-09"

    def test_the_stated_level_is_the_formulas(self) -> None:
        hits = critical_hits(trials=10, rate=1 / 256, alpha=1e-3)
        assert hits == 2
        assert critical_hits(trials=10, rate=1 / 256, alpha=4.5e-5) == 3


class TestShuffledInputsAgainstUnshuffledLabels:
    def test_disagreement_is_never_evidence_and_both_controls_share_one_path(self) -> None:
        # Counting disagreement of misaligned answers "finds" the mark in every model. Ours counts agreement, through
        # the same function for the marked model, the innocent one and the misaligned run.
        rng = np.random.default_rng(4)
        natural = rng.integers(0, 10, size=200)
        labels = (natural + rng.integers(1, 10, size=200)) % 10
        innocent = np.where(rng.random(200) < 0.9, natural, (natural + 1) % 10)
        order = rng.permutation(200)
        assert np.mean(labels[order] != labels) > 0.8

        def log10_p(answers: np.ndarray) -> float:
            got = deviating_test(
                natural=natural.tolist(), answers=answers.tolist(), labels=labels.tolist(), n_classes=10
            )
            return got.log10_p

        assert log10_p(labels) < -100
        assert log10_p(innocent) > -3
        assert log10_p(labels[order]) > -3


class TestPredictionsOverwrittenPerBatch:
    def test_lengths_that_differ_fail_closed(self) -> None:
        with pytest.raises(ValueError, match="every key"):
            deviating_test(natural=[0] * 64, answers=[1] * 32, labels=[1] * 64, n_classes=10)


class TestCutOffCalledATest:
    def test_all_of_fourteen_is_not_a_rate_of_one_hundred_percent(self) -> None:
        got = panel.procedure_error(false_claims=0, models=14)
        assert got.upper == pytest.approx(1 - 0.05 ** (1 / 14))
        assert "19.3" not in got.sentence
        assert got.sentence.endswith("20 %")

    def test_a_panel_inflated_rate_turns_a_millionth_into_nothing(self) -> None:
        # 28 of 100: at most 1e-6 at the nominal 10 %, no evidence at the 30 % a panel showed.
        assert binomial_tail_log10(hits=28, trials=100, rate=0.1) <= -6
        assert binomial_tail_log10(hits=28, trials=100, rate=0.3) > math.log10(0.5)
