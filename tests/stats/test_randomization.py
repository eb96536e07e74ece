import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.draws import DrawStream
from auditor.stats import randomization

SEED = bytes(range(32))


def derangements(n: int) -> list[tuple[int, ...]]:
    return [p for p in itertools.permutations(range(n)) if all(i != j for i, j in enumerate(p))]


class TestPatternRank:
    @pytest.mark.parametrize(
        ("own", "shams", "at_least", "p_value"),
        [(9, [0] * 19, 0, 0.05), (9, [9, 10, 8], 2, 0.75), (0, [0, 0], 2, 1.0), (3, [], 0, 1.0)],
    )
    def test_counts_ties_against_the_owner(self, own: int, shams: list[int], at_least: int, p_value: float) -> None:
        got = randomization.pattern_rank(own_hits=own, sham_hits=shams)
        assert (got.at_least_as_high, got.patterns, got.p_value) == (at_least, len(shams), p_value)

    def test_level_when_all_patterns_are_exchangeable(self) -> None:
        rng = np.random.default_rng(3)
        rates = rng.beta(1, 4, size=(20_000, 1))
        counts = rng.binomial(20, rates, size=(20_000, 20))
        p_values = [
            randomization.pattern_rank(own_hits=int(row[0]), sham_hits=row[1:].tolist()).p_value for row in counts
        ]
        n_claims = sum(p <= 0.05 for p in p_values)
        assert n_claims <= stats.binom.isf(1e-4, 20_000, 0.05)

    def test_refuses_negative_counts(self) -> None:
        with pytest.raises(ValueError, match="negative"):
            randomization.pattern_rank(own_hits=-1, sham_hits=[0])
        with pytest.raises(ValueError, match="negative"):
            randomization.pattern_rank(own_hits=1, sham_hits=[0, -2])


class TestDrawDerangements:
    @pytest.mark.parametrize(("n_classes", "draws"), [(2, 50), (3, 700), (10, 2500), (43, 90), (100, 40)])
    def test_equals_drawing_one_at_a_time(self, n_classes: int, draws: int) -> None:
        stream = DrawStream(SEED)
        want = [stream.derangement(n_classes) for _ in range(draws)]
        got = randomization.draw_derangements(seed=SEED, n_classes=n_classes, draws=draws)
        assert got.shape == (draws, n_classes)
        assert [tuple(row) for row in got.tolist()] == want

    def test_a_rejected_word_falls_back_to_single_draws(self, monkeypatch: pytest.MonkeyPatch) -> None:
        class Rigged(DrawStream):
            def octets(self, n: int) -> bytes:
                data = super().octets(n)
                first = not hasattr(self, "_started")
                self._started = True
                # The largest word must be rejected when it is reduced modulo 3.
                return b"\xff" * 8 + data[8:] if first else data

        monkeypatch.setattr(randomization, "DrawStream", Rigged)
        stream = Rigged(SEED)
        want = [stream.derangement(3) for _ in range(20)]
        got = randomization.draw_derangements(seed=SEED, n_classes=3, draws=20)
        assert [tuple(row) for row in got.tolist()] == want

    def test_is_uniform_over_all_derangements(self) -> None:
        got = randomization.draw_derangements(seed=SEED, n_classes=4, draws=18_000)
        counts = dict.fromkeys(derangements(4), 0)
        for row in got.tolist():
            counts[tuple(row)] += 1
        assert len(counts) == 9
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4

    def test_needs_two_classes(self) -> None:
        with pytest.raises(ValueError, match="two"):
            randomization.draw_derangements(seed=SEED, n_classes=1, draws=3)


class TestDerangementTest:
    def test_agrees_with_enumerating_all_codes(self) -> None:
        rng = np.random.default_rng(5)
        code = (1, 2, 3, 4, 0)
        natural = rng.integers(0, 5, size=25).tolist()
        answers = [code[c] if rng.random() < 0.35 else int(rng.integers(0, 5)) for c in natural]
        draws = 40_000
        got = randomization.derangement_test(
            natural=natural,
            answers=answers,
            code=[code[c] for c in natural],
            n_classes=5,
            seed=SEED,
            draws=draws,
        )
        every = [sum(a == p[c] for a, c in zip(answers, natural, strict=True)) for p in derangements(5)]
        assert got.hits == sum(a == code[c] for a, c in zip(answers, natural, strict=True))
        assert got.trials == 25
        share = sum(h >= got.hits for h in every) / len(every)
        low, high = stats.binom.interval(1 - 1e-4, draws, share)
        assert low <= got.at_least_as_high <= high
        assert got.p_value == (1 + got.at_least_as_high) / (draws + 1)

    def test_a_followed_code_reaches_the_smallest_p_value(self) -> None:
        code = DrawStream(bytes(32)).derangement(10)
        natural = [i % 10 for i in range(30)]
        followed = [code[c] for c in natural]
        got = randomization.derangement_test(
            natural=natural, answers=followed, code=followed, n_classes=10, seed=SEED, draws=99_999
        )
        assert (got.hits, got.at_least_as_high, got.p_value) == (30, 0, 1e-5)

    def test_labels_outside_the_natural_classes_never_hit(self) -> None:
        got = randomization.derangement_test(
            natural=[0, 1, 2], answers=[-1, 3, 99], code=[1, 2, 0], n_classes=3, seed=SEED, draws=99
        )
        assert (got.hits, got.trials, got.p_value) == (0, 3, 1.0)

    def test_nothing_asked_shows_nothing(self) -> None:
        got = randomization.derangement_test(natural=[], answers=[], code=[], n_classes=3, seed=SEED, draws=99)
        assert (got.hits, got.trials, got.p_value) == (0, 0, 1.0)

    def test_level_for_suspects_with_habits(self) -> None:
        # Innocent answers that depend on the class in a systematic way; only the code is random.
        stream = DrawStream(b"\x07" * 32)
        natural = [i % 6 for i in range(24)]
        answers = [(c + 1) % 6 if i % 3 else c for i, c in enumerate(natural)]
        p_values = []
        for i in range(1500):
            code = stream.derangement(6)
            got = randomization.derangement_test(
                natural=natural,
                answers=answers,
                code=[code[c] for c in natural],
                n_classes=6,
                seed=i.to_bytes(32, "big"),
                draws=99,
            )
            p_values.append(got.p_value)
        for level in (0.2, 0.05):
            assert sum(p <= level for p in p_values) <= stats.binom.isf(1e-4, 1500, level)

    @given(st.integers(0, 2**32), st.integers(1, 30))
    def test_is_reproducible_and_within_range(self, number: int, n_keys: int) -> None:
        seed = number.to_bytes(32, "little")
        natural = [(number + 3 * i) % 7 for i in range(n_keys)]
        answers = [(number * i) % 8 for i in range(n_keys)]
        code = [(c + 2) % 7 for c in natural]
        first, second = (
            randomization.derangement_test(
                natural=natural, answers=answers, code=code, n_classes=7, seed=seed, draws=60
            )
            for _ in range(2)
        )
        assert first == second
        assert 1 / 61 <= first.p_value <= 1.0

    @pytest.mark.parametrize(
        ("natural", "answers", "code", "draws"),
        [
            ([0], [1, 2], [1], 9),
            ([0], [1], [0], 9),
            ([0], [1], [3], 9),
            ([3], [1], [1], 9),
            ([0, 0], [1, 1], [1, 2], 9),
            ([0, 1], [1, 1], [2, 2], 9),
            ([0], [1], [1], 0),
        ],
    )
    def test_refuses_what_is_not_a_derangement(
        self, natural: list[int], answers: list[int], code: list[int], draws: int
    ) -> None:
        with pytest.raises(ValueError, match=r"code|length|draws"):
            randomization.derangement_test(
                natural=natural, answers=answers, code=code, n_classes=3, seed=SEED, draws=draws
            )
