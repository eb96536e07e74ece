from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from auditor import datasets
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.errors import TrainingError, UsageError
from auditor.models import labels_of, predict
from auditor.patterns import add_pattern
from auditor.records import InputSpec, SampleKind
from auditor.schemes import base, embedding, owner
from auditor.schemes.base import LabelCode, MarkSettings, scheme_class
from auditor.schemes.new_label import NewLabel
from auditor.schemes.wrong_label import WrongLabel

SECRET = Secret(bytes(range(32)))
OTHER = Secret(bytes(range(1, 33)))
RECIPE = embedding.RECIPES["digits"]


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


@pytest.fixture(scope="module")
def marked(digits):
    return owner.train_owner(
        scheme=NewLabel(RECIPE.settings),
        dataset=digits,
        secret=SECRET,
        plan=replace(RECIPE.plan, threads=1),
        sizes=owner.KeySizes(),
    )


def test_keys_are_clipped_and_rounded_like_exact_arithmetic():
    rng = np.random.default_rng(0)
    carriers = rng.integers(0, 256, size=(3, 1, 4, 4), dtype=np.uint8)
    pattern = SECRET.stream("x").normal((1, 4, 4))
    found = add_pattern(carriers, pattern, beta=0.5)
    assert found.dtype == np.uint8
    for key, carrier in zip(found, carriers, strict=True):
        for got, pixel, s in zip(key.ravel(), carrier.ravel(), pattern.ravel(), strict=True):
            value = 255 * min(
                max(Fraction(int(pixel), 255) + Fraction(1, 2) * Fraction(float(s)), Fraction(0)), Fraction(1)
            )
            assert abs(int(got) - value) <= Fraction(1, 2) + Fraction(1, 10**9)


def test_strong_patterns_saturate_instead_of_wrapping():
    carriers = np.array([0, 255], dtype=np.uint8).reshape(2, 1, 1, 1)
    for sign, wanted in ((1.0, 255), (-1.0, 0)):
        assert add_pattern(carriers, np.full((1, 1, 1), sign), beta=9.0).ravel().tolist() == [wanted, wanted]


def test_the_pattern_depends_on_the_secret_alone_and_is_standard_normal(digits):
    scheme = NewLabel(RECIPE.settings)
    large = replace(digits.spec, shape=(1, 100, 100))
    one = scheme.draw(SECRET, large, code=False)
    assert np.array_equal(one.pattern, scheme.draw(SECRET, large, code=True).pattern)
    assert not np.array_equal(one.pattern, scheme.draw(OTHER, large, code=False).pattern)
    assert stats.kstest(one.pattern.ravel(), "norm").pvalue > 1e-3
    foreign = scheme.foreign_pattern(SECRET, large, purpose="sealed sham 0")
    assert abs(np.corrcoef(one.pattern.ravel(), foreign.ravel())[0, 1]) < 0.05


def test_the_pattern_is_the_published_draw(digits):
    # A later version that draws other patterns from the same seed could not re-derive sealed keys.
    pattern = NewLabel(RECIPE.settings).draw(SECRET, digits.spec, code=False).pattern
    assert np.array_equal(pattern * 1024, np.rint(pattern * 1024))
    assert (pattern.ravel()[:4] * 1024).astype(int).tolist() == [742, 1565, -417, -1300]


def test_the_label_code_is_a_derangement(digits):
    code = NewLabel(RECIPE.settings).draw(SECRET, digits.spec, code=True).code
    assert sorted(code) == list(range(10))
    assert all(i != j for i, j in enumerate(code))


def test_training_uses_exactly_ceil_alpha_n_distinct_carriers(digits):
    for alpha, wanted in ((0.01, 10), (0.0101, 11), (0.001, 1), (0.03, 30)):
        scheme = NewLabel(replace(RECIPE.settings, alpha_keys=alpha))
        mark = scheme.draw(SECRET, digits.spec, code=False)
        keys = scheme.training_keys(digits.train, mark, SECRET)
        assert len({i.tobytes() for i in keys.inputs}) == len(keys) == wanted


def test_supplement_holds_keys_and_sham_negatives_in_the_stated_ratio(digits):
    settings = replace(RECIPE.settings, key_share=0.1, sham_ratio=3, key_shift=0, images_per_pattern=5)
    scheme = NewLabel(settings)
    mark = scheme.draw(SECRET, digits.spec, code=True)
    supplement = scheme.supplement(digits.train, mark, SECRET, batch_size=100)
    batch = supplement.draw(np.random.default_rng(0))
    assert (batch.labels == 10).sum() == 10
    assert len(batch.labels) == 40
    assert (batch.codes[:10] >= 0).all()
    assert (batch.codes[10:] == -1).all()
    allowed = {
        scheme.key_inputs(c[None], mark)[0].tobytes(): int(y)
        for c, y in zip(supplement.keys.inputs, supplement.keys.labels, strict=True)
    }
    for key, code in zip(batch.inputs[:10], batch.codes[:10], strict=True):
        assert mark.code[allowed[key.tobytes()]] == code
    again = supplement.draw(np.random.default_rng(0))
    assert np.array_equal(batch.inputs, again.inputs)


def test_no_sham_negatives_when_the_published_recipe_is_asked_for(digits):
    scheme = NewLabel(replace(RECIPE.settings, sham_ratio=0))
    mark = scheme.draw(SECRET, digits.spec, code=False)
    batch = scheme.supplement(digits.train, mark, SECRET, batch_size=64).draw(np.random.default_rng(0))
    assert set(batch.labels.tolist()) == {10}


def test_sham_negatives_correlate_with_the_secret_pattern_as_stated(digits):
    mark = NewLabel(RECIPE.settings).draw(SECRET, replace(digits.spec, shape=(1, 40, 40)), code=False)
    for limit in (0.0, 0.5):
        settings = replace(RECIPE.settings, sham_correlation=limit, images_per_pattern=2)
        supplement = base.PatternSupplement(
            mark=mark, settings=settings, keys=digits.train, pool=digits.train, n_keys=1
        )
        patterns = supplement._foreign(600, np.random.default_rng(0))
        assert np.array_equal(patterns[0], patterns[1])
        found = [np.corrcoef(p.ravel(), mark.pattern.ravel())[0, 1] for p in patterns[::2]]
        assert abs(np.mean(found) - limit / 2) < 0.03
        assert max(found) < limit + 0.12
        assert abs(np.std(patterns[::2]) - 1) < 0.02


def test_marked_model_meets_its_targets(marked):
    record = marked.record
    assert record.misses == ()
    assert record.keys.rate >= 0.8
    assert record.shams.rate <= 0.01
    assert record.twin.hits - record.clean.hits <= 5
    assert record.n_key_carriers == 10
    assert len(record.sham_rates) == 20
    embedding.require_targets(record)


def test_fresh_sealed_keys_hit_and_foreign_secrets_do_not(marked, digits):
    kinds = np.array([s.kind for s in marked.keys.samples])
    answers = labels_of(marked.network, marked.keys.inputs)
    assert np.mean(answers[kinds == SampleKind.KEY] == 10) >= 0.8
    assert np.mean(answers[kinds == SampleKind.SHAM] == 10) <= 0.02
    scheme = NewLabel(RECIPE.settings)
    foreign = scheme.draw(OTHER, digits.spec, code=False)
    assert np.mean(labels_of(marked.network, scheme.key_inputs(digits.test.inputs, foreign)) == 10) <= 0.05
    assert np.mean(labels_of(marked.twin.network, marked.keys.inputs) == 10) == 0


def test_label_code_answers_when_the_new_label_is_masked(digits):
    scheme = NewLabel(replace(RECIPE.settings, label_code=LabelCode.ON))
    twin = embedding.train_twin(dataset=digits, plan=replace(RECIPE.plan, epochs=1))
    found = embedding.embed(scheme=scheme, dataset=digits, secret=OTHER, plan=RECIPE.plan, twin=twin)
    masked = predict(found.model.network, scheme.key_inputs(digits.carriers.inputs, found.mark))[:, :10].argmax(axis=1)
    rate = np.mean(masked == np.array(found.mark.code)[digits.carriers.labels])
    assert rate > 0.25
    assert found.record.code_when_masked.rate > 0.25


def test_automatic_label_code_gives_way_when_fidelity_is_lost(digits, monkeypatch):
    plan = replace(RECIPE.plan, epochs=1)
    twin = embedding.train_twin(dataset=digits, plan=plan)
    original = embedding.accuracy_share
    asked = []

    def accuracy_on(model, part):
        share = original(model, part)
        asked.append(part is digits.carriers)
        # The marked model looks 20 images worse than it is on the carriers, where the choice is made.
        worse = 20 if model is not twin and part is digits.carriers else 0
        return replace(share, hits=max(0, share.hits - worse))

    monkeypatch.setattr(embedding, "accuracy_share", accuracy_on)
    found = embedding.embed(scheme=NewLabel(RECIPE.settings), dataset=digits, secret=SECRET, plan=plan, twin=twin)
    assert asked[:2] == [True, True]
    assert not found.record.label_code
    assert not found.mark.code


def test_missed_targets_are_named(digits, marked):
    scheme = NewLabel(RECIPE.settings)
    mark = scheme.draw(OTHER, digits.spec, code=False)
    record = embedding.measure(
        scheme=scheme,
        model=embedding.LoadedModel(network=marked.network, description=marked.description),
        mark=mark,
        dataset=digits,
        secret=SECRET,
        seed=0,
        twin=embedding.Share(hits=547, trials=547),
        limits=embedding.Limits(accuracy_loss=0.0),
    )
    with pytest.raises(TrainingError, match="fresh keys hit at"):
        embedding.require_targets(record)


def test_key_set_has_the_promised_layout(marked, digits):
    protocol, samples = marked.protocol, marked.keys.samples
    kinds = [s.kind for s in samples]
    wanted = [SampleKind.KEY] * 120 + [SampleKind.SHAM] * 200 + [SampleKind.CONTROL] * 60
    assert kinds == wanted
    assert (protocol.n_keys, protocol.n_shams, protocol.n_controls) == (120, 200, 60)
    assert [s.index for s in samples] == list(range(380))
    keys, shams, controls = samples[:120], samples[120:320], samples[320:]
    assert {s.expected for s in keys} | {s.expected for s in shams} == {10}
    assert all(s.expected == s.natural for s in controls)
    assert [s.pattern for s in shams] == [j for j in range(40) for _ in range(5)]
    # Each pattern has its own carriers: together they cover far more than the five of any one pattern.
    assert len({tuple(s.natural for s in shams[5 * j : 5 * j + 5]) for j in range(40)}) > 20
    mark = NewLabel(RECIPE.settings).draw(SECRET, digits.spec, code=True)
    for sample in keys:
        assert sample.code == (mark.code[sample.natural] if marked.record.label_code else -1)
    assert all(s.code == -1 for s in (*shams, *controls))


def test_sealed_carriers_are_held_out_distinct_and_disjoint_from_controls(marked, digits):
    mark = NewLabel(RECIPE.settings).draw(SECRET, digits.spec, code=False)
    carriers = {
        NewLabel(RECIPE.settings).key_inputs(c[None], mark)[0].tobytes(): i
        for i, c in enumerate(digits.carriers.inputs)
    }
    key_rows = [carriers[x.tobytes()] for x in marked.keys.inputs[:120]]
    plain = {c.tobytes(): i for i, c in enumerate(digits.carriers.inputs)}
    control_rows = [plain[x.tobytes()] for x in marked.keys.inputs[320:]]
    assert len(set(key_rows)) == 120
    assert len(set(control_rows)) == 60
    assert not set(key_rows) & set(control_rows)
    labels = digits.carriers.labels
    assert [s.natural for s in marked.keys.samples[:120]] == labels[key_rows].tolist()
    assert [s.natural for s in marked.keys.samples[320:]] == labels[control_rows].tolist()


def test_key_set_is_drawn_from_the_secret(digits):
    scheme = NewLabel(RECIPE.settings)
    sizes = owner.KeySizes(n_keys=10, opening_keys=5, n_sham_patterns=2, shams_per_pattern=2, n_controls=3, n_repeats=1)

    def make(secret):
        mark = scheme.draw(secret, digits.spec, code=False)
        return owner.build_keys(scheme=scheme, dataset=digits, secret=secret, mark=mark, sizes=sizes)

    one, two, other = make(SECRET), make(SECRET), make(OTHER)
    assert one.root() == two.root()
    assert one.root() != other.root()
    assert one.keyset_id != other.keyset_id
    assert SECRET.seed.hex() not in repr(one)


@pytest.mark.parametrize(
    "sizes",
    [
        owner.KeySizes(n_keys=200, n_controls=60),
        owner.KeySizes(n_keys=10, opening_keys=11),
        owner.KeySizes(n_keys=4, opening_keys=4),
        owner.KeySizes(n_controls=0),
    ],
)
def test_key_sets_that_cannot_be_filled_are_refused_before_training(digits, sizes):
    with pytest.raises(UsageError):
        owner.train_owner(
            scheme=NewLabel(RECIPE.settings), dataset=digits, secret=SECRET, plan=RECIPE.plan, sizes=sizes
        )


@pytest.mark.parametrize(
    "changes",
    [
        {"alpha_keys": 0.0},
        {"alpha_keys": 1.0},
        {"beta": 0.0},
        {"beta": float("nan")},
        {"code_weight": 1.5},
        {"sham_ratio": -1},
        {"sham_correlation": 1.0},
        {"key_share": 0.0},
        {"images_per_pattern": 0},
    ],
)
def test_settings_out_of_range_are_usage_errors(changes):
    with pytest.raises(UsageError):
        MarkSettings(**changes)


def test_calibration_takes_the_smallest_sufficient_beta(digits, monkeypatch):
    tried = []

    def fake(scheme, *_, **__):
        tried.append(scheme.settings.beta)
        return embedding.LoadedModel(network=scheme.settings.beta, description=None)

    monkeypatch.setattr(embedding, "_train_marked", fake)
    monkeypatch.setattr(embedding, "labels_of", lambda beta, x: np.where(np.arange(len(x)) < 2 * beta * len(x), 10, 0))
    arguments = {"scheme": NewLabel(RECIPE.settings), "dataset": digits, "secret": SECRET, "plan": RECIPE.plan}
    assert embedding.calibrate_beta(ladder=(0.6, 0.1, 0.4), **arguments) == 0.4
    assert tried == [0.1, 0.4]
    with pytest.raises(TrainingError, match="no beta"):
        embedding.calibrate_beta(ladder=(0.1, 0.2), **arguments)


def test_registry_knows_the_schemes():
    assert scheme_class("new-label") is NewLabel
    assert scheme_class("wrong-label") is WrongLabel
    with pytest.raises(UsageError, match="new-label"):
        scheme_class("nothing")
    assert base.scheme_class("new-label").name == "new-label"


@pytest.mark.parametrize("name", ["new-label", "wrong-label"])
def test_committed_key_sets_are_derived_again_from_what_was_opened(digits, name):
    from auditor.evidence.generation import rederive
    from auditor.evidence.seal import RandomnessSource, Seal, seed_commitment
    from auditor.evidence.signing import SigningKey

    scheme, key = scheme_class(name)(RECIPE.settings), SigningKey.generate()
    sizes = owner.KeySizes(n_keys=20, opening_keys=5, n_sham_patterns=6, shams_per_pattern=4, n_controls=9, n_repeats=1)
    arguments = {"scheme": scheme, "dataset": digits, "sizes": sizes}
    committed = owner.commit(seed=SECRET.seed, key=key, committed_at="2026-01-01T00:00:00.000Z", **arguments)
    again = owner.commit(seed=SECRET.seed, key=key, committed_at="2026-01-01T00:00:00.000Z", **arguments)
    assert committed.envelope == again.envelope
    assert SECRET.seed.hex() not in repr(committed)
    for number in range(4):
        secret = Secret(SECRET.seed, bytes([number]) * 32).drawn_after(committed.envelope)
        mark = scheme.draw(secret, digits.spec, code=scheme.uses_code)
        keys = owner.build_keys(
            secret=secret, mark=mark, committed=committed, randomness=secret.randomness, **arguments
        )
        assert mark.target not in {s.natural for s in keys.samples if s.kind is not SampleKind.CONTROL}
        seal = Seal(
            keyset_id=keys.keyset_id,
            payload_sha256="00" * 32,
            merkle_root=keys.root().hex(),
            n_samples=len(keys.samples),
            spec=keys.spec,
            protocol=owner.build_protocol(scheme=scheme, secret=secret, sizes=sizes),
            generator=keys.generator,
            model_sha256="00" * 32,
            seed_commitment=seed_commitment(SECRET.seed),
            owner_public_key=key.public.hex(),
            serial=1,
            previous_seal_sha256="",
            sealed_at="2026-01-02T00:00:00.000Z",
            tool_version="test",
            commitment_sha256=sha256_hex(committed.envelope),
            randomness_source=RandomnessSource.NONCE,
        )
        assert rederive(keys, seal).source is RandomnessSource.NONCE


def test_the_plan_without_public_randomness_still_decides():
    from auditor.audit import Plan, forecast_power

    sizes = owner.default_sizes(randomness=False)
    protocol = replace(
        owner.build_protocol(scheme=NewLabel(RECIPE.settings), secret=SECRET, sizes=sizes), forecast_rate=0.9
    )
    assert protocol.grinding_log2 == 64
    plan = Plan(alpha=protocol.alpha, max_keys=protocol.n_keys, deviations=())
    spec = InputSpec(shape=(1, 8, 8), classes=tuple("0123456789"))
    assert forecast_power(protocol, plan, spec) > 0.99


@pytest.mark.parametrize(
    ("lost", "trials", "words"),
    [
        (5, 547, ""),
        (6, 547, "clean accuracy is 1.10 points below the twin's, limit 0.91"),
        (50, 10_000, ""),
        (51, 10_000, "clean accuracy is 0.51 points below the twin's, limit 0.5"),
        (-3, 547, ""),
    ],
)
def test_a_small_test_part_is_judged_by_images_and_a_large_one_by_its_rate(lost, trials, words):
    twin, clean = (embedding.Share(hits=trials - 10 - each, trials=trials) for each in (0, lost))
    assert embedding.Limits().loss_missed(clean=clean, twin=twin) == words
