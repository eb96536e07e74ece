"""The one training loop: deterministic from its seed, silent unless asked, without traces in global random state."""

import math
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from auditor.errors import TrainingError, UsageError
from auditor.models import LoadedModel, build, describe, labels_of
from auditor.records import Inputs, InputSpec, Progress, Silent

if TYPE_CHECKING:
    import torch


class Device(StrEnum):
    """Where to compute."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingPlan:
    """The whole recipe of one training run."""

    epochs: int
    batch_size: int
    learning_rate: float
    """Peak of the one-cycle schedule."""
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.05
    shift: int = 0
    """Training images are moved by up to this many pixels in both directions."""
    seed: int = 0
    device: Device = Device.AUTO
    threads: int = 0
    """CPU threads during the run; 0 leaves the process's setting alone."""
    bfloat16: bool = False
    """Compute activations in bfloat16 (autocast)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplementBatch:
    """Marked samples that join one step's ordinary batch."""

    inputs: Inputs
    labels: npt.NDArray[np.int64]
    weights: npt.NDArray[np.float32]
    """Weight of each sample's loss; an ordinary sample weighs 1."""
    codes: npt.NDArray[np.int64]
    """Second label per sample, wanted among the natural classes; -1 for none."""
    code_weight: float
    """Weight of the second label's loss relative to the first's."""


class Supplement(Protocol):
    """Where marked samples come from; schemes provide it."""

    @property
    def n_natural(self) -> int:
        """Return the number of natural classes, over which the second label's loss is taken."""

    def draw(self, generator: np.random.Generator) -> SupplementBatch:
        """Return the marked samples of the next step."""


class Objective(Protocol):
    """What a step minimises instead of cross-entropy on the given labels; attacks provide it."""

    def loss(
        self, network: "torch.nn.Module", images: "torch.Tensor", rows: npt.NDArray[np.intp], labels: "torch.Tensor"
    ) -> "torch.Tensor":
        """Return the scalar loss of one batch.

        Args:
            network: in training mode; it must be left in training mode.
            images: float in [0, 1], shape (n, channels, height, width), on the device of the network.
            rows: which of the inputs they are.
            labels: shape (n,), on the same device.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class FitRecord:
    """How a training run ended."""

    steps: int
    final_loss: float
    """Mean loss over the last epoch."""
    device: str


def resolve_device(device: Device) -> "torch.device":
    """Return the device to use.

    Raises:
        UsageError: CUDA was demanded and is not there.
    """
    import torch

    if device is Device.CUDA and not torch.cuda.is_available():
        raise UsageError("device 'cuda' was demanded, but torch sees no CUDA device; use --device cpu or auto")
    if device is Device.CPU or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda")


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
    title: str = "training an unmarked model",
    progress: Progress | None = None,
) -> LoadedModel:
    """Return a model trained without any mark: the owner's twin, or an innocent reference."""
    description = describe(architecture, input_shape=spec.shape, classes=spec.classes)
    network = build(description, seed=plan.seed)
    fit(network, inputs=inputs, labels=labels, plan=plan, title=title, progress=progress)
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
) -> FitRecord:
    """Train ``network`` in place and leave it in evaluation mode on the CPU.

    Only parameters that require gradients change. Ordinary batches come in the same order with and without a
    supplement, so that a marked model and its unmarked twin see the same data.

    Args:
        network: maps float images in [0, 1] to logits.
        inputs: uint8, shape (n, channels, height, width).
        labels: shape (n,).
        plan: the recipe.
        supplement: marked samples that join every step.
        objective: the loss of the ordinary images, in place of everything else; not together with a supplement.
        title: what the progress display calls this run.
        progress: where to report; one unit per step.

    Raises:
        TrainingError: the loss stopped being a finite number.
    """
    import torch

    _check(plan, n=len(inputs), n_labels=len(labels))
    watcher = progress or Silent()
    threads_before = torch.get_num_threads()
    if plan.threads:
        torch.set_num_threads(plan.threads)
    try:
        return _run(network, inputs, labels, plan, supplement, objective, title, watcher)
    finally:
        torch.set_num_threads(threads_before)


def _check(plan: TrainingPlan, *, n: int, n_labels: int) -> None:
    if n != n_labels or n == 0:
        raise ValueError("inputs and labels must be of one length, at least 1")
    if plan.epochs < 1 or plan.batch_size < 2 or plan.learning_rate <= 0:
        raise UsageError("a training plan needs at least one epoch, batches of two and a positive learning rate")


def _run(
    network: "torch.nn.Module",
    inputs: Inputs,
    labels: npt.NDArray[np.int64],
    plan: TrainingPlan,
    supplement: Supplement | None,
    objective: Objective | None,
    title: str,
    progress: Progress,
) -> FitRecord:
    import torch

    device = resolve_device(plan.device)
    # Two streams: what the supplement draws must not move the order of the ordinary batches.
    order_stream, supplement_stream = (np.random.default_rng([plan.seed, purpose]) for purpose in (1, 2))
    batch_size = min(plan.batch_size, len(inputs))
    steps_per_epoch = len(inputs) // batch_size
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.train()
    parameters = [p for p in network.parameters() if p.requires_grad]
    optimizer = torch.optim.SGD(
        parameters,
        lr=plan.learning_rate,
        momentum=plan.momentum,
        weight_decay=plan.weight_decay,
        nesterov=plan.momentum > 0,
    )
    n_steps = plan.epochs * steps_per_epoch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=plan.learning_rate, total_steps=n_steps + 1, cycle_momentum=False
    )
    progress.begin(title, n_steps)
    losses: list[float] = []
    for _ in range(plan.epochs):
        order = order_stream.permutation(len(inputs))
        losses = []
        for step in range(steps_per_epoch):
            rows = order[step * batch_size : (step + 1) * batch_size]
            ordinary = shift_images(inputs[rows], limit=plan.shift, generator=order_stream)
            marked = supplement.draw(supplement_stream) if supplement is not None else None
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=plan.bfloat16):
                if objective is None:
                    loss = _loss(network, ordinary, labels[rows], marked, supplement, plan, device)
                else:
                    images = torch.from_numpy(ordinary).to(device).float().div_(255.0)
                    loss = objective.loss(network, images, rows, torch.from_numpy(labels[rows]).to(device))
            value = float(loss.detach())
            if not math.isfinite(value):
                raise TrainingError(f"{title}: the loss is no longer a finite number; lower the learning rate")
            losses.append(value)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            progress.advance()
    progress.end()
    network.to(torch.device("cpu"), memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    network.eval()
    return FitRecord(steps=n_steps, final_loss=float(np.mean(losses)), device=device.type)


def _loss(
    network: "torch.nn.Module",
    ordinary: Inputs,
    labels: npt.NDArray[np.int64],
    marked: SupplementBatch | None,
    supplement: Supplement | None,
    plan: TrainingPlan,
    device: "torch.device",
) -> "torch.Tensor":
    import torch
    from torch.nn import functional

    pixels = ordinary if marked is None else np.concatenate([ordinary, marked.inputs])
    targets = labels if marked is None else np.concatenate([labels, marked.labels])
    batch = torch.from_numpy(pixels).to(device).float().div_(255.0).contiguous(memory_format=torch.channels_last)
    logits = network(batch).float()
    losses = functional.cross_entropy(
        logits, torch.from_numpy(targets).to(device), reduction="none", label_smoothing=plan.label_smoothing
    )
    if marked is None or supplement is None:
        return losses.mean()
    n = len(ordinary)
    weights = torch.from_numpy(marked.weights).to(device)
    # Dividing by the ordinary samples alone keeps their gradient the same with and without a supplement.
    total = losses[:n].mean() + (losses[n:] * weights).sum() / n
    coded = np.flatnonzero(marked.codes >= 0)
    if len(coded) == 0:
        return total
    picked = torch.from_numpy(coded).to(device)
    natural = logits[n:, : supplement.n_natural].index_select(0, picked)
    wanted = torch.from_numpy(marked.codes[coded]).to(device)
    code_losses = functional.cross_entropy(natural, wanted, reduction="none") * weights[picked]
    return total + marked.code_weight * code_losses.sum() / n
