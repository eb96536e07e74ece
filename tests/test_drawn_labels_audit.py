"""Audits of keys with drawn labels, from the sealed key set to the judge's re-check."""

from dataclasses import replace
from math import log, log10

import numpy as np
import pytest
from cases import KINDS, SEED, TableSuspect, TickingClock
from protocols import KEYSET, SPEC, SUSPECT, a_protocol
from scipy import stats

from auditor.analysis import basis_of, decide_keys, measure_null, plan_problem, sort_replies, spend
from auditor.audit import Request, forecast_power, run_audit, tighten
from auditor.canonical import sha256_hex
from auditor.errors import SealError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.keyset import KeySet, OpenedKeySet, pack
from auditor.evidence.schedule import draw_schedule
from auditor.evidence.seal import RandomnessSource, Seal, protocol_problem, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.records import Answer, Design, Generator, NullBasis, Probe, Protocol, Reply, Sample, SampleKind
from auditor.results import analyse
from auditor.stats.sequential import log_e
from auditor.suspects.base import Description, Exchange, RawReply

N_CLASSES = 10
TASK = replace(SPEC, classes=tuple("abcdefghij"))
EXAMINER = SigningKey.generate()


def drawn_protocol(**changes) -> Protocol:
    fixed = {
        "scheme": "margin", "null_basis": NullBasis.DRAWN_LABELS, "n_keys": 60, "opening_keys": 10, "n_shams": 0,
        "n_sham_patterns": 0, "n_controls": 30, "n_repeats": 8,
    }  # fmt: skip
    return a_protocol(**(fixed | changes))


def drawn_samples(protocol: Protocol, *, seed: int = 0, n_classes: int = N_CLASSES) -> dict[int, Sample]:
    rng = np.random.default_rng(seed)
    samples = {}
    for index in range(protocol.n_keys + protocol.n_controls):
        kind = SampleKind.KEY if index < protocol.n_keys else SampleKind.CONTROL
        natural = index % n_classes
        label = int(rng.integers(n_classes - 1))
        expected = natural if kind is SampleKind.CONTROL else label + (label >= natural)
        samples[index] = Sample(index=index, kind=kind, natural=natural, expected=expected, pattern=-1, code=-1)
    return samples


def results_of(protocol, answer_of, *, asked=None, seed=0, closed_reason="decided", spec=TASK):
    samples = drawn_samples(protocol, seed=seed, n_classes=len(spec.classes))
    replies = []
    for probe in draw_schedule(protocol)[:asked]:
        label = answer_of(samples[probe.index], probe)
        answer = None if label is None else label if isinstance(label, Answer) else Answer(label=label)
        replies.append(Reply(probe=probe, answer=answer))
    return analyse(
        protocol=protocol, spec=spec, keyset=KEYSET, suspect=SUSPECT, samples=samples, replies=replies,
        alpha=protocol.alpha, max_keys=protocol.n_keys, closed_reason=closed_reason, deviations=(),
    )  # fmt: skip


def stolen(sample: Sample, probe: Probe) -> int:
    return sample.expected


def innocent(sample: Sample, probe: Probe) -> int:
    return sample.natural


class TestResults:
    def test_a_copy_is_supported_at_the_exact_rate_with_the_whole_level(self):
        found = results_of(drawn_protocol(), stolen)
        assert found["verdict"]["status"] == "supported"
        assert float(found["null"]["rate"]) == 1 / 9
        assert found["null"]["kind"] == "drawn-labels"
        assert found["null"]["shams"] is None
        assert float(found["test"]["alpha_test"]) == 1e-6
        # Nothing is spent on a bound, so the p-value of the whole procedure is that of the test.
        assert found["test"]["log10_p"] == found["test"]["log10_test_p"]

    def test_an_innocent_suspect_that_never_deviates_is_not_supported(self):
        found = results_of(drawn_protocol(), innocent)
        assert found["verdict"]["reason"] == "hit-rate-excluded"
        assert found["detection"]["bets"]["answers"] == 0
        assert found["test"]["log10_e"] == "0.0"

    def test_a_rate_of_a_third_or_more_is_no_reason_to_refuse(self):
        # Four classes: 1/3 exceeds the sealed 0.3, and the deviating answers decide nevertheless.
        four = replace(SPEC, classes=tuple("abcd"))
        assert results_of(drawn_protocol(), stolen, spec=four)["verdict"]["status"] == "supported"
        assert results_of(drawn_protocol(), innocent, spec=four)["verdict"]["status"] == "not supported"

    def test_a_third_of_hits_among_natural_answers_suffices(self):
        # 30 % hits, otherwise natural: hopeless when all keys are counted, decided on deviating answers.
        protocol = drawn_protocol(n_keys=150, opening_keys=150)
        found = results_of(protocol, lambda s, p: s.expected if s.index % 10 < 3 else s.natural)
        assert found["verdict"]["status"] == "supported"
        counted = stats.binom.logsf(45 - 1, 150, 1 / 9) / log(10)
        assert float(found["fixed_test"]["log10_p"]) == pytest.approx(45 * log10(1 / 9))
        assert counted > -12

    def test_labels_outside_the_task_say_nothing(self):
        found = results_of(drawn_protocol(), lambda s, p: 10 if s.kind is SampleKind.KEY else s.natural)
        assert found["detection"]["bets"] == {
            "answers": 0, "hits": 0, "missing": 0,
            "what": "answers other than the carrier's natural label, missing ones counted as misses",
        }  # fmt: skip

    def test_a_missing_answer_is_a_lost_bet(self):
        protocol = drawn_protocol(max_failed_share=1.0, obstruction_alpha=1e-300)
        whole = results_of(protocol, stolen)
        lossy = results_of(
            protocol, lambda s, p: None if s.kind is SampleKind.KEY and s.index % 5 == 0 else stolen(s, p)
        )
        assert lossy["detection"]["bets"]["answers"] == whole["detection"]["bets"]["answers"]
        assert lossy["detection"]["bets"]["missing"] == lossy["queries"]["failed"] == 12
        assert float(lossy["test"]["log10_e"]) < float(whole["test"]["log10_e"])

    def test_fixed_design_is_the_tail_over_deviating_answers(self):
        protocol = drawn_protocol(design=Design.FIXED)
        found = results_of(
            protocol, lambda s, p: s.expected if s.index % 4 == 0 else s.natural, closed_reason="exhausted"
        )
        assert found["detection"]["bets"]["answers"] == 15
        assert float(found["test"]["log10_test_p"]) == pytest.approx(15 * log10(1 / 9))
        assert found["verdict"]["status"] == "supported"

    def test_forecast_is_for_the_worst_copy_and_its_limit_for_the_best(self):
        found = results_of(drawn_protocol(forecast_rate=0.6), stolen)["expected_queries"]
        assert float(found["lower_limit"]["mean"]) < float(found["forecast"]["mean"])
        assert found["bound"] is None
        assert 0.9 < float(found["forecast"]["power"]) < 1


def surrogate(sample: Sample, probe: Probe) -> Answer:
    """Scores all classes: the natural one first, the drawn one second, and never a hit."""
    scores = [0.01 + 0.001 * label for label in range(N_CLASSES)]
    scores[sample.expected] = 0.3
    scores[sample.natural] = 0.6
    return Answer(label=sample.natural, scores=tuple(scores))


class TestScores:
    def test_a_surrogate_without_a_single_hit_is_supported_by_its_scores(self):
        found = results_of(drawn_protocol(), surrogate)
        assert found["verdict"]["status"] == "supported"
        assert found["detection"]["hits"] == 0
        assert found["test"]["ranks"]["answers"] == 60
        assert found["test"]["ranks"]["log10_e_labels"] == "0.0"
        assert found["placebo"]["claims"] <= found["placebo"]["most_expected"]
        without = results_of(drawn_protocol(), lambda s, p: s.natural)
        assert without["verdict"]["status"] == "not supported"
        assert without["test"]["ranks"] is None

    def test_the_scores_of_an_innocent_suspect_decide_nothing(self):
        rng = np.random.default_rng(4)

        def answer(sample, probe):
            scores = rng.dirichlet(np.ones(N_CLASSES))
            scores[sample.natural] = 2.0
            return Answer(label=sample.natural, scores=tuple(scores.tolist()))

        assert results_of(drawn_protocol(), answer)["verdict"]["status"] == "not supported"

    def test_a_fixed_design_uses_labels_alone(self):
        found = results_of(drawn_protocol(design=Design.FIXED), surrogate, closed_reason="exhausted")
        assert found["test"]["ranks"] is None


class TestPlacebo:
    def test_label_draws_after_the_examination_are_not_claimed_even_on_a_copy(self):
        found = results_of(drawn_protocol(), stolen)
        placebo = found["placebo"]
        assert placebo["draws"] == 9_999
        assert placebo["claims"] <= placebo["most_expected"]
        assert placebo["rank_p_value"] is None
        # Draws that cost nothing buy no words: without a panel nothing measured an error rate.
        assert found["opinion"]["empirical"] is None
        assert found["opinion"]["band"] is None

    def test_the_rank_is_a_p_value_where_nothing_stopped_because_of_the_labels(self):
        found = results_of(drawn_protocol(design=Design.FIXED), stolen, closed_reason="exhausted")
        assert float(found["placebo"]["rank_p_value"]) == 1 / 10_000

    def test_nothing_asked_nothing_drawn_again(self):
        assert results_of(drawn_protocol(), stolen, asked=0, closed_reason="underpowered")["placebo"] is None


class TestPlan:
    def test_two_classes_are_refused(self):
        two = replace(SPEC, classes=("a", "b"))
        assert "show nothing" in plan_problem(drawn_protocol(), two)
        assert not plan_problem(a_protocol(), two)

    def test_a_seal_over_two_classes_is_refused_in_one_line(self, tmp_path):
        with pytest.raises(SealError, match="two classes"):
            opened_keys(drawn_protocol(), spec=replace(TASK, classes=("a", "b")))

    def test_forecast_power_ignores_shams_and_null_share(self):
        protocol = drawn_protocol(forecast_rate=0.8, null_share=0.999)
        power = forecast_power(protocol, tighten(protocol, Request()), TASK)
        assert 0.999 < power <= 1
        fixed = drawn_protocol(forecast_rate=0.5, design=Design.FIXED, n_keys=40, opening_keys=40)
        critical = int(stats.binom.isf(1e-6, 40, 1 / 9)) + 1
        expected = stats.binom.sf(critical - 1, 40, 0.5)
        assert forecast_power(fixed, tighten(fixed, Request()), TASK) == pytest.approx(expected)

    def test_a_plan_without_shams_is_a_plan(self):
        assert protocol_problem(drawn_protocol()) == ""


def opened_keys(protocol: Protocol, *, spec=TASK) -> OpenedKeySet:
    """Seal keys with drawn labels whose pixels name their kind, natural label and index."""
    owner = SigningKey.generate()
    samples = tuple(drawn_samples(protocol, n_classes=len(spec.classes)).values())
    inputs = np.zeros((len(samples), *spec.shape), dtype=np.uint8)
    for s in samples:
        inputs[s.index, 0] = [[KINDS.index(s.kind), s.natural], divmod(s.index, 256)]
    generator = Generator(name="margin", version=1, settings={})
    keys = KeySet(
        keyset_id="ab" * 16, spec=spec, samples=samples, inputs=inputs, salt_seed=b"\x05" * 32, generator=generator,
        secret_seed=SEED,
    )  # fmt: skip
    seal = Seal(
        keyset_id=keys.keyset_id, payload_sha256=sha256_hex(pack(keys)), merkle_root=keys.root().hex(),
        n_samples=len(samples), spec=spec, protocol=protocol, generator=generator, model_sha256="00" * 32,
        seed_commitment=seed_commitment(SEED), owner_public_key=owner.public.hex(), serial=1, previous_seal_sha256="",
        sealed_at="2026-01-01T00:00:00.000Z", tool_version="test", commitment_sha256="cd" * 32,
        randomness_source=RandomnessSource.NONCE,
    )  # fmt: skip
    return OpenedKeySet(keys=keys, seal=seal, envelope=sign_seal(seal, owner))


class IndexSuspect(TableSuspect):
    """Answers by the index that the pixels name."""

    def __init__(self, answers: dict[int, int]) -> None:
        super().__init__(lambda kind, natural: natural)
        self._answers = answers

    def describe(self):
        return Description(suspect=SUSPECT, n_labels=N_CLASSES)

    def _predict(self, inputs):
        found = super()._predict(inputs)
        labels = [self._answers[index] for _, index in self.asked[-len(inputs) :]]
        body = ('{"answers":[' + ",".join(f'{{"label":{label}}}' for label in labels) + "]}").encode()
        answers = tuple(Answer(label=label) for label in labels)
        return Exchange(reply=RawReply(answers=answers, body=body, elapsed_ms=1), failed_attempts=found.failed_attempts)


@pytest.mark.parametrize(("guilty", "status"), [(True, "supported"), (False, "not supported")])
def test_from_sealed_keys_to_the_judges_check(tmp_path, guilty, status):
    opened = opened_keys(drawn_protocol())
    answers = {s.index: s.expected if guilty and s.index % 3 else s.natural for s in opened.keys.samples}
    suspect, clock = IndexSuspect(answers), TickingClock()
    found = run_audit(
        opened=opened, suspect=suspect, folder=tmp_path / "audit", examiner=EXAMINER, request=Request(), clock=clock
    )
    assert found.results["verdict"]["status"] == status
    assert found.closed_reason == "decided"
    assert found.results["queries"]["shams"] == 0
    bundle_files.write_manifest(tmp_path / "audit", examiner=EXAMINER, clock=clock)
    report = check_bundle(
        tmp_path / "audit", owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None
    )
    assert report.intact
    recomputed = next(step for step in report.steps if step.title == "results recomputed")
    assert recomputed.outcome is CheckOutcome.PASS
    assert status in recomputed.detail


class TestLevel:
    """Innocent suspects of many kinds, each independent of the drawn labels; 20,000 audits each, every stop allowed."""

    AUDITS, KEYS, ALPHA = 20_000, 40, 0.02

    def suspects(self, rng):
        shape, natural = (self.AUDITS, self.KEYS), np.arange(self.KEYS) % N_CLASSES
        some = rng.integers(0, N_CLASSES, size=shape)
        return {
            "constant": np.full(shape, 3),
            "next class": np.broadcast_to((natural + 1) % N_CLASSES, shape),
            "half natural": np.where(rng.random(shape) < 0.5, natural, some),
            "refuses half of its deviating answers": np.where(rng.random(shape) < 0.5, -1, some),
            "extra label on a third": np.where(rng.random(shape) < 0.33, N_CLASSES, some),
        }

    def test_no_innocent_suspect_exceeds_the_level_at_any_stop(self):
        rng = np.random.default_rng(2026)
        protocol = drawn_protocol(alpha=self.ALPHA, n_keys=self.KEYS)
        basis = basis_of(protocol, TASK)
        levels = basis.levels(self.ALPHA)
        assert levels.test == self.ALPHA
        # The boundary of the very rule the audit runs: fewest hits among m bets that reject.
        law = {}
        for m in range(1, self.KEYS + 1):
            evidence = np.asarray(log_e(np.arange(m + 1), m, 1 / 9))
            law[m] = int(np.argmax(evidence >= -log(self.ALPHA))) if (evidence >= -log(self.ALPHA)).any() else m + 1
        boundary = np.array([self.KEYS + 1, *law.values()])
        natural = np.arange(self.KEYS) % N_CLASSES
        for name, answers in self.suspects(rng).items():
            labels = rng.integers(0, N_CLASSES - 1, size=answers.shape)
            labels += labels >= natural
            bets = (answers == -1) | ((answers != natural) & (answers < N_CLASSES))
            hits = np.cumsum(answers == labels, axis=1)
            # A claim at any moment counts: the worst stopping rule an examiner could follow.
            claimed = (hits >= boundary[np.cumsum(bets, axis=1)]).any(axis=1).sum()
            assert claimed <= stats.binom.isf(1e-4, self.AUDITS, self.ALPHA), name

    def test_the_audits_own_code_agrees_with_that_boundary(self):
        # The same through sort_replies, measure_null and decide_keys, for fewer audits.
        protocol = drawn_protocol(alpha=0.05, n_keys=self.KEYS, opening_keys=self.KEYS)
        rng, claims, n_audits = np.random.default_rng(7), 0, 600
        levels = spend(protocol.alpha, protocol, TASK)
        for audit in range(n_audits):
            samples = drawn_samples(protocol, seed=1000 + audit)
            replies = [
                Reply(
                    probe=Probe(position=i, index=i, kind=SampleKind.KEY, repeat=False),
                    answer=None if rng.random() < 0.1 else Answer(label=int(rng.integers(0, N_CLASSES + 1))),
                )
                for i in range(self.KEYS)
            ]
            grouped = sort_replies(replies)
            null = measure_null(grouped, samples, levels, protocol, TASK)
            claims += decide_keys(grouped, samples, null, levels, protocol, TASK).rejected
        assert stats.binomtest(claims, n_audits, protocol.alpha, alternative="greater").pvalue > 1e-3
