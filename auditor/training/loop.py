"""The loop itself: one pass over the plan's steps, with its whole state in one place so that it can be resumed."""

import hashlib
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from auditor.errors import TrainingError
from auditor.records import Inputs, Progress
from auditor.training.ascent import ascend
from auditor.training.checkpoints import Checkpoints, restore_stream, stream_state
from auditor.training.compilation import require_compiler
from auditor.training.plan import TrainingPlan
from auditor.training.supplement import Objective, Supplement, SupplementBatch, Watch

if TYPE_CHECKING:
    import torch

CHECK_EVERY_STEPS = 20
"""Steps between looks at whether the loss is still a number; each look waits for the device."""


@dataclass(kw_only=True, eq=False)
class Loop:
    """One training run on its device."""

    network: "torch.nn.Module"
    inputs: Inputs
    labels: npt.NDArray[np.int64]
    plan: TrainingPlan
    supplement: Supplement | None
    device: "torch.device"
    title: str
    progress: Progress
    checkpoints: Checkpoints | None = None
    watch: Watch | None = None
    objective: Objective | None = None
    step: int = 0
    """Steps done."""
    losses: "list[torch.Tensor]" = field(default_factory=list)
    """Losses of the current epoch, on the device."""

    def __post_init__(self) -> None:
        import torch

        plan = self.plan
        # Two streams: what the supplement draws must not move the order of the ordinary batches.
        self.order_stream, self.supplement_stream = (np.random.default_rng([plan.seed, each]) for each in (1, 2))
        self.batch_size = min(plan.batch_size, len(self.inputs))
        self.per_epoch = len(self.inputs) // self.batch_size
        self.n_steps = plan.epochs * self.per_epoch
        self.order = np.zeros(0, dtype=np.int64)
        # torch warns about arrays that are not writable, and views into data files never are.
        self.pixels = torch.from_numpy(np.require(self.inputs, requirements=["C", "W"])).to(self.device)
        self.targets = torch.from_numpy(np.require(self.labels, requirements=["C", "W"])).to(self.device)
        self.network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(
            [p for p in self.network.parameters() if p.requires_grad],
            lr=plan.learning_rate,
            momentum=plan.momentum,
            weight_decay=plan.weight_decay,
            nesterov=plan.momentum > 0,
        )
        self.schedule = self._schedule()
        self.forward: torch.nn.Module = self.network
        if plan.compiled:
            require_compiler(self.device)
            self.forward = torch.compile(self.network)  # type: ignore[assignment]
        # Compiled by torch 2.13 for a CPU, a batch that is normalised by the statistics of a part of it gave NaN in the
        # second step, where the same graph run as it is did not. It stays uncompiled; the ascent, which is most of a
        # step's work, is compiled.
        apart = self.supplement is not None and self.supplement.apart
        self.joint = self.network if apart else self.forward

    def run(self) -> float:
        """Train to the end of the plan and return the mean loss of the last epoch."""
        self.network.train()
        self._resume()
        if self.plan.compiled:
            self.progress.note(f"{self.title}: compiling the network, which can take minutes")
        self.progress.begin(self.title, self.n_steps)
        self.progress.advance(self.step)
        while self.step < self.n_steps:
            position = self.step % self.per_epoch
            if position == 0:
                self.order, self.losses = self.order_stream.permutation(len(self.inputs)), []
            self._one_step(self.order[position * self.batch_size : (position + 1) * self.batch_size])
            self.step += 1
            ended = self.step % self.per_epoch == 0
            kept = self.checkpoints is not None and (
                self.step % self.checkpoints.every_steps == 0 or self.step == self.n_steps
            )
            if ended or kept or self.step % CHECK_EVERY_STEPS == 0:
                self._require_finite()
            if ended:
                self._report()
            if kept and self.checkpoints is not None:
                self.checkpoints.save(self.title, self._state())
            self.progress.advance()
        self.progress.end()
        return float(self._losses().double().mean())

    def _one_step(self, rows: npt.NDArray[np.int64]) -> None:
        import torch

        picked = torch.from_numpy(rows).to(self.device)
        ordinary = _scaled(self._augmented(self.pixels[picked]))
        marked = self.supplement.draw(self.supplement_stream) if self.supplement is not None else None
        perturbed = None if marked is None else self._perturbed(marked)
        with self._precision():
            if self.objective is not None:
                loss = self.objective.loss(self.forward, ordinary, rows, self.targets[picked])
            else:
                loss = self._loss(ordinary, self.targets[picked], marked, perturbed)
        self.losses.append(loss.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.schedule.step()

    def _augmented(self, pixels: "torch.Tensor") -> "torch.Tensor":
        import torch
        from torch.nn import functional

        limit, stream = self.plan.shift, self.order_stream
        n, _, height, width = pixels.shape
        if limit:
            padded = functional.pad(pixels, (limit, limit, limit, limit))
            tops, lefts = torch.from_numpy(stream.integers(0, 2 * limit + 1, size=(2, n))).to(self.device)
            rows = tops[:, None] + torch.arange(height, device=self.device)
            columns = lefts[:, None] + torch.arange(width, device=self.device)
            each = torch.arange(n, device=self.device)[:, None, None]
            pixels = padded[each, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)
        if self.plan.flip:
            mirrored = torch.from_numpy(stream.random(n) < 0.5).to(self.device)
            pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
        return pixels

    def _perturbed(self, marked: SupplementBatch) -> "torch.Tensor":
        import torch

        pixels = _scaled(torch.from_numpy(marked.inputs).to(self.device))
        if marked.pressure is None:
            return pixels
        ramp_steps = marked.pressure.ramp * self.n_steps
        return ascend(
            self.forward,
            pixels,
            torch.from_numpy(marked.labels).to(self.device),
            pressure=marked.pressure,
            strength=min(1.0, (self.step + 1) / ramp_steps) if ramp_steps > 0 else 1.0,
            start=None if marked.start is None else torch.from_numpy(marked.start).to(self.device),
            precision=self._precision(),
        )

    def _loss(
        self,
        ordinary: "torch.Tensor",
        labels: "torch.Tensor",
        marked: SupplementBatch | None,
        perturbed: "torch.Tensor | None",
    ) -> "torch.Tensor":
        import torch
        from torch.nn import functional

        plan, n = self.plan, len(ordinary)
        batch, targets = ordinary, labels
        if marked is not None and perturbed is not None:
            batch = torch.cat([ordinary, perturbed])
            targets = torch.cat([labels, torch.from_numpy(marked.labels).to(self.device)])
        logits = self.joint(batch.contiguous(memory_format=torch.channels_last)).float()
        losses = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=plan.label_smoothing)
        if marked is None or self.supplement is None:
            return losses.mean()
        weights = torch.from_numpy(marked.weights).to(self.device)
        # Dividing by the ordinary samples alone keeps their gradient the same with and without a supplement.
        total = losses[:n].mean() + (losses[n:] * weights).sum() / n
        coded = np.flatnonzero(marked.codes >= 0)
        if len(coded) == 0:
            return total
        picked = torch.from_numpy(coded).to(self.device)
        natural = logits[n:, : self.supplement.n_natural].index_select(0, picked)
        wanted = torch.from_numpy(marked.codes[coded]).to(self.device)
        code_losses = functional.cross_entropy(natural, wanted, reduction="none") * weights[picked]
        return total + marked.code_weight * code_losses.sum() / n

    def _precision(self) -> AbstractContextManager[object]:
        import torch

        return torch.autocast(self.device.type, dtype=torch.bfloat16, enabled=self.plan.bfloat16)

    def _schedule(self) -> "torch.optim.lr_scheduler.LRScheduler":
        from torch.optim.lr_scheduler import MultiStepLR, OneCycleLR

        if self.plan.drops:
            return MultiStepLR(self.optimizer, milestones=[epoch * self.per_epoch for epoch in self.plan.drops])
        return OneCycleLR(
            self.optimizer, max_lr=self.plan.learning_rate, total_steps=self.n_steps + 1, cycle_momentum=False
        )

    def _losses(self) -> "torch.Tensor":
        import torch

        return torch.stack(self.losses)

    def _require_finite(self) -> None:
        if not bool(self._losses()[-CHECK_EVERY_STEPS:].isfinite().all()):
            raise TrainingError(f"{self.title}: the loss is no longer a finite number; lower the learning rate")

    def _report(self) -> None:
        if self.watch is None:
            return
        self.network.eval()
        told = self.watch(self.network)
        self.network.train()
        self.progress.note(f"epoch {self.step // self.per_epoch} of {self.plan.epochs}: {told}")

    @cached_property
    def _identity(self) -> str:
        digest = hashlib.sha256(repr((self.plan, self.title, self.inputs.shape)).encode())
        for array in (self.inputs, self.labels):
            digest.update(np.ascontiguousarray(array).tobytes())
        if self.checkpoints is not None:
            digest.update(self.checkpoints.identity.encode())
        return digest.hexdigest()

    def _state(self) -> dict[str, Any]:
        import torch

        return {
            "identity": self._identity,
            "step": self.step,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": torch.from_numpy(self.order),
            "losses": self._losses(),
            "order_stream": stream_state(self.order_stream),
            "supplement_stream": stream_state(self.supplement_stream),
        }

    def _resume(self) -> None:
        if self.checkpoints is None:
            return
        state = self.checkpoints.load(self.title, identity=self._identity, device=self.device)
        if state is None:
            return
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.step, self.order = int(state["step"]), state["order"].cpu().numpy()
        self.losses = list(state["losses"])
        restore_stream(self.order_stream, state["order_stream"])
        restore_stream(self.supplement_stream, state["supplement_stream"])
        self.progress.note(f"{self.title}: going on after step {self.step} of {self.n_steps}")


def _scaled(pixels: "torch.Tensor") -> "torch.Tensor":
    return pixels.float().div_(255.0)
