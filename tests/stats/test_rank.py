import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from auditor.stats import drawn_labels, rank
from auditor.stats.rank import Place

SCORES = st.lists(st.sampled_from([-3.0, -1.0, -0.5, 0.0, 0.25, 2.0, 5.0]), min_size=3, max_size=9)


class TestExpectationIsOne:
    """The mean over all draws of the label, for one answer held fixed: the whole of the null hypothesis."""

    @given(SCORES, st.data())
    def test_rank_form(self, scores: list[float], data: st.DataObject) -> None:
        natural = data.draw(st.integers(0, len(scores) - 1))
        factors = [
            np.exp(rank.rank_factors(rank.place_from_scores(scores, natural=natural, drawn=drawn)))
            for drawn in range(len(scores))
            if drawn != natural
        ]
        assert np.mean(factors, axis=0) == pytest.approx(np.ones(len(rank.SLOPES)), abs=1e-12)

    @given(SCORES, st.data())
    def test_soft_form(self, scores: list[float], data: st.DataObject) -> None:
        natural = data.draw(st.integers(0, len(scores) - 1))
        factors = [
            np.exp(rank.soft_factors(scores, natural=natural, drawn=drawn))
            for drawn in range(len(scores))
            if drawn != natural
        ]
        assert np.mean(factors, axis=0) == pytest.approx(np.ones(len(rank.POWERS)), abs=1e-9)

    @given(st.integers(3, 12), st.lists(st.integers(-2, 14), max_size=6), st.data())
    def test_top_lists(self, n_classes: int, listed: list[int], data: st.DataObject) -> None:
        natural = data.draw(st.integers(0, n_classes - 1))
        factors = [
            np.exp(rank.rank_factors(rank.place_from_list(listed, natural=natural, drawn=drawn, n_classes=n_classes)))
            for drawn in range(n_classes)
            if drawn != natural
        ]
        assert np.mean(factors, axis=0) == pytest.approx(np.ones(len(rank.SLOPES)), abs=1e-12)

    def test_rational_arithmetic(self) -> None:
        # Ties and unlisted labels, with weights 1/2**place.
        for candidates in range(2, 8):
            raw = [Fraction(1, 2**place) for place in range(candidates)]
            scale = candidates / sum(raw)
            for groups in itertools.product((1, 2, 3), repeat=3):
                sizes = list(itertools.accumulate(groups))
                cuts = [0, *[cut for cut in sizes if cut < candidates], candidates]
                total = Fraction(0)
                for a, b in itertools.pairwise(cuts):
                    shared = sum(raw[a:b], Fraction(0)) * scale / (b - a)
                    total += (b - a) * shared
                    got = rank.rank_factors(Place(above=a, tied=b - a, candidates=candidates), slopes=[math.log(2)])
                    assert math.exp(got[0]) == pytest.approx(float(shared), rel=1e-12)
                assert total / candidates == 1

    def test_two_keys_and_the_mixture_by_enumeration(self) -> None:
        answers = [[0.3, 0.1, 0.1, 0.5], [0.0, 0.9, 0.05, 0.05]]
        total = 0.0
        for drawn in itertools.product((1, 2, 3), (0, 2, 3)):
            factors = [
                rank.rank_factors(rank.place_from_scores(scores, natural=natural, drawn=label))
                for scores, natural, label in zip(answers, (0, 1), drawn, strict=True)
            ]
            total += 10 ** rank.mixture_outcome(factors, alpha=0.01).log10_e[-1]
        assert total / 9 == pytest.approx(1, abs=1e-12)


class TestPlaces:
    def test_ties_and_lists(self) -> None:
        assert rank.place_from_scores([9, 1, 5, 5], natural=0, drawn=2) == Place(above=0, tied=2, candidates=3)
        assert rank.place_from_scores([9, 1, 5, 5], natural=0, drawn=1) == Place(above=2, tied=1, candidates=3)
        listed = rank.place_from_list([4, 0, 7, 7, 99], natural=0, drawn=7, n_classes=10)
        assert listed == Place(above=1, tied=1, candidates=9)
        outside = rank.place_from_list([4, 0, 7], natural=0, drawn=3, n_classes=10)
        assert outside == Place(above=2, tied=7, candidates=9)

    def test_no_answer_is_neutral(self) -> None:
        place = rank.place_from_list([], natural=0, drawn=3, n_classes=10)
        assert rank.rank_factors(place) == pytest.approx(np.zeros(len(rank.SLOPES)), abs=1e-12)
        assert rank.soft_factors([0.0, -math.inf, -math.inf], natural=0, drawn=1) == pytest.approx(np.zeros(3))

    def test_refuses_what_cannot_be(self) -> None:
        for natural, drawn in ((0, 0), (0, 9), (-1, 1)):
            with pytest.raises(ValueError, match="labels"):
                rank.place_from_scores([1, 2, 3], natural=natural, drawn=drawn)
        with pytest.raises(ValueError, match="scores"):
            rank.place_from_scores([1, math.nan, 3], natural=0, drawn=1)
        with pytest.raises(ValueError, match="scores"):
            rank.soft_factors([1, math.inf, 3], natural=0, drawn=1)
        with pytest.raises(ValueError, match="places"):
            Place(above=3, tied=1, candidates=3)
        with pytest.raises(ValueError, match="weights"):
            rank.rank_weights(9, -1.0)

    @given(st.integers(2, 50), st.floats(0.0, 6.0))
    def test_weights_fall_and_average_one(self, candidates: int, slope: float) -> None:
        weights = rank.rank_weights(candidates, slope)
        assert weights.mean() == pytest.approx(1, abs=1e-12)
        assert (np.diff(weights) <= 0).all()

    def test_a_constant_offset_of_logits_does_not_matter(self) -> None:
        scores = np.asarray([3.0, -1.0, 0.5, 2.0])
        one = rank.soft_factors(scores.tolist(), natural=0, drawn=3)
        assert rank.soft_factors((scores - 700).tolist(), natural=0, drawn=3) == pytest.approx(one, abs=1e-9)


def test_level_on_a_suspect_that_adapts_to_revealed_labels() -> None:
    # Puts the last revealed label first: 100,000 audits of 20 keys, the accuser stops at the best moment.
    alpha, audits, keys, classes = 0.01, 100_000, 20, 10
    rng = np.random.default_rng(11)
    drawn = rng.integers(1, classes, (audits, keys))
    weights = np.log([rank.rank_weights(classes - 1, slope) for slope in rank.SLOPES])
    wealth, best = np.zeros((len(rank.SLOPES), audits)), np.full(audits, -np.inf)
    last = np.ones(audits, dtype=int)
    for i in range(keys):
        y = drawn[:, i]
        above = np.where(y == last, 0, np.where(y < last, y, y - 1))
        wealth += weights[:, above]
        best = np.maximum(best, np.logaddexp.reduce(wealth, axis=0) - math.log(len(rank.SLOPES)))
        last = y
    claims = int((best >= -math.log(alpha)).sum())
    assert claims <= stats.binom.isf(1e-4, audits, alpha)


TABLE = [
    (2.0, (7.0, 14, 20), (6.7, 12, 18)),
    (3.0, (4.5, 9.0, 13), (4.7, 8.5, 12)),
    (4.0, (4.1, 8.1, 11), (4.1, 7.5, 11)),
    (6.0, (4.0, 8.0, 11), (4.0, 7.0, 10)),
]


@pytest.mark.parametrize(("boost", "ranks", "probabilities"), TABLE)
def test_synthetic_suspect_table(boost: float, ranks: tuple[float, ...], probabilities: tuple[float, ...]) -> None:
    # The published weights' slopes are not stated; ours may differ by one query where whole queries rule.
    hit_rate = float(stats.norm.cdf((boost - 4) / math.sqrt(2)))
    assert rank.boost_for(hit_rate) == pytest.approx(boost)
    for soft, wanted in ((False, ranks), (True, probabilities)):
        for alpha, want in zip((1e-3, 1e-6, 1e-9), wanted, strict=True):
            got = rank.synthetic_cost(
                hit_rate=hit_rate, n_classes=10, alpha=alpha, soft=soft, seed=1, audits=500, keys=50
            )
            assert got.undecided == 0
            assert got.mean <= want * 1.06 + 4 * got.standard_error + 0.05
            assert got.mean >= want - 1.05 - 4 * got.standard_error


TOP_3 = [(2.0, (7.2, 14, 20)), (3.0, (4.5, 9.1, 13)), (4.0, (4.1, 8.1, 11)), (6.0, (4.0, 8.0, 11))]


@pytest.mark.parametrize(("boost", "wanted"), TOP_3)
def test_top_3_column_of_the_synthetic_table(boost: float, wanted: tuple[float, ...]) -> None:
    # The slopes behind the published column are not stated, and the cost at rare hits depends on them: ours needs up to
    # 7 % or one query more or less. Column 0 is the drawn label, column 9 the natural one.
    audits, keys, rng = 600, 60, np.random.default_rng(1)
    logits = rng.standard_normal((audits, keys, 10))
    logits[..., 0] += boost
    logits[..., 9] += 4
    order = np.argsort(-logits, axis=-1)
    factors = {}
    path = np.empty((audits, keys, len(rank.SLOPES)))
    for index in np.ndindex(audits, keys):
        listed = tuple(int(label) for label in order[index][:3])
        above = [label for label in listed if label != 9]
        kind = (above.index(0) if 0 in above else -1, len(above))
        if kind not in factors:
            factors[kind] = rank.rank_factors(rank.place_from_list(listed, natural=9, drawn=0, n_classes=10))
        path[index] = factors[kind]
    evidence = np.logaddexp.reduce(np.cumsum(path, axis=1), axis=2) - math.log(len(rank.SLOPES))
    for alpha, want in zip((1e-3, 1e-6, 1e-9), wanted, strict=True):
        reached = evidence >= -math.log(alpha) - 1e-12
        assert reached.any(axis=1).all()
        stops = reached.argmax(axis=1) + 1
        error = stops.std() / math.sqrt(audits)
        assert want - 1.05 - 4 * error <= stops.mean() <= want * 1.07 + 4 * error + 0.05


@pytest.mark.parametrize("alpha", [1e-3, 1e-6, 1e-9])
def test_scores_cost_at_most_a_fifth_of_labels_when_hits_are_rare(alpha: float) -> None:
    labels = drawn_labels.drawn_label_forecast(alpha=alpha, n_classes=10, hit=0.08, natural=0.91)
    # The published rates .08 and .91 are rounded; a deviating share of .087 instead of .09 is 4 % more queries.
    assert labels.mean == pytest.approx({1e-3: 60, 1e-6: 111, 1e-9: 164}[alpha], rel=0.06)
    for soft in (False, True):
        got = rank.synthetic_cost(hit_rate=0.08, n_classes=10, alpha=alpha, soft=soft, seed=2, audits=500, keys=60)
        assert got.mean + 4 * got.standard_error <= labels.mean / 5


def test_outcome_of_nothing_and_of_a_claim() -> None:
    nothing = rank.mixture_outcome([], alpha=0.01)
    assert (nothing.log10_e, nothing.decided_at, nothing.log10_p) == ((), None, 0.0)
    best = [rank.rank_factors(Place(above=0, tied=1, candidates=9))] * 6
    got = rank.mixture_outcome(best, alpha=1e-3)
    assert got.decided_at == 4
    assert got.log10_p == -max(got.log10_e)
    with pytest.raises(ValueError, match="alpha"):
        rank.mixture_outcome(best, alpha=0.0)


@settings(max_examples=25)
@given(st.lists(st.integers(0, 8), min_size=1, max_size=30), st.integers(1, 29))
def test_evidence_does_not_depend_on_batching(places: list[int], cut: int) -> None:
    factors = [rank.rank_factors(Place(above=place, tied=1, candidates=9)) for place in places]
    whole = rank.mixture_outcome(factors, alpha=1e-6)
    part = rank.mixture_outcome(factors[:cut], alpha=1e-6)
    assert part.log10_e == pytest.approx(whole.log10_e[:cut])


def test_refuses_forecasts_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="hit rate"):
        rank.boost_for(1.0)
    with pytest.raises(ValueError, match="level"):
        rank.synthetic_cost(hit_rate=0.5, n_classes=2, alpha=0.1, soft=False, seed=1)
