import dataclasses
from math import log10

import numpy as np
import pytest
from protocols import KEYSET, NEW_LABEL, SPEC, SUSPECT, a_protocol, reply, samples_of
from scipy import stats

from auditor.analysis import decide_keys, measure_null, sort_replies, spend
from auditor.canonical import canonical_bytes
from auditor.evidence.schedule import draw_schedule
from auditor.records import Answer, Design, Reply, SampleKind
from auditor.results import analyse, power_of_ten


def run(protocol, answer_of, *, max_keys=None, closed_reason="decided", code=False, n_classes=4, family=1):
    """Ask everything that is planned; ``answer_of(sample, repeat)`` gives a label, a whole answer or None."""
    samples = samples_of(protocol, code=code, n_classes=n_classes)
    replies = []
    for probe in draw_schedule(protocol):
        label = answer_of(samples[probe.index], probe.repeat)
        answer = Answer(label=label) if isinstance(label, int) else label
        replies.append(Reply(probe=probe, answer=answer))
    return analyse(
        protocol=protocol,
        spec=dataclasses.replace(SPEC, classes=tuple("abcdefghij"[:n_classes])),
        keyset=KEYSET,
        suspect=SUSPECT,
        samples=samples,
        replies=replies,
        alpha=protocol.alpha,
        max_keys=max_keys or protocol.n_keys,
        closed_reason=closed_reason,
        deviations=(),
        family=family,
    )


def marked(sample, repeat):
    return NEW_LABEL if sample.kind is SampleKind.KEY else sample.natural


def innocent(sample, repeat):
    return sample.natural


def test_a_marked_suspect_is_supported_and_an_innocent_is_not():
    assert run(a_protocol(), marked)["verdict"]["status"] == "supported"
    assert run(a_protocol(), innocent)["verdict"]["status"] == "not supported"


def test_results_can_be_signed():
    results = run(a_protocol(), marked)
    assert canonical_bytes(results) == canonical_bytes(run(a_protocol(), marked))


def test_null_rate_is_the_exact_upper_bound_of_the_shams():
    results = run(a_protocol(), marked)
    assert float(results["null"]["rate"]) == pytest.approx(1 - (5e-7) ** (1 / 200), rel=1e-12)
    floored = run(a_protocol(null_floor=0.2), marked)
    assert floored["null"]["rate"] == "0.2"
    assert floored["null"]["basis"] == "sealed floor"


def test_p_value_includes_what_the_null_bound_costs():
    test = run(a_protocol(), marked)["test"]
    whole = 10.0 ** float(test["log10_test_p"]) + 5e-7
    assert float(test["log10_p"]) == pytest.approx(log10(whole), abs=1e-9)
    assert float(test["log10_p"]) >= log10(5e-7)


def test_grinding_allowance_is_charged_to_the_level():
    test = run(a_protocol(grinding_log2=8), marked)["test"]
    assert float(test["alpha_test"]) == pytest.approx(0.5e-6 / 256)
    # The p-value that is compared with the uncharged level carries the tries as a factor.
    whole = 10.0 ** float(test["log10_test_p"]) + 0.5e-6 / 256
    assert float(test["log10_p"]) == pytest.approx(log10(256 * whole), abs=1e-9)


def test_a_family_of_questions_divides_the_level_and_multiplies_the_p_value():
    plain, charged = (run(a_protocol(null_floor=0.2), marked, family=n) for n in (1, 20))
    assert float(charged["test"]["alpha_test"]) == pytest.approx(float(plain["test"]["alpha_test"]) / 20)
    whole = 10.0 ** float(charged["test"]["log10_test_p"]) + 5e-7 / 20
    assert float(charged["test"]["log10_p"]) == pytest.approx(log10(20 * whole), abs=1e-9)
    assert charged["multiplicity"]["family"] == 20
    decided = charged["queries"]["keys_until_decision"]
    stepped = float(charged["test"]["steps"][decided - 1]["log10_e"])
    assert float(charged["opinion"]["log10_lr_model"]) == pytest.approx(stepped - log10(20), abs=1e-9)


def test_a_claim_within_a_family_keeps_the_level_of_the_whole_family():
    # Twenty innocent suspects at a hit rate equal to the null rate; any false claim counts against the 5 % of all.
    rng = np.random.default_rng(12)
    protocol = a_protocol(alpha=0.05, n_shams=60, n_sham_patterns=60, null_floor=0.2, p_min=0.5)
    samples, family, matters, wrong = samples_of(protocol), 20, 40, 0
    levels = spend(protocol.alpha / family, protocol, SPEC)
    for _ in range(matters):
        claimed = False
        for _ in range(family):
            hit = rng.random(120) < 0.2
            replies = [reply(samples[i], NEW_LABEL if hit[i] else samples[i].natural) for i in range(120)]
            grouped = sort_replies(replies)
            null = measure_null(grouped, samples, levels, protocol, SPEC)
            claimed |= decide_keys(grouped, samples, null, levels, protocol, SPEC).rejected
        wrong += claimed
    assert stats.binomtest(wrong, matters, protocol.alpha, alternative="greater").pvalue > 1e-3


def test_grinding_allowance_is_charged_to_the_likelihood_ratio():
    plain, charged = (run(a_protocol(grinding_log2=g, null_floor=0.2), marked) for g in (0, 8))
    decided = charged["queries"]["keys_until_decision"]
    stepped = float(charged["test"]["steps"][decided - 1]["log10_e"])
    assert float(charged["opinion"]["log10_lr_model"]) == pytest.approx(stepped - 8 * log10(2), abs=1e-9)
    assert float(plain["opinion"]["log10_lr_model"]) >= 6


def test_a_missing_key_is_a_miss_and_a_missing_sham_a_hit():
    protocol = a_protocol(max_failed_share=1.0, obstruction_alpha=1e-300)
    results = run(protocol, lambda s, r: None if s.kind is SampleKind.KEY else s.natural)
    assert results["detection"]["hits"] == 0
    assert results["queries"]["failed"] >= 60
    hidden = run(protocol, lambda s, r: None if s.kind is SampleKind.SHAM and s.index % 10 == 0 else marked(s, r))
    assert hidden["null"]["shams"]["hits"] == 20
    assert float(hidden["null"]["rate"]) == pytest.approx(stats.beta.isf(5e-7, 21, 180))


def test_refusing_keys_is_obstruction_by_fishers_exact_test():
    protocol = a_protocol(max_failed_share=1.0)
    results = run(protocol, lambda s, r: None if s.kind is SampleKind.KEY and s.index % 2 else s.natural)
    assert results["verdict"]["reason"] == "obstructed"
    table = [[30, 30], [0, 40]]
    expected = stats.fisher_exact(table, alternative="greater").pvalue
    assert float(results["controls"]["missing"]["obstruction_log10_p"]) == pytest.approx(log10(expected), rel=1e-9)


def test_labels_that_their_own_scores_contradict_count_as_withheld():
    def with_scores(label):
        return Answer(label=label, top=((NEW_LABEL, 0.6), (label, 0.4)))

    protocol = a_protocol(max_failed_share=1.0)
    results = run(protocol, lambda s, r: with_scores(s.natural) if s.kind is SampleKind.KEY else s.natural)
    assert results["verdict"]["reason"] == "obstructed"
    missing = results["controls"]["missing"]
    assert (missing["keys"], missing["contradictory_keys"], missing["contradictory_controls"]) == (0, 60, 0)
    expected = stats.fisher_exact([[60, 0], [0, 40]], alternative="greater").pvalue
    assert float(missing["obstruction_log10_p"]) == pytest.approx(log10(expected), rel=1e-9)
    # A service that contradicts itself on ordinary images too, by a threshold of its own, hides nothing by it.
    everywhere = run(protocol, lambda s, r: with_scores(s.natural))
    assert everywhere["verdict"]["reason"] == "hit-rate-excluded"


@pytest.mark.parametrize(
    ("answer", "contradicts"),
    [
        (Answer(label=1), False),
        (Answer(label=1, scores=(0.2, 0.5, 0.3)), False),
        (Answer(label=1, scores=(0.5, 0.5, 0.0)), False),
        (Answer(label=2, scores=(0.2, 0.5, 0.3)), True),
        (Answer(label=7, scores=(0.2, 0.5, 0.3)), False),
        (Answer(label=7, top=((7, 0.1), (2, 0.3))), True),
        (Answer(label=7, top=((2, 0.3),)), False),
    ],
)
def test_an_answer_contradicts_itself_where_another_label_scores_higher(answer, contradicts):
    assert answer.contradicts_itself is contradicts


def test_a_suspect_that_does_not_know_the_task_is_inconclusive():
    results = run(a_protocol(), lambda s, r: NEW_LABEL)
    assert results["verdict"]["status"] == "inconclusive"
    assert results["verdict"]["reason"] == "controls-failed"


def test_a_suspect_that_answers_noise_with_the_label_is_not_convicted():
    # A rival with an "other" class that fires on every pattern: the shams show it.
    results = run(a_protocol(), lambda s, r: s.natural if s.kind is SampleKind.CONTROL else NEW_LABEL)
    assert results["verdict"]["reason"] == "null-uncalibrated"


def test_unstable_answers_are_inconclusive():
    results = run(a_protocol(), lambda s, r: (s.natural + 1) % 4 if r else marked(s, r))
    assert results["verdict"]["reason"] == "answers-unstable"


def test_a_hidden_label_is_found_by_the_code():
    def masked(sample, repeat):
        return sample.code if sample.kind is SampleKind.KEY else sample.natural

    results = run(a_protocol(), masked, code=True, n_classes=8)
    assert results["verdict"]["status"] == "inconclusive"
    assert results["verdict"]["reason"] == "label-hidden"
    # 8 classes have 14833 derangements, of which only the sealed one fits every answer.
    assert float(results["label_code"]["p_value"]) == pytest.approx(1 / 14833, rel=1)


def test_a_code_over_few_classes_has_no_power_and_claims_none():
    def masked(sample, repeat):
        return sample.code if sample.kind is SampleKind.KEY else sample.natural

    results = run(a_protocol(), masked, code=True)
    # 4 classes have nine derangements.
    assert float(results["label_code"]["p_value"]) == pytest.approx(1 / 9, rel=0.05)
    assert results["verdict"]["reason"] == "hit-rate-excluded"


def test_fixed_design_is_the_exact_binomial_tail():
    protocol = a_protocol(design=Design.FIXED)
    hits = 20
    results = run(protocol, lambda s, r: marked(s, r) if s.kind is not SampleKind.KEY or s.index < hits else s.natural)
    null_rate = float(results["null"]["rate"])
    tail = stats.binom.sf(hits - 1, 60, null_rate)
    assert float(results["test"]["log10_test_p"]) == pytest.approx(log10(tail), rel=1e-9)
    assert (results["verdict"]["status"] == "supported") == (tail <= 5e-7)


def test_order_of_interrupted_and_underpowered():
    assert run(a_protocol(), marked, closed_reason="interrupted")["verdict"]["reason"] == "interrupted"
    assert run(a_protocol(), marked, closed_reason="underpowered")["verdict"]["reason"] == "plan-underpowered"


def test_powers_of_ten_never_print_zero_p_values():
    assert power_of_ten(-2000.0) == "10^-2000.0"
    assert power_of_ten(-6.0) == "1e-06"


@pytest.mark.parametrize("rate", [0.0, 0.02, 0.1, 0.25])
def test_level_of_the_whole_procedure_on_innocent_suspects(rate):
    """Suspects that answer keys and shams with the label at the same rate; the level is 0.05 in all."""
    protocol = a_protocol(alpha=0.05, n_shams=60, n_sham_patterns=60, n_keys=60, opening_keys=20)
    samples = samples_of(protocol)
    levels = spend(protocol.alpha, protocol, SPEC)
    rng = np.random.default_rng(2026)
    n_audits, claims = 1500, 0
    ordered = [samples[i] for i in range(120)]
    for _ in range(n_audits):
        hit = rng.random(120) < rate
        replies = [reply(s, NEW_LABEL if hit[i] else s.natural) for i, s in enumerate(ordered)]
        grouped = sort_replies(replies)
        null = measure_null(grouped, samples, levels, protocol, SPEC)
        claims += decide_keys(grouped, samples, null, levels, protocol, SPEC).rejected
    assert stats.binomtest(claims, n_audits, protocol.alpha, alternative="greater").pvalue > 1e-3


def test_foreign_patterns_in_the_keys_place_are_never_claimed_on_a_copy():
    placebo = run(a_protocol(), marked)["placebo"]
    assert (placebo["draws"], placebo["claims"]) == (40, 0)
    # Five hits at the null rate in force: what one pattern could have reached at most.
    assert float(placebo["reach_log10_e"]) == pytest.approx(5 * log10(1 / 0.07), abs=1)
    assert placebo["rank_p_value"] is None


def test_a_pattern_that_verifies_by_itself_is_counted():
    # One foreign pattern of two answers the label always; it alone would have been claimed in the key's place.
    protocol = a_protocol(n_shams=200, n_sham_patterns=2, alpha=0.05, null_floor=0.2)
    first = {s.index for s in samples_of(protocol).values() if s.pattern == 0}
    placebo = run(protocol, lambda s, r: NEW_LABEL if s.index in first else marked(s, r))["placebo"]
    assert (placebo["draws"], placebo["claims"]) == (2, 1)


def test_a_protocol_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        a_protocol().alpha = 0.5
