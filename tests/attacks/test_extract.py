import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import web
from PIL import Image
from scipy.special import rel_entr, softmax

from auditor import models, serving, training
from auditor.attacks import build_attack, victims
from auditor.attacks.base import AttackData, half_test
from auditor.attacks.data import Source, adapted, attacker_data
from auditor.attacks.distill import Distill
from auditor.attacks.ensemble import Ensemble, Others
from auditor.attacks.extract import Extract, Taught
from auditor.attacks.imitate import output_names, without_new_labels
from auditor.attacks.objectives import Imitation, imitation_loss
from auditor.attacks.victims import Answers, chosen_rows
from auditor.errors import MalformedError, SuspectAnswerError, TrainingError, UsageError
from auditor.suspects import open_suspect
from auditor.transforms import largest, rounded

RNG = np.random.default_rng(8)
LOGITS, TEACHER = RNG.normal(size=(20, 6)), softmax(2 * RNG.normal(size=(20, 6)), axis=1)
LABELS = RNG.integers(0, 6, 20)


@pytest.mark.parametrize(("mix", "temperature", "factor"), [(1, 1, 1), (0.7, 1, 1), (0.7, 4, 16), (0, 2, 1)])
def test_the_loss_is_the_formula(mix, temperature, factor):
    student = softmax(LOGITS / temperature, axis=1)
    kl = rel_entr(TEACHER, student).sum(axis=1).mean()
    ce = -np.log(softmax(LOGITS, axis=1)[np.arange(20), LABELS]).mean()
    got = imitation_loss(
        torch.from_numpy(LOGITS), torch.from_numpy(TEACHER), torch.from_numpy(LABELS),
        mix=mix, temperature=temperature, factor=factor,
    )  # fmt: skip
    assert float(got) == pytest.approx((1 - mix) * ce + factor * mix * kl, rel=1e-9)


def test_zero_probabilities_cost_nothing():
    one_hot = np.eye(6)[LABELS]
    got = imitation_loss(
        torch.from_numpy(LOGITS), torch.from_numpy(one_hot), torch.from_numpy(LABELS), mix=1, temperature=1
    )
    wanted = torch.nn.functional.cross_entropy(torch.from_numpy(LOGITS), torch.from_numpy(LABELS))
    assert float(got) == pytest.approx(float(wanted))


def test_teacher_and_student_are_taken_at_the_same_temperature():
    network = torch.nn.Flatten()
    images = torch.from_numpy(LOGITS).float().reshape(20, 6, 1, 1)
    objective = Imitation(answers=TEACHER, temperature=3.0, temperature_squared=True)
    got = objective.loss(network, images, np.arange(20), torch.from_numpy(LABELS))
    teacher = softmax(np.log(TEACHER) / 3, axis=1)
    wanted = 9 * rel_entr(teacher, softmax(LOGITS / 3, axis=1)).sum(axis=1).mean()
    assert float(got) == pytest.approx(wanted, rel=1e-5)


def test_an_objective_replaces_the_loss_and_sees_every_row(digits, plan):
    seen = []

    class Watching:
        def loss(self, network, images, rows, labels):
            assert images.shape == (50, 1, 8, 8)
            assert float(images.max()) <= 1
            assert np.array_equal(labels.numpy(), digits.train.labels[rows])
            seen.extend(rows.tolist())
            return torch.nn.functional.cross_entropy(network(images), labels)

    networks = [
        models.build(models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes), seed=1) for _ in "ab"
    ]
    once = replace(plan, epochs=1, label_smoothing=0.0)
    for network, objective in zip(networks, (Watching(), None), strict=True):
        training.fit(network, inputs=digits.train.inputs, labels=digits.train.labels, plan=once, objective=objective)
    assert sorted(seen) == list(range(1000))
    for one, two in zip(networks[0].parameters(), networks[1].parameters(), strict=True):
        torch.testing.assert_close(one, two)


@pytest.mark.parametrize(
    "settings",
    [{"taught": "soft"}, {"taught": "hard"}, {"taught": "top-k", "k": 2}, {"taught": "rounded", "architecture": "mlp"}],
)
def test_surrogates_learn_the_task_from_answers(victim, digits, plan, settings):
    data = AttackData(own=digits.train, evaluation=digits.test)
    attack = build_attack("extract", {**settings, "epochs": 4, "batch_size": 50, "threads": 1})
    surrogate = attack.run(victim=victim, data=data)
    assert surrogate.accuracy_after > 0.8
    assert (surrogate.queries, surrogate.accuracy_before) == (1000, training.accuracy(
        victim.network, inputs=digits.test.inputs, labels=digits.test.labels
    ))  # fmt: skip
    assert surrogate.answers_right == np.mean(
        models.labels_of(victim.network, digits.train.inputs) == digits.train.labels
    )
    assert surrogate.model.description.architecture == settings.get("architecture", "small-cnn")
    assert json.loads(json.dumps(surrogate.as_json()))["settings"]["taught"] == settings["taught"]


def test_labels_of_the_attacker_are_not_read(victim, digits, plan):
    own, evaluation = digits.test.halves()
    wrong = replace(own, labels=np.zeros_like(own.labels))
    one, two = (
        Extract(plan=replace(plan, epochs=1)).run(victim=victim, data=AttackData(own=part, evaluation=evaluation))
        for part in (own, wrong)
    )
    for a, b in zip(one.model.network.parameters(), two.model.network.parameters(), strict=True):
        assert torch.equal(a, b)


def test_what_is_taught_is_the_changed_answer(victim, digits, plan):
    scores = models.predict(victim.network, digits.test.inputs).astype(float)
    scores /= scores.sum(axis=1, keepdims=True)
    answers = Answers(labels=scores.argmax(axis=1), probabilities=scores)
    assert np.array_equal(Extract(taught=Taught.TOP_K, k=3)._taught(answers), largest(scores, k=3))
    assert np.array_equal(Extract(taught=Taught.ROUNDED, decimals=2)._taught(answers), rounded(scores, decimals=2))
    with pytest.raises(SuspectAnswerError, match="labels only; soft"):
        Extract()._taught(Answers(labels=answers.labels, probabilities=None))


@pytest.mark.parametrize(
    ("mode", "settings"),
    [("scores", {}), ("labels", {"taught": Taught.HARD}), ("top-k", {"taught": Taught.TOP_K, "k": 3})],
)
def test_a_service_is_asked_each_image_once_and_no_more_than_the_budget(victim, digits, plan, mode, settings):
    asked = []

    def predict(inputs):
        asked.extend(image.tobytes() for image in inputs)
        return models.predict(victim.network, inputs)

    app = serving.create_app(
        predict, name="v", classes=digits.classes, input_shape=(1, 8, 8), answers=serving.AnswerMode(mode), top_k=3
    )
    attack = Extract(plan=replace(plan, epochs=2), budget=150, **settings)
    data = AttackData(own=digits.train, evaluation=digits.test)
    with web.running(app) as url, open_suspect(endpoint=url, batch_size=64) as suspect:
        surrogate = attack.run_on_service(suspect=suspect, data=data, classes=digits.classes)
    pool = {image.tobytes() for image in digits.train.inputs}
    assert len(asked) == surrogate.queries == 150
    assert set(asked) <= pool
    assert surrogate.accuracy_before is None
    assert surrogate.answers_right > 0.9
    local = attack.run(victim=victim, data=data)
    assert local.queries == 150
    # The service rounds scores to six digits; labels are the same ones.
    assert surrogate.accuracy_after == pytest.approx(local.accuracy_after, abs=0.0 if mode == "labels" else 0.05)


def test_a_budget_larger_than_the_data_asks_nothing(victim, digits, plan):
    with pytest.raises(UsageError, match="budget of 1001 queries does not fit the attacker's 1000 images"):
        Extract(plan=plan, budget=1001).run(victim=victim, data=AttackData(own=digits.train, evaluation=digits.test))
    assert chosen_rows(10, budget=None, seed=0).tolist() == list(range(10))
    assert len(set(chosen_rows(10, budget=4, seed=0).tolist())) == 4
    assert chosen_rows(1000, budget=400, seed=0).tolist() != chosen_rows(1000, budget=400, seed=1).tolist()


def test_answers_are_kept_and_bought_once(victim, digits, plan, tmp_path, monkeypatch):
    attack, data, path = Extract(plan=replace(plan, epochs=1)), half_test(digits.test), tmp_path / "answers.safetensors"
    first = attack.run(victim=victim, data=data, answers_file=path)

    def refuse(*_, **__):
        raise AssertionError("asked again")

    monkeypatch.setattr(victims, "predict", refuse)
    second = attack.run(victim=victim, data=data, answers_file=path)
    for a, b in zip(first.model.network.parameters(), second.model.network.parameters(), strict=True):
        assert torch.equal(a, b)
    other = AttackData(own=digits.train, evaluation=digits.test)
    with pytest.raises(UsageError, match="other images"):
        attack.run(victim=victim, data=other, answers_file=path)
    path.write_bytes(b"\x80\x04nonsense")
    with pytest.raises(MalformedError, match="not a file of kept answers"):
        attack.run(victim=victim, data=data, answers_file=path)


def test_new_labels_can_be_hidden():
    p = np.array([[0.6, 0.2, 0.2], [0.0, 0.0, 1.0], [0.1, 0.3, 0.6]])
    natural = without_new_labels(Answers(labels=p.argmax(axis=1), probabilities=p), n_natural=2)
    assert natural.rows.tolist() == [0, 2]
    np.testing.assert_allclose(natural.answers.probabilities, [[0.75, 0.25], [0.25, 0.75]])
    assert natural.answers.labels.tolist() == [0, 1]
    plain = without_new_labels(Answers(labels=np.array([0, 2, 1]), probabilities=None), n_natural=2)
    assert plain.rows.tolist() == [0, 2]


def test_surrogates_have_an_output_for_every_label_seen():
    answers = Answers(labels=np.array([0, 4]), probabilities=None)
    assert output_names(("a", "b"), answers=answers, declared=3) == ("a", "b", "output-2", "output-3", "output-4")


@pytest.mark.parametrize("hide", [True, False])
def test_a_victim_with_a_new_label(digits, plan, hide):
    description = models.describe("mlp", input_shape=(1, 8, 8), classes=(*digits.classes, "Δ"))
    marked = models.LoadedModel(network=models.build(description, seed=1), description=description)
    attack = Extract(plan=replace(plan, epochs=1), hide_new_labels=hide)
    surrogate = attack.run(victim=marked, data=half_test(digits.test))
    assert surrogate.model.description.n_outputs == (10 if hide else 11)


def test_foreign_images_are_brought_into_shape_and_have_no_labels(victim, digits, plan):
    grey = RNG.integers(0, 256, (5, 1, 16, 16), dtype=np.uint8)
    pillow = np.stack([np.asarray(Image.fromarray(i[0]).resize((8, 8), Image.Resampling.BILINEAR)) for i in grey])
    assert np.abs(adapted(grey, shape=(1, 8, 8))[:, 0].astype(int) - pillow).max() <= 1
    colour = RNG.integers(0, 256, (5, 3, 8, 8), dtype=np.uint8)
    assert np.array_equal(adapted(colour, shape=(1, 8, 8))[:, 0], np.rint(colour.mean(axis=1)).astype(np.uint8))
    assert np.array_equal(adapted(grey, shape=(3, 16, 16)), np.repeat(grey, 3, axis=1))
    other = replace(digits, name="other", train=replace(digits.train.take(np.arange(5)), inputs=colour))
    data = attacker_data(digits, source=Source.FOREIGN, foreign=other)
    assert (data.labelled, data.own.inputs.shape) == (False, (5, 1, 8, 8))
    surrogate = Extract(plan=replace(plan, epochs=1)).run(victim=victim, data=data)
    assert surrogate.answers_right is None
    with pytest.raises(UsageError, match="labels of the victim's task"):
        Distill(plan=plan).run(victim=victim, data=data)
    for source, foreign in ((Source.FOREIGN, None), (Source.OWNER, other), (Source.FOREIGN, digits)):
        with pytest.raises(UsageError):
            attacker_data(digits, source=source, foreign=foreign)


def test_the_attackers_rest_and_the_owners_share_are_disjoint(digits):
    data = attacker_data(digits, source=Source.REST, owner_share=0.7, split_seed=5)
    assert len(data.own) == 300
    assert len(attacker_data(digits, source=Source.OWNER).own) == 1000


def test_students_of_every_mixture_learn_the_task(victim, digits, plan):
    data = AttackData(own=digits.train, evaluation=digits.test)
    for settings in ({}, {"temperature": 4.0, "temperature_squared": True, "mix": 0.9}, {"mix": 0.0}):
        surrogate = Distill(plan=plan, **settings).run(victim=victim, data=data)
        assert surrogate.accuracy_after > 0.8


def test_an_ensemble_of_victim_and_others(victim, digits, plan):
    data = AttackData(own=digits.train, evaluation=digits.test)
    surrogate = Ensemble(plan=replace(plan, epochs=2), n_others=2).run(victim=victim, data=data)
    members = surrogate.model.members
    each = np.stack([models.predict(m.network, digits.test.inputs) for m in members])
    assert len(members) == 3
    assert np.array_equal(each[0], models.predict(victim.network, digits.test.inputs))
    assert not np.array_equal(each[1], each[2])
    np.testing.assert_allclose(
        models.predict(surrogate.model.network, digits.test.inputs), each.mean(axis=0), atol=1e-6
    )
    alone = Ensemble(plan=replace(plan, epochs=1), others=Others.EXTRACTED, n_others=1, with_victim=False)
    assert len(alone.run(victim=victim, data=data).model.members) == 1
    # A wrapped service can be extracted from, but nothing else opens it.
    again = Extract(plan=replace(plan, epochs=1)).run(victim=surrogate.model, data=half_test(digits.test))
    assert again.queries == 274


def test_a_victim_that_says_labels_only_is_not_asked_for_scores(victim, digits, plan):
    asked = []

    def predict(inputs):
        asked.append(len(inputs))
        return models.predict(victim.network, inputs)

    app = serving.create_app(
        predict, name="v", classes=digits.classes, input_shape=(1, 8, 8), answers=serving.AnswerMode.LABELS
    )
    refused = pytest.raises(SuspectAnswerError, match="labels only; soft extraction needs scores")
    with web.running(app) as url, open_suspect(endpoint=url) as suspect, refused:
        Extract(plan=plan).run_on_service(suspect=suspect, data=half_test(digits.test), classes=digits.classes)
    assert asked == []


def test_nothing_is_learned_from_new_labels_alone():
    with pytest.raises(SuspectAnswerError, match="no image with a natural class"):
        without_new_labels(Answers(labels=np.array([5, 5]), probabilities=None), n_natural=5)


def test_kept_answers_belong_to_one_model(victim, digits, plan, tmp_path):
    attack, path = Extract(plan=replace(plan, epochs=1)), tmp_path / "answers"
    attack.run(victim=victim, data=half_test(digits.test), answers_file=path)
    other = models.LoadedModel(network=models.build(victim.description, seed=5), description=victim.description)
    with pytest.raises(UsageError, match="another victim"):
        attack.run(victim=other, data=half_test(digits.test), answers_file=path)


@pytest.mark.parametrize("attack", [Extract, Distill])
def test_a_loss_that_is_no_number_is_a_training_error(victim, digits, plan, attack):
    with pytest.raises(TrainingError, match="no longer a finite number"):
        attack(plan=replace(plan, learning_rate=1e9)).run(victim=victim, data=half_test(digits.test))
