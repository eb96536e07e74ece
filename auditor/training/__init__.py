"""The one training loop: deterministic from its seed, silent unless asked, without traces in global random state."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.errors import TrainingError, UsageError
from auditor.models import LoadedModel, build, describe, labels_of
from auditor.records import Inputs, InputSpec, Progress, Silent
from auditor.training.checkpoints import Checkpoints as Checkpoints
from auditor.training.compilation import compilation_errors
from auditor.training.loop import Loop
from auditor.training.normalisation import ordinary_statistics
from auditor.training.plan import Device as Device
from auditor.training.plan import TrainingPlan as TrainingPlan
from auditor.training.plan import resolve_device as resolve_device
from auditor.training.supplement import Objective as Objective
from auditor.training.supplement import Pressure as Pressure
from auditor.training.supplement import Supplement as Supplement
from auditor.training.supplement import SupplementBatch as SupplementBatch
from auditor.training.supplement import Watch as Watch

if TYPE_CHECKING:
    import torch


KERNEL_CHANNELS = 8
"""Channels of a 1x1 convolution come in multiples of this where it is trained on a CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """How a training run ended."""

    steps: int
    final_loss: float
    """Mean loss over the last epoch."""
    device: str


def shift_images(inputs: Inputs, *, limit: int, generator: np.random.Generator) -> Inputs:
    """Return the images moved by up to ``limit`` pixels, each by its own offset; zeros come in at the border."""
    if limit == 0:
        return inputs
    n, _, height, width = inputs.shape
    padded = np.pad(inputs, ((0, 0), (0, 0), (limit, limit), (limit, limit)))
    tops, lefts = generator.integers(0, 2 * limit + 1, size=(2, n))
    rows = tops[:, None] + np.arange(height)
    columns = lefts[:, None] + np.arange(width)
    moved = padded[np.arange(n)[:, None, None], :, rows[:, :, None], columns[:, None, :]]
    return np.ascontiguousarray(moved.transpose(0, 3, 1, 2))


def accuracy(network: "torch.nn.Module", *, inputs: Inputs, labels: npt.NDArray[np.int64]) -> float:
    """Return the share of inputs whose top-1 label is the given one."""
    return float(np.mean(labels_of(network, inputs) == labels))


def train_unmarked(
    *,
    architecture: str,
    spec: InputSpec,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    plan: TrainingPlan,
    options: Mapping[str, int] | None = None,
    title: str = "training an unmarked model",
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> LoadedModel:
    """Return a model trained without any mark: the owner's twin, or an innocent reference."""
    description = describe(architecture, input_shape=spec.shape, classes=spec.classes, options=options)
    network = build(description, seed=plan.seed)
    fit(network, inputs=inputs, labels=labels, plan=plan, title=title, progress=progress, checkpoints=checkpoints)
    return LoadedModel(network=network, description=description)


def fit(
    network: "torch.nn.Module",
    *,
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    plan: TrainingPlan,
    supplement: Supplement | None = None,
    objective: Objective | None = None,
    title: str = "training",
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
    watch: Watch | None = None,
) -> FitRecord:
    """Train ``network`` in place and leave it in evaluation mode on the CPU.

    Only parameters that require gradients change. Ordinary batches come in the same order with and without a
    supplement, so that a marked model and its unmarked twin see the same data.

    Args:
        network: maps float images in [0, 1] to logits.
        inputs: uint8, shape (n, channels, height, width); held on the device throughout.
        labels: shape (n,).
        plan: the recipe.
        supplement: marked samples that join every step.
        objective: the loss of the ordinary images, in place of everything else; not together with a supplement.
        title: what the progress display calls this run.
        progress: where to report; one unit per step.
        checkpoints: where the state is kept; a run that finds its own state there goes on from it, bit for bit.
        watch: what is said about the network after every epoch.

    Raises:
        UsageError: the plan cannot be followed, the network is too narrow for a CPU, or the checkpoint belongs to
            another run.
        TrainingError: the loss stopped being a finite number, or the device's memory is too small.
        MissingPartError: the plan compiles the network, and there is no working compiler.
    """
    import torch

    if len(inputs) != len(labels) or len(inputs) == 0:
        raise ValueError("inputs and labels must be of one length, at least 1")
    problem = plan.problem()
    if problem:
        raise UsageError(problem)
    device = resolve_device(plan.device)
    if device.type == "cpu":
        _refuse_narrow(network)
    apart = supplement is not None and supplement.apart
    n_ordinary = min(plan.batch_size, len(inputs))
    split = ordinary_statistics(network, n_ordinary=n_ordinary) if apart else nullcontext()
    try:
        with _settled(plan), split, compilation_errors(title):
            loop = Loop(
                network=network, inputs=inputs, labels=labels, plan=plan, supplement=supplement,
                objective=objective, device=device,
                title=title, progress=progress or Silent(), checkpoints=checkpoints, watch=watch,
            )  # fmt: skip
            final_loss = loop.run()
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{title}: the memory of the {device.type} device is too small for batches of {plan.batch_size}; "
            f"take a smaller --batch-size, such as {max(2, plan.batch_size // 2)}"
        ) from error
    network.to(torch.device("cpu"), memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()
    return FitRecord(steps=loop.n_steps, final_loss=final_loss, device=device.type)


@contextmanager
def _settled(plan: TrainingPlan) -> Iterator[None]:
    """Fix what makes runs differ between machines' moods: number of threads, choice of GPU kernels."""
    import torch

    threads = torch.get_num_threads()
    deterministic, benchmark = torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark
    if plan.threads:
        torch.set_num_threads(plan.threads)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, benchmark


def _refuse_narrow(network: "torch.nn.Module") -> None:
    """Refuse what torch would train by writing past its memory.

    On processors without AVX-512 the weights' gradient of a 1x1 convolution is a kernel of oneDNN (3.12, in torch
    2.13) that takes channels in eights. With fewer the process is aborted at best.
    """
    import torch

    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d) and layer.kernel_size == (1, 1):
            channels = layer.in_channels, layer.out_channels
            if any(n % KERNEL_CHANNELS for n in channels):
                raise UsageError(
                    f"a 1x1 convolution from {channels[0]} to {channels[1]} channels cannot be trained on a CPU; "
                    f"take a --width that is a multiple of {KERNEL_CHANNELS}"
                )
