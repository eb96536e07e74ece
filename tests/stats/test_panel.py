import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import special, stats

from auditor.stats import panel
from auditor.stats.exact import upper_bound_at

LEVELS = (0.05, 0.01, 0.001)
N_AUDITS, N_KEYS = 4_000, 100


def audits(
    *, rate: float, model_spread: float, key_spread: float, models: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Hits of innocent panels (audits, models, keys) and of one more innocent model (audits, keys)."""
    rng = np.random.default_rng(seed)
    base = special.logit(rate)
    hits = np.empty((N_AUDITS, models + 1, N_KEYS), dtype=np.bool_)
    for start in range(0, N_AUDITS, 500):
        part = slice(start, start + 500)
        model = model_spread * rng.standard_normal((500, models + 1, 1), dtype=np.float32)
        key = key_spread * rng.standard_normal((500, 1, N_KEYS), dtype=np.float32)
        p = special.expit(np.float32(base) + model + key)
        hits[part] = rng.random(p.shape, dtype=np.float32) < p
    return hits[:, 1:], hits[:, 0]


def pooled_binomial(controls: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    p0 = (controls.sum(axis=(1, 2)) + 0.5) / (controls.shape[1] * N_KEYS + 1)
    return stats.binom.sf(suspect.sum(axis=1) - 1, N_KEYS, p0)


def pooled_fisher(controls: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    own, theirs = suspect.sum(axis=1), controls.sum(axis=(1, 2))
    n_theirs = controls.shape[1] * N_KEYS
    return stats.hypergeom.sf(own - 1, N_KEYS + n_theirs, own + theirs, N_KEYS)


def per_key_poisson_binomial(controls: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    rates = (controls.sum(axis=1) + 0.5) / (controls.shape[1] + 1)
    law = np.zeros((len(rates), N_KEYS + 1))
    law[:, 0] = 1.0
    for k in range(N_KEYS):
        law[:, 1:] = law[:, 1:] * (1 - rates[:, k : k + 1]) + law[:, :-1] * rates[:, k : k + 1]
        law[:, 0] *= 1 - rates[:, k]
    tails = np.cumsum(law[:, ::-1], axis=1)[:, ::-1]
    return tails[np.arange(len(rates)), suspect.sum(axis=1)]


def ranks(controls: np.ndarray, suspect: np.ndarray) -> np.ndarray:
    totals, own = controls.sum(axis=2), suspect.sum(axis=1)
    p = (1 + (totals >= own[:, None]).sum(axis=1)) / (totals.shape[1] + 1)
    for row in range(20):
        got = panel.rank_p(statistic=float(own[row]), panel=totals[row].astype(float).tolist())
        assert got.p_value == p[row]
    return np.asarray(p)


def share(p: np.ndarray, level: float) -> float:
    return float(np.mean(p <= level + 1e-12))


def most_claims(level: float) -> float:
    return float(stats.binom.isf(1e-4, N_AUDITS, level)) / N_AUDITS


class TestTrapPooledControlsAsANull:
    """The exchangeable unit is the model, not the answer."""

    def test_iid_answers_hide_the_defect(self) -> None:
        controls, suspect = audits(rate=1 / 9, model_spread=0.0, key_spread=0.0, models=20, seed=1)
        for level in LEVELS:
            assert share(pooled_binomial(controls, suspect), level) <= most_claims(level) * 1.2
            assert share(ranks(controls, suspect), level) <= most_claims(level)

    @pytest.mark.parametrize(
        ("rate", "model_spread", "key_spread", "models", "pooled_one_percent"),
        [(1 / 9, 0.5, 1.0, 20, 0.089), (0.03, 1.0, 1.5, 20, 0.13), (0.03, 1.0, 1.5, 100, 0.13)],
    )
    def test_clustered_answers(
        self, rate: float, model_spread: float, key_spread: float, models: int, pooled_one_percent: float
    ) -> None:
        controls, suspect = audits(
            rate=rate, model_spread=model_spread, key_spread=key_spread, models=models, seed=models
        )
        binomial, fisher = pooled_binomial(controls, suspect), pooled_fisher(controls, suspect)
        # The reference's own simulation of 4,000 audits, within its and our Monte Carlo error.
        assert share(binomial, 0.01) == pytest.approx(pooled_one_percent, rel=0.2)
        for level, times in ((0.01, 5), (0.001, 20)):
            assert share(binomial, level) > times * level
            assert share(fisher, level) > times * level
            assert share(per_key_poisson_binomial(controls, suspect), level) > times * level
        ours = ranks(controls, suspect)
        for level in LEVELS:
            assert share(ours, level) <= most_claims(level)
        e_values = len(controls[0]) + 1
        own, totals = suspect.sum(axis=1), controls.sum(axis=2)
        e_values = e_values * own / np.maximum(own + totals.sum(axis=1), 1)
        assert np.mean(e_values) <= 1.0 + 4 * np.std(e_values) / math.sqrt(N_AUDITS)
        for level in LEVELS:
            assert np.mean(e_values >= 1 / level) <= most_claims(level)

    def test_a_larger_panel_does_not_help_pooling(self) -> None:
        small = pooled_fisher(*audits(rate=0.03, model_spread=1.0, key_spread=1.5, models=20, seed=20))
        large = pooled_fisher(*audits(rate=0.03, model_spread=1.0, key_spread=1.5, models=100, seed=100))
        assert share(large, 0.001) > 0.8 * share(small, 0.001) > 0.03

    def test_ceiling_keeps_its_level_on_part_of_the_keys(self) -> None:
        controls, suspect = audits(rate=0.03, model_spread=1.0, key_spread=1.5, models=60, seed=3)
        totals = controls.sum(axis=2)
        # Keys are exchangeable in this simulation; the first 40 are a random part of them.
        own = suspect[:, :40].sum(axis=1)
        p = np.array(
            [
                panel.ceiling_p(
                    hits=int(k), asked=40, keys=N_KEYS, ceiling=panel.innocent_ceiling(totals=row, error=0.02)
                )
                for k, row in zip(own, totals.tolist(), strict=True)
            ]
        )
        assert p.min() >= 1 / 61
        for level in (0.05, 0.03):
            assert share(p, level) <= most_claims(level)


class TestRankByEnumeration:
    def test_level_is_exact_over_every_order(self) -> None:
        values = [0.0, 1.0, 1.0, 4.0, 7.0]
        p = [panel.rank_p(statistic=o[0], panel=o[1:]).p_value for o in itertools.permutations(values)]
        for alpha in (0.2, 0.4, 0.6, 0.8):
            assert np.mean(np.asarray(p) <= alpha + 1e-12) <= alpha + 1e-12
        e = [10 ** panel.rank_log10_e(statistic=o[0], panel=o[1:]) for o in itertools.permutations(values)]
        assert np.mean(e) == pytest.approx(1.0)

    def test_edges(self) -> None:
        assert panel.rank_p(statistic=3.0, panel=[]).p_value == 1.0
        assert panel.rank_log10_e(statistic=0.0, panel=[0.0, 0.0]) == 0.0
        assert panel.rank_log10_e(statistic=0.0, panel=[1.0]) == -math.inf
        assert panel.rank_log10_e(statistic=9.0, panel=[0.0] * 20) == pytest.approx(math.log10(21))
        with pytest.raises(ValueError, match="numbers"):
            panel.rank_p(statistic=math.nan, panel=[1.0])
        with pytest.raises(ValueError, match="negative"):
            panel.rank_log10_e(statistic=1.0, panel=[-1.0])


class TestMeasurePanel:
    def test_rates_per_key_and_overall(self) -> None:
        hits = np.zeros((20, 5), dtype=np.bool_)
        hits[:3, 1] = True
        got = panel.measure_panel(hits, error=0.05)
        assert [key.hits for key in got.keys] == [0, 3, 0, 0, 0]
        assert got.keys[0].upper == pytest.approx(1 - 0.05 ** (1 / 20))
        assert got.keys[0].upper_all == pytest.approx(1 - 0.01 ** (1 / 20))
        assert got.keys[1].upper == pytest.approx(stats.beta.ppf(0.95, 4, 17))
        assert (got.mean_rate, got.worst_rate, got.smallest_p) == (pytest.approx(0.03), 0.2, 1 / 21)
        assert got.mean_rate < got.mean_upper < 0.25

    def test_a_clean_panel_of_twenty_says_13_9_percent_however_many_keys(self) -> None:
        for keys in (1, 100, 5_000):
            got = panel.measure_panel(np.zeros((20, keys)), error=0.05)
            assert f"{got.mean_upper:.3f}" == "0.139"

    @pytest.mark.parametrize("hits", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3), np.full((2, 2), 2)])
    def test_refuses_what_is_no_panel(self, hits: np.ndarray) -> None:
        with pytest.raises(ValueError, match="panel"):
            panel.measure_panel(hits)


class TestMeanRateUpper:
    def test_covers_the_mean_for_rates_of_every_shape(self) -> None:
        rng = np.random.default_rng(12)
        for draw in (
            lambda n: rng.beta(0.2, 2.0, size=n),
            lambda n: (rng.random(n) < 0.1).astype(float),
            lambda n: rng.choice([0.0, 0.02, 1.0], p=[0.6, 0.37, 0.03], size=n),
        ):
            truth = float(np.mean(draw((200_000,))))
            samples = draw((20_000, 12))
            grid = {round(m, 12) for m in samples.mean(axis=1)[:2_000]}
            bounds = {m: panel.mean_rate_upper([m] * 12, error=0.1) for m in grid}
            missed = np.mean([bounds[round(m, 12)] < truth for m in samples.mean(axis=1)[:2_000]])
            assert missed <= stats.binom.isf(1e-4, 2_000, 0.1) / 2_000

    @given(st.lists(st.floats(0.0, 1.0), min_size=1, max_size=30), st.floats(1e-6, 0.5))
    def test_not_below_clopper_pearson_of_the_rounded_count(self, rates: list[float], error: float) -> None:
        got = panel.mean_rate_upper(rates, error=error)
        assert got >= sum(rates) / len(rates) - 1e-12
        hits = math.floor(math.fsum(rates) - 1e-9)
        if hits >= 0:
            assert got >= upper_bound_at(hits=hits, trials=len(rates), error=error) - 1e-9

    def test_refusals(self) -> None:
        for rates in ([], [1.2]):
            with pytest.raises(ValueError, match="rates"):
                panel.mean_rate_upper(rates, error=0.1)


class TestCeiling:
    def test_order_statistics(self) -> None:
        totals = [0, 3, 1, 2, 9, 4, 7, 5, 6, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0]
        assert panel.innocent_ceiling(totals=totals, error=0.05) == panel.Ceiling(hits=9, error=0.05)
        assert panel.innocent_ceiling(totals=totals, error=0.1) == panel.Ceiling(hits=8, error=0.1)
        assert panel.innocent_ceiling(totals=totals, error=0.049) is None

    def test_level_by_enumeration(self) -> None:
        values = [0, 0, 2, 3, 5, 5]
        for error in (0.2, 0.34, 0.5, 0.9):
            above = []
            for order in itertools.permutations(values):
                ceiling = panel.innocent_ceiling(totals=order[1:], error=error)
                assert ceiling is not None
                above.append(order[0] > ceiling.hits)
            assert np.mean(above) <= ceiling.error <= error

    def test_part_of_the_keys_agrees_with_scipy(self) -> None:
        ceiling = panel.Ceiling(hits=12, error=0.01)
        for hits in range(1, 31):
            want = min(1.0, 0.01 + float(stats.hypergeom.sf(hits - 1, 100, 12, 30)))
            got = panel.ceiling_p(hits=hits, asked=30, keys=100, ceiling=ceiling)
            assert got == pytest.approx(want, rel=1e-10)
        assert panel.ceiling_p(hits=0, asked=30, keys=100, ceiling=ceiling) == 1.0
        assert panel.ceiling_p(hits=100, asked=100, keys=100, ceiling=panel.Ceiling(hits=99, error=0.01)) == 0.01
        assert panel.ceiling_p(hits=1, asked=9, keys=10, ceiling=panel.Ceiling(hits=8, error=0.1)) == 1.0

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            panel.innocent_ceiling(totals=[-1], error=0.5)
        with pytest.raises(ValueError, match="order"):
            panel.ceiling_p(hits=5, asked=4, keys=10, ceiling=panel.Ceiling(hits=1, error=0.1))


class TestSmallestLevel:
    @pytest.mark.parametrize("models", [0, 1, 5, 20, 100])
    def test_is_the_worst_population(self, models: int) -> None:
        shares = np.linspace(0.0, 1.0, 20_001)
        worst = float(np.max(shares * (1 - shares) ** models))
        assert panel.smallest_level(models) == pytest.approx(worst, rel=1e-4)
        assert panel.smallest_level(models) <= 1 / (models + 1)

    def test_a_millionth_needs_hundreds_of_thousands_of_models(self) -> None:
        assert panel.smallest_level(300_000) > 1e-6 > panel.smallest_level(400_000)


class TestProcedureError:
    def test_reference_sentence(self) -> None:
        got = panel.procedure_error(false_claims=0, models=20)
        assert f"{got.upper:.3f}" == "0.139"
        assert got.sentence == (
            "0 of 20 independent models were claimed; at 95 % confidence this still allows a rate of 14 %"
        )
        assert got.interval.low == 0.0

    @pytest.mark.parametrize(
        ("models", "clean", "one"),
        [
            (10, (0.259, 0.369), (0.394, 0.504)),
            (20, (0.139, 0.206), (0.216, 0.289)),
            (60, (0.049, 0.074), (0.077, 0.106)),
            (100, (0.030, 0.045), (0.047, 0.065)),
            (300, (0.0099, 0.015), (0.016, 0.022)),
            (1000, (0.0030, 0.0046), (0.0047, 0.0066)),
            (3000, (0.0010, 0.0015), (0.0016, 0.0022)),
        ],
    )
    def test_reference_table(self, models: int, clean: tuple[float, float], one: tuple[float, float]) -> None:
        for claims, row in ((0, clean), (1, one)):
            for confidence, want in zip((0.95, 0.99), row, strict=True):
                got = panel.procedure_error(false_claims=claims, models=models, confidence=confidence).upper
                digits = 3 if want >= 0.02 else 4 if want < 0.01 else 3
                assert round(got, digits) == pytest.approx(want, abs=1e-12)

    def test_small_rates_keep_two_digits(self) -> None:
        assert panel.procedure_error(false_claims=0, models=3000).sentence.endswith("a rate of 0.10 %")


class TestBetaBinomial:
    def test_agrees_with_scipy(self) -> None:
        totals = [0, 3, 9, 1, 22, 4, 0, 7]
        got = panel.beta_binomial_log10_p(hits=40, keys=100, totals=totals)
        mean = (sum(totals) + 0.5) / 801
        correlation = (np.var(totals, ddof=1) / (100 * mean * (1 - mean)) - 1) / 99
        size = 1 / correlation - 1
        want = stats.betabinom.sf(39, 100, mean * size, (1 - mean) * size)
        assert 10**got == pytest.approx(want, rel=1e-9)

    def test_descriptive_tail_is_heavier_than_the_binomial(self) -> None:
        spread = panel.beta_binomial_log10_p(hits=40, keys=100, totals=[0, 3, 9, 1, 22, 4, 0, 7])
        even = panel.beta_binomial_log10_p(hits=40, keys=100, totals=[6, 5, 6, 5, 6, 6, 6, 6])
        assert even < spread < -1
        assert panel.beta_binomial_log10_p(hits=100, keys=100, totals=[0, 0, 0]) > -200

    def test_refuses_a_single_model(self) -> None:
        with pytest.raises(ValueError, match="two models"):
            panel.beta_binomial_log10_p(hits=1, keys=10, totals=[1])
