import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.multitest import multipletests

from auditor.stats import multiplicity as m
from auditor.stats.exact import binomial_tail_log10

log10_ps = st.lists(st.floats(-8.0, 0.0), min_size=1, max_size=9)
log10_es = st.lists(st.floats(-4.0, 9.0), min_size=1, max_size=7)


class TestHolm:
    @settings(max_examples=30)
    @given(log10_ps)
    def test_agrees_with_statsmodels(self, log10_p: list[float]) -> None:
        want = multipletests(10.0 ** np.asarray(log10_p), method="holm")[1]
        assert 10.0 ** np.asarray(m.holm(log10_p)) == pytest.approx(want, rel=1e-9)

    def test_hand_case_and_values_below_double_precision(self) -> None:
        got = m.holm([-2.0, -3000.0, -1.3, 0.0])
        assert got == pytest.approx((math.log10(0.03), -3000 + math.log10(4), math.log10(2 * 10**-1.3), 0.0))
        assert m.holm([]) == ()
        assert m.holm([-math.inf, 0.0])[0] == -math.inf

    def test_family_error_with_copies_of_one_suspect(self) -> None:
        rng = np.random.default_rng(1)
        p = np.repeat(rng.random((2_000, 1)), 5, axis=1)
        p[:, 2:] = rng.random((2_000, 3))
        any_claim = sum(min(m.holm(row)) <= math.log10(0.05) for row in np.log10(p).tolist())
        assert any_claim <= stats.binom.isf(1e-4, 2_000, 0.05)

    @pytest.mark.parametrize("bad", [[0.1], [math.nan]])
    def test_refuses_what_is_no_p_value(self, bad: list[float]) -> None:
        with pytest.raises(ValueError, match="p-values"):
            m.holm(bad)


class TestAverages:
    def test_hand_cases(self) -> None:
        assert 10 ** m.average_log10_e([2.0, -math.inf]) == pytest.approx(50.0)
        assert 10 ** m.average_log10_e([2.0, 1.0], weights=[0.9, 0.1]) == pytest.approx(91.0)
        assert m.average_log10_e([5000.0, 4000.0], weights=[0.5, 0.5]) == pytest.approx(5000 + math.log10(0.5))
        assert m.average_log10_e([3.0, 9.0], weights=[1.0, 0.0]) == pytest.approx(3.0)
        assert m.average_log10_e([-math.inf, -math.inf]) == -math.inf

    @pytest.mark.parametrize(
        ("values", "weights"),
        [([], None), ([1.0], [0.5]), ([1.0, 2.0], [1.0]), ([1.0, 2.0], [1.5, -0.5]), ([math.nan], None)],
    )
    def test_refusals(self, values: list[float], weights: list[float] | None) -> None:
        with pytest.raises(ValueError, match=r"e-values|weights|e-value"):
            m.average_log10_e(values, weights=weights)


class TestClosedTesting:
    @given(log10_es)
    def test_agrees_with_averaging_over_every_group(self, values: list[float]) -> None:
        e = [10**v for v in values]
        for i, got in enumerate(m.closed_log10_e(values)):
            rest = [j for j in range(len(e)) if j != i]
            groups = [g for k in range(len(e)) for g in itertools.combinations(rest, k)]
            want = min((e[i] + sum(e[j] for j in g)) / (len(g) + 1) for g in groups)
            assert 10**got == pytest.approx(want, rel=1e-9)

    @given(log10_es)
    def test_at_least_as_good_as_bonferroni(self, values: list[float]) -> None:
        adjusted = m.closed_log10_e(values)
        assert all(
            a >= v - math.log10(len(values)) - 1e-12 and a <= v + 1e-12 for a, v in zip(adjusted, values, strict=True)
        )


class TestEBh:
    def test_hand_case(self) -> None:
        # K = 4, level 0.05: thresholds 80, 40, 26.7, 20 for the largest, second, third, fourth.
        assert m.e_bh([math.log10(e) for e in (100, 30, 28, 1)], level=0.05) == (0, 1, 2)
        assert m.e_bh([math.log10(e) for e in (79, 39, 1, 1)], level=0.05) == ()
        assert m.e_bh([math.log10(80.0), 0.0, 0.0, 0.0], level=0.05) == (0,)

    @settings(max_examples=30)
    @given(log10_es, st.floats(0.001, 0.5))
    def test_agrees_with_benjamini_hochberg_on_one_over_e(self, values: list[float], level: float) -> None:
        p = np.minimum(1.0, 10.0 ** -np.asarray(values))
        want = multipletests(p, alpha=level, method="fdr_bh")[0]
        near = np.abs(np.asarray(values)[:, None] - np.log10(len(p) / np.arange(1, len(p) + 1) / level)).min() < 1e-9
        if not near:
            assert m.e_bh(values, level=level) == tuple(np.flatnonzero(want).tolist())

    def test_false_discoveries_under_full_dependence(self) -> None:
        # All suspects are copies of one innocent: any claim is a false one.
        rng = np.random.default_rng(3)
        e = np.where(rng.random(100_000) < 0.02, 50.0, 0.0)
        p_claim = np.mean([bool(m.e_bh([math.log10(v) if v else -math.inf] * 6, level=0.02)) for v in e[:5_000]])
        assert p_claim <= 0.02 + 4 * math.sqrt(0.02 / 5_000)

    def test_refuses_levels_outside_the_unit_interval(self) -> None:
        with pytest.raises(ValueError, match="level"):
            m.e_bh([1.0], level=1.0)


class TestIndependentSecrets:
    def test_products_and_fisher(self) -> None:
        assert m.product_log10_e([3.0, 2.5]) == 5.5
        assert m.product_log10_e([3.0, -math.inf]) == -math.inf
        p = [0.04, 0.2, 0.7, 1e-5]
        want = stats.combine_pvalues(p, method="fisher").pvalue
        assert 10 ** m.fisher_log10_p(np.log10(p).tolist()) == pytest.approx(want, rel=1e-10)
        assert m.fisher_log10_p([-2.0]) == pytest.approx(-2.0)
        assert m.fisher_log10_p([0.0, 0.0]) == 0.0
        assert m.fisher_log10_p([-2000.0, -1500.0]) == pytest.approx(-3500 + math.log10(1 + 3500 * math.log(10)))
        assert m.fisher_log10_p([-math.inf, -1.0]) == -math.inf

    def test_trap_fisher_on_copies_of_one_p_value(self) -> None:
        # Two analyses of the same answers: the combination claims far above its level, the average e-value does not.
        rng = np.random.default_rng(7)
        p = rng.random(20_000)
        combined = np.asarray([m.fisher_log10_p([math.log10(v)] * 4) for v in p])
        assert np.mean(combined <= -3) > 0.01
        averaged = np.asarray([m.average_log10_e([m.e_from_p(math.log10(v))] * 4) for v in p])
        assert np.sum(averaged >= 3) <= stats.binom.isf(1e-4, len(p), 1e-3)

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="combine"):
            m.fisher_log10_p([])
        with pytest.raises(ValueError, match="e-values"):
            m.product_log10_e([])


class TestContinuation:
    def test_fresh_keys_multiply(self) -> None:
        first = m.AuditEvidence(log10_e=2.5, keys=frozenset("abc"), revealed=frozenset("ab"))
        second = m.AuditEvidence(log10_e=1.5, keys=frozenset("de"), revealed=frozenset())
        assert m.continue_log10_e([first, second]) == 4.0

    @pytest.mark.parametrize("again", ["a", "c", "x"])
    def test_asked_or_revealed_keys_are_used_up(self, again: str) -> None:
        first = m.AuditEvidence(log10_e=2.5, keys=frozenset("abc"), revealed=frozenset("abx"))
        second = m.AuditEvidence(log10_e=1.5, keys=frozenset({again, "z"}), revealed=frozenset())
        with pytest.raises(ValueError, match="audit 2 asks keys"):
            m.continue_log10_e([first, second])

    def test_an_audit_without_named_keys_is_refused(self) -> None:
        empty = m.AuditEvidence(log10_e=1.0, keys=frozenset(), revealed=frozenset())
        with pytest.raises(ValueError, match="names no keys"):
            m.continue_log10_e([empty])

    def test_level_when_the_owner_continues_only_after_promising_results(self) -> None:
        # Fixed-sample likelihood-ratio e-values of innocents, 20 keys per audit, up to five audits, stopped at will.
        rng = np.random.default_rng(9)
        hits = rng.binomial(20, 1 / 9, size=(100_000, 5))
        log_e = hits * math.log10(0.3 * 9) + (20 - hits) * math.log10(0.7 * 9 / 8)
        total, claimed = np.zeros(100_000), np.zeros(100_000, dtype=np.bool_)
        going = np.ones(100_000, dtype=np.bool_)
        for audit in range(5):
            total[going] += log_e[going, audit]
            claimed |= total >= 2
            going &= (total > -1) & ~claimed
        assert claimed.sum() <= stats.binom.isf(1e-4, 100_000, 0.01)


class TestFamily:
    def test_every_seal_that_could_have_been_used_counts(self) -> None:
        assert m.family_size(serial=1, suspect="s", ledger=[]) == 1
        assert m.family_size(serial=3, suspect="s", ledger=[]) == 3
        ledger = [
            m.LedgerEntry(serial=1, suspect="other"),
            m.LedgerEntry(serial=1, suspect="other"),
            m.LedgerEntry(serial=2, suspect="s"),
        ]
        assert m.family_size(serial=3, suspect="s", ledger=ledger) == 4

    def test_refusals(self) -> None:
        with pytest.raises(ValueError, match="start at 1"):
            m.family_size(serial=0, suspect="s", ledger=[])
        with pytest.raises(ValueError, match="does not exist"):
            m.family_size(serial=2, suspect="s", ledger=[m.LedgerEntry(serial=3, suspect="s")])


class TestGrinding:
    @pytest.mark.parametrize(("bits", "average", "naive"), [(0, "3.3", 0.66), (10, "9.9", 1e-3), (20, "13.8", 1e-6)])
    def test_best_of_two_to_the_g_seeds(self, bits: int, average: str, naive: float) -> None:
        # The expected best of 2**g draws of Bin(30, 1/9), exactly.
        below = stats.binom.cdf(np.arange(-1, 30), 30, 1 / 9)
        mean = float(np.sum(-np.expm1(2.0**bits * np.log1p(-(1 - below[1:])))))
        assert f"{mean:.1f}" == average
        typical = binomial_tail_log10(hits=round(mean), trials=30, rate=1 / 9)
        assert 10**typical == pytest.approx(naive, rel=0.9)
        assert m.charge_log10_p(typical, tries_log2=bits) > math.log10(0.2)

    def test_a_grinding_owner_stays_within_the_level_after_the_charge(self) -> None:
        # The best of 2**10 seeds, exactly: no claim at 1e-3 beyond the level.
        tails = [binomial_tail_log10(hits=k, trials=30, rate=1 / 9) for k in range(31)]
        claimed = [k for k in range(31) if m.charge_log10_p(tails[k], tries_log2=10) <= -3]
        p_one = 10 ** tails[min(claimed)]
        assert -math.expm1(1024 * math.log1p(-p_one)) <= 1e-3
        naive = min(k for k in range(31) if tails[k] <= -3)
        assert -math.expm1(1024 * math.log1p(-(10 ** tails[naive]))) > 0.2

    @pytest.mark.parametrize(("n_classes", "hits"), [(10, "20.2"), (100, "9.7")])
    def test_hits_that_64_bits_cost(self, n_classes: int, hits: str) -> None:
        charge = m.charge_log10_e(0.0, tries_log2=64)
        # Rounded up to the next tenth for 100 classes: 9.65.
        assert f"{math.ceil(-charge / math.log10(n_classes - 1) * 10 - 0.5) / 10:.1f}" == hits

    def test_charges_add_up_and_stop_at_one(self) -> None:
        assert m.charge_log10_p(-9.0, family=10, tries_log2=0.0) == pytest.approx(-8.0)
        assert m.charge_log10_p(-9.0, family=3, tries_log2=64.0) == 0.0
        assert m.charge_log10_e(30.0, family=10, tries_log2=1.0) == pytest.approx(29 - math.log10(2))
        assert m.charge_log10_p(-math.inf, family=7) == -math.inf
        for family, tries in ((0, 0.0), (1, -1.0), (1, math.nan)):
            with pytest.raises(ValueError, match="family"):
                m.charge_log10_p(-1.0, family=family, tries_log2=tries)


class TestConversions:
    def test_p_from_e(self) -> None:
        assert (m.p_from_e(6.0), m.p_from_e(-2.0)) == (-6.0, 0.0)

    def test_e_from_p(self) -> None:
        # "p = 1e-6 becomes only about 5e3"
        assert 10 ** m.e_from_p(-6.0) == pytest.approx(5239, rel=1e-3)
        assert 10 ** m.e_from_p(0.0) == pytest.approx(0.5)
        for log10_p in (-1e-4, -0.01, -0.5, -3.0, -200.0):
            x = Fraction(-log10_p * math.log(10)).limit_denominator(10**12)
            p = math.exp(-float(x))
            kappa = np.linspace(0, 1, 2_000_001)[1:]
            integral = float(np.trapezoid(kappa * np.exp(-(kappa - 1) * float(x)), kappa)) if log10_p > -100 else 0.0
            if integral:
                assert 10 ** m.e_from_p(log10_p) == pytest.approx(integral, rel=1e-4)
            else:
                assert m.e_from_p(log10_p) == pytest.approx((float(x) - 2 * math.log(float(x))) / math.log(10))
            assert p <= 1.0
        assert m.e_from_p(-math.inf) == math.inf

    def test_mean_is_one_over_uniform_p(self) -> None:
        # Substituting p = exp(-x): the mean of the e-value is the integral of e(p) p over x.
        x = np.linspace(1e-6, 60, 600_001)
        e = np.asarray([m.e_from_p(-v / math.log(10)) for v in x[::100]])
        mean = float(np.trapezoid(10**e * np.exp(-x[::100]), x[::100]))
        assert mean == pytest.approx(1.0, abs=0.03)
        assert mean <= 1.0
