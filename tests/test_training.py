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


class KilledError(Exception):
    pass


class KillAt:
    def __init__(self, step):
        self.left = step

    def begin(self, title, total):
        pass

    def advance(self, n=1):
        self.left -= n
        if self.left <= 0:
            raise KilledError

    def note(self, text):
        self.noted = text

    def end(self):
        pass


class Perturbed(Fixed):
    apart = True

    def draw(self, generator):
        batch = super().draw(generator)
        start = generator.uniform(-1, 1, batch.inputs.shape).astype(np.float32)
        pressure = training.Pressure(steps=2, step_size=0.05, random_start=True, ramp=0.5)
        return replace(batch, pressure=pressure, start=start)


STEPPED = replace(PLAN, epochs=3, drops=(1, 2), flip=True, momentum=0.0)


@pytest.mark.parametrize("plan", [replace(PLAN, epochs=3), STEPPED, replace(PLAN, epochs=3, bfloat16=True)])
def test_killed_and_resumed_gives_the_same_weights_bit_for_bit(digits, tmp_path, plan):
    part = digits.train.take(np.arange(300))
    description = models.describe("small-cnn", input_shape=(1, 8, 8), classes=digits.classes)

    def run(checkpoints=None, progress=None):
        network = models.build(description, seed=1)
        training.fit(
            network, inputs=part.inputs, labels=part.labels, plan=plan, supplement=Perturbed(1.0),
            checkpoints=checkpoints, progress=progress,
        )  # fmt: skip
        return network.state_dict()

    whole = run()
    checkpoints = training.Checkpoints(folder=tmp_path, every_steps=4, identity="a")
    killer = KillAt(15)
    with pytest.raises(KilledError):
        run(checkpoints, killer)
    assert same(whole, run(checkpoints))
    # The finished state is kept as well: nothing is trained a second time.
    assert same(whole, run(checkpoints, KillAt(19)))
    with pytest.raises(UsageError, match="other data or settings"):
        run(replace(checkpoints, identity="b"))
    next(tmp_path.glob("*.state")).write_bytes(b"cut short")
    with pytest.raises(UsageError, match="not a checkpoint"):
        run(checkpoints)


def test_samples_without_pressure_train_like_plain_ones(digits):
    part = digits.train.take(np.arange(200))

    class Unmoved(Perturbed):
        def draw(self, generator):
            batch = super().draw(generator)
            return replace(batch, pressure=replace(batch.pressure, ball=0.0))

    class Plain(Perturbed):
        def draw(self, generator):
            return replace(super().draw(generator), pressure=None, start=None)

    found = []
    for supplement in (Plain(1.0), Unmoved(1.0)):
        network = models.build(models.describe("small-cnn", input_shape=(1, 8, 8), classes=digits.classes), seed=0)
        training.fit(network, inputs=part.inputs, labels=part.labels, plan=PLAN, supplement=supplement)
        found.append(network.state_dict())
    assert same(*found)


def test_learning_rate_falls_to_a_tenth_after_each_drop(digits):
    from auditor.records import Silent
    from auditor.training.loop import Loop

    part = digits.train.take(np.arange(200))
    network = models.build(models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes), seed=0)
    loop = Loop(
        network=network, inputs=part.inputs, labels=part.labels, plan=STEPPED, supplement=None,
        device=torch.device("cpu"), title="t", progress=Silent(),
    )  # fmt: skip
    loop.run()
    assert loop.optimizer.param_groups[0]["lr"] == pytest.approx(0.05 / 100)
    for drops in ((0,), (3,), (2, 1), (1, 1)):
        with pytest.raises(UsageError, match="drops"):
            train(digits, replace(STEPPED, drops=drops))


def test_memory_that_is_too_small_names_the_batch_size(digits):
    class Greedy(torch.nn.Linear):
        def forward(self, inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

    part = digits.train
    with pytest.raises(TrainingError, match=r"batches of 50.*--batch-size"):
        training.fit(Greedy(2, 2), inputs=part.inputs, labels=part.labels, plan=PLAN)


def test_watch_speaks_after_every_epoch(digits):
    class Notes(KillAt):
        def __init__(self):
            self.left, self.notes = 10**6, []

        def note(self, text):
            self.notes.append(text)

    def watch(network):
        return "in evaluation mode" if not network.training else "in training mode"

    notes, part = Notes(), digits.train
    network = models.build(models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes), seed=0)
    training.fit(network, inputs=part.inputs, labels=part.labels, plan=PLAN, progress=notes, watch=watch)
    assert notes.notes == ["epoch 1 of 2: in evaluation mode", "epoch 2 of 2: in evaluation mode"]


def test_the_loop_augments_like_the_stock_function(digits):
    from auditor.records import Silent
    from auditor.training.loop import Loop

    part = digits.train.take(np.arange(40))
    network = models.build(models.describe("mlp", input_shape=(1, 8, 8), classes=digits.classes), seed=0)
    loop = Loop(
        network=network, inputs=part.inputs, labels=part.labels, plan=replace(PLAN, batch_size=40), supplement=None,
        device=torch.device("cpu"), title="t", progress=Silent(),
    )  # fmt: skip
    stream = np.random.default_rng([PLAN.seed, 1])
    wanted = training.shift_images(part.inputs, limit=1, generator=stream)
    assert np.array_equal(loop._augmented(loop.pixels).numpy(), wanted)
    loop.plan = replace(PLAN, shift=0, flip=True)
    mirrored = stream.random(40) < 0.5
    flipped = np.where(mirrored[:, None, None, None], part.inputs[..., ::-1], part.inputs)
    assert np.array_equal(loop._augmented(loop.pixels).numpy(), flipped)
