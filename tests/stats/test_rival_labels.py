"""Coins between two classes: what an answer prefers, exact laws by enumeration, the smallest rate told apart."""

from itertools import product
from math import comb, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from auditor.records import Answer
from auditor.stats.rival_labels import key_outcomes, preference, redraw_coins, smallest_rate
from auditor.stats.sequential import run


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (None, None),
        (Answer(label=2), 2),
        (Answer(label=5), 5),
        (Answer(label=3), None),
        (Answer(label=9), None),
        # The first label decides where it is one of the two, whatever the scores say.
        (Answer(label=2, scores=(0, 0, 0.1, 0, 0, 0.9)), 2),
        (Answer(label=3, scores=(0, 0, 0.2, 0.5, 0, 0.3)), 5),
        (Answer(label=3, scores=(0, 0, 0.3, 0.5, 0, 0.2)), 2),
        (Answer(label=3, scores=(0, 0, 0.2, 0.6, 0, 0.2)), None),
        # A score for one of the two alone: a list of the largest leaves out smaller ones.
        (Answer(label=3, scores=(0, 0, 0.2, 0.8)), 2),
        (Answer(label=3, top=((3, 0.5), (5, 0.3))), 5),
        (Answer(label=3, top=((3, 0.5), (5, 0.2), (2, 0.3))), 2),
        (Answer(label=3, top=((3, 0.5), (5, 0.2), (2, 0.2))), None),
        (Answer(label=3, top=((3, 0.5), (4, 0.2))), None),
    ],
)
def test_what_an_answer_prefers(answer, expected):
    assert preference(answer, natural=2, rival=5) == expected
    # It does not matter which of the two is called the natural one.
    assert preference(answer, natural=5, rival=2) == expected


def test_missing_answers_are_misses_and_the_rest_says_nothing():
    answers = [Answer(label=0), Answer(label=1), Answer(label=2), None]
    found = key_outcomes(natural=[0] * 4, rival=[1] * 4, answers=answers, labels=[1, 1, 1, 1])
    assert found == (False, True, None, False)


def test_contradictory_keys_are_refused():
    one = {"natural": [0], "answers": [None]}
    with pytest.raises(ValueError, match="two different classes"):
        key_outcomes(rival=[0], labels=[0], **one)
    with pytest.raises(ValueError, match="two different classes"):
        key_outcomes(rival=[1], labels=[2], **one)
    with pytest.raises(ValueError, match="every key"):
        key_outcomes(rival=[1], labels=[1, 1], **one)


@given(st.lists(st.sampled_from([None, 0, 1, 2, 3, 7]), min_size=1, max_size=7), st.data())
def test_hits_follow_the_binomial_law_whatever_was_answered(given_labels, data):
    """Every combination of coins is as likely: enumerated, hits among n answers that count are Bin(n, 1/2)."""
    pairs = [data.draw(st.permutations(range(4)))[:2] for _ in given_labels]
    answers = [None if label is None else Answer(label=label) for label in given_labels]
    counted, hits = set(), []
    for coins in product((0, 1), repeat=len(pairs)):
        labels = [pair[coin] for pair, coin in zip(pairs, coins, strict=True)]
        found = key_outcomes(natural=[a for a, _ in pairs], rival=[b for _, b in pairs], answers=answers, labels=labels)
        counted.add(tuple(outcome is not None for outcome in found))
        hits.append(found.count(True))
    assert len(counted) == 1, "what is bet on must not depend on the coins"
    bets = sum(counted.pop()) - sum(answer is None for answer in answers)
    for k in range(bets + 1):
        assert hits.count(k) * 2**bets == comb(bets, k) * 2 ** len(pairs)


def test_coins_drawn_again_are_fair_independent_and_repeatable():
    coins = redraw_coins(n_keys=50, seed=bytes(32), draws=2000)
    assert coins.shape == (2000, 50)
    assert np.array_equal(coins, redraw_coins(n_keys=50, seed=bytes(32), draws=2000))
    assert set(np.unique(coins)) == {0, 1}
    assert stats.binomtest(int(coins.sum()), coins.size, 0.5).pvalue > 1e-4
    pairs = coins[:, ::2] * 2 + coins[:, 1::2]
    assert stats.chisquare(np.bincount(pairs.ravel())).pvalue > 1e-4


@pytest.mark.parametrize("n_keys", [60, 120, 300, 500])
def test_the_smallest_rate_is_excluded_for_most_innocents_and_seldom_for_a_copy_at_it(n_keys):
    rate = smallest_rate(n_keys)
    assert 0.56 <= rate <= 0.75
    rng, trials = np.random.default_rng(n_keys), 150

    def share(p, decision):
        found = [
            run((rng.random(n_keys) < p).tolist(), null_rate=0.5, alpha=1e-6, p_min=rate, futility=0.01).decision
            for _ in range(trials)
        ]
        return sum(each == decision for each in found) / trials

    assert share(0.5, "futile") > 0.6
    assert share(rate, "futile") <= 0.01 + 3 * (0.01 / trials) ** 0.5
    # What it stands for: the distance that ln(100) nats exclude on average, and some more.
    assert log(100) / (2 * n_keys) < (rate - 0.5) ** 2 or rate == 0.75
