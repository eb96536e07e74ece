"""The summary against hand-made records; intervals against scipy."""

import math
from dataclasses import replace

import pytest
from scipy import stats

from auditor.stats import sequential
from auditor.study.page import recommendation
from auditor.study.runner import Trial
from auditor.study.summary import breaking_rate, keys_for_rate, keys_needed, summarise
from auditor.study.trials import InnocentSpec, OwnerSpec, Role, TrialRecord, TrialSpec

OWNER = OwnerSpec(data="digits", scheme="new-label", settings={}, architecture="small-cnn", seed=1)
RECORD = TrialRecord(
    key="", scheme="new-label", role="surrogate", seed=1, attack="prune", settings={},
    accuracy_before=0.9, accuracy_after=0.8, training_queries=0, status="supported", reason="null-rejected",
    hits=6, asked=6, all_hits=100, all_bets=110,
    n_keys=120, null_basis="sham-patterns", null_rate=0.07, alpha=5e-7, p_min=0.3, log10_p=-6.3,
    keys_until_decision=6, total_queries=300, seconds=1.0,
    tool_version="0",
)  # fmt: skip


def trial(*, seed=1, role=Role.SURROGATE, title="pruned", innocent=None, error="", **changes):
    spec = TrialSpec(
        owner=replace(OWNER, seed=seed), scheme_title="ours", role=role, suspect_title=title, attack="prune",
        strength=0.5,
        innocent=None if innocent is None else InnocentSpec(data="d", architecture="a", seed=innocent),
    )  # fmt: skip
    record = None if error else replace(RECORD, key=spec.key, seed=seed, role=role.value, **changes)
    return Trial(spec=spec, record=record, error=error)


def at_rate(rate):
    return keys_for_rate(rate, null_rate=0.07, alpha=5e-7, p_min=0.3, power=0.99)


def innocent(seed, owner_seed, status="not supported"):
    return trial(seed=owner_seed, role=Role.INNOCENT, title="innocent", innocent=seed, status=status, all_hits=0)


def test_power_is_counted_with_its_exact_interval():
    trials = [trial(seed=s) for s in range(8)] + [
        trial(seed=8, status="not supported", keys_until_decision=20),
        trial(seed=9, status="inconclusive", keys_until_decision=None),
        trial(seed=10, error="the loss is NaN"),
    ]
    (scheme,) = summarise(trials, power=0.99)
    (row,) = scheme.suspects
    assert (row.trials, row.failed, row.supported, row.not_supported, row.inconclusive) == (10, 1, 8, 1, 1)
    law = stats.binomtest(8, 10).proportion_ci(0.95, method="exact")
    assert (row.power.low, row.power.high) == pytest.approx((law.low, law.high))
    assert row.decided_at == (6,) * 8
    assert row.keys_until_decision == 6


def test_the_unit_of_false_claims_is_the_model_not_the_audit():
    trials = [trial()]
    trials += [innocent(100 + i, owner_seed) for i in range(20) for owner_seed in (1, 2, 3)]
    (scheme,) = summarise(trials, power=0.99)
    assert (scheme.false_claims.false_claims, scheme.false_claims.models) == (0, 20)
    assert scheme.false_claims.upper == pytest.approx(1 - 0.05 ** (1 / 20))
    assert scheme.innocents.trials == 60


def test_one_claim_against_a_model_by_any_owner_counts_it():
    trials = [trial(), innocent(100, 1), innocent(100, 2, status="supported"), innocent(101, 1), innocent(101, 2)]
    (scheme,) = summarise(trials, power=0.99)
    assert (scheme.false_claims.false_claims, scheme.false_claims.models) == (1, 2)


def test_the_recommendation_rests_on_the_weakest_seed():
    trials = [trial(seed=1, all_hits=118), trial(seed=2, all_hits=60)]
    (scheme,) = summarise(trials, power=0.99)
    assert scheme.suspects[0].keys_needed == at_rate(0.5)
    assert scheme.recommended_keys == scheme.suspects[0].keys_needed


def test_a_suspect_nobody_can_recognise_is_named_and_not_counted():
    trials = [trial(title="pruned"), trial(title="distilled", all_hits=5)]
    (scheme,) = summarise(trials, power=0.99)
    assert scheme.hopeless == ("distilled",)
    assert scheme.recommended_keys is not None


def test_the_recommended_number_has_the_power_and_one_key_less_has_not():
    needed = at_rate(0.5)
    powers = [
        sequential.operating(rate=0.5, null_rate=0.07, alpha=5e-7, p_min=0.3, futility=0.01, cap=cap).reject
        for cap in (needed - 1, needed)
    ]
    assert powers[0] < 0.99 <= powers[1]


def test_below_the_breaking_rate_no_number_of_keys_is_enough():
    limit = breaking_rate([RECORD], power=0.99)
    assert at_rate(limit) is not None
    assert at_rate(limit - 0.002) is None


def test_drawn_labels_need_keys_for_the_answers_that_deviate():
    drawn = replace(RECORD, null_basis="drawn-labels", null_rate=1 / 9, p_min=0.1, n_keys=100, all_hits=30)
    often, seldom = (keys_needed(replace(drawn, all_bets=n), power=0.99) for n in (100, 40))
    assert seldom < often, "fewer deviating answers with the same hits are stronger evidence"
    counted = 1
    while (
        sequential.operating(rate=0.75, null_rate=1 / 9, alpha=5e-7, p_min=0.75, futility=1e-300, cap=counted).reject
        < 0.99
    ):
        counted += 1
    assert seldom == math.ceil(counted / 0.4)


def test_drawn_labels_below_the_rate_at_which_an_audit_gives_up_are_hopeless():
    drawn = replace(RECORD, null_basis="drawn-labels", null_rate=1 / 9, p_min=0.1, n_keys=100, all_bets=9)
    assert keys_needed(replace(drawn, all_hits=9), power=0.99) is None
    assert breaking_rate([drawn], power=0.99) == 0.1


def test_without_any_record_there_is_nothing_to_recommend():
    (scheme,) = summarise([trial(error="killed")], power=0.99)
    assert scheme.recommended_keys is None
    assert scheme.suspects[0].power is None
    assert scheme.false_claims is None


@pytest.mark.parametrize(("basis", "told"), [("sham-patterns", False), ("drawn-labels", True)])
def test_a_forecast_from_labels_says_so(basis, told):
    (scheme,) = summarise([trial(null_basis=basis)], power=0.99)
    assert ("by first labels alone" in recommendation(scheme)) == told
