"""Unlearning a mark that the thief knows of by its kind: whoever knows the scheme, but not the secret.

The thief makes what the scheme would call foreign keys, images under patterns of its own, and trains the stolen model
on with them under their true labels. Outputs beyond the task's natural classes can be cut off first.

*References.* Zhong et al., PAKDD 2020, on removing the new label; Zhang et al., AsiaCCS 2018 (the marks aimed at).
"""

from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np

from auditor.attacks.base import Attack, changed
from auditor.attacks.finetune import head_name
from auditor.attacks.settings import DEFAULT_PLAN, Presets, Settings
from auditor.datasets import Part
from auditor.errors import UsageError
from auditor.models import LoadedModel, build
from auditor.patterns import add_pattern
from auditor.records import Progress
from auditor.training import TrainingPlan, fit

MAX_COPIES = 16
_AFTERWARDS: Settings = {"epochs": 10, "batch_size": 64, "learning_rate": 0.01, "label_smoothing": 0.0}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unlearn(Attack):
    """Train on with noisy copies of the attacker's images under their true labels, with or without extra outputs."""

    name: ClassVar[str] = "unlearn"
    presets: ClassVar[Presets] = {
        "drop": {"drop_outputs": True, "copies": 0, **_AFTERWARDS},
        "relabel": {"copies": 2, "beta": 0.3, **_AFTERWARDS},
        "drop-relabel": {"drop_outputs": True, "copies": 2, "beta": 0.3, **_AFTERWARDS},
    }

    plan: TrainingPlan = DEFAULT_PLAN
    copies: int = 2
    """Noisy copies of each image, each under a normal pattern of its own."""
    beta: float = 0.3
    """Amplitude of these patterns, for pixels in [0, 1]."""
    drop_outputs: bool = False
    """Cut off outputs beyond the classes of the attacker's labels."""

    def __post_init__(self) -> None:
        if self.plan.epochs < 1 or not 0 <= self.copies <= MAX_COPIES or not 0 < self.beta <= 10:
            raise UsageError(f"unlearning takes an epoch or more, up to {MAX_COPIES} copies, and beta in (0, 10]")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        if self.drop_outputs:
            victim = without_extra_outputs(victim, n_outputs=int(own.labels.max()) + 1)
        generator = np.random.default_rng([self.plan.seed, 41])
        noisy = [
            add_pattern(own.inputs, generator.standard_normal(own.inputs.shape), beta=self.beta)
            for _ in range(self.copies)
        ]
        fit(
            victim.network,
            inputs=np.concatenate([own.inputs, *noisy]),
            labels=np.tile(own.labels, 1 + self.copies),
            plan=self.plan,
            title="unlearning",
            progress=progress,
        )
        return changed(victim)


def without_extra_outputs(model: LoadedModel, *, n_outputs: int) -> LoadedModel:
    """Return the model with its first ``n_outputs`` outputs only; their weights stay as they are."""
    old = model.description
    if n_outputs >= old.n_outputs:
        return model
    description = replace(old, classes=old.classes[:n_outputs], n_outputs=n_outputs, weights_sha256="")
    network = build(description, seed=0)
    head = head_name(network)
    state = dict(model.network.state_dict())
    for part in ("weight", "bias"):
        key = f"{head}.{part}"
        if key in state:
            state[key] = state[key][:n_outputs]
    network.load_state_dict(state)
    return LoadedModel(network=network, description=description)
