"""Audits of keys whose labels a coin drew between two classes, from the sealed key set to the judge's re-check."""

from dataclasses import replace
from math import log10

import numpy as np
import pytest
from cases import KINDS, SEED, TickingClock
from protocols import KEYSET, SPEC, SUSPECT, a_protocol
from scipy import stats
from test_drawn_labels_audit import IndexSuspect

from auditor.analysis import decide_keys, measure_null, plan_problem, sort_replies, spend
from auditor.audit import Request, run_audit
from auditor.canonical import sha256_hex
from auditor.errors import SealError
from auditor.evidence import bundle as bundle_files
from auditor.evidence.check import CheckOutcome, check_bundle
from auditor.evidence.keyset import KeySet, OpenedKeySet, check_sealed, pack, parse_sealed, sealed_bytes, unpack
from auditor.evidence.schedule import draw_schedule
from auditor.evidence.seal import RandomnessSource, Seal, generation_problem, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.evidence.standard import smallest_rate
from auditor.records import Answer, Design, Generator, NullBasis, Probe, Protocol, Reply, Sample, SampleKind
from auditor.report import drawn_labels
from auditor.report.inputs import Tree
from auditor.results import analyse

N_CLASSES = 10
TASK = replace(SPEC, classes=tuple("abcdefghij"))
EXAMINER = SigningKey.generate()


def rival_protocol(**changes) -> Protocol:
    fixed = {
        "scheme": "margin", "scheme_version": 2, "null_basis": NullBasis.RIVAL_LABELS, "n_keys": 120,
        "opening_keys": 20, "n_shams": 0, "n_sham_patterns": 0, "n_controls": 30, "n_repeats": 8,
        "p_min": smallest_rate(NullBasis.RIVAL_LABELS, n_keys=120),
    }  # fmt: skip
    return a_protocol(**(fixed | changes))


def rival_samples(protocol: Protocol, *, seed: int = 0, n_classes: int = N_CLASSES) -> dict[int, Sample]:
    rng = np.random.default_rng(seed)
    samples = {}
    for index in range(protocol.n_keys + protocol.n_controls):
        kind = SampleKind.KEY if index < protocol.n_keys else SampleKind.CONTROL
        natural = index % n_classes
        rival = (natural + 1) % n_classes if kind is SampleKind.KEY else -1
        expected = rival if kind is SampleKind.KEY and rng.integers(2) else natural
        samples[index] = Sample(
            index=index, kind=kind, natural=natural, expected=expected, pattern=-1, code=-1, rival=rival
        )
    return samples


def results_of(protocol, answer_of, *, seed=0, spec=TASK, closed_reason="decided"):
    samples = rival_samples(protocol, seed=seed, n_classes=len(spec.classes))
    replies = []
    for probe in draw_schedule(protocol):
        label = answer_of(samples[probe.index])
        answer = None if label is None else label if isinstance(label, Answer) else Answer(label=label)
        replies.append(Reply(probe=probe, answer=answer))
    return analyse(
        protocol=protocol, spec=spec, keyset=KEYSET, suspect=SUSPECT, samples=samples, replies=replies,
        alpha=protocol.alpha, max_keys=protocol.n_keys, closed_reason=closed_reason, deviations=(),
    )  # fmt: skip


def stolen(sample: Sample) -> int:
    return sample.expected


def innocent(sample: Sample) -> int:
    return sample.natural


class TestResults:
    def test_a_copy_is_supported_at_one_half_with_the_whole_level(self):
        found = results_of(rival_protocol(), stolen)
        assert found["verdict"]["status"] == "supported"
        assert (found["null"]["kind"], found["null"]["rate"]) == ("rival-labels", "0.5")
        assert found["null"]["shams"] is None
        assert float(found["test"]["alpha_test"]) == 1e-6
        assert found["detection"]["bets"]["answers"] == found["detection"]["bets"]["hits"] == 120
        assert "prefer" in found["test"]["name"]

    @pytest.mark.parametrize("answer_of", [innocent, lambda s: s.rival if s.rival >= 0 else s.natural])
    def test_the_natural_answer_hits_half_of_the_keys_and_shows_nothing(self, answer_of):
        found = results_of(rival_protocol(n_keys=400), answer_of)
        assert found["verdict"]["status"] in ("not supported", "inconclusive")
        assert found["detection"]["bets"]["answers"] == 400
        assert float(found["test"]["log10_e"]) < 3

    def test_a_surrogate_that_keeps_two_thirds_is_supported(self):
        kept = np.random.default_rng(3).random(1000) < 0.7
        protocol = rival_protocol(n_keys=400, p_min=smallest_rate(NullBasis.RIVAL_LABELS, n_keys=400))

        def answer(sample):
            if sample.kind is not SampleKind.KEY or kept[sample.index]:
                return sample.expected
            return sample.natural if sample.expected == sample.rival else sample.rival

        assert results_of(protocol, answer)["verdict"]["status"] == "supported"

    def test_two_classes_are_enough(self):
        two = replace(SPEC, classes=("a", "b"))
        assert plan_problem(rival_protocol(), two) == ""
        assert results_of(rival_protocol(), stolen, spec=two)["verdict"]["status"] == "supported"

    def test_scores_tell_which_class_an_answer_prefers(self):
        def answer(sample):
            scores = [0.01] * N_CLASSES
            scores[(sample.natural + 5) % N_CLASSES] = 0.5
            scores[sample.expected] = 0.3
            top = int(np.argmax(scores)) if sample.kind is SampleKind.KEY else sample.natural
            return Answer(label=top, scores=tuple(scores))

        found = results_of(rival_protocol(), answer)
        assert found["verdict"]["status"] == "supported"
        assert found["detection"]["hits"] == 0, "no first label was the drawn one"
        assert found["detection"]["bets"]["hits"] == 120
        # The report draws and quotes what the test bet on, not the first labels.
        tree = Tree(found, "results.json")
        assert (drawn_labels.bet_hits(tree), drawn_labels.bets(tree)) == (120, 120)
        assert "120 the drawn one" in drawn_labels.comparison(tree)
        without = results_of(rival_protocol(), lambda s: answer(s).label)
        assert without["verdict"]["status"] == "not supported"
        assert without["detection"]["bets"]["answers"] == 0

    def test_missing_answers_count_against_the_claim(self):
        protocol = rival_protocol(max_failed_share=1.0, obstruction_alpha=1e-300)
        lossy = results_of(protocol, lambda s: None if s.kind is SampleKind.KEY and s.index % 5 == 0 else stolen(s))
        assert lossy["detection"]["bets"] == {
            "answers": 120, "hits": 96, "missing": 24,
            "what": "answers that prefer one of the two classes the label was drawn from, missing ones counted as "
            "misses",
        }  # fmt: skip

    def test_fixed_design_is_the_tail_at_one_half(self):
        found = results_of(rival_protocol(design=Design.FIXED), stolen, closed_reason="exhausted")
        assert float(found["test"]["log10_test_p"]) == pytest.approx(120 * log10(0.5))
        assert float(found["placebo"]["rank_p_value"]) == 1 / (1 + found["placebo"]["draws"])

    def test_coins_flipped_again_are_not_claimed_even_on_a_copy(self):
        placebo = results_of(rival_protocol(), stolen)["placebo"]
        assert placebo["draws"] >= 499
        assert placebo["claims"] <= placebo["most_expected"]
        assert "coins flipped again" in placebo["what"]


class TestLevel:
    """Innocents of many kinds, independent of the coins, through the audit's own code; a claim at any stop counts."""

    AUDITS, KEYS, ALPHA = 300, 40, 0.05

    def kinds(self, rng):
        yield "natural", lambda i: Answer(label=i % N_CLASSES)
        yield "rival", lambda i: Answer(label=(i + 1) % N_CLASSES)
        yield "at random, refusing", lambda i: None if rng.random() < 0.1 else Answer(label=int(rng.integers(11)))
        yield "hesitating", lambda i: Answer(label=(i + int(rng.integers(2))) % N_CLASSES)

    def test_no_innocent_exceeds_the_level(self):
        rng = np.random.default_rng(11)
        protocol = rival_protocol(alpha=self.ALPHA, n_keys=self.KEYS, opening_keys=self.KEYS)
        levels = spend(protocol.alpha, protocol, TASK)
        for name, answer_of in self.kinds(rng):
            claims = 0
            for audit in range(self.AUDITS):
                samples = rival_samples(protocol, seed=audit)
                probes = [Probe(position=i, index=i, kind=SampleKind.KEY, repeat=False) for i in range(self.KEYS)]
                grouped = sort_replies([Reply(probe=p, answer=answer_of(p.index)) for p in probes])
                null = measure_null(grouped, samples, levels, protocol, TASK)
                claims += decide_keys(grouped, samples, null, levels, protocol, TASK).outcome.log10_p <= log10(0.05)
            assert claims <= stats.binom.isf(1e-4, self.AUDITS, self.ALPHA), name


def opened_keys(protocol: Protocol, samples=None, version=2) -> OpenedKeySet:
    """Seal rival keys whose pixels name their kind, natural label and index."""
    owner = SigningKey.generate()
    samples = tuple(rival_samples(protocol).values()) if samples is None else samples
    inputs = np.zeros((len(samples), *TASK.shape), dtype=np.uint8)
    for s in samples:
        inputs[s.index, 0] = [[KINDS.index(s.kind), s.natural], divmod(s.index, 256)]
    generator = Generator(name="margin", version=version, settings={})
    keys = KeySet(
        keyset_id="ab" * 16, spec=TASK, samples=samples, inputs=inputs, salt_seed=b"\x05" * 32, generator=generator,
        secret_seed=SEED,
    )  # fmt: skip
    seal = Seal(
        keyset_id=keys.keyset_id, payload_sha256=sha256_hex(pack(keys)), merkle_root=keys.root().hex(),
        n_samples=len(samples), spec=TASK, protocol=protocol, generator=generator, model_sha256="00" * 32,
        seed_commitment=seed_commitment(SEED), owner_public_key=owner.public.hex(), serial=1, previous_seal_sha256="",
        sealed_at="2026-01-01T00:00:00.000Z", tool_version="test", commitment_sha256="cd" * 32,
        randomness_source=RandomnessSource.NONCE,
    )  # fmt: skip
    return OpenedKeySet(keys=keys, seal=seal, envelope=sign_seal(seal, owner))


@pytest.mark.parametrize(("guilty", "statuses"), [(True, ["supported"]), (False, ["not supported", "inconclusive"])])
def test_from_sealed_keys_to_the_judges_check(tmp_path, guilty, statuses):
    opened = opened_keys(rival_protocol())
    answers = {s.index: s.expected if guilty and s.index % 7 else s.natural for s in opened.keys.samples}
    suspect, clock = IndexSuspect(answers), TickingClock()
    found = run_audit(
        opened=opened, suspect=suspect, folder=tmp_path / "audit", examiner=EXAMINER, request=Request(), clock=clock
    )
    assert found.results["verdict"]["status"] in statuses
    bundle_files.write_manifest(tmp_path / "audit", examiner=EXAMINER, clock=clock)
    report = check_bundle(
        tmp_path / "audit", owner_fingerprint=None, examiner_fingerprint=None, render_html=None, check_pdf=None
    )
    assert report.intact
    assert next(s for s in report.steps if s.title == "results recomputed").outcome is CheckOutcome.PASS


class TestSealing:
    def test_the_inner_file_keeps_the_rivals_and_has_none_where_there_are_none(self):
        keys = opened_keys(rival_protocol()).keys
        again = unpack(pack(keys))
        assert again.samples == keys.samples
        plain = replace(keys, samples=tuple(replace(s, rival=-1) for s in keys.samples))
        assert unpack(pack(plain)).samples == plain.samples
        assert len(pack(plain)) < len(pack(keys))
        assert plain.root() != keys.root(), "the rival is under the Merkle root"

    @pytest.mark.parametrize(
        "change",
        [
            lambda s: {"rival": s.natural},
            lambda s: {"rival": N_CLASSES},
            lambda s: {"expected": (s.natural + 3) % N_CLASSES},
        ],
    )
    def test_a_pair_that_is_none_is_refused(self, change):
        protocol = rival_protocol()
        first, *rest = rival_samples(protocol).values()
        with pytest.raises(ValueError, match=r"rival class|neither of the two"):
            opened_keys(protocol, (replace(first, **change(first)), *rest))

    def test_a_plan_on_rivals_needs_one_for_every_key_and_others_need_none(self):
        protocol = rival_protocol()
        first, *rest = rival_samples(protocol).values()

        def refused(opened):
            with pytest.raises(SealError, match="classes that labels were drawn from"):
                sealed_bytes(opened.keys, seal_envelope=opened.envelope)

        whole = opened_keys(protocol)
        check_sealed(parse_sealed(sealed_bytes(whole.keys, seal_envelope=whole.envelope)))
        refused(opened_keys(protocol, (replace(first, rival=-1), *rest)))
        refused(opened_keys(replace(protocol, null_basis=NullBasis.DRAWN_LABELS)))

    def test_another_generator_does_not_support_this_null(self):
        assert "null rests on" in generation_problem(opened_keys(rival_protocol(), version=1).seal)
