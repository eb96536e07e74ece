import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from auditor.stats import likelihood
from auditor.stats.likelihood import BANDS, Favours


class TestBand:
    @pytest.mark.parametrize(
        ("lr", "words"),
        [
            (1.0, "no support either way"),
            (2.0, "no support either way"),
            (2.0001, "weak support"),
            (10.0, "weak support"),
            (10.0001, "moderate support"),
            (100.0, "moderate support"),
            (100.01, "moderately strong support"),
            (1_000.0, "moderately strong support"),
            (1_000.1, "strong support"),
            (10_000.0, "strong support"),
            (10_001.0, "very strong support"),
            (1_000_000.0, "very strong support"),
            (1_000_001.0, "extremely strong support"),
            (1e300, "extremely strong support"),
            (math.inf, "extremely strong support"),
        ],
    )
    def test_an_edge_belongs_to_the_lower_band(self, lr: float, words: str) -> None:
        assert likelihood.band(lr).words == words

    @pytest.mark.parametrize(
        ("lr", "words", "favours"),
        [
            (0.5, "no support either way", Favours.NEITHER),
            (0.25, "weak support", Favours.H2),
            (0.125, "weak support", Favours.H2),
            (0.01, "moderate support", Favours.H2),
            (1e-7, "extremely strong support", Favours.H2),
            (0.0, "extremely strong support", Favours.H2),
            (3.0, "weak support", Favours.H1),
            (1.5, "no support either way", Favours.NEITHER),
        ],
    )
    def test_below_one_the_reciprocal_supports_h2(self, lr: float, words: str, favours: Favours) -> None:
        assert likelihood.band(lr).words == words
        assert likelihood.favours(lr) is favours

    def test_bands_join_without_gaps(self) -> None:
        assert BANDS[0].lower == 1.0
        for below, above in itertools.pairwise(BANDS):
            assert below.upper == above.lower
        assert BANDS[-1].upper is None

    @pytest.mark.parametrize("lr", [-1.0, math.nan])
    def test_refuses_what_is_not_a_ratio(self, lr: float) -> None:
        with pytest.raises(ValueError, match="likelihood ratio"):
            likelihood.band(lr)


class TestReportedLr:
    def test_the_error_rate_limits_a_tiny_model_probability(self) -> None:
        got = likelihood.reported_lr(log10_lr_model=16.2, false_claims=0, audits=40)
        assert got.upper_error == pytest.approx(1 - 0.05 ** (1 / 40), rel=1e-12)
        assert got.lr == pytest.approx(1 / got.upper_error, rel=1e-9)
        assert (got.band_words, got.limited_by, got.favours) == ("moderate support", "error rate", Favours.H1)

    def test_a_weak_model_ratio_limits_itself(self) -> None:
        got = likelihood.reported_lr(log10_lr_model=1.0, false_claims=0, audits=2995)
        assert got.limited_by == "model"
        assert got.lr == pytest.approx(1 / (0.1 + got.upper_error), rel=1e-12)

    def test_huge_and_tiny_logarithms_do_not_overflow(self) -> None:
        assert likelihood.reported_lr(log10_lr_model=2000.0, false_claims=1, audits=300).lr < 1 / 0.0158 + 1
        none = likelihood.reported_lr(log10_lr_model=-2000.0, false_claims=0, audits=300)
        assert (none.lr, none.favours, none.limited_by) == (0.0, Favours.H2, "model")

    def test_without_audits_there_is_no_support(self) -> None:
        got = likelihood.reported_lr(log10_lr_model=9.0, false_claims=0, audits=0)
        assert (got.lr, got.band_words, got.favours) == (1.0, "no support either way", Favours.NEITHER)

    def test_error_rates_never_add_to_support_for_h2(self) -> None:
        got = likelihood.reported_lr(log10_lr_model=-1.0, false_claims=5, audits=10)
        assert got.lr == pytest.approx(0.1)
        assert got.favours is Favours.H2

    @given(st.floats(-50, 400), st.integers(0, 60), st.integers(0, 60), st.floats(0.6, 0.99))
    def test_is_never_above_either_limit(self, log10_lr: float, a: int, b: int, confidence: float) -> None:
        false_claims, audits = min(a, b), max(a, b)
        got = likelihood.reported_lr(
            log10_lr_model=log10_lr, false_claims=false_claims, audits=audits, confidence=confidence
        )
        if log10_lr < 300:
            assert got.lr <= 10**log10_lr * (1 + 1e-12)
        assert got.lr <= max(1.0, 1 / got.upper_error)
        assert got.lr >= 1.0 if log10_lr >= 0.0 else got.lr <= 1.0

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="number"):
            likelihood.reported_lr(log10_lr_model=math.nan, false_claims=0, audits=3)
        with pytest.raises(ValueError, match="hits"):
            likelihood.reported_lr(log10_lr_model=3.0, false_claims=4, audits=3)
