"""Measures the new-label scheme and the wrong-label baseline: acceptance, α × β, pruning, fine-tuning.

    python benchmarks/new_label.py run --data digits          # trains; every finished trial is kept
    python benchmarks/new_label.py run --data fashion-mnist   # may be killed and started again
    python benchmarks/new_label.py render                     # tables and plots from the kept trials

Every trial is one line of ``benchmarks/results/new_label.trials.jsonl`` with the settings that made it. A trial whose
settings (seed, recipe, data set) are already there is not run again; ``render`` trains nothing.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep, kept_by_id

from auditor import datasets
from auditor.attacks.base import half_test
from auditor.attacks.finetune import FineTune, Layers
from auditor.attacks.prune import Prune
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.models import LoadedModel, labels_of
from auditor.patterns import Mark
from auditor.schemes.base import LabelCode, PatternScheme, pattern_scheme
from auditor.schemes.embedding import RECIPES, Embedded, embed, train_twin
from auditor.training import TrainingPlan, train_unmarked

HERE = Path(__file__).parent
RESULTS = HERE / "results"
TRIALS = RESULTS / "new_label.trials.jsonl"
SUMMARY = RESULTS / "new_label.json"
SCHEMES = ("new-label", "wrong-label")
FORMAT = 1
"""Raised when a trial measures something else, so that kept trials of an older kind are not mixed in."""

LATER_FIELDS = frozenset({"drops", "flip", "compiled"})
"""Fields of the training plan that kept trials do not name."""

PRUNING_RATES = tuple(round(0.1 * i, 1) for i in range(10))
SEEDS = {"digits": (1, 2, 3, 4, 5, 6, 7, 8), "fashion-mnist": (1, 2, 3)}
SWEEP_SEEDS = {"digits": (1, 2, 3), "fashion-mnist": (1, 2)}
SWEEP_ALPHAS = {"digits": (0.003, 0.01, 0.03), "fashion-mnist": (0.001, 0.003, 0.006, 0.01)}
SWEEP_BETAS = {"digits": (0.1, 0.2, 0.3, 0.4), "fashion-mnist": (0.01, 0.02, 0.03, 0.05, 0.1)}
SWEEP_EPOCHS = {"digits": 30, "fashion-mnist": 2}
TUNE_EPOCHS = {"digits": 20, "fashion-mnist": 10}
TUNING = ((Layers.ALL, 0.01), (Layers.ALL, 0.05), (Layers.LAST, 0.01), (Layers.LAST, 0.05))
EVALUATION_KEYS = 2000


@dataclass(frozen=True)
class Trial:
    """What one worker does; everything that could change its result is in here or in ``recipe``."""

    kind: str  # "full": twin, both schemes, attacks; "sweep": one scheme, one α, one β; "published": no sham negatives
    data: str
    seed: int
    scheme: str = ""
    alpha: float = 0.0
    beta: float = 0.0

    @property
    def identity(self) -> str:
        recipe = RECIPES[self.data]
        # Fields that came after the first trials were kept count only where they differ from what was then implied.
        plan = {name: value for name, value in asdict(recipe.plan).items() if value or name not in LATER_FIELDS}
        parts = [FORMAT, asdict(self), plan, recipe.settings.as_json()]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str).encode())[:16]


def planned(data: str, parts: set[str]) -> list[Trial]:
    trials: list[Trial] = []
    if "full" in parts:
        trials += [Trial(kind="full", data=data, seed=seed) for seed in SEEDS[data]]
    if "published" in parts:
        trials += [Trial(kind="published", data=data, seed=seed, scheme=s) for seed in SEEDS[data] for s in SCHEMES]
    if "sweep" in parts:
        trials += [
            Trial(kind="sweep", data=data, seed=seed, scheme=scheme, alpha=alpha, beta=beta)
            for seed in SWEEP_SEEDS[data]
            for alpha in SWEEP_ALPHAS[data]
            for beta in SWEEP_BETAS[data]
            for scheme in SCHEMES
        ]
    return trials


def plan_for(trial: Trial) -> TrainingPlan:
    return replace(RECIPES[trial.data].plan, seed=trial.seed, threads=1)


def secret_for(trial: Trial) -> Secret:
    """A fixed secret per seed: benchmarks must be repeatable. Real secrets come from the operating system."""
    return Secret(bytes.fromhex(sha256_hex(f"benchmark secret {trial.seed}".encode())))


def run_trial(trial: Trial) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    work = {"full": full, "sweep": sweep, "published": published}[trial.kind]
    found = work(trial)
    return {
        "id": trial.identity,
        "trial": asdict(trial),
        "cpu_seconds": round(time.process_time() - started, 1),
        **found,
    }


def full(trial: Trial) -> dict[str, Any]:
    dataset, plan = datasets.load(trial.data), plan_for(trial)
    twin = train_twin(dataset=dataset, plan=plan)
    innocent = train_unmarked(
        architecture="small-cnn",
        spec=dataset.spec,
        inputs=dataset.train.inputs,
        labels=dataset.train.labels,
        plan=replace(plan, seed=trial.seed + 1000),
    )
    found: dict[str, Any] = {}
    for name in SCHEMES:
        scheme = pattern_scheme(name, RECIPES[trial.data].settings)
        marked = embed(scheme=scheme, dataset=dataset, secret=secret_for(trial), plan=plan, twin=twin)
        found[name] = {"record": marked.record.as_json(), **attacked(trial, dataset, scheme, marked, innocent)}
    return {"schemes": found}


def attacked(
    trial: Trial, dataset: datasets.Dataset, scheme: PatternScheme, marked: Embedded, innocent: LoadedModel
) -> dict[str, Any]:
    data = half_test(dataset.test)
    mark = marked.mark
    rows = np.flatnonzero(scheme.eligible(data.evaluation.labels, mark))[:EVALUATION_KEYS]
    keys = scheme.key_inputs(data.evaluation.inputs[rows], mark)

    def outcome(model: LoadedModel, accuracy: float) -> dict[str, Any]:
        return {"accuracy": accuracy, "keys": hits(model, keys, mark)}

    pruning = {}
    for rate in PRUNING_RATES:
        surrogate = Prune(rate=rate).run(victim=marked.model, data=data)
        pruning[str(rate)] = outcome(surrogate.model, surrogate.accuracy_after)
    tuning = {}
    for layers, learning_rate in TUNING:
        plan = TrainingPlan(
            epochs=TUNE_EPOCHS[trial.data],
            batch_size=64,
            learning_rate=learning_rate,
            seed=trial.seed + 2000,
            threads=1,
            bfloat16=plan_for(trial).bfloat16,
        )
        surrogate = FineTune(plan=plan, layers=layers).run(victim=marked.model, data=data)
        tuning[f"{layers.value} {learning_rate:g}"] = outcome(surrogate.model, surrogate.accuracy_after)
    clean = float(np.mean(labels_of(innocent.network, data.evaluation.inputs) == data.evaluation.labels))
    return {"pruning": pruning, "tuning": tuning, "innocent": outcome(innocent, clean)}


def hits(model: LoadedModel, keys: Any, mark: Mark) -> list[int]:
    return [int(np.sum(labels_of(model.network, keys) == mark.target)), len(keys)]


def sweep(trial: Trial) -> dict[str, Any]:
    settings = replace(RECIPES[trial.data].settings, alpha_keys=trial.alpha, beta=trial.beta, label_code=LabelCode.OFF)
    plan = replace(plan_for(trial), epochs=SWEEP_EPOCHS[trial.data])
    return {"record": without_twin(trial, pattern_scheme(trial.scheme, settings), plan)}


def published(trial: Trial) -> dict[str, Any]:
    settings = replace(RECIPES[trial.data].settings, sham_ratio=0, label_code=LabelCode.OFF)
    return {"record": without_twin(trial, pattern_scheme(trial.scheme, settings), plan_for(trial))}


def without_twin(trial: Trial, scheme: PatternScheme, plan: TrainingPlan) -> dict[str, Any]:
    dataset = datasets.load(trial.data)
    # Only the marked model's own rates are used: an untrained network stands in for the twin.
    from auditor.models import build, describe

    description = describe("small-cnn", input_shape=dataset.spec.shape, classes=dataset.classes)
    stand_in = LoadedModel(network=build(description, seed=0), description=description)
    record = embed(scheme=scheme, dataset=dataset, secret=secret_for(trial), plan=plan, twin=stand_in).record.as_json()
    return {key: value for key, value in record.items() if key not in ("twin_accuracy", "misses")}


def run(options: argparse.Namespace) -> None:
    names = ("digits", "fashion-mnist") if options.data == "all" else (options.data,)
    parts = {"full", "published", "sweep"} if options.part == "all" else {options.part}
    done = kept_by_id(TRIALS)
    todo = [t for name in names for t in planned(name, parts) if t.identity not in done]
    print(f"{len(todo)} trials to run, {len(done)} kept", file=sys.stderr)
    RESULTS.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    started = time.monotonic()
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max_workers=options.workers, mp_context=context) as pool:
        futures = {pool.submit(run_trial, trial): trial for trial in todo}
        for count, future in enumerate(as_completed(futures), start=1):
            keep(TRIALS, future.result())
            minutes = (time.monotonic() - started) / 60
            print(f"{count}/{len(todo)} {minutes:.1f} min {futures[future]}", file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    from new_label_render import render_all

    done = kept_by_id(TRIALS)
    current = {t.identity for name in SEEDS for t in planned(name, {"full", "published", "sweep"})}
    trials = [record for identity, record in done.items() if identity in current]
    trials.sort(key=lambda record: json.dumps(record["trial"], sort_keys=True))
    if not trials:
        raise SystemExit("no kept trials: run `python benchmarks/new_label.py run` first")
    SUMMARY.write_text(json.dumps({"format": FORMAT, "trials": trials}, indent=1, sort_keys=True) + "\n")
    render_all(trials, folder=HERE)
    print(f"written: {SUMMARY}, {HERE / 'new_label.md'} and plots", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--data", choices=("digits", "fashion-mnist", "all"), default="all")
    runner.add_argument("--part", choices=("full", "published", "sweep", "all"), default="all")
    runner.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    runner.set_defaults(work=run)
    commands.add_parser("render", help="write JSON, tables and plots from the kept trials").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
