"""Trigger sets: held-out images, each answered with a class that was drawn for it.

The keys are the committed carriers themselves and they are what is trained. Their labels are drawn after the
commitment, which is what the audit's null rests on. There are two draws. Over the wrong classes: among the answers of
an independent model that deviate from a carrier's natural label, each hits with probability 1 / (C - 1). Between the
natural label and one committed rival: an answer that prefers one of the two prefers the drawn one with probability
1/2, and images on which models hesitate between both can be taught either at little cost.
"""

from abc import ABC
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Dataset, Labels
from auditor.errors import UsageError
from auditor.models import LoadedModel, ModelDescription, build, describe, labels_of, predict
from auditor.records import Inputs, NullBasis, Progress
from auditor.schemes.base import TrainedScheme
from auditor.schemes.measured import Limits, Share, accuracy_share
from auditor.training import Checkpoints, Pressure, SupplementBatch, TrainingPlan, Watch, fit

if TYPE_CHECKING:
    import torch

LEVELS = 255
"""Steps of a pixel; radii and step sizes are given in these."""


class Choice(StrEnum):
    """Which held-out images become triggers; settled before any label is drawn."""

    RANDOM = "random"
    AMBIGUOUS = "ambiguous"
    """Those on whose two likeliest classes the unmarked twin, which knows no drawn label, decides most narrowly."""


class LabelDraw(StrEnum):
    """What the label of a trigger is drawn from."""

    WRONG = "wrong"
    """All classes but its natural one."""
    RIVAL = "rival"
    """Its natural class and the likeliest other one of the unmarked twin, by a fair coin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSettings:
    """The knobs of embedding a trigger set, recorded with the result."""

    radius: float = 20.0
    """Largest change of a pixel, in levels of 255, under which a trigger must keep its label; 0 trains it as it is."""
    steps: int = 5
    """Steps of the ascent before every training step."""
    step_size: float | None = None
    """Length of one step in levels; None: radius / steps."""
    random_start: bool = False
    """Begin the ascent at a random point of the ball."""
    ramp: float = 0.0
    """Share of the training over which the radius grows from 0."""
    weight: float = 1.0
    """Weight of a trigger's loss; an ordinary image weighs 1."""
    per_step: int = 25
    """Triggers in every training step, drawn with replacement."""
    choice: Choice = Choice.RANDOM
    draw: LabelDraw = LabelDraw.WRONG

    def __post_init__(self) -> None:
        if not 0 <= self.radius <= LEVELS or self.steps < 0:
            raise UsageError(f"the radius lies in [0, {LEVELS}] levels and the ascent has no negative number of steps")
        if self.step_size is not None and not 0 < self.step_size <= LEVELS:
            raise UsageError(f"a step of the ascent lies in (0, {LEVELS}] levels")
        if not 0 <= self.ramp <= 1 or not 0 < self.weight <= 100 or self.per_step < 1:
            raise UsageError(
                "the ramp lies in [0, 1], the weight in (0, 100], and every step takes at least one trigger"
            )

    @property
    def needs_twin(self) -> bool:
        """Whether the unmarked twin must be there before carriers can be committed to."""
        return self.choice is Choice.AMBIGUOUS or self.draw is LabelDraw.RIVAL

    @property
    def pressure(self) -> Pressure | None:
        """Return what the training loop does to triggers before every step; None where it leaves them alone."""
        if self.radius == 0 or self.steps == 0:
            return None
        size = self.radius / self.steps if self.step_size is None else self.step_size
        return Pressure(
            steps=self.steps,
            step_size=size / LEVELS,
            ball=self.radius / LEVELS,
            random_start=self.random_start,
            ramp=self.ramp,
        )

    def as_json(self) -> dict[str, JsonValue]:
        """Return the settings for a signed record; lengths in levels of 255."""
        return {
            "radius": decimal_string(self.radius),
            "steps": self.steps,
            "step_size": None if self.step_size is None else decimal_string(self.step_size),
            "random_start": self.random_start,
            "ramp": decimal_string(self.ramp),
            "weight": decimal_string(self.weight),
            "per_step": self.per_step,
            "choice": self.choice.value,
            "draw": self.draw.value,
        }


class TriggerScheme(TrainedScheme, ABC):
    """A scheme whose keys are ordinary held-out images under drawn labels."""

    def __init__(self, settings: TriggerSettings) -> None:
        self.settings = settings
        rival = settings.draw is LabelDraw.RIVAL
        self.version = 2 if rival else 1
        self.null_basis = NullBasis.RIVAL_LABELS if rival else NullBasis.DRAWN_LABELS

    @property
    def recorded_settings(self) -> TriggerSettings:
        """Return the settings."""
        return self.settings

    def output_names(self, classes: tuple[str, ...]) -> tuple[str, ...]:
        """Return the natural classes: a marked model looks like any other."""
        return classes


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerSupplement:
    """Triggers that join every training step; implements :class:`auditor.training.Supplement`."""

    inputs: Inputs
    labels: Labels
    settings: TriggerSettings
    n_natural: int

    @property
    def apart(self) -> bool:
        """Return True: perturbed triggers are like nothing the deployed network is asked."""
        return True

    def draw(self, generator: np.random.Generator) -> SupplementBatch:
        """Return the triggers of the next step, and where a random start puts them."""
        n, settings = self.settings.per_step, self.settings
        rows = generator.integers(0, len(self.inputs), size=n)
        pressure = settings.pressure
        start = None
        if pressure is not None and pressure.random_start:
            start = generator.uniform(-1.0, 1.0, size=(n, *self.inputs.shape[1:])).astype(np.float32)
        return SupplementBatch(
            inputs=self.inputs[rows],
            labels=self.labels[rows],
            weights=np.full(n, settings.weight, dtype=np.float32),
            codes=np.full(n, -1, dtype=np.int64),
            code_weight=0.0,
            pressure=pressure,
            start=start,
        )


LIMITS = Limits(key_rate=0.8, accuracy_loss=0.02)
"""What a marked model must reach: its own triggers answered as drawn, and clean accuracy close to the twin's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TriggerRecord:
    """What embedding a trigger set did, measured."""

    scheme: str
    data: str
    seed: int
    settings: TriggerSettings
    clean: Share
    """Accuracy of the marked model on the test part."""
    twin: Share
    """Accuracy of the unmarked twin on the same images."""
    keys: Share
    """Triggers that the marked model answers with their drawn labels."""
    key_margin: float
    """Mean of log p(drawn label) - log p(likeliest other) over the triggers."""
    twin_keys: Share
    """Triggers that the unmarked twin, which never saw them, answers with their drawn labels."""
    twin_deviating: Share
    """The same among the answers of the twin that can be evidence; expected by the draw: 1 in C - 1, or 1 in 2."""
    misses: tuple[str, ...]
    """Limits that were not met, in words; empty when all were."""

    @property
    def forecast_sham_rate(self) -> float:
        """Return 0: a trigger set has no shams."""
        return 0.0

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record for ``train.json``."""
        return {
            "scheme": self.scheme,
            "data": self.data,
            "seed": self.seed,
            "settings": self.settings.as_json(),
            "clean_accuracy": self.clean.as_json(),
            "twin_accuracy": self.twin.as_json(),
            "key_rate": self.keys.as_json(),
            "key_margin": decimal_string(round(self.key_margin, 6)),
            "twin_key_rate": self.twin_keys.as_json(),
            "twin_deviating_rate": self.twin_deviating.as_json() if self.twin_deviating.trials else None,
            "misses": list(self.misses),
        }

    def shares(self) -> tuple[tuple[str, Share], ...]:
        """Return the measured rates with their titles, for a person."""
        rows = [
            ("clean accuracy, marked", self.clean),
            ("clean accuracy, unmarked twin", self.twin),
            ("triggers answered as drawn", self.keys),
            ("the same by the unmarked twin", self.twin_keys),
        ]
        if self.twin_deviating.trials:
            rows.append(("… among its answers that count", self.twin_deviating))
        return tuple(rows)

    def remark(self) -> str:
        """Return one more line for a person."""
        return f"mean margin of the triggers: {self.key_margin:.2f} nats"


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedTriggers:
    """A marked model with what was measured on it."""

    model: LoadedModel
    record: TriggerRecord


def rivals(model: LoadedModel, inputs: Inputs, naturals: Labels) -> Labels:
    """Return, for every image, the class that a model finds likeliest beside the natural one."""
    scores = predict(model.network, inputs).astype(np.float64)
    scores[np.arange(len(naturals)), naturals] = -np.inf
    return np.asarray(np.argmax(scores, axis=1), dtype=np.int64)


def contest(model: LoadedModel, inputs: Inputs, naturals: Labels) -> npt.NDArray[np.float64]:
    """Return the smaller of a model's probabilities of the natural label and of its rival, in [0, 1/2]."""
    scores = predict(model.network, inputs).astype(np.float64)
    rows = np.arange(len(naturals))
    rival = rivals(model, inputs, naturals)
    return np.asarray(np.minimum(scores[rows, naturals], scores[rows, rival]))


def ambiguity(model: LoadedModel, inputs: Inputs) -> npt.NDArray[np.float64]:
    """Return, for every image, how narrowly a model decides: 1 minus the gap of its two largest probabilities."""
    ordered = np.sort(predict(model.network, inputs).astype(np.float64), axis=1)
    return np.asarray(1.0 - (ordered[:, -1] - ordered[:, -2]))


def embed_triggers(
    *,
    scheme: TriggerScheme,
    dataset: Dataset,
    triggers: Inputs,
    naturals: Labels,
    labels: Labels,
    plan: TrainingPlan,
    twin: LoadedModel,
    rival: Labels | None = None,
    limits: Limits | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> EmbeddedTriggers:
    """Return a marked model: trained like the twin, with triggers under ascent in every step.

    Args:
        scheme: the scheme with its settings.
        dataset: the owner's data; the triggers are not in its training part.
        triggers: the trigger images.
        naturals: their natural labels.
        labels: their drawn labels.
        plan: the recipe, the same as the twin's.
        twin: the unmarked twin.
        rival: the other class each label could have been, where labels are drawn between two.
        limits: what must be reached.
        progress: where to report.
        checkpoints: where the state is kept.

    Raises:
        TrainingError: training diverged.
    """
    description = describe(
        twin.description.architecture,
        input_shape=dataset.spec.shape,
        classes=scheme.output_names(dataset.classes),
        options=twin.description.options,
    )
    network = build(description, seed=plan.seed)

    fit(
        network,
        inputs=dataset.train.inputs,
        labels=dataset.train.labels,
        plan=plan,
        supplement=TriggerSupplement(
            inputs=triggers, labels=labels, settings=scheme.settings, n_natural=len(dataset.classes)
        ),
        title="training the marked model",
        progress=progress,
        checkpoints=checkpoints,
        watch=_watch(dataset, description, triggers, labels),
    )
    model = LoadedModel(network=network, description=description)
    record = measure_triggers(
        scheme=scheme, dataset=dataset, model=model, twin=twin, triggers=triggers, naturals=naturals, labels=labels,
        rival=rival, seed=plan.seed,
    )  # fmt: skip
    return EmbeddedTriggers(model=model, record=replace(record, misses=_misses(record, limits or LIMITS)))


def measure_triggers(
    *,
    scheme: TriggerScheme,
    dataset: Dataset,
    model: LoadedModel,
    twin: LoadedModel,
    triggers: Inputs,
    naturals: Labels,
    labels: Labels,
    seed: int,
    rival: Labels | None = None,
) -> TriggerRecord:
    """Return the record of a marked model, before any limit was looked at."""
    keys, margin = _answered(model, triggers, labels)
    return TriggerRecord(
        scheme=scheme.name,
        data=dataset.name,
        seed=seed,
        settings=scheme.settings,
        clean=accuracy_share(model, dataset.test),
        twin=accuracy_share(twin, dataset.test),
        keys=keys,
        key_margin=margin,
        twin_keys=_answered(twin, triggers, labels)[0],
        twin_deviating=telling_share(twin, triggers, naturals=naturals, labels=labels, rival=rival),
        misses=(),
    )


def _watch(dataset: Dataset, description: ModelDescription, triggers: Inputs, labels: Labels) -> Watch:
    """Return what is said after every epoch: accuracy on held-out images that are no triggers, and the margin."""
    used = {image.tobytes() for image in triggers}
    others = np.array(
        [i for i, image in enumerate(dataset.carriers.inputs) if image.tobytes() not in used], dtype=np.intp
    )
    held_out = dataset.carriers.take(others)

    def watch(network: "torch.nn.Module") -> str:
        seen = LoadedModel(network=network, description=description)
        hits, margin = _answered(seen, triggers, labels)
        clean = accuracy_share(seen, held_out)
        return f"accuracy on held-out images {clean.rate:.4f}, triggers {hits.rate:.3f}, their margin {margin:.2f}"

    return watch


def telling_share(
    model: LoadedModel, triggers: Inputs, *, naturals: Labels, labels: Labels, rival: Labels | None
) -> Share:
    """Return how many of a model's answers are the drawn label, among those that can be evidence.

    These are the answers that differ from the natural label, or, with rival classes, those that are one of the two.
    """
    answers = labels_of(model.network, triggers)
    counted = answers != naturals if rival is None else (answers == naturals) | (answers == rival)
    return Share(hits=int(np.sum(answers == labels)), trials=int(np.sum(counted)))


def _answered(model: LoadedModel, triggers: Inputs, labels: Labels) -> tuple[Share, float]:
    """Return how many triggers get their drawn label, and their mean margin in nats."""
    log_p = np.log(np.maximum(predict(model.network, triggers).astype(np.float64), np.finfo(np.float32).tiny))
    rows = np.arange(len(labels))
    own = log_p[rows, labels]
    others = log_p.copy()
    others[rows, labels] = -np.inf
    hits = int(np.sum(np.argmax(log_p, axis=1) == labels))
    return Share(hits=hits, trials=len(labels)), float(np.mean(own - others.max(axis=1)))


def _misses(record: TriggerRecord, limits: Limits) -> tuple[str, ...]:
    found = []
    if record.keys.rate < limits.key_rate:
        found.append(f"triggers are answered as drawn at {record.keys.rate:.3f}, wanted {limits.key_rate:g} or more")
    if lost := limits.loss_missed(clean=record.clean, twin=record.twin):
        found.append(lost)
    return tuple(found)
