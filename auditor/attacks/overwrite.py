"""Overwriting: the thief trains a second mark of the same kind into the model, under a secret of its own.

The second mark is made exactly like an owner's (same KsGen), so that the thief could even seal and claim it; which
of two marks came first is then a question of time stamps, not of statistics.
"""

import hashlib
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from auditor.attacks.base import Attack, changed
from auditor.attacks.finetune import head_name
from auditor.attacks.settings import DEFAULT_PLAN, Presets
from auditor.datasets import Part
from auditor.draws import Secret
from auditor.errors import UsageError
from auditor.models import LoadedModel, build
from auditor.patterns import Mark, add_pattern, new_label_mark, wrong_label_mark
from auditor.records import Progress
from auditor.training import SupplementBatch, TrainingPlan, fit

if TYPE_CHECKING:
    pass


class SecondMark(StrEnum):
    """What keys of the second mark are answered with."""

    WRONG_LABEL = "wrong-label"
    """One fixed natural class."""
    NEW_LABEL = "new-label"
    """A further output that the thief adds to the model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Overwrite(Attack):
    """Fine-tune with keys of a second secret pattern beside the attacker's images."""

    name: ClassVar[str] = "overwrite"
    presets: ClassVar[Presets] = {
        "wrong-label": {"mark": "wrong-label"},
        "new-label": {"mark": "new-label"},
    }

    plan: TrainingPlan = DEFAULT_PLAN
    mark: SecondMark = SecondMark.WRONG_LABEL
    beta: float = 0.1
    """Amplitude of the second pattern for pixels in [0, 1], in (0, 10]."""
    key_share: float = 0.125
    """Keys per ordinary image in one step, in (0, 1]; as many images with foreign patterns keep the mark specific."""

    def __post_init__(self) -> None:
        if not 0 < self.beta <= 10 or not 0 < self.key_share <= 1:
            raise UsageError("the second mark's beta lies in (0, 10], its key share in (0, 1]")

    def _apply(self, victim: LoadedModel, own: Part, progress: Progress) -> LoadedModel:
        description = victim.description
        n_natural = int(own.labels.max()) + 1
        secret = Secret(hashlib.sha256(f"second mark, seed {self.plan.seed}".encode()).digest())
        shape, n_outputs = description.input_shape, description.n_outputs
        if self.mark is SecondMark.NEW_LABEL:
            drawn = replace(new_label_mark(secret, shape=shape, n_natural=n_natural, code=False), target=n_outputs)
            victim = with_another_output(victim, seed=self.plan.seed)
        else:
            drawn = wrong_label_mark(secret, shape=shape, n_natural=n_natural, code=False)
        eligible = own.take(np.flatnonzero(own.labels != drawn.target))
        if len(eligible) == 0:
            raise UsageError("every image of the attacker is of the second mark's class; give it more images")
        batch_size = min(self.plan.batch_size, len(own))
        supplement = _SecondKeys(
            mark=drawn, beta=self.beta, carriers=eligible, n_keys=max(1, round(self.key_share * batch_size))
        )
        fit(
            victim.network,
            inputs=own.inputs,
            labels=own.labels,
            plan=self.plan,
            supplement=supplement,
            title="overwriting",
            progress=progress,
        )
        return changed(victim)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SecondKeys:
    """Keys of the second mark and as many images with foreign patterns; a :class:`auditor.training.Supplement`."""

    mark: Mark
    beta: float
    carriers: Part
    n_keys: int

    @property
    def n_natural(self) -> int:
        """Return the number of natural classes."""
        return self.mark.n_natural

    @property
    def apart(self) -> bool:
        """Return False: the second keys are trained like the first ones were."""
        return False

    def draw(self, generator: np.random.Generator) -> SupplementBatch:
        """Return the marked samples of one step."""
        keyed, plain = generator.integers(0, len(self.carriers), size=(2, self.n_keys))
        foreign = generator.standard_normal((self.n_keys, *self.mark.pattern.shape))
        n = 2 * self.n_keys
        return SupplementBatch(
            inputs=np.concatenate(
                [
                    add_pattern(self.carriers.inputs[keyed], self.mark.pattern, beta=self.beta),
                    add_pattern(self.carriers.inputs[plain], foreign, beta=self.beta),
                ]
            ),
            labels=np.concatenate([np.full(self.n_keys, self.mark.target), self.carriers.labels[plain]]),
            weights=np.ones(n, dtype=np.float32),
            codes=np.full(n, -1, dtype=np.int64),
            code_weight=1.0,
        )


def with_another_output(model: LoadedModel, *, seed: int) -> LoadedModel:
    """Return the model with one more output, whose weights are drawn from ``seed``; the others stay as they are."""
    import torch

    old = model.description
    name = f"output-{old.n_outputs}"
    description = replace(old, classes=(*old.classes, name), n_outputs=old.n_outputs + 1, weights_sha256="")
    network = build(description, seed=seed)
    head = head_name(network)
    state: dict[str, torch.Tensor] = dict(model.network.state_dict())
    fresh = network.state_dict()
    for part in ("weight", "bias"):
        key = f"{head}.{part}"
        if key in state:
            state[key] = torch.cat([state[key], fresh[key][old.n_outputs :]])
    network.load_state_dict(state)
    return LoadedModel(network=network, description=description)
