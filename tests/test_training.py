from dataclasses import replace

import numpy as np
import pytest
import torch

from auditor import datasets, models, training
from auditor.errors import TrainingError, UsageError

PLAN = training.TrainingPlan(epochs=2, batch_size=50, learning_rate=0.05, shift=1, seed=4, threads=1)


@pytest.fixture(scope="module")
def digits():
    return datasets.load("digits")


def train(dataset, plan, **options):
    part = dataset.train
    return training.train_unmarked(
        architecture="small-cnn", spec=dataset.spec, inputs=part.inputs, labels=part.labels, plan=plan, **options
    )


def weights(model):
    return model.network.state_dict()


def same(one, two):
    return all(torch.equal(one[k], two[k]) for k in one)


class Fixed:
    n_natural = 10
    apart = False

    def __init__(self, weight):
        self.weight = weight

    def draw(self, generator):
        n = int(generator.integers(1, 5))
        return training.SupplementBatch(
            inputs=np.zeros((n, 1, 8, 8), dtype=np.uint8),
            labels=np.zeros(n, dtype=np.int64),
            weights=np.full(n, self.weight, dtype=np.float32),
            codes=np.full(n, 3),
            code_weight=1.0,
        )


def test_training_is_a_function_of_the_seed_alone(digits):
    torch.manual_seed(1)
    np.random.seed(1)
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    one = weights(train(digits, PLAN))
    assert torch.equal(state, torch.get_rng_state())
    assert np.array_equal(numpy_state, np.random.get_state()[1])
    torch.manual_seed(2)
    np.random.seed(2)
    assert same(one, weights(train(digits, PLAN)))
    assert not same(one, weights(train(digits, replace(PLAN, seed=5))))


def test_thread_count_is_put_back(digits):
    before = torch.get_num_threads()
    train(digits, replace(PLAN, epochs=1, threads=before + 1))
    assert torch.get_num_threads() == before


def test_a_supplement_does_not_move_the_ordinary_batches(digits):
    # With frozen normalisation and weight 0 the supplement can only act through the order of the batches.
    def run(supplement):
        network = models.build(models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes), seed=0)
        part = digits.train
        training.fit(network, inputs=part.inputs, labels=part.labels, plan=PLAN, supplement=supplement)
        return network.state_dict()

    plain, silent, loud = run(None), run(Fixed(0.0)), run(Fixed(1.0))
    assert all(torch.allclose(plain[k], silent[k], atol=1e-5) for k in plain)
    assert not all(torch.allclose(plain[k], loud[k], atol=1e-3) for k in plain)


def test_the_network_learns_the_task(digits):
    model = train(digits, replace(PLAN, epochs=8, shift=0))
    assert training.accuracy(model.network, inputs=digits.test.inputs, labels=digits.test.labels) > 0.95
    assert not model.network.training


def test_divergence_is_a_training_error(digits):
    with pytest.raises(TrainingError, match="finite"):
        train(digits, replace(PLAN, learning_rate=1e12, epochs=5))


def test_impossible_plans_are_usage_errors(digits):
    for plan in (replace(PLAN, epochs=0), replace(PLAN, batch_size=1), replace(PLAN, learning_rate=0.0)):
        with pytest.raises(UsageError):
            train(digits, plan)
    if not torch.cuda.is_available():
        with pytest.raises(UsageError, match="CUDA"):
            train(digits, replace(PLAN, device=training.Device.CUDA))


def test_progress_counts_every_step(digits):
    class Counter:
        def __init__(self):
            self.total = self.done = self.ended = 0

        def begin(self, title, total):
            self.total += total

        def advance(self, n=1):
            self.done += n

        def note(self, text):
            pass

        def end(self):
            self.ended += 1

    counter = Counter()
    train(digits, PLAN, progress=counter)
    assert counter.total == counter.done == 2 * (1000 // 50)
    assert counter.ended == 1


def test_shifted_images_are_translations_with_zeros_at_the_border():
    image = np.arange(1, 17, dtype=np.uint8).reshape(1, 1, 4, 4)
    moved = training.shift_images(np.repeat(image, 200, axis=0), limit=1, generator=np.random.default_rng(0))
    padded = np.pad(image[0, 0], 1)
    wanted = {padded[i : i + 4, j : j + 4].tobytes() for i in range(3) for j in range(3)}
    assert {m.tobytes() for m in moved[:, 0]} == wanted
    assert training.shift_images(image, limit=0, generator=np.random.default_rng(0)) is image
