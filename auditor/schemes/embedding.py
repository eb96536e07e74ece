"""Embedding a mark by training, and measuring what it did.

Every figure is measured on the test part, which nobody trained on: accuracies of the marked model and of its
unmarked twin, hit rates of fresh keys and of foreign patterns.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from auditor.canonical import JsonValue, decimal_string
from auditor.datasets import Dataset, Part
from auditor.draws import Secret
from auditor.errors import TrainingError
from auditor.models import SMALL_CNN, LoadedModel, build, describe, labels_of, predict
from auditor.patterns import Mark
from auditor.records import Progress, Silent
from auditor.schemes.base import LabelCode, MarkSettings, PatternScheme
from auditor.schemes.measured import ROUNDING, Limits, Share, accuracy_share, hit_share
from auditor.schemes.measured import require_targets as require_targets
from auditor.training import Checkpoints, TrainingPlan, fit, train_unmarked

MEASURED_PATTERNS = 20
MEASURED_IMAGES = 2000
"""Most test images per pattern when rates are measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """Settings that were measured to work for one data set."""

    plan: TrainingPlan
    settings: MarkSettings


RECIPES = {
    "digits": Recipe(
        plan=TrainingPlan(epochs=30, batch_size=64, learning_rate=0.05),
        settings=MarkSettings(
            beta=0.4, sham_ratio=3, key_share=0.125, key_shift=1, images_per_pattern=4, sham_correlation=0.5
        ),
    ),
    "fashion-mnist": Recipe(
        plan=TrainingPlan(epochs=3, batch_size=256, learning_rate=0.2, bfloat16=True),
        settings=MarkSettings(beta=0.1, sham_ratio=3, key_share=0.03, images_per_pattern=8),
    ),
}
"""Measured defaults by data set; see benchmarks/new_label.md."""


def recipe_for(dataset: Dataset) -> Recipe:
    """Return the measured defaults of a data set, or a guess for one that was not measured."""
    if dataset.name in RECIPES:
        return RECIPES[dataset.name]
    shift = 2 if min(dataset.spec.shape[1:]) >= 16 else 0
    return Recipe(plan=TrainingPlan(epochs=20, batch_size=128, learning_rate=0.1, shift=shift), settings=MarkSettings())


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbedRecord:
    """What embedding did, measured."""

    scheme: str
    data: str
    seed: int
    settings: MarkSettings
    n_key_carriers: int
    """Distinct training images that carried the mark."""
    label_code: bool
    """Whether the delivered model was trained with the label code."""
    clean: Share
    """Accuracy of the marked model on the test part."""
    twin: Share
    """Accuracy of the unmarked twin on the same images."""
    keys: Share
    """Fresh keys answered with the target."""
    shams: Share
    """Answers with the target over all foreign patterns together."""
    sham_rates: tuple[float, ...]
    """Rate of the target for each foreign pattern."""
    target_on_clean: Share
    """Unmarked test images of other classes answered with the target."""
    code_when_masked: Share | None
    """Fresh keys whose best natural class is the coded one; None without a label code."""
    misses: tuple[str, ...]
    """Limits that were not met, in words; empty when all were."""

    @property
    def forecast_sham_rate(self) -> float:
        """Return the rate that the sealed plan forecasts for shams."""
        return self.shams.rate

    @property
    def worst_sham_rate(self) -> float:
        """Return the rate of the foreign pattern that hits most."""
        return max(self.sham_rates)

    def as_json(self) -> dict[str, JsonValue]:
        """Return the record for ``train.json``."""
        return {
            "scheme": self.scheme,
            "data": self.data,
            "seed": self.seed,
            "settings": self.settings.as_json(),
            "n_key_carriers": self.n_key_carriers,
            "label_code": self.label_code,
            "clean_accuracy": self.clean.as_json(),
            "twin_accuracy": self.twin.as_json(),
            "key_rate": self.keys.as_json(),
            "sham_rate": self.shams.as_json(),
            "sham_patterns": len(self.sham_rates),
            "worst_sham_rate": decimal_string(self.worst_sham_rate),
            "target_on_clean": self.target_on_clean.as_json(),
            "code_when_masked": None if self.code_when_masked is None else self.code_when_masked.as_json(),
            "misses": list(self.misses),
        }

    def shares(self) -> tuple[tuple[str, Share], ...]:
        """Return the measured rates with their titles, for a person."""
        rows = [
            ("clean accuracy, marked", self.clean),
            ("clean accuracy, unmarked twin", self.twin),
            ("fresh keys that hit", self.keys),
            ("foreign patterns that hit", self.shams),
            ("unmarked images answered with the target", self.target_on_clean),
        ]
        if self.code_when_masked is not None:
            rows.append(("label code, new label hidden", self.code_when_masked))
        return tuple(rows)

    def remark(self) -> str:
        """Return one more line for a person."""
        return f"worst foreign pattern: {self.worst_sham_rate:.4f}; key carriers: {self.n_key_carriers}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Embedded:
    """A marked model with what was measured on it."""

    model: LoadedModel
    mark: Mark
    record: EmbedRecord


def train_twin(
    *,
    dataset: Dataset,
    plan: TrainingPlan,
    architecture: str = SMALL_CNN,
    options: Mapping[str, int] | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> LoadedModel:
    """Return the unmarked twin: same data, same order, same initial weights, same number of steps."""
    return train_unmarked(
        architecture=architecture,
        spec=dataset.spec,
        inputs=dataset.train.inputs,
        labels=dataset.train.labels,
        plan=plan,
        options=options,
        title="training the unmarked twin",
        progress=progress,
        checkpoints=checkpoints,
    )


def embed(
    *,
    scheme: PatternScheme,
    dataset: Dataset,
    secret: Secret,
    plan: TrainingPlan,
    twin: LoadedModel,
    architecture: str = SMALL_CNN,
    limits: Limits | None = None,
    progress: Progress | None = None,
    checkpoints: Checkpoints | None = None,
) -> Embedded:
    """Return a marked model. With ``LabelCode.AUTO`` it is trained again without code if fidelity was lost.

    That choice is made on the held-out carriers, so that the figures of the record come from images that chose
    nothing.

    Raises:
        TrainingError: training diverged.
    """
    watcher = progress or Silent()
    bounds = limits or Limits()
    mark = scheme.draw(secret, dataset.spec, code=scheme.uses_code)
    title = "training the marked model"
    model = _train_marked(scheme, dataset, secret, plan, architecture, mark, watcher, title=title, kept=checkpoints)
    if mark.code and scheme.settings.label_code is LabelCode.AUTO:
        lost = accuracy_share(twin, dataset.carriers).rate - accuracy_share(model, dataset.carriers).rate
        if lost > bounds.accuracy_loss + ROUNDING:
            watcher.note("the label code cost too much clean accuracy; training again without it")
            mark = scheme.draw(secret, dataset.spec, code=False)
            title += " without label code"
            model = _train_marked(
                scheme, dataset, secret, plan, architecture, mark, watcher, title=title, kept=checkpoints
            )
    record = measure(
        scheme=scheme,
        model=model,
        mark=mark,
        dataset=dataset,
        secret=secret,
        seed=plan.seed,
        twin=accuracy_share(twin, dataset.test),
        limits=bounds,
    )
    return Embedded(model=model, mark=mark, record=record)


def calibrate_beta(
    *,
    scheme: PatternScheme,
    dataset: Dataset,
    secret: Secret,
    plan: TrainingPlan,
    ladder: Sequence[float],
    target_rate: float = 0.8,
    architecture: str = SMALL_CNN,
    progress: Progress | None = None,
) -> float:
    """Return the smallest β of ``ladder`` whose fresh keys hit at ``target_rate`` or more.

    One model is trained per step of the ladder, without label code. The rate is measured on half of the held-out
    carriers, so that the figures reported later come from images that chose nothing.

    Raises:
        TrainingError: no β of the ladder reaches the target.
    """
    watcher = progress or Silent()
    probe, _ = dataset.carriers.halves()
    best = 0.0
    for beta in sorted(ladder):
        trial = type(scheme)(replace(scheme.settings, beta=beta, label_code=LabelCode.OFF))
        mark = trial.draw(secret, dataset.spec, code=False)
        model = _train_marked(trial, dataset, secret, plan, architecture, mark, watcher, title=f"trying beta {beta:g}")
        carriers = probe.take(np.flatnonzero(trial.eligible(probe.labels, mark)))
        share = hit_share(labels_of(model.network, trial.key_inputs(carriers.inputs, mark)), mark.target)
        watcher.note(f"beta {beta:g}: fresh keys hit at {share.rate:.3f}")
        if share.rate >= target_rate:
            return beta
        best = max(best, share.rate)
    raise TrainingError(f"no beta of the ladder reaches a key rate of {target_rate:g}; the best was {best:.3f}")


def _train_marked(
    scheme: PatternScheme,
    dataset: Dataset,
    secret: Secret,
    plan: TrainingPlan,
    architecture: str,
    mark: Mark,
    progress: Progress,
    *,
    title: str,
    kept: Checkpoints | None = None,
) -> LoadedModel:
    description = describe(architecture, input_shape=dataset.spec.shape, classes=scheme.output_names(dataset.classes))
    network = build(description, seed=plan.seed)
    fit(
        network,
        inputs=dataset.train.inputs,
        labels=dataset.train.labels,
        plan=plan,
        supplement=scheme.supplement(dataset.train, mark, secret, batch_size=plan.batch_size),
        title=title,
        progress=progress,
        checkpoints=kept,
    )
    return LoadedModel(network=network, description=description)


def measure(
    *,
    scheme: PatternScheme,
    model: LoadedModel,
    mark: Mark,
    dataset: Dataset,
    secret: Secret,
    seed: int,
    twin: Share,
    limits: Limits,
) -> EmbedRecord:
    """Return the record of a marked model, measured on the test part."""
    test = dataset.test
    answers = labels_of(model.network, test.inputs)
    clean = Share(hits=int(np.sum(answers == test.labels)), trials=len(test))
    on_clean = hit_share(answers[test.labels != mark.target], mark.target)
    usable = np.flatnonzero(scheme.eligible(test.labels, mark))[:MEASURED_IMAGES]
    fresh = test.take(usable)
    scores = predict(model.network, scheme.key_inputs(fresh.inputs, mark))
    keys = hit_share(np.argmax(scores, axis=1), mark.target)
    per_pattern = [
        hit_share(
            labels_of(
                model.network,
                scheme.foreign_inputs(
                    fresh.inputs, scheme.foreign_pattern(secret, dataset.spec, purpose=f"measured sham {j}")
                ),
            ),
            mark.target,
        )
        for j in range(MEASURED_PATTERNS)
    ]
    shams = Share(hits=sum(s.hits for s in per_pattern), trials=sum(s.trials for s in per_pattern))
    return EmbedRecord(
        scheme=scheme.name,
        data=dataset.name,
        seed=seed,
        settings=scheme.settings,
        n_key_carriers=len(scheme.training_keys(dataset.train, mark, secret)),
        label_code=bool(mark.code),
        clean=clean,
        twin=twin,
        keys=keys,
        shams=shams,
        sham_rates=tuple(s.rate for s in per_pattern),
        target_on_clean=on_clean,
        code_when_masked=_code_share(scores, fresh, mark) if mark.code else None,
        misses=_misses(clean=clean, twin=twin, keys=keys, shams=shams, unmarked=on_clean, limits=limits),
    )


def _code_share(scores: npt.NDArray[np.float32], fresh: Part, mark: Mark) -> Share:
    masked = np.argmax(scores[:, : mark.n_natural], axis=1)
    wanted = np.array(mark.code)[fresh.labels]
    return Share(hits=int(np.sum(masked == wanted)), trials=len(fresh))


def _misses(
    *, clean: Share, twin: Share, keys: Share, shams: Share, unmarked: Share, limits: Limits
) -> tuple[str, ...]:
    found = []
    if keys.rate < limits.key_rate:
        found.append(f"fresh keys hit at {keys.rate:.3f}, wanted {limits.key_rate:g} or more")
    if shams.rate - unmarked.rate > limits.sham_rate:
        above = f" above the {unmarked.rate:.3f} of unmarked images" if unmarked.hits else ""
        found.append(f"foreign patterns hit at {shams.rate:.3f}, limit {limits.sham_rate:g}{above}")
    if lost := limits.loss_missed(clean=clean, twin=twin):
        found.append(lost)
    return tuple(found)
