import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from auditor.stats import sequential
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.sequential import Decision

NO_FUTILITY = 1e-300


def unrestricted_log_e(hits: int, trials: int, null_rate: float) -> float:
    mixture = math.lgamma(hits + 0.5) + math.lgamma(trials - hits + 0.5) - math.lgamma(trials + 1) - math.log(math.pi)
    return mixture - hits * math.log(null_rate) - (trials - hits) * math.log1p(-null_rate)


def quadrature_log_e(hits: int, trials: int, null_rate: float) -> float:
    # The rate is measured from the null rate in units of 1/trials, which resolves integrands that fall steeply there.
    def integrand(t: float) -> float:
        q = null_rate + t / trials
        ratio = hits * math.log(q / null_rate) + (trials - hits) * (math.log1p(-q) - math.log1p(-null_rate))
        return stats_pdf(q) * math.exp(ratio) / trials

    def stats_pdf(q: float) -> float:
        return 1.0 / (math.pi * math.sqrt(q * (1.0 - q)))

    edge = trials * (1.0 - null_rate)
    cuts = [0.0, *(edge * f for f in (1e-4, 1e-3, 1e-2, 0.1, 0.3, 0.6, 0.9, 1.0 - 1e-9))]
    total = sum(integrate.quad(integrand, a, b, limit=400)[0] for a, b in itertools.pairwise(cuts))
    return math.log(total / stats.beta.sf(null_rate, 0.5, 0.5))


class TestLogE:
    @pytest.mark.parametrize(("hits", "trials"), [(4, 10), (25, 40), (6, 60), (1, 30), (0, 20), (11, 12), (30, 200)])
    @pytest.mark.parametrize("null_rate", [0.01, 0.1, 0.3])
    def test_closed_form_agrees_with_quadrature(self, hits: int, trials: int, null_rate: float) -> None:
        got = float(sequential.log_e(hits, trials, null_rate))
        assert got == pytest.approx(quadrature_log_e(hits, trials, null_rate), abs=2e-4)

    @pytest.mark.parametrize("trials", [8_000, 100_000, 1_000_000])
    @pytest.mark.parametrize("share", [0.0, 0.01, 0.05])
    def test_few_hits_in_very_many_trials_are_no_evidence(self, trials: int, share: float) -> None:
        # The weight above the null rate is below double precision here; a floor on it would read as evidence.
        hits = int(trials * share)
        got = float(sequential.log_e(hits, trials, 0.1))
        assert -30 < got < 0
        assert got == pytest.approx(quadrature_log_e(hits, trials, 0.1), abs=2e-3)

    def test_tail_series_joins_the_closed_form(self) -> None:
        k, n = np.arange(20, 90, dtype=float), np.full(70, 1200.0)
        closed = sequential.log_e(k, n, 0.1)
        series = sequential._log_e_tail(k, n, 0.1, np.ones(70, dtype=bool), 0.5)
        assert series == pytest.approx(closed, abs=1e-9)

    def test_unrestricted_mixture_would_convict_whoever_hits_less_than_the_null_rate(self) -> None:
        assert unrestricted_log_e(0, 100, 0.1) > math.log(1e3)
        assert unrestricted_log_e(1, 150, 0.1) > math.log(1e3)
        assert float(sequential.log_e(0, 100, 0.1)) < 0
        assert float(sequential.log_e(1, 150, 0.1)) < 0

    @given(st.integers(0, 20_000), st.floats(1e-4, 0.9), st.data())
    def test_no_evidence_at_or_below_the_null_rate(self, trials: int, null_rate: float, data: st.DataObject) -> None:
        hits = data.draw(st.integers(0, math.floor(trials * null_rate)))
        assert -60 < float(sequential.log_e(hits, trials, null_rate)) <= 0.0

    @given(st.integers(1, 3000), st.floats(1e-3, 0.9), st.data())
    def test_rises_with_hits_and_stays_below_the_best_ratio(
        self, trials: int, null_rate: float, data: st.DataObject
    ) -> None:
        hits = data.draw(st.integers(0, trials - 1))
        low, high = (float(x) for x in sequential.log_e([hits, hits + 1], trials, null_rate))
        assert low <= high + 1e-9
        best = max((hits + 1) / trials, null_rate)
        ratio = (hits + 1) * math.log(best / null_rate)
        if hits + 1 < trials:
            ratio += (trials - hits - 1) * (math.log1p(-best) - math.log1p(-null_rate))
        assert high <= ratio + 1e-6

    def test_works_elementwise(self) -> None:
        got = sequential.log_e([[1], [2]], [5, 9, 11], 0.1)
        assert got.shape == (2, 3)
        assert got[1, 2] == sequential.log_e(2, 11, 0.1)
        assert sequential.log_e(0, 0, 0.1) == 0.0

    def test_refuses_what_cannot_be(self) -> None:
        for null_rate in (0.0, 1.0, math.nan):
            with pytest.raises(ValueError, match="null_rate"):
                sequential.log_e(1, 2, null_rate)
        for hits in (-1, 3):
            with pytest.raises(ValueError, match="hits"):
                sequential.log_e(hits, 2, 0.1)


class TestRun:
    def test_all_hits_reject_when_the_evidence_first_reaches_the_threshold(self) -> None:
        outcome = sequential.run([True] * 10, null_rate=0.1, alpha=1e-3, p_min=0.3, futility=0.01)
        by_hand = [n for n in range(1, 11) if quadrature_log_e(n, n, 0.1) >= math.log(1e3)]
        assert outcome.decision is Decision.REJECT
        assert outcome.decided_at == by_hand[0]
        assert len(outcome.steps) == 10
        assert outcome.log10_e_max == outcome.steps[-1].log10_e
        assert outcome.log10_p == -outcome.log10_e_max

    def test_all_misses_are_futile(self) -> None:
        outcome = sequential.run([False] * 30, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01)
        want = next(n for n in range(1, 31) if (0.7 / 0.9) ** n <= 0.01)
        assert outcome.decision is Decision.FUTILE
        assert outcome.decided_at == want == 19
        assert len(outcome.steps) == 30
        assert outcome.log10_p == 0.0

    def test_the_first_boundary_counts_and_later_evidence_is_kept(self) -> None:
        outcome = sequential.run([False] * 19 + [True] * 60, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01)
        assert outcome.decision is Decision.FUTILE
        assert outcome.log10_e_max > 6
        back = sequential.run([True] * 8 + [False] * 200, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01)
        assert back.decision is Decision.REJECT
        assert back.log10_e_max > back.steps[-1].log10_e
        assert back.log10_p == -back.log10_e_max

    def test_reject_wins_a_tie_and_exact_ties_count_as_reached(self) -> None:
        level = math.exp(-float(sequential.log_e(1, 1, 0.1)))
        outcome = sequential.run([True], null_rate=0.1, alpha=level, p_min=0.3, futility=0.9999)
        assert outcome.decision is Decision.REJECT
        tie = sequential.run([False] * 2, null_rate=0.25, alpha=0.01, p_min=0.5, futility=(0.5 / 0.75) ** 2)
        assert (tie.decision, tie.decided_at) == (Decision.FUTILE, 2)

    def test_nothing_asked_decides_nothing(self) -> None:
        outcome = sequential.run([], null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01)
        assert outcome.decision is Decision.CONTINUE
        assert outcome.decided_at is None
        assert (outcome.steps, outcome.log10_e_max, outcome.log10_p) == ((), 0.0, 0.0)

    @given(st.lists(st.booleans(), max_size=80))
    def test_steps_are_independent_of_how_answers_were_batched(self, outcomes: list[bool]) -> None:
        whole = sequential.run(outcomes, null_rate=0.05, alpha=1e-4, p_min=0.3, futility=0.01)
        for cut in range(0, len(outcomes), 7):
            part = sequential.run(outcomes[:cut], null_rate=0.05, alpha=1e-4, p_min=0.3, futility=0.01)
            assert part.steps == whole.steps[:cut]
            assert part.log10_p >= whole.log10_p
            if part.decision is not Decision.CONTINUE:
                assert (part.decision, part.decided_at) == (whole.decision, whole.decided_at)

    @pytest.mark.parametrize(
        ("null_rate", "alpha", "p_min", "futility"),
        [
            (0.3, 0.01, 0.3, 0.01),
            (0.4, 0.01, 0.3, 0.01),
            (0.1, 0.0, 0.3, 0.01),
            (0.1, 1.0, 0.3, 0.01),
            (0.1, 0.01, 1.0, 0.01),
            (0.1, 0.01, 0.3, 0.0),
            (0.0, 0.01, 0.3, 0.01),
            (math.nan, 0.01, 0.3, 0.01),
        ],
    )
    def test_refuses_plans_that_cannot_be(self, null_rate: float, alpha: float, p_min: float, futility: float) -> None:
        with pytest.raises(ValueError, match=r"null_rate|alpha|p_min|futility"):
            sequential.run([True], null_rate=null_rate, alpha=alpha, p_min=p_min, futility=futility)
        with pytest.raises(ValueError, match=r"null_rate|alpha|p_min|futility"):
            sequential.operating(rate=0.5, null_rate=null_rate, alpha=alpha, p_min=p_min, futility=futility, cap=10)


class TestOperating:
    @pytest.mark.parametrize("rate", [0.1, 0.3, 0.45])
    def test_agrees_with_enumerating_all_paths(self, rate: float) -> None:
        cap, alpha, futility = 14, 1e-2, 0.2
        paths = (np.arange(2**cap)[:, None] >> np.arange(cap)) & 1
        k, n = paths.cumsum(axis=1), np.arange(1, cap + 1)
        weight = rate ** k[:, -1] * (1 - rate) ** (cap - k[:, -1])
        up = np.stack([sequential.log_e(k[:, i], i + 1, 0.1) for i in range(cap)], axis=1) >= -math.log(alpha) - 1e-12
        down = k * math.log(0.3 / 0.1) + (n - k) * math.log(0.7 / 0.9) <= math.log(futility) + 1e-12
        stopped = up | down
        first = np.where(stopped.any(axis=1), stopped.argmax(axis=1), cap)
        rows = np.arange(2**cap)
        rejected = (first < cap) & up[rows, np.minimum(first, cap - 1)]
        got = sequential.operating(rate=rate, null_rate=0.1, alpha=alpha, p_min=0.3, futility=futility, cap=cap)
        assert got.reject == pytest.approx(weight[rejected].sum(), abs=1e-12)
        assert got.futile == pytest.approx(weight[(first < cap) & ~rejected].sum(), abs=1e-12)
        assert got.undecided == pytest.approx(weight[first == cap].sum(), abs=1e-12)
        assert got.mean == pytest.approx((weight * np.minimum(first + 1, cap)).sum(), abs=1e-10)
        by = [weight[rejected & (first < m)].sum() for m in range(cap + 1)]
        assert got.reject_by == pytest.approx(by, abs=1e-12)
        assert got.median == next((m for m, reached in enumerate(by) if reached >= 0.5), None)

    def test_agrees_with_running_the_test(self) -> None:
        rng = np.random.default_rng(20261122)
        hits = rng.random((1500, 120)) < 0.5
        outcomes = [sequential.run(row.tolist(), null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01) for row in hits]
        stops = np.asarray([outcome.decided_at or 120 for outcome in outcomes])
        got = sequential.operating(rate=0.5, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01, cap=120)
        assert stops.mean() == pytest.approx(got.mean, abs=4 * stops.std() / math.sqrt(1500))
        assert sum(o.decision is Decision.REJECT for o in outcomes) / 1500 == pytest.approx(got.reject, abs=0.01)

    @pytest.mark.parametrize(("null_rate", "innocent", "never"), [(0.001, 13.2, 13), (0.01, 15.7, 14), (0.1, 40.7, 19)])
    def test_cost_of_innocent_suspects(self, null_rate: float, innocent: float, never: int) -> None:
        at = [
            sequential.operating(rate=rate, null_rate=null_rate, alpha=1e-6, p_min=0.3, futility=0.01, cap=1500)
            for rate in (null_rate, 0.0, 0.3, 0.5)
        ]
        assert at[0].mean == pytest.approx(innocent, abs=0.1)
        assert at[1].mean == pytest.approx(never, abs=0.05)
        assert 0.990 <= at[2].reject <= 0.9925
        assert at[3].reject > 0.9998
        assert at[0].median is at[1].median is None
        assert at[1].keys_to_decide(1.0) == never

    @pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.1])
    @pytest.mark.parametrize("alpha", [0.05, 1e-3, 1e-6])
    def test_level_holds_at_every_null_rate(self, rate: float, alpha: float) -> None:
        got = sequential.operating(rate=rate, null_rate=0.1, alpha=alpha, p_min=0.3, futility=NO_FUTILITY, cap=1000)
        assert got.reject <= alpha

    def test_certain_hits_and_hopeless_caps(self) -> None:
        sure = sequential.operating(rate=1.0, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01, cap=40)
        assert sure.reject == 1.0
        assert sure.median == sure.q99 == sure.mean == sure.keys_to_reject(1.0)
        short = sequential.operating(rate=1.0, null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01, cap=3)
        assert (short.reject, short.undecided, short.mean, short.median) == (0.0, 1.0, 3.0, None)

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="cap"):
            sequential.operating(rate=0.5, null_rate=0.1, alpha=0.01, p_min=0.3, futility=0.01, cap=0)
        with pytest.raises(ValueError, match="rate"):
            sequential.operating(rate=1.5, null_rate=0.1, alpha=0.01, p_min=0.3, futility=0.01, cap=5)


class TestFalseClaims:
    AUDITS = 20_000
    KEYS = 150

    @pytest.mark.parametrize("rate", [0.1, 0.08, 0.02])
    def test_innocent_audits_with_optional_stopping(self, rate: float) -> None:
        # The accuser looks after every answer and stops at the best moment: the running maximum.
        alpha, null_rate = 0.01, 0.1
        rng = np.random.default_rng(7)
        n = np.arange(1, self.KEYS + 1)
        k = (rng.random((self.AUDITS, self.KEYS)) < rate).cumsum(axis=1)
        k_grid, n_grid = np.meshgrid(np.arange(self.KEYS + 1), n)
        evidence = sequential.log_e(np.minimum(k_grid, n_grid), n_grid, null_rate)
        best = evidence[n - 1, k].max(axis=1)
        n_claims = int((best >= -math.log(alpha) - 1e-12).sum())
        assert n_claims <= stats.binom.isf(1e-4, self.AUDITS, alpha)
        expected = sequential.operating(
            rate=rate, null_rate=null_rate, alpha=alpha, p_min=0.3, futility=NO_FUTILITY, cap=self.KEYS
        ).reject
        low, high = stats.binom.interval(1 - 1e-4, self.AUDITS, expected)
        assert low <= n_claims <= high

    def test_innocent_audits_with_the_fixed_test(self) -> None:
        alpha, null_rate, keys = 0.01, 0.1, 40
        hits = np.random.default_rng(8).binomial(keys, null_rate, size=self.AUDITS)
        claims = [
            binomial_tail_log10(hits=k, trials=keys, rate=null_rate) <= math.log10(alpha) for k in range(keys + 1)
        ]
        n_claims = int(np.asarray(claims)[hits].sum())
        assert n_claims <= stats.binom.isf(1e-4, self.AUDITS, alpha)
        level = stats.binom.pmf(np.flatnonzero(claims), keys, null_rate).sum()
        low, high = stats.binom.interval(1 - 1e-4, self.AUDITS, level)
        assert low <= n_claims <= high

    def test_anytime_p_value_is_valid(self) -> None:
        rng = np.random.default_rng(9)
        p_values = [
            sequential.run((rng.random(60) < 0.1).tolist(), null_rate=0.1, alpha=1e-6, p_min=0.3, futility=0.01).log10_p
            for _ in range(2000)
        ]
        for level in (0.05, 0.01):
            count = sum(p <= math.log10(level) for p in p_values)
            assert count <= stats.binom.isf(1e-4, 2000, level)


class TestConfidenceSequence:
    def test_ends_are_where_the_mixture_is_rejected(self) -> None:
        for hits, trials in ((22, 24), (1, 200), (3, 7), (5000, 10000)):
            got = sequential.confidence_sequence(hits=hits, trials=trials, confidence=0.95)
            assert 0 < got.low < hits / trials < got.high < 1
            for end in (got.low, got.high):
                assert unrestricted_log_e(hits, trials, end) == pytest.approx(math.log(20), abs=1e-6)

    def test_extreme_counts(self) -> None:
        none = sequential.confidence_sequence(hits=0, trials=30, confidence=0.95)
        every = sequential.confidence_sequence(hits=30, trials=30, confidence=0.95)
        assert none.low == 0.0
        assert every.high == 1.0
        assert every.low == pytest.approx(1 - none.high, abs=1e-12)
        nothing = sequential.confidence_sequence(hits=0, trials=0, confidence=0.95)
        assert (nothing.low, nothing.high) == (0.0, 1.0)
        one = sequential.confidence_sequence(hits=1, trials=1, confidence=0.95)
        assert 0.0 < one.low < 0.05

    @pytest.mark.parametrize("rate", [0.03, 0.4, 0.9])
    def test_covers_at_all_times_together(self, rate: float) -> None:
        keys, audits, confidence = 60, 4000, 0.9
        rng = np.random.default_rng(10)
        k = (rng.random((audits, keys)) < rate).cumsum(axis=1)
        covers = np.zeros((keys + 1, keys + 1), dtype=bool)
        for n in range(1, keys + 1):
            for hits in np.unique(k[:, n - 1]):
                got = sequential.confidence_sequence(hits=int(hits), trials=n, confidence=confidence)
                covers[n, hits] = got.low <= rate <= got.high
        missed = int((~covers[np.arange(1, keys + 1), k]).any(axis=1).sum())
        assert missed <= stats.binom.isf(1e-4, audits, 1 - confidence)

    def test_is_wider_than_the_fixed_sample_interval(self) -> None:
        fixed = stats.binomtest(22, 24).proportion_ci(confidence_level=0.95)
        got = sequential.confidence_sequence(hits=22, trials=24, confidence=0.95)
        assert got.low < fixed.low
        assert got.high > fixed.high

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="hits"):
            sequential.confidence_sequence(hits=12, trials=10, confidence=0.95)
        with pytest.raises(ValueError, match="confidence"):
            sequential.confidence_sequence(hits=1, trials=10, confidence=1.0)
