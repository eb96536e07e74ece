import math

import numpy as np
import pytest
from scipy import stats

from auditor.records import Answer
from auditor.stats import drawn_scores, rank, sequential
from auditor.stats.placebo_labels import placebo_labels


def scored(values: list[float]) -> Answer:
    return Answer(label=int(np.argmax(values)), scores=tuple(values))


class TestTables:
    def test_equal_to_the_factors_key_by_key(self) -> None:
        rng = np.random.default_rng(1)
        # Rounded scores, so that there are ties; one class more than the task has.
        answers = [scored(rng.integers(0, 4, size=6).astype(float).tolist()) for _ in range(20)]
        natural = rng.integers(0, 5, size=20).tolist()
        tables = drawn_scores.rank_tables(answers, natural=natural, n_classes=5)
        for row, (answer, own) in enumerate(zip(answers, natural, strict=True)):
            for label in set(range(5)) - {own}:
                place = rank.place_from_scores(answer.scores[:5], natural=own, drawn=label)
                assert tables[row, label] == pytest.approx(rank.rank_factors(place), abs=1e-12)

    @pytest.mark.parametrize("n_classes", [3, 10, 100, 3000])
    def test_mean_one_over_the_draw_whatever_was_answered(self, n_classes: int) -> None:
        rng = np.random.default_rng(2)
        answers = [
            scored(rng.normal(size=n_classes).tolist()), scored([0.0] * n_classes), Answer(label=0), Answer(label=1),
            Answer(label=n_classes), None,
        ]  # fmt: skip
        tables = drawn_scores.rank_tables(answers, natural=[0] * 6, n_classes=n_classes)
        means = np.exp(tables[:, 1:]).mean(axis=1)
        assert means[:5] == pytest.approx(np.ones((5, len(rank.SLOPES))), rel=1e-9)
        # A lost answer is a lost bet, and no answer could have been worth less.
        assert (tables[5] <= tables.min(axis=(0, 1)) + 1e-12).all()

    def test_refuses_what_cannot_be(self) -> None:
        with pytest.raises(ValueError, match="three classes"):
            drawn_scores.rank_tables([None], natural=[0], n_classes=2)
        with pytest.raises(ValueError, match="three classes"):
            drawn_scores.rank_tables([None], natural=[7], n_classes=5)


def test_the_first_logged_answer_decides_whether_ranks_take_part() -> None:
    full, label = scored([0.1, 0.2, 0.7]), Answer(label=1)
    assert drawn_scores.ranks_take_part([None, full, label], n_classes=3)
    assert not drawn_scores.ranks_take_part([label, full], n_classes=3)
    assert not drawn_scores.ranks_take_part([full], n_classes=4)
    assert not drawn_scores.ranks_take_part([None], n_classes=3)


class TestLevel:
    """20,000 audits of innocent suspects that score all classes; the claim may fall at any look."""

    AUDITS, KEYS, C, ALPHA = 20_000, 40, 6, 0.05

    @pytest.mark.parametrize("kind", ["peaked", "flat", "adaptive"])
    def test_no_suspect_exceeds_the_level_at_any_stop(self, kind: str) -> None:
        rng = np.random.default_rng(5)
        weights = np.stack([rank.rank_weights(self.C - 1, slope) for slope in rank.SLOPES])
        m, k = np.zeros(self.AUDITS, dtype=int), np.zeros(self.AUDITS, dtype=int)
        products = np.zeros((self.AUDITS, len(rank.SLOPES)))
        table = np.array(
            [[float(sequential.log_e(min(h, n), n, 1 / 5)) for h in range(self.KEYS + 1)] for n in range(self.KEYS + 1)]
        )
        claimed = np.zeros(self.AUDITS, dtype=bool)
        seen = np.zeros((self.AUDITS, self.C))
        rows = np.arange(self.AUDITS)
        for key in range(self.KEYS):
            own = key % self.C
            label = rng.integers(0, self.C - 1, size=self.AUDITS)
            label += label >= own
            noise = rng.normal(size=(self.AUDITS, self.C))
            scores = {"peaked": noise * 5, "flat": np.round(noise), "adaptive": seen + 0.01 * noise}[kind]
            answer = scores.argmax(axis=1)
            scores[:, own] = -np.inf
            value = scores[rows, label][:, None]
            above, tied = (scores > value).sum(axis=1), (scores == value).sum(axis=1)
            for s in range(len(rank.SLOPES)):
                sums = np.concatenate([[0.0], np.cumsum(weights[s])])
                products[:, s] += np.log((sums[above + tied] - sums[above]) / tied)
            m += answer != own
            k += answer == label
            seen[rows, label] += 1
            ranks = np.logaddexp.reduce(products, axis=1) - math.log(len(rank.SLOPES))
            claimed |= drawn_scores.average(table[m, k], ranks) >= -math.log(self.ALPHA)
        assert claimed.sum() <= stats.binom.isf(1e-4, self.AUDITS, self.ALPHA)


class TestCourse:
    def test_average_of_the_two_and_never_less_than_half_of_either(self) -> None:
        rng = np.random.default_rng(3)
        natural, drawn = [0] * 30, rng.integers(1, 10, size=30).tolist()
        answers = []
        for label in drawn:
            values = rng.normal(size=10)
            values[label] += 1.5
            values[0] += 4
            answers.append(scored(values.tolist()))
        outcomes = [None if a.label == 0 else a.label == y for a, y in zip(answers, drawn, strict=True)]
        labels = sequential.run(outcomes, null_rate=1 / 9, alpha=1e-6, p_min=0.3, futility=0.01)
        path = drawn_scores.rank_path(drawn_scores.rank_tables(answers, natural=natural, n_classes=10), drawn)
        places = [
            rank.rank_factors(rank.place_from_scores(a.scores, natural=0, drawn=y))
            for a, y in zip(answers, drawn, strict=True)
        ]
        assert path / math.log(10) == pytest.approx(rank.mixture_outcome(places, alpha=1e-6).log10_e)
        got = drawn_scores.with_ranks(labels, path, alpha=1e-6, futility=0.01)
        for step, alone, r in zip(got.steps, labels.steps, path / math.log(10), strict=True):
            assert step.log10_e == pytest.approx(math.log10((10**alone.log10_e + 10**r) / 2))
        assert got.log10_p == -max(0.0, got.log10_e_max)

    def test_futility_waits_while_the_ranks_speak(self) -> None:
        labels = sequential.run([None] * 30, null_rate=1 / 9, alpha=1e-6, p_min=0.3, futility=0.01)
        assert labels.decision is sequential.Decision.FUTILE
        rising = np.linspace(0.1, 20, 30)
        got = drawn_scores.with_ranks(labels, rising, alpha=1e-6, futility=0.01)
        assert got.decision is sequential.Decision.REJECT
        falling = drawn_scores.with_ranks(labels, -rising, alpha=1e-6, futility=0.01)
        assert (falling.decision, falling.decided_at) == (labels.decision, labels.decided_at)


def test_placebo_draws_of_a_scores_audit_keep_the_level() -> None:
    rng = np.random.default_rng(6)
    answers = [scored(rng.normal(size=10).tolist()) for _ in range(40)]
    natural = rng.integers(0, 10, size=40).tolist()
    got = placebo_labels(
        answers=[a.label for a in answers], natural=natural, n_classes=10, alpha=0.1, p_min=0.3, futility=0.01,
        futility_rate=1 / 9, fixed=False, own_hits=0, seed=b"\x02" * 32,
        rank_tables=drawn_scores.rank_tables(answers, natural=natural, n_classes=10),
    )  # fmt: skip
    assert got.claims > 0
    assert got.within_level
