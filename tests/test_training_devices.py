"""What a GPU would be given: precision, layout, data on the device, compilation; on the CPU and the meta device."""

import functools
import shutil
from contextlib import nullcontext
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch._dynamo
import torch._inductor.exc
from typer.testing import CliRunner

from auditor import datasets, models, training
from auditor.cli.app import app
from auditor.errors import MissingPartError, TrainingError
from auditor.records import Silent
from auditor.schemes.triggers import TriggerSettings, TriggerSupplement
from auditor.training.compilation import require_compiler
from auditor.training.loop import Loop
from auditor.training.normalisation import ordinary_statistics

PLAN = training.TrainingPlan(epochs=1, batch_size=20, learning_rate=0.05, shift=1, flip=True, seed=4, threads=1)
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits():
    dataset = datasets.load("digits")
    return replace(dataset, train=dataset.train.take(np.arange(60)))


def supplement(digits, radius=10.0):
    return TriggerSupplement(
        inputs=digits.carriers.inputs[:8], labels=(digits.carriers.labels[:8] + 1) % 10, n_natural=10,
        settings=TriggerSettings(radius=radius, steps=2, per_step=5, random_start=radius > 0),
    )  # fmt: skip


class Coded:
    n_natural = 10
    apart = False

    def draw(self, generator):
        return training.SupplementBatch(
            inputs=np.zeros((3, 1, 8, 8), dtype=np.uint8), labels=np.full(3, 10), codes=np.array([1, -1, 2]),
            weights=np.ones(3, dtype=np.float32), code_weight=0.5,
        )  # fmt: skip


def network_of(digits, name="small-cnn", extra=()):
    shape = (1, 8, 8)
    return models.build(models.describe(name, input_shape=shape, classes=(*digits.classes, *extra)), seed=0)


def loop_of(digits, network, plan=PLAN, device=CPU, added=None):
    part = digits.train
    return Loop(
        network=network, inputs=part.inputs, labels=part.labels, plan=plan, supplement=added, device=device,
        title="t", progress=Silent(),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["small-cnn", "mlp", "resnet18"])
@pytest.mark.parametrize("added", ["nothing", "triggers", "codes"])
def test_a_whole_step_happens_on_the_device(digits, monkeypatch, name, added):
    # Operations that mix the meta device with another one fail; a forgotten transfer to a GPU would fail likewise.
    monkeypatch.setattr(Loop, "_precision", lambda self: nullcontext())
    extra = {"nothing": None, "triggers": supplement(digits), "codes": Coded()}[added]
    network = network_of(digits, name, extra=("new",))
    loop = loop_of(digits, network, device=torch.device("meta"), added=extra)
    network.train()
    with ordinary_statistics(network, n_ordinary=20) if added == "triggers" else nullcontext():
        loop._one_step(np.arange(20))
    assert loop.pixels.device.type == loop.targets.device.type == "meta"
    assert loop.pixels.shape == (60, 1, 8, 8)
    assert loop.pixels.dtype == torch.uint8
    assert {tensor.device.type for tensor in (*network.parameters(), *network.buffers(), *loop.losses)} == {"meta"}


def test_weights_and_batches_have_their_channels_last(digits):
    network = network_of(digits)
    loop = loop_of(digits, network, added=supplement(digits))
    seen = []
    second = network[4]
    second.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    network.train()
    loop._one_step(np.arange(20))
    assert second.weight.is_contiguous(memory_format=torch.channels_last)
    assert len(seen) == 3
    assert all(batch.is_contiguous(memory_format=torch.channels_last) for batch in seen)


@pytest.mark.parametrize("bfloat16", [False, True])
def test_bfloat16_is_for_activations_alone(digits, bfloat16):
    network = network_of(digits)
    loop = loop_of(digits, network, replace(PLAN, bfloat16=bfloat16), added=supplement(digits))
    seen = []
    network[0].register_forward_hook(lambda module, inputs, output: seen.append((module.training, output.dtype)))
    network.train()
    loop._one_step(np.arange(20))
    wanted = torch.bfloat16 if bfloat16 else torch.float32
    # Two steps of the ascent in evaluation mode, then the joint batch.
    assert seen == [(False, wanted), (False, wanted), (True, wanted)]
    assert loop.losses[0].dtype == torch.float32
    assert {p.dtype for p in network.parameters()} == {p.grad.dtype for p in network.parameters()} == {torch.float32}


def test_bfloat16_trains_like_float32(digits):
    whole = datasets.load("digits")
    found = []
    for bfloat16 in (False, True):
        plan = replace(PLAN, epochs=6, batch_size=50, shift=0, flip=False, bfloat16=bfloat16)
        model = training.train_unmarked(
            architecture="small-cnn", spec=whole.spec, inputs=whole.train.inputs, labels=whole.train.labels, plan=plan
        )
        found.append(training.accuracy(model.network, inputs=whole.test.inputs, labels=whole.test.labels))
        assert {p.dtype for p in model.network.parameters()} == {torch.float32}
    assert min(found) > 0.93


def test_a_trained_network_comes_back_to_the_cpu_in_the_usual_layout(digits):
    network = network_of(digits)
    training.fit(network, inputs=digits.train.inputs, labels=digits.train.labels, plan=PLAN)
    assert all(tensor.device.type == "cpu" and tensor.is_contiguous() for tensor in network.state_dict().values())


@pytest.fixture
def graphs(monkeypatch):
    """Compile to graphs that torch runs as they are: everything but the generated code."""
    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    yield
    torch._dynamo.reset()


def fitted(digits, plan, added, title="training"):
    network = network_of(digits, extra=("new",))
    record = training.fit(
        network, inputs=digits.train.inputs, labels=digits.train.labels, plan=plan, supplement=added, title=title
    )
    return network, record


@pytest.mark.parametrize("added", ["nothing", "triggers", "codes"])
def test_graphs_train_what_the_network_trains(digits, graphs, added):
    extra = {"nothing": None, "triggers": supplement(digits), "codes": Coded()}[added]
    plain, record = fitted(digits, PLAN, extra)
    compiled, again = fitted(digits, replace(PLAN, compiled=True), extra)
    assert again.final_loss == pytest.approx(record.final_loss, rel=1e-4)
    for one, two in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert torch.allclose(one.double(), two.double(), atol=1e-3)


def test_statistics_of_a_part_of_the_batch_are_not_compiled(digits, graphs):
    plan = replace(PLAN, compiled=True)
    apart = loop_of(digits, network_of(digits), plan, added=supplement(digits))
    assert apart.joint is apart.network
    assert apart.forward is not apart.network
    together = loop_of(digits, network_of(digits, extra=("new",)), plan, added=Coded())
    assert together.joint is together.forward is not together.network


def test_without_a_compiler_nothing_starts(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MissingPartError, match=r"C\+\+ compiler, and no-such-compiler is not here"):
        fitted(digits, replace(PLAN, compiled=True), None)
    command = ["train", "none", "--data", "digits", "--compile", "--device", "cpu", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 7, result.output
    assert result.stderr.splitlines()[-1].startswith("auditor: --compile needs a C++ compiler")


def test_a_gpu_compiles_with_triton(monkeypatch):
    from auditor.training import compilation

    monkeypatch.setattr(compilation, "find_spec", lambda name: None)
    with pytest.raises(MissingPartError, match="triton"):
        require_compiler(torch.device("cuda"))
    monkeypatch.setattr(compilation, "find_spec", lambda name: object())
    require_compiler(torch.device("cuda"))


def test_a_failing_compiler_is_one_line(digits, monkeypatch):
    class Broken(torch.nn.Module):
        def __init__(self, error):
            super().__init__()
            self.error = error

        def forward(self, inputs):
            raise self.error

    failures = {
        MissingPartError: torch._inductor.exc.CppCompileError(["g++", "secret.cpp"], "fatal error: Python.h"),
        TrainingError: torch.cuda.OutOfMemoryError("CUDA out of memory"),
        RuntimeError: RuntimeError("a bug"),
    }
    for kind, error in failures.items():
        broken = Broken(error)
        monkeypatch.setattr(torch, "compile", lambda network, broken=broken: broken)
        with pytest.raises(kind) as caught:
            fitted(digits, replace(PLAN, compiled=True), None, title="the twin")
        if kind is MissingPartError:
            assert str(caught.value).startswith("the twin: torch could not compile the network (CppCompileError)")
            assert "\n" not in str(caught.value)
            assert "secret" not in str(caught.value)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(shutil.which("g++") is None, reason="no C++ compiler")
@pytest.mark.parametrize("added", ["nothing", "triggers", "codes"])
def test_compiled_code_trains_what_the_network_trains(digits, added):
    """About a minute of one core each where nothing is cached."""
    extra = {"nothing": None, "triggers": supplement(digits), "codes": Coded()}[added]
    torch._dynamo.reset()
    plain, record = fitted(digits, PLAN, extra)
    compiled, again = fitted(digits, replace(PLAN, compiled=True), extra)
    torch._dynamo.reset()
    assert again.final_loss == pytest.approx(record.final_loss, rel=1e-3)
    for one, two in zip(plain.state_dict().values(), compiled.state_dict().values(), strict=True):
        assert torch.allclose(one.double(), two.double(), atol=1e-2)
