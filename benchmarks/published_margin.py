"""Compares this project's margin training with the published loop: seconds, accuracy, survival of extraction.

    python benchmarks/published_margin.py run              # both settings, three seeds; may be killed and started again
    python benchmarks/published_margin.py run --seeds 5    # more seeds
    python benchmarks/published_margin.py speed            # a few steps of both loops in turn, for their seconds
    python benchmarks/published_margin.py render           # tables from the kept trials

Both loops get the same network with the same first weights, the same images in the same order with the same shifts
and mirrorings, the same trigger images under the same drawn labels, the same triggers in every step, the same number
of steps, one thread. The published loop is written again here from its description: three things differ.

* It runs ordinary images and triggers through the network apart, the ascent in training mode: seven updates of the
  running statistics a step, six of them by triggers. Ours asks the deployed function in the ascent, then runs one
  joint batch whose statistics are those of the ordinary images.
* Its loss is divided by ordinary images and triggers together, ours by the ordinary images alone. Rate and decay of
  ours are converted, so that the two take the same steps on the same gradient.
* It keeps weights as they come; ours puts the channels last.

Not compared: how the published code loads images, and what it evaluates between steps.

Every trial is one line of ``benchmarks/results/published_margin.trials.jsonl``; ``render`` trains nothing.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from kept import keep, kept_by_id, kept_lines
from stopwatch import Stopwatch
from torch.nn import functional

from auditor import datasets
from auditor.attacks.base import AttackData
from auditor.attacks.extract import Extract, Taught
from auditor.canonical import sha256_hex
from auditor.datasets import Dataset, Part
from auditor.models import SMALL_CNN, LoadedModel, ModelDescription, build, describe, labels_of
from auditor.schemes.triggers import TriggerSettings, TriggerSupplement
from auditor.stats.deviating import deviating_test
from auditor.training import Device, TrainingPlan, fit
from auditor.training.loop import Loop

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "published_margin.trials.jsonl"
SPEEDS = HERE / "results" / "published_margin.speed.jsonl"
PAGE = HERE / "published_margin.md"
DATA = "fashion-mnist"
FORMAT = 1
SPLIT_SEED = 30
N_OWNER = N_ATTACKER = 6_000
EPOCHS = 6
SURROGATE_SEED = 500
TITLE = "training the marked model"
PUBLISHED, OURS, PLAIN, UNMARKED = "published loop", "this project's loop", "plain triggers", "unmarked"
LOOPS = (PUBLISHED, OURS, UNMARKED, PLAIN)
CARRIED = 0.5
"""Of the triggers: a victim that answers fewer as drawn carries no mark, and nobody extracts from it."""


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything the two loops have in common."""

    radius: float
    steps: int
    weight: float
    per_step: int
    n_keys: int
    plan: TrainingPlan
    """Rate and decay as the published loop takes them."""


_SHARED = TrainingPlan(
    epochs=EPOCHS, batch_size=128, learning_rate=0.1, label_smoothing=0.0, device=Device.CPU, threads=1
)
SETTINGS = {
    "scaled": Setting(
        radius=20.0, steps=5, weight=1.0, per_step=25, n_keys=40,
        plan=replace(_SHARED, momentum=0.9, weight_decay=5e-4),
    ),
    "published": Setting(
        radius=5.0, steps=5, weight=0.1, per_step=25, n_keys=100,
        plan=replace(
            _SHARED, momentum=0.0, weight_decay=1e-4, drops=(EPOCHS // 2, 3 * EPOCHS // 4), shift=4, flip=True
        ),
    ),
}  # fmt: skip
"""``published`` has the terms of the paper's code, with its 200 epochs cut to ``EPOCHS``; ``scaled`` what a short
training on these images needs: a ball four times as wide, ten times the weight, and momentum."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One victim with two surrogates."""

    setting: str
    loop: str
    seed: int

    @property
    def identity(self) -> str:
        sizes = [SPLIT_SEED, N_OWNER, N_ATTACKER, SURROGATE_SEED]
        parts = [FORMAT, asdict(self), asdict(SETTINGS[self.setting]), sizes]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


class PublishedLoop(Loop):
    """The published terms of one step; order, shifts, drawn triggers, optimizer and schedule are the loop's own."""

    keys: "Keys"
    setting: Setting

    def _one_step(self, rows: np.ndarray) -> None:
        setting, keys = self.setting, self.keys
        picked = torch.from_numpy(rows).to(self.device)
        ordinary = self._augmented(self.pixels[picked]).float() / 255.0
        ordinary_losses = functional.cross_entropy(self.network(ordinary), self.targets[picked], reduction="none")
        chosen = self.supplement_stream.integers(0, len(keys.labels), size=setting.per_step)
        labels = torch.from_numpy(keys.labels[chosen])
        moved = torch.from_numpy(keys.inputs[chosen]).float() / 255.0
        for _ in range(setting.steps):
            moved = moved.detach().requires_grad_(True)
            ascent = functional.cross_entropy(self.network(moved), labels)
            (gradient,) = torch.autograd.grad(ascent, moved)
            # There is no ball: the pixel range alone bounds the steps, which always start at the trigger itself.
            moved = (moved.detach() + setting.radius / setting.steps / 255.0 * gradient.sign()).clamp(0.0, 1.0)
        trigger_losses = functional.cross_entropy(self.network(moved.detach()), labels, reduction="none")
        n_all = len(ordinary_losses) + len(trigger_losses)
        loss = (ordinary_losses.sum() + setting.weight * trigger_losses.sum()) / n_all
        self.losses.append(loss.detach())
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.schedule.step()


@dataclass(frozen=True, kw_only=True, eq=False)
class Keys:
    """Trigger images with their natural and drawn labels."""

    inputs: np.ndarray
    naturals: np.ndarray
    labels: np.ndarray


@lru_cache(maxsize=1)
def halves() -> tuple[Dataset, Part]:
    """Return the owner's data set and the attacker's images."""
    whole = datasets.load(DATA)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(whole.train))
    owner = replace(whole, train=whole.train.take(order[:N_OWNER]))
    return owner, whole.train.take(order[N_OWNER : N_OWNER + N_ATTACKER])


def drawn_keys(dataset: Dataset, *, n_keys: int, seed: int) -> Keys:
    """Return random held-out images, each under a wrong label drawn uniformly."""
    generator = np.random.default_rng([seed, 40])
    part = dataset.carriers.take(generator.permutation(len(dataset.carriers))[:n_keys])
    steps = generator.integers(1, len(dataset.classes), size=n_keys)
    labels = (part.labels + steps) % len(dataset.classes)
    return Keys(inputs=part.inputs, naturals=part.labels, labels=labels.astype(np.int64))


def train_published(network: torch.nn.Module, dataset: Dataset, keys: Keys, setting: Setting, plan: TrainingPlan,
                    watch: Stopwatch) -> None:  # fmt: skip
    loop = PublishedLoop(
        network=network, inputs=dataset.train.inputs, labels=dataset.train.labels, plan=plan, supplement=None,
        device=torch.device("cpu"), title=TITLE, progress=watch,
    )  # fmt: skip
    loop.keys, loop.setting = keys, setting
    network.to(memory_format=torch.contiguous_format)
    loop.run()
    network.eval()


def train_ours(network: torch.nn.Module, dataset: Dataset, keys: Keys, setting: Setting, plan: TrainingPlan,
               watch: Stopwatch, *, radius: float) -> None:  # fmt: skip
    share = plan.batch_size / (plan.batch_size + setting.per_step)
    supplement = TriggerSupplement(
        inputs=keys.inputs, labels=keys.labels, n_natural=len(dataset.classes),
        settings=TriggerSettings(
            radius=radius, steps=setting.steps, weight=setting.weight, per_step=setting.per_step
        ),
    )  # fmt: skip
    converted = replace(plan, learning_rate=plan.learning_rate * share, weight_decay=plan.weight_decay / share)
    fit(
        network, inputs=dataset.train.inputs, labels=dataset.train.labels, plan=converted, supplement=supplement,
        title=TITLE, progress=watch,
    )  # fmt: skip


def train(trial: Trial, keys: Keys, watch: Stopwatch, dataset: Dataset, plan: TrainingPlan) -> LoadedModel:
    setting = SETTINGS[trial.setting]
    description: ModelDescription = describe(SMALL_CNN, input_shape=dataset.spec.shape, classes=dataset.classes)
    network = build(description, seed=trial.seed)
    if trial.loop == UNMARKED:
        fit(network, inputs=dataset.train.inputs, labels=dataset.train.labels, plan=plan, progress=watch)
    elif trial.loop == PUBLISHED:
        train_published(network, dataset, keys, setting, plan, watch)
    else:
        radius = 0.0 if trial.loop == PLAIN else setting.radius
        train_ours(network, dataset, keys, setting, plan, watch, radius=radius)
    return LoadedModel(network=network, description=description)


def run_trial(trial: Trial) -> dict[str, Any]:
    """Train the victim and, by the unmarked plan, two surrogates on the attacker's images; ask all for the keys."""
    torch.set_num_threads(1)
    setting = SETTINGS[trial.setting]
    dataset, stolen = halves()
    keys = drawn_keys(dataset, n_keys=setting.n_keys, seed=trial.seed)
    watch = Stopwatch()
    victim = train(trial, keys, watch, dataset, replace(setting.plan, seed=trial.seed))
    found = {"victim": measured(victim, keys, dataset)}
    copying = replace(setting.plan, seed=SURROGATE_SEED + trial.seed)
    thief = AttackData(own=stolen, evaluation=dataset.test)
    carried = found["victim"]["hits"] >= CARRIED * setting.n_keys
    for taught in (Taught.SOFT, Taught.HARD) if carried else ():
        surrogate = Extract(plan=copying, taught=taught).run(victim=victim, data=thief)
        found[taught.value] = measured(surrogate.model, keys, dataset)
    return {
        "id": trial.identity, "trial": asdict(trial), "steps": watch.n_steps, "models": found,
        "wall_seconds": round(watch.wall_seconds, 2), "cpu_seconds": round(watch.cpu_seconds, 2),
    }  # fmt: skip


def measured(model: LoadedModel, keys: Keys, dataset: Dataset) -> dict[str, Any]:
    answers = labels_of(model.network, keys.inputs)
    outcome = deviating_test(
        natural=keys.naturals.tolist(), answers=answers.tolist(), labels=keys.labels.tolist(),
        n_classes=len(dataset.classes),
    )  # fmt: skip
    return {
        "accuracy": float(np.mean(labels_of(model.network, dataset.test.inputs) == dataset.test.labels)),
        "hits": outcome.hits, "deviating": outcome.deviating, "log10_p": round(outcome.log10_p, 3),
    }  # fmt: skip


def run_speed(options: argparse.Namespace) -> None:
    """Time a few steps of both loops in turn, after two steps that warm up, so that what else runs meets both alike."""
    torch.set_num_threads(1)
    dataset = halves()[0]
    for repeat in range(options.repeats):
        for setting in SETTINGS:
            keys = drawn_keys(dataset, n_keys=SETTINGS[setting].n_keys, seed=1)
            plan = replace(SETTINGS[setting].plan, seed=1, epochs=1, drops=())
            for loop in (PUBLISHED, OURS) if repeat % 2 else (OURS, PUBLISHED):
                for n_steps in (2, options.steps):
                    part = dataset.train.take(np.arange(n_steps * plan.batch_size))
                    watch = Stopwatch()
                    train(Trial(setting=setting, loop=loop, seed=1), keys, watch, replace(dataset, train=part), plan)
                record = {
                    "setting": setting, "loop": loop, "repeat": repeat, "steps": watch.n_steps,
                    "wall_seconds": round(watch.wall_seconds, 4), "cpu_seconds": round(watch.cpu_seconds, 4),
                }  # fmt: skip
                keep(SPEEDS, record)


def planned(seeds: int, settings: Sequence[str]) -> list[Trial]:
    """Return the wanted trials; the pair that is compared comes first, for all seeds."""
    return [
        Trial(setting=setting, loop=loop, seed=seed)
        for loops in (LOOPS[:2], LOOPS[2:])
        for setting in settings
        for seed in range(1, seeds + 1)
        for loop in loops
    ]


def run(options: argparse.Namespace) -> None:
    done = kept_by_id(TRIALS)
    wanted = planned(options.seeds, options.settings)
    todo = [trial for trial in wanted if trial.identity not in done]
    print(f"{len(todo)} trials to run, {len(done)} kept", file=sys.stderr)
    for count, trial in enumerate(todo, start=1):
        record = run_trial(trial)
        keep(TRIALS, record)
        print(f"{count}/{len(todo)} {record['trial']} {record['cpu_seconds']}", file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    from published_margin_render import page

    trials = list(kept_by_id(TRIALS).values())
    if not trials:
        raise SystemExit("no kept trials: run `python benchmarks/published_margin.py run` first")
    speeds = kept_lines(SPEEDS)
    PAGE.write_text(page(trials, speeds, settings=SETTINGS))
    print(f"written: {PAGE}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--seeds", type=int, default=3, help="the first so many seeds (default 3)")
    runner.add_argument("--settings", nargs="+", choices=tuple(SETTINGS), default=tuple(SETTINGS), help="only these")
    runner.set_defaults(work=run)
    timer = commands.add_parser("speed", help="time a few steps of both loops in turn")
    timer.add_argument("--repeats", type=int, default=5, help="turns (default 5)")
    timer.add_argument("--steps", type=int, default=10, help="steps in each (default 10)")
    timer.set_defaults(work=run_speed)
    commands.add_parser("render", help="write the page from the kept trials").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
