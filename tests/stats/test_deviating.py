import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from auditor.stats import deviating, sequential
from auditor.stats.deviating import composite_answer, deviating_test
from auditor.stats.exact import binomial_tail_log10


def two_digits(log10_p: float) -> str:
    mantissa, exponent = f"{10**log10_p:.1e}".split("e")
    return f"{mantissa}e{int(exponent)}"


class TestDeviatingTest:
    @pytest.mark.parametrize(
        ("deviating_answers", "hits", "all_keys", "conditional"),
        [
            (37, 22, "1.3e-3", "1.8e-12"),
            (45, 22, "1.3e-3", "3.2e-10"),
            (30, 13, "3.2e-1", "7.5e-6"),
            (40, 13, "3.2e-1", "2.6e-4"),
        ],
    )
    def test_reference_table(self, deviating_answers: int, hits: int, all_keys: str, conditional: str) -> None:
        # 100 keys, 10 classes.
        natural, labels = [0] * 100, [1] * 100
        answers: list[int | None] = [1] * hits + [2] * (deviating_answers - hits) + [0] * (100 - deviating_answers)
        got = deviating_test(natural=natural, answers=answers, labels=labels, n_classes=10)
        assert (got.hits, got.deviating, got.neutral) == (hits, deviating_answers, 100 - deviating_answers)
        assert two_digits(got.log10_p) == conditional
        assert two_digits(binomial_tail_log10(hits=hits, trials=100, rate=1 / 9)) == all_keys

    @pytest.mark.parametrize("answers", [(0, 1, 2, 3, 1), (1, 1, 1, 1, 1), (0, 0, 0, 0, 0), (3, 2, 9, 0, 1)])
    def test_law_of_the_p_value_by_enumerating_every_label_draw(self, answers: tuple[int, ...]) -> None:
        natural, n_classes = (0, 0, 1, 2, 3), 4
        choices = [[c for c in range(n_classes) if c != own] for own in natural]
        p_values = [
            10 ** deviating_test(natural=natural, answers=answers, labels=labels, n_classes=n_classes).log10_p
            for labels in itertools.product(*choices)
        ]
        # Exact: P(p ≤ x) = x at every attainable p-value, which is the strongest form of "keeps its level".
        for p in set(np.round(p_values, 12)):
            assert np.mean(np.asarray(p_values) <= p + 1e-9) == pytest.approx(p)

    def test_level_for_suspects_of_every_kind(self) -> None:
        # 100,000 audits of 60 keys each; the suspects see the natural labels but not the drawn ones.
        rng = np.random.default_rng(11)
        n_audits, n_keys, n_classes = 100_000, 60, 10
        natural = rng.integers(0, n_classes, size=n_keys)
        labels = rng.integers(0, n_classes - 1, size=(n_audits, n_keys), dtype=np.int8)
        labels += labels >= natural
        tails = 10 ** np.array(
            [
                [binomial_tail_log10(hits=min(k, m), trials=m, rate=1 / 9) for k in range(n_keys + 1)]
                for m in range(n_keys + 1)
            ]
        )
        half = rng.random((n_audits, n_keys)) < 0.5
        suspects = {
            "constant": np.full((1, n_keys), 3),
            "next class": ((natural + 1) % n_classes)[None, :],
            "half truth, half random": np.where(half, natural, rng.integers(0, n_classes, size=(n_audits, n_keys))),
        }
        for name, answers in suspects.items():
            hits = (answers == labels).sum(axis=1)
            m = np.broadcast_to((answers != natural).sum(axis=1), hits.shape)
            p = tails[m, hits]
            for alpha in (0.05, 0.01, 0.001):
                assert np.sum(p <= alpha) <= stats.binom.isf(1e-4, n_audits, alpha), (name, alpha)

    def test_missing_answers(self) -> None:
        natural, labels = [0, 0, 0, 0], [1, 2, 3, 1]
        answers = [1, None, 0, 4]
        got = deviating_test(natural=natural, answers=answers, labels=labels, n_classes=4)
        assert (got.hits, got.deviating, got.neutral) == (1, 2, 2)
        dropped = deviating_test(natural=[0, 0, 0], answers=[1, 0, 4], labels=[1, 3, 1], n_classes=4)
        assert got.log10_p > dropped.log10_p

    @given(st.integers(2, 12), st.data())
    def test_a_lost_answer_never_helps_the_owner(self, n_classes: int, data: st.DataObject) -> None:
        n = data.draw(st.integers(1, 15))
        classes = st.integers(0, n_classes - 1)
        natural = data.draw(st.lists(classes, min_size=n, max_size=n))
        labels = [(own + data.draw(st.integers(1, n_classes - 1))) % n_classes for own in natural]
        answers: list[int | None] = list(data.draw(st.lists(classes, min_size=n, max_size=n)))
        before = deviating_test(natural=natural, answers=answers, labels=labels, n_classes=n_classes)
        answers[data.draw(st.integers(0, n - 1))] = None
        after = deviating_test(natural=natural, answers=answers, labels=labels, n_classes=n_classes)
        assert after.log10_p >= before.log10_p - 1e-9

    def test_two_classes_show_nothing(self) -> None:
        got = deviating_test(natural=[0, 1], answers=[1, 0], labels=[1, 0], n_classes=2)
        assert (got.rate, got.log10_p) == (1.0, 0.0)

    @pytest.mark.parametrize(
        ("natural", "answers", "labels", "n_classes"),
        [
            ([], [], [], 4),
            ([0], [1, 1], [1], 4),
            ([0, 1], [1, 1], [1], 4),
            ([0], [1], [0], 4),
            ([0], [1], [4], 4),
            ([-1], [1], [2], 4),
            ([0], [0], [0], 1),
        ],
    )
    def test_fails_closed(self, natural: list[int], answers: list[int], labels: list[int], n_classes: int) -> None:
        with pytest.raises(ValueError, match=r"key|class"):
            deviating_test(natural=natural, answers=answers, labels=labels, n_classes=n_classes)


class TestMissingAnswersChangeTheLevel:
    """By exact binomial computation and by simulation."""

    def test_dropped_refusals_convict_and_counted_refusals_do_not(self) -> None:
        # An innocent suspect refuses 80 % of the keys it does not hit; 50 keys, p0 = 1/9, nominal 0.1 %.
        n_keys, rate, alpha = 50, 1 / 9, 1e-3
        hits = np.arange(n_keys + 1)
        answered_misses = np.arange(n_keys + 1)[:, None]
        joint = stats.binom.pmf(hits, n_keys, rate) * stats.binom.pmf(answered_misses, n_keys - hits, 0.2)
        dropped = stats.binom.sf(hits - 1, np.maximum(hits + answered_misses, 1), rate) <= alpha
        counted = stats.binom.sf(hits - 1, n_keys, rate) <= alpha
        assert joint[dropped & (hits + answered_misses > 0)].sum() > 0.15
        assert joint[:, counted].sum() <= alpha

    def test_suppressed_answers_under_the_label_null(self) -> None:
        # The accuser hides 70 % of the deviating answers that missed, as "time-outs".
        rng = np.random.default_rng(5)
        n_audits, n_keys = 100_000, 40
        hits = rng.binomial(n_keys, 1 / 9, size=n_audits)
        hidden = rng.binomial(n_keys - hits, 0.7)
        neutral = stats.binom.sf(hits - 1, n_keys - hidden, 1 / 9)
        strict = stats.binom.sf(hits - 1, n_keys, 1 / 9)
        assert np.mean(neutral <= 1e-3) > 0.05
        assert np.sum(strict <= 1e-3) <= stats.binom.isf(1e-4, n_audits, 1e-3)


class TestCompositeAnswer:
    @pytest.mark.parametrize(
        ("answers", "want"),
        [([2, 1, 1], 1), ([2, 1], 2), ([None, 3, None], 3), ([None, None], None), ([], None), ([5, 4, 4, 5], 5)],
    )
    def test_majority_with_ties_to_the_first(self, answers: list[int | None], want: int | None) -> None:
        assert composite_answer(answers) == want

    def test_trap_any_of_three_retries_counted_as_one_query(self) -> None:
        # Three independent answers of a suspect that answers uniformly among the nine other classes.
        rng = np.random.default_rng(8)
        n_audits, n_keys = 20_000, 50
        repeats = rng.integers(1, 10, size=(n_audits, n_keys, 3))
        labels = rng.integers(1, 10, size=(n_audits, n_keys))
        any_hit = (repeats == labels[:, :, None]).any(axis=2).sum(axis=1)
        first_two_agree = repeats[:, :, 1] == repeats[:, :, 2]
        majority = np.where(first_two_agree, repeats[:, :, 1], repeats[:, :, 0])
        assert [composite_answer(row) for row in repeats[0].tolist()] == majority[0].tolist()
        ours = (majority == labels).sum(axis=1)
        assert np.mean(stats.binom.sf(any_hit - 1, n_keys, 1 / 9) <= 1e-3) > 0.4
        n_claims = np.sum(stats.binom.sf(ours - 1, n_keys, 1 / 9) <= 1e-3)
        assert n_claims <= stats.binom.isf(1e-4, n_audits, 1e-3)


class TestTrapKeysChosenAfterTheDraw:
    def test_keeping_plausible_labels_convicts_and_the_full_set_does_not(self) -> None:
        # Innocent models confuse each class with its neighbour; the owner drops keys whose label "embedded badly",
        # which leaves those whose drawn label is the class that models confuse it with anyway.
        rng = np.random.default_rng(2)
        n_audits, drawn, kept, n_classes = 2_000, 300, 60, 10
        claims = {"kept": 0, "all": 0}
        for _ in range(n_audits):
            natural = rng.integers(0, n_classes, size=drawn)
            labels = rng.integers(0, n_classes - 1, size=drawn)
            labels += labels >= natural
            deviates = rng.random(drawn) < 0.5
            neighbour = rng.random(drawn) < 0.6
            other = (natural + rng.integers(2, n_classes, size=drawn)) % n_classes
            answers = np.where(deviates, np.where(neighbour, (natural + 1) % n_classes, other), natural)
            ease = (labels == (natural + 1) % n_classes) + rng.random(drawn)
            chosen = np.argsort(-ease)[:kept]
            for name, subset in (("kept", chosen), ("all", np.arange(drawn))):
                m = int((answers[subset] != natural[subset]).sum())
                k = int((answers[subset] == labels[subset]).sum())
                claims[name] += stats.binom.sf(k - 1, m, 1 / 9) <= 1e-3
        assert claims["kept"] / n_audits > 0.5
        assert claims["all"] <= stats.binom.isf(1e-4, n_audits, 1e-3)

    def test_the_test_demands_every_drawn_key(self) -> None:
        with pytest.raises(ValueError, match="every key"):
            deviating_test(natural=[0, 1, 2], answers=[1, 2], labels=[1, 2, 0], n_classes=3)


class TestTrapLabelMapFittedOnKeyAnswers:
    def test_fitting_convicts_innocents_and_a_map_fixed_beforehand_does_not(self) -> None:
        rng = np.random.default_rng(6)
        n_audits, n_keys, n_classes = 3_000, 30, 10
        fixed = rng.permutation(n_classes)
        fitted_claims = fixed_claims = 0
        for _ in range(n_audits):
            labels, answers = rng.integers(0, n_classes, size=(2, n_keys))
            counts = np.zeros((n_classes, n_classes))
            np.add.at(counts, (answers, labels), 1)
            rows, columns = optimize.linear_sum_assignment(-counts)
            fitted_claims += stats.binom.sf(counts[rows, columns].sum() - 1, n_keys, 1 / n_classes) <= 1e-3
            fixed_claims += stats.binom.sf(np.sum(fixed[answers] == labels) - 1, n_keys, 1 / n_classes) <= 1e-3
        assert fitted_claims / n_audits == pytest.approx(0.976, abs=0.015)
        assert fixed_claims <= stats.binom.isf(1e-4, n_audits, 1e-3)


def test_dilution_with_random_answers_keeps_the_level() -> None:
    # Noise on a share of the answers of an innocent suspect is just another innocent suspect.
    rng = np.random.default_rng(21)
    n_audits, n_keys = 100_000, 30
    answers = np.where(rng.random((n_audits, n_keys)) < 0.4, rng.integers(0, 10, size=(n_audits, n_keys)), 0)
    labels = rng.integers(1, 10, size=(n_audits, n_keys))
    m, k = (answers != 0).sum(axis=1), (answers == labels).sum(axis=1)
    for alpha in (0.05, 0.01, 0.001):
        assert np.sum(stats.binom.sf(k - 1, m, 1 / 9) <= alpha) <= stats.binom.isf(1e-4, n_audits, alpha)


def test_all_hits_do_not_underflow() -> None:
    got = deviating_test(natural=[0] * 4000, answers=[1] * 4000, labels=[1] * 4000, n_classes=10)
    assert got.log10_p == pytest.approx(-4000 * math.log10(9))


class TestSequentialForm:
    def test_only_informative_answers_in_the_order_asked(self) -> None:
        natural, labels = [0, 0, 0, 0, 0, 0], [1, 2, 3, 1, 2, 3]
        answers = [1, None, 0, 4, 2, 1]
        given_ = {"natural": natural, "answers": answers, "labels": labels, "n_classes": 4}
        assert deviating.key_outcomes(**given_) == (True, False, None, None, True, False)
        assert deviating.informative_hits(**given_) == (True, False, True, False)

    @pytest.mark.parametrize(
        ("n_classes", "hit", "truth", "alpha", "want"),
        [
            (10, 0.95, 0.05, 1e-3, ("4.2", 5, 6)),
            (10, 0.8, 0.1, 1e-3, ("5.7", 10, 13)),
            (10, 0.8, 0.1, 1e-6, ("10.6", 16, 19)),
            (10, 0.5, 0.25, 1e-3, ("12.8", 25, 33)),
            (10, 0.5, 0.25, 1e-9, ("34.5", 54, 65)),
            (10, 0.3, 0.7, 1e-3, ("13.3", 24, 30)),
            (10, 0.3, 0.35, 1e-6, ("62.5", 109, 134)),
            (100, 0.5, 0.5, 1e-6, ("8.0", 13, 17)),
            (100, 0.3, 0.35, 1e-9, ("25.1", 44, 55)),
            (1000, 0.3, 0.35, 1e-6, ("10.7", 23, 30)),
        ],
    )
    def test_queries_needed_with_neutral_answers(
        self, n_classes: int, hit: float, truth: float, alpha: float, want: tuple[str, int, int]
    ) -> None:
        # Mean and the queries for 95 % and 99 % power; every query is informative with probability 1 - truth.
        informative = 1.0 - truth
        law = sequential.operating(
            rate=min(1.0, hit / informative),
            null_rate=1 / (n_classes - 1),
            alpha=alpha,
            p_min=0.999,
            futility=1e-300,
            cap=500,
        )
        n = np.arange(400)[:, None]
        by = (stats.binom.pmf(np.arange(501), n, informative) * np.asarray(law.reject_by)).sum(axis=1)
        mean = law.mean / informative
        assert f"{mean:.1f}" == want[0]
        assert tuple(int(np.argmax(by >= power - 1e-12)) for power in (0.95, 0.99)) == want[1:]

    def test_level_for_a_suspect_that_learns_every_label_after_its_answer(self) -> None:
        # It answers the drawn label seen most often so far, and the natural label while it is ahead.
        rng = np.random.default_rng(17)
        n_audits, n_keys, n_classes = 100_000, 60, 10
        table = np.asarray(
            [[float(sequential.log_e(min(k, m), m, 1 / 9)) for k in range(n_keys + 1)] for m in range(n_keys + 1)]
        )
        seen = np.zeros((n_audits, n_classes), dtype=np.int64)
        m, k = np.zeros(n_audits, dtype=np.int64), np.zeros(n_audits, dtype=np.int64)
        claimed = np.zeros(n_audits, dtype=np.bool_)
        for step in range(n_keys):
            own = step % n_classes
            label = rng.integers(0, n_classes - 1, size=n_audits)
            label += label >= own
            favourite = seen.argmax(axis=1)
            answer = np.where(k * 9 > 2 * m, own, favourite)
            m += answer != own
            k += answer == label
            np.add.at(seen, (np.arange(n_audits), label), 1)
            claimed |= table[m, k] >= math.log(100)
        assert claimed.sum() <= stats.binom.isf(1e-4, n_audits, 0.01)
