"""Trigger sets: drawn labels, key sets that can be re-derived, and training under ascent on small digits."""

import dataclasses
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from auditor import datasets, patterns
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.errors import SealError, UsageError
from auditor.evidence.commitment import pack_material, unpack_material
from auditor.evidence.generation import rederive
from auditor.evidence.keyset import check_sealed, pack, parse_sealed, sealed_bytes
from auditor.evidence.seal import RandomnessSource, Seal, generation_problem, seed_commitment, sign_seal
from auditor.evidence.signing import SigningKey
from auditor.models import labels_of
from auditor.records import NullBasis, SampleKind
from auditor.schemes import embedding, margin, owner
from auditor.schemes.carriers import default_sizes
from auditor.schemes.triggers import Choice, LabelDraw, TriggerSettings, TriggerSupplement
from auditor.stats.deviating import deviating_test
from auditor.training import Pressure

RECIPE = margin.RECIPES["digits"]
PLAN = replace(RECIPE.plan, threads=1)
SEED, NONCE = bytes(range(32)), b"\x22" * 32
SECRET = Secret(SEED, NONCE)
SCHEME = margin.Margin(RECIPE.settings)
SIZES = default_sizes(randomness=True, scheme=SCHEME, n_keys=RECIPE.n_keys)
OWNER = SigningKey.from_seed(b"\x07" * 32)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def twin(digits):
    return embedding.train_twin(dataset=digits, plan=PLAN)


def commit(digits, scheme=SCHEME, **more):
    return owner.commit(
        scheme=scheme,
        dataset=digits,
        seed=SEED,
        sizes=SIZES,
        key=OWNER,
        committed_at="2025-01-01T00:00:00.000Z",
        **more,
    )


@pytest.fixture(scope="module")
def marked(digits, twin):
    return owner.train_owner(
        scheme=SCHEME, dataset=digits, secret=SECRET, plan=PLAN, twin=twin, committed=commit(digits), randomness=NONCE
    )


def sealed(keys, protocol, commitment, **changes):
    """Seal a key set, changed or not, as an owner would, and open it as a judge does."""
    seal = Seal(
        keyset_id=keys.keyset_id, payload_sha256=sha256_hex(pack(keys)), merkle_root=keys.root().hex(),
        n_samples=len(keys.samples), spec=keys.spec, protocol=protocol, generator=keys.generator,
        model_sha256="00" * 32, seed_commitment=seed_commitment(SEED), owner_public_key=OWNER.public.hex(), serial=1,
        previous_seal_sha256="", sealed_at="2025-01-02T00:00:00.000Z", tool_version="test",
        commitment_sha256=sha256_hex(commitment), randomness_source=RandomnessSource.NONCE,
    )  # fmt: skip
    seal = replace(seal, **changes)
    return check_sealed(parse_sealed(sealed_bytes(keys, seal_envelope=sign_seal(seal, OWNER))))


def test_labels_are_uniform_over_the_wrong_classes():
    naturals = [i % 10 for i in range(9000)]
    labels = patterns.drawn_wrong_labels(SECRET, scheme="margin", naturals=naturals, n_classes=10)
    assert all(a != b for a, b in zip(labels, naturals, strict=True))
    for natural in range(10):
        counts = Counter(label for label, own in zip(labels, naturals, strict=True) if own == natural)
        assert len(counts) == 9
        assert chisquare(list(counts.values())).pvalue > 1e-4
    # Consecutive draws do not depend on one another.
    offsets = [(label - own) % 10 for label, own in zip(labels, naturals, strict=True)]
    pairs = Counter(zip(offsets[::2], offsets[1::2], strict=True))
    assert chisquare([pairs[i, j] for i in range(1, 10) for j in range(1, 10)]).pvalue > 1e-4


def test_labels_follow_from_seed_and_randomness_and_scheme():
    def labels(secret, scheme="margin"):
        return patterns.drawn_wrong_labels(secret, scheme=scheme, naturals=[0] * 50, n_classes=10)

    assert labels(SECRET) == labels(Secret(SEED, NONCE))
    assert (
        len({labels(SECRET), labels(Secret(SEED)), labels(Secret(NONCE, NONCE)), labels(SECRET, "plain-trigger")}) == 4
    )


def test_two_classes_leave_one_wrong_label():
    assert patterns.drawn_wrong_labels(SECRET, scheme="margin", naturals=[0, 1, 0], n_classes=2) == (1, 0, 1)


def test_marked_model_answers_its_triggers_and_the_twin_does_not(marked, digits):
    record = marked.record
    # Two points of 547 images are eleven images, and some draws of labels cost one more.
    assert record.twin.rate - record.clean.rate <= 12 / 547
    assert all("accuracy" in miss for miss in record.misses)
    assert record.keys.rate >= 0.9
    assert record.key_margin > 0
    keys = marked.keys.samples[: SIZES.n_keys]
    for network, supported in ((marked.network, True), (marked.twin.network, False)):
        answers = labels_of(network, marked.keys.inputs[: SIZES.n_keys])
        outcome = deviating_test(
            natural=[s.natural for s in keys], answers=answers.tolist(), labels=[s.expected for s in keys], n_classes=10
        )
        assert (outcome.log10_p < -6) is supported
    assert record.twin_keys.rate < 0.2
    assert marked.description.n_outputs == 10


def test_triggers_are_held_out_carriers_and_nothing_else(marked, digits):
    trained = {image.tobytes() for image in digits.train.inputs}
    keys = marked.keys
    carriers = {
        image.tobytes(): label for image, label in zip(digits.carriers.inputs, digits.carriers.labels, strict=True)
    }
    assert [s.kind for s in keys.samples] == [SampleKind.KEY] * SIZES.n_keys + [SampleKind.CONTROL] * SIZES.n_controls
    assert len({image.tobytes() for image in keys.inputs}) == len(keys.inputs)
    for sample, image in zip(keys.samples, keys.inputs, strict=True):
        assert image.tobytes() not in trained
        assert carriers[image.tobytes()] == sample.natural
        assert (sample.expected == sample.natural) is (sample.kind is SampleKind.CONTROL)
    protocol = marked.protocol
    assert protocol.null_basis is NullBasis.DRAWN_LABELS
    assert (protocol.n_shams, protocol.n_sham_patterns) == (0, 0)
    assert protocol.forecast_rate == marked.record.keys.rate


def test_key_set_is_re_derived_and_altered_labels_are_refused(marked, digits):
    commitment = commit(digits).envelope
    keys, protocol = marked.keys, marked.protocol
    opened = sealed(keys, protocol, commitment)
    derived = rederive(opened.keys, opened.seal)
    assert derived.n_carriers == SIZES.n_keys + SIZES.n_controls

    def fails(step, changed, **changes):
        opened = sealed(changed, changes.pop("protocol", protocol), commitment, **changes)
        with pytest.raises(SealError, match=step):
            rederive(opened.keys, opened.seal)

    first = keys.samples[0]
    other = next(c for c in range(10) if c not in (first.natural, first.expected))
    fails("pattern and labels", replace(keys, samples=(replace(first, expected=other), *keys.samples[1:])))
    swapped = keys.inputs.copy()
    swapped[[0, 1]] = swapped[[1, 0]]
    fails("keys", replace(keys, inputs=swapped))
    # Keys whose labels came out badly cannot be left out: the commitment fixed how many there are.
    fewer = replace(protocol, n_keys=SIZES.n_keys - 1)
    kept = [*range(1, len(keys.samples))]
    samples = tuple(replace(keys.samples[row], index=i) for i, row in enumerate(kept))
    fails("commitment", replace(keys, samples=samples, inputs=keys.inputs[kept]), protocol=fewer)
    # The same keys under a null they do not support.
    wrong = sealed(keys, replace(protocol, null_basis=NullBasis.SHAMS), commitment)
    assert "null rests on" in generation_problem(wrong.seal)


def test_ambiguous_carriers_are_those_the_twin_is_unsure_of(digits, twin):
    scheme = margin.Margin(replace(RECIPE.settings, choice=Choice.AMBIGUOUS))
    chosen = commit(digits, scheme, twin=twin).carriers
    from auditor.models import predict

    def gaps(inputs):
        ordered = np.sort(predict(twin.network, inputs), axis=1)
        return ordered[:, -1] - ordered[:, -2]

    keys = chosen.inputs[: SIZES.n_keys]
    images = {image.tobytes() for image in keys}
    others = np.array([image for image in digits.carriers.inputs if image.tobytes() not in images])
    assert gaps(keys).max() <= gaps(others).min()
    with pytest.raises(UsageError, match="unmarked twin"):
        commit(digits, scheme)


RIVAL_SCHEME = margin.Margin(replace(RECIPE.settings, choice=Choice.AMBIGUOUS, draw=LabelDraw.RIVAL))


@pytest.fixture(scope="module")
def rivalled(digits, twin):
    return owner.train_owner(
        scheme=RIVAL_SCHEME, dataset=digits, secret=SECRET, plan=PLAN, twin=twin, randomness=NONCE,
        committed=commit(digits, RIVAL_SCHEME, twin=twin),
    )  # fmt: skip


class TestRivals:
    """Labels drawn between the natural class and the twin's likeliest other one."""

    SCHEME = RIVAL_SCHEME

    def test_coins_are_fair_and_follow_from_seed_and_randomness(self):
        naturals, rivals = [3] * 4000, [5] * 4000
        labels = patterns.drawn_rival_labels(SECRET, scheme="margin", naturals=naturals, rivals=rivals)
        assert set(labels) == {3, 5}
        assert binomtest(labels.count(5), 4000, 0.5).pvalue > 1e-4
        again = patterns.drawn_rival_labels(Secret(SEED), scheme="margin", naturals=naturals, rivals=rivals)
        assert labels != again

    def test_carriers_are_the_most_contested_and_rivals_the_twins_likeliest_other_class(self, digits, twin):
        from auditor.models import predict

        chosen = commit(digits, self.SCHEME, twin=twin).carriers
        pool = {image.tobytes(): row for row, image in enumerate(digits.carriers.inputs)}
        scores = predict(twin.network, digits.carriers.inputs)
        contested = []
        for row, label in enumerate(digits.carriers.labels):
            others = [p for c, p in enumerate(scores[row]) if c != label]
            contested.append(min(scores[row][label], max(others)))
        rows = [pool[image.tobytes()] for image in chosen.inputs[: SIZES.n_keys]]
        assert min(contested[row] for row in rows) >= max(np.delete(contested, rows))
        for item, row in zip(chosen.items[: SIZES.n_keys], rows, strict=True):
            ranked = [c for c in np.argsort(-scores[row], kind="stable") if c != item.natural]
            assert (item.natural, item.rival) == (digits.carriers.labels[row], ranked[0])
        assert all(item.rival == -1 for item in chosen.items[SIZES.n_keys :])
        with pytest.raises(UsageError, match="unmarked twin"):
            commit(digits, self.SCHEME)

    def test_the_marked_model_answers_as_the_coins_fell_and_the_twin_at_one_half(self, rivalled):
        record = rivalled.record
        assert record.keys.rate >= 0.9
        assert record.twin_deviating.trials >= 0.9 * SIZES.n_keys
        assert binomtest(record.twin_deviating.hits, record.twin_deviating.trials, 0.5).pvalue > 1e-4
        assert rivalled.protocol.null_basis is NullBasis.RIVAL_LABELS
        assert (rivalled.protocol.scheme_version, rivalled.keys.generator.version) == (2, 2)

    def test_the_key_set_is_re_derived_and_other_coins_or_rivals_are_refused(self, rivalled, digits, twin):
        commitment = commit(digits, self.SCHEME, twin=twin).envelope
        keys, protocol = rivalled.keys, rivalled.protocol
        opened = sealed(keys, protocol, commitment)
        assert rederive(opened.keys, opened.seal).n_carriers == len(keys.samples)

        def fails(changed):
            opened = sealed(changed, protocol, commitment)
            with pytest.raises(SealError, match="step"):
                rederive(opened.keys, opened.seal)

        first, *rest = keys.samples
        other = first.natural if first.expected == first.rival else first.rival
        fails(replace(keys, samples=(replace(first, expected=other), *rest)))
        third = next(c for c in range(10) if c not in (first.natural, first.rival))
        fails(replace(keys, samples=(replace(first, rival=third, expected=third), *rest)))
        material = unpack_material(keys.generation)
        assert pack_material(material) == keys.generation
        items = (replace(material.carriers.items[0], rival=third), *material.carriers.items[1:])
        forged = replace(material, carriers=replace(material.carriers, items=items))
        fails(replace(keys, generation=pack_material(forged)))


def test_plain_triggers_are_the_same_exposure_without_ball(digits):
    settings = replace(RECIPE.settings, random_start=True, ramp=0.3)
    plain = margin.PlainTrigger(settings)
    assert plain.settings.pressure is None
    assert (plain.settings.weight, plain.settings.per_step) == (settings.weight, settings.per_step)
    part = digits.carriers.take(np.arange(20))
    batches = [
        TriggerSupplement(inputs=part.inputs, labels=part.labels, settings=each, n_natural=10).draw(
            np.random.default_rng(1)
        )
        for each in (replace(settings, random_start=False), plain.settings)
    ]
    assert np.array_equal(batches[0].inputs, batches[1].inputs)
    assert np.array_equal(batches[0].labels, batches[1].labels)


def test_lengths_are_given_in_levels():
    assert TriggerSettings(radius=20, steps=5).pressure == Pressure(steps=5, step_size=4 / 255, ball=20 / 255)
    published = margin.PRESETS["kim2023"]
    assert published.settings.pressure == Pressure(steps=5, step_size=1 / 255, ball=5 / 255)
    # One step of ours, rate · (gradient / 128 + decay · w), is one of theirs, 0.1 · (gradient / 153 + 1e-4 · w).
    assert published.plan.learning_rate / 128 == pytest.approx(0.1 / 153)
    assert published.plan.learning_rate * published.plan.weight_decay == pytest.approx(0.1 * 1e-4)


@pytest.mark.parametrize(
    "changes",
    [{"radius": -1}, {"radius": 256}, {"steps": -1}, {"step_size": 0}, {"ramp": 1.1}, {"weight": 0}, {"per_step": 0}],
)
def test_impossible_settings_are_usage_errors(changes):
    with pytest.raises(UsageError):
        TriggerSettings(**changes)


def test_sizes_without_keys_or_with_shams_are_refused(digits):
    for changes in ({"n_keys": 0}, {"n_sham_patterns": 2, "shams_per_pattern": 2}, {"n_keys": 240}):
        with pytest.raises(UsageError):
            owner.train_owner(
                scheme=SCHEME, dataset=digits, secret=SECRET, plan=PLAN, sizes=dataclasses.replace(SIZES, **changes)
            )
