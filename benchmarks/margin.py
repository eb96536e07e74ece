"""Measures the margin scheme and its matched baseline: clean accuracy, survival of extraction, the audit's verdict.

    python benchmarks/margin.py run                    # the five (--seeds N: first N) full trials; every one is kept
    python benchmarks/margin.py run --part frontier    # radius, weight, number of triggers, width: one seed each
    python benchmarks/margin.py render                 # tables from the kept trials

The owner's and the attacker's images are disjoint halves of Fashion-MNIST's training part. One trial trains the
unmarked twin, a marked model, two surrogates (soft and hard answers) and an innocent on the attacker's images with
true labels, and audits each of them as ``auditor verify`` does: same questions, same order, same stopping rule.

Every trial is one line of ``benchmarks/results/margin.trials.jsonl`` with the settings that made it. A trial whose
settings are already there is not run again; ``render`` trains nothing.
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
from new_label import environment

from auditor import analysis, datasets
from auditor.attacks.base import AttackData
from auditor.attacks.extract import Extract, Taught
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.evidence.schedule import draw_schedule, opening_length
from auditor.models import SMALL_CNN, LoadedModel, labels_of, predict, width_options
from auditor.records import Answer, Reply
from auditor.schemes.carriers import default_sizes
from auditor.schemes.embedding import train_twin
from auditor.schemes.margin import RECIPES, Margin, PlainTrigger
from auditor.schemes.owner import OwnerResult, train_owner
from auditor.schemes.triggers import Choice, TriggerSettings
from auditor.stats.deviating import deviating_test
from auditor.training import TrainingPlan, train_unmarked

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "margin.trials.jsonl"
SUMMARY = HERE / "results" / "margin.json"
PAGE = HERE / "margin.md"
DATA = "fashion-mnist"
FORMAT = 1
SPLIT_SEED = 20
N_OWNER, N_ATTACKER = 28_000, 30_000
SEEDS = tuple(range(1, 11))
INNOCENT_SEED = 10_000
SURROGATE_SEED = 500


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What one worker does; everything that could change its result is in here or in the identity."""

    part: str
    seed: int
    scheme: str
    radius: float = RECIPES[DATA].settings.radius
    steps: int = RECIPES[DATA].settings.steps
    ramp: float = RECIPES[DATA].settings.ramp
    weight: float = RECIPES[DATA].settings.weight
    per_step: int = RECIPES[DATA].settings.per_step
    choice: str = RECIPES[DATA].settings.choice.value
    n_keys: int = RECIPES[DATA].n_keys
    width: int = 16
    epochs: int = RECIPES[DATA].plan.epochs
    surrogate_epochs: int = 4

    @property
    def identity(self) -> str:
        parts = [FORMAT, asdict(self), asdict(RECIPES[DATA].plan), SPLIT_SEED, N_OWNER, N_ATTACKER]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str).encode())[:16]

    @property
    def settings(self) -> TriggerSettings:
        return TriggerSettings(
            radius=self.radius, steps=self.steps, ramp=self.ramp, weight=self.weight, per_step=self.per_step,
            choice=Choice(self.choice),
        )  # fmt: skip


def planned(part: str, seeds: int) -> list[Trial]:
    if part == "full":
        return [Trial(part=part, seed=seed, scheme=s) for seed in SEEDS[:seeds] for s in ("margin", "plain-trigger")]
    base = Trial(part=part, seed=1, scheme="margin")
    return [
        *(replace(base, radius=radius) for radius in (5.0, 10.0, 20.0, 30.0)),
        *(replace(base, weight=weight) for weight in (0.25, 0.5)),
        *(replace(base, n_keys=n, per_step=n // 4) for n in (100, 400)),
        replace(base, choice="random"),
        replace(base, ramp=0.5),
        replace(base, width=32),
        replace(base, epochs=12),
    ]


def halves() -> tuple[datasets.Dataset, datasets.Part]:
    """Return the owner's data set and the attacker's images."""
    whole = datasets.load(DATA)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(whole.train))
    owner = whole.train.take(order[:N_OWNER])
    return replace(whole, train=owner), whole.train.take(order[N_OWNER : N_OWNER + N_ATTACKER])


def run_trial(trial: Trial) -> dict[str, Any]:
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    dataset, stolen = halves()
    plan = replace(RECIPES[DATA].plan, seed=trial.seed, threads=1, epochs=trial.epochs)
    scheme = (Margin if trial.scheme == "margin" else PlainTrigger)(trial.settings)
    twin = train_twin(dataset=dataset, plan=plan, options=width_options(SMALL_CNN, trial.width))
    secret = secret_for(trial.seed)
    owned = train_owner(
        scheme=scheme, dataset=dataset, secret=secret, plan=plan, twin=twin,
        sizes=default_sizes(randomness=True, scheme=scheme, n_keys=trial.n_keys),
    )  # fmt: skip
    victim = LoadedModel(network=owned.network, description=owned.description)
    found = {"victim": audited(victim, owned, dataset), "twin": audited(twin, owned, dataset)}
    thief = AttackData(own=stolen, evaluation=dataset.test)
    copying = replace(plan, seed=SURROGATE_SEED + trial.seed, epochs=trial.surrogate_epochs, label_smoothing=0.0)
    for taught in (Taught.SOFT, Taught.HARD):
        surrogate = Extract(plan=copying, taught=taught).run(victim=victim, data=thief)
        found[taught.value] = audited(surrogate.model, owned, dataset)
    found["innocent"] = audited(innocent(dataset, stolen, trial, copying), owned, dataset)
    return {
        "id": trial.identity, "trial": asdict(trial), "cpu_seconds": round(time.process_time() - started, 1),
        "models": found,
    }  # fmt: skip


def innocent(dataset: datasets.Dataset, part: datasets.Part, trial: Trial, plan: TrainingPlan) -> LoadedModel:
    return train_unmarked(
        architecture=SMALL_CNN, spec=dataset.spec, inputs=part.inputs, labels=part.labels,
        plan=replace(plan, seed=INNOCENT_SEED + trial.seed),
    )  # fmt: skip


def secret_for(seed: int) -> Secret:
    """A fixed secret per seed: benchmarks must be repeatable. Real secrets come from the operating system."""
    drawn = [bytes.fromhex(sha256_hex(f"benchmark {word} {seed}".encode())) for word in ("secret", "beacon")]
    return Secret(*drawn)


def audited(model: LoadedModel, owned: OwnerResult, dataset: datasets.Dataset) -> dict[str, Any]:
    """Return accuracy, counts over all triggers, and where the sealed test stops with labels and with scores."""
    protocol = owned.protocol
    scores = predict(model.network, owned.keys.inputs)
    answers = np.argmax(scores, axis=1)
    keys = owned.keys.samples[: protocol.n_keys]
    outcome = deviating_test(
        natural=[s.natural for s in keys], answers=answers[: len(keys)].tolist(), labels=[s.expected for s in keys],
        n_classes=len(dataset.classes),
    )  # fmt: skip
    labels = [Answer(label=int(label)) for label in answers]
    full = [Answer(label=int(a), scores=tuple(float(x) for x in row)) for a, row in zip(answers, scores, strict=True)]
    return {
        "accuracy": float(np.mean(labels_of(model.network, dataset.test.inputs) == dataset.test.labels)),
        "hits": outcome.hits, "deviating": outcome.deviating, "log10_p": round(outcome.log10_p, 3),
        "by_labels": stopped(owned, labels), "by_scores": stopped(owned, full),
    }  # fmt: skip


def stopped(owned: OwnerResult, answers: list[Answer]) -> dict[str, Any]:
    """Return the outcome of the sealed test and the keys asked until then."""
    protocol, spec = owned.protocol, owned.keys.spec
    samples = {sample.index: sample for sample in owned.keys.samples}
    levels = analysis.spend(protocol.alpha, protocol, spec)
    replies: list[Reply] = []
    n_keys = 0
    for probe in draw_schedule(protocol):
        replies.append(Reply(probe=probe, answer=answers[probe.index]))
        if len(replies) < opening_length(protocol):
            continue
        grouped = analysis.sort_replies(replies)
        n_keys = len(grouped.keys)
        null = analysis.measure_null(grouped, samples, levels, protocol, spec)
        decided = analysis.decide_keys(grouped, samples, null, levels, protocol, spec)
        if decided.rejected or decided.futile:
            return {"status": "supported" if decided.rejected else "not supported", "keys_asked": n_keys}
    return {"status": "undecided", "keys_asked": n_keys}


def kept() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for line in TRIALS.read_text().splitlines() if TRIALS.exists() else ():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # the last line of a killed run
        found[record["id"]] = record
    return found


def run(options: argparse.Namespace) -> None:
    done = kept()
    todo = [trial for trial in planned(options.part, options.seeds) if trial.identity not in done]
    print(f"{len(todo)} trials to run, {len(done)} kept", file=sys.stderr)
    TRIALS.parent.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(max_workers=options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for count, future in enumerate(as_completed([pool.submit(run_trial, trial) for trial in todo]), start=1):
            record = future.result()
            with TRIALS.open("a") as file:
                file.write(json.dumps({**record, **environment()}, sort_keys=True) + "\n")
                file.flush()
                os.fsync(file.fileno())
            print(f"{count}/{len(todo)} {record['trial']}", file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    from margin_render import page

    current = {trial.identity for part in ("full", "frontier") for trial in planned(part, len(SEEDS))}
    trials = [record for identity, record in kept().items() if identity in current]
    if not trials:
        raise SystemExit("no kept trials: run `python benchmarks/margin.py run` first")
    trials.sort(key=lambda record: json.dumps(record["trial"], sort_keys=True))
    SUMMARY.write_text(json.dumps({"format": FORMAT, "trials": trials}, indent=1, sort_keys=True) + "\n")
    PAGE.write_text(page(trials))
    print(f"written: {SUMMARY} and {PAGE}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--part", choices=("full", "frontier"), default="full")
    runner.add_argument("--seeds", type=int, default=5, help="full trials for the first so many seeds (default 5)")
    runner.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    runner.set_defaults(work=run)
    commands.add_parser("render", help="write JSON and tables from the kept trials").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
