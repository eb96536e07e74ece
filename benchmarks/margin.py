"""Measures the margin scheme and its matched baseline: clean accuracy, survival of extraction, the audit's verdict.

    python benchmarks/margin.py run                    # margin and baseline, five seeds (--seeds N: the first N)
    python benchmarks/margin.py run --part innocents   # twenty innocents against the key sets of the same seeds
    python benchmarks/margin.py run --part frontier    # radius, weight, number of triggers, width: one seed each
    python benchmarks/margin.py render                 # tables from the kept trials

The owner's and the attacker's images are disjoint halves of Fashion-MNIST's training part. One trial trains the
unmarked twin, a marked model and two surrogates (soft and hard answers), and audits each of them, and a panel of
innocents trained on the attacker's images with true labels, as ``auditor verify`` does: same questions, same order,
same stopping rule. The panel is the same for every trial; only the key sets differ.

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
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from kept import keep, kept_by_id, kept_lines

from auditor import analysis, datasets
from auditor.attacks.base import AttackData
from auditor.attacks.extract import Extract, Taught
from auditor.canonical import sha256_hex
from auditor.draws import Secret
from auditor.evidence.keyset import KeySet
from auditor.evidence.schedule import draw_schedule
from auditor.models import SMALL_CNN, LoadedModel, labels_of, predict, width_options
from auditor.records import Answer, Protocol, Reply
from auditor.schemes.carriers import default_sizes
from auditor.schemes.embedding import train_twin
from auditor.schemes.margin import RECIPES, Margin, PlainTrigger
from auditor.schemes.owner import build_protocol, build_trigger_keys, train_owner
from auditor.schemes.triggers import Choice, LabelDraw, TriggerSettings, measure_triggers
from auditor.stats.exact import binomial_tail_log10
from auditor.stats.sequential import Decision
from auditor.training import train_unmarked

HERE = Path(__file__).parent
TRIALS = HERE / "results" / "margin.trials.jsonl"
SUMMARY = HERE / "results" / "margin.json"
EXPLORED = HERE / "results" / "margin.explored.jsonl"
PAGE = HERE / "margin.md"
NOTES = HERE / "margin.notes.md"
DATA = "fashion-mnist"
FORMAT = 3
SPLIT_SEED = 20
N_OWNER, N_ATTACKER = 28_000, 30_000
SEEDS = tuple(range(1, 11))
N_INNOCENTS, INNOCENT_IMAGES, INNOCENT_SEED = 20, 10_000, 10_000
SURROGATE_SEED = 500
BASELINE_RADIUS = 10.0
"""What the baseline's kept trials name; it has no ball, so that nothing depends on it."""


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
    draw: str = RECIPES[DATA].settings.draw.value
    n_keys: int = RECIPES[DATA].n_keys
    width: int = 16
    epochs: int = RECIPES[DATA].plan.epochs
    copy_epochs: int = RECIPES[DATA].plan.epochs
    """Of the surrogates and the innocents: as many as the owner's, as in the published protocol."""

    @property
    def identity(self) -> str:
        sizes = [SPLIT_SEED, N_OWNER, N_ATTACKER, N_INNOCENTS, INNOCENT_IMAGES]
        parts = [FORMAT, asdict(self), asdict(RECIPES[DATA].plan), *sizes]
        return sha256_hex(json.dumps(parts, sort_keys=True, default=str).encode())[:16]

    @property
    def settings(self) -> TriggerSettings:
        return TriggerSettings(
            radius=self.radius, steps=self.steps, ramp=self.ramp, weight=self.weight, per_step=self.per_step,
            choice=Choice(self.choice), draw=LabelDraw(self.draw),
        )  # fmt: skip


def planned(part: str, seeds: int) -> list[Trial]:
    if part == "full":
        margin = [Trial(part=part, seed=seed, scheme="margin") for seed in SEEDS[:seeds]]
        return [*margin, *(replace(trial, scheme="plain-trigger", radius=BASELINE_RADIUS) for trial in margin)]
    if part == "innocents":
        return [Trial(part=part, seed=seed, scheme="margin") for seed in SEEDS[:seeds]]
    base = Trial(part=part, seed=1, scheme="margin")
    return [
        *(replace(base, radius=radius) for radius in (2.5, 10.0, 20.0)),
        *(replace(base, weight=weight) for weight in (0.25, 1.0)),
        *(replace(base, n_keys=n) for n in (150, 600)),
        replace(base, choice="random"),
        replace(base, draw="wrong", radius=20.0, steps=5),
        replace(base, width=32),
        replace(base, copy_epochs=3),
    ]


@lru_cache(maxsize=1)
def halves() -> tuple[datasets.Dataset, datasets.Part]:
    """Return the owner's data set and the attacker's images."""
    whole = datasets.load(DATA)
    order = np.random.default_rng(SPLIT_SEED).permutation(len(whole.train))
    owner = whole.train.take(order[:N_OWNER])
    return replace(whole, train=owner), whole.train.take(order[N_OWNER : N_OWNER + N_ATTACKER])


@lru_cache(maxsize=2)
def unmarked_twin(seed: int, width: int, epochs: int) -> LoadedModel:
    """Return the twin, which the trials of one seed have in common."""
    plan = replace(RECIPES[DATA].plan, seed=seed, threads=1, epochs=epochs)
    return train_twin(dataset=halves()[0], plan=plan, options=width_options(SMALL_CNN, width))


@lru_cache(maxsize=1)
def innocents(epochs: int) -> tuple[LoadedModel, ...]:
    """Return the panel, each trained on its own draw of the attacker's images with their true labels."""
    dataset, stolen = halves()
    plan = replace(RECIPES[DATA].plan, threads=1, epochs=epochs)
    found = []
    for seed in range(INNOCENT_SEED, INNOCENT_SEED + N_INNOCENTS):
        part = stolen.take(np.random.default_rng(seed).permutation(len(stolen))[:INNOCENT_IMAGES])
        found.append(
            train_unmarked(
                architecture=SMALL_CNN, spec=dataset.spec, inputs=part.inputs, labels=part.labels,
                plan=replace(plan, seed=seed),
            )
        )  # fmt: skip
    return tuple(found)


def run_trial(trial: Trial) -> dict[str, Any]:
    import torch

    if trial.part == "innocents":
        return run_panel(trial)
    torch.set_num_threads(1)
    dataset, stolen = halves()
    started = time.process_time()
    plan = replace(RECIPES[DATA].plan, seed=trial.seed, threads=1, epochs=trial.epochs)
    scheme = (Margin if trial.scheme == "margin" else PlainTrigger)(trial.settings)
    twin = unmarked_twin(trial.seed, trial.width, trial.epochs)
    owned = train_owner(
        scheme=scheme, dataset=dataset, secret=secret_for(trial.seed), plan=plan, twin=twin,
        sizes=default_sizes(randomness=True, scheme=scheme, n_keys=trial.n_keys),
    )  # fmt: skip
    marked = time.process_time() - started
    victim = LoadedModel(network=owned.network, description=owned.description)
    found = {
        "victim": audited(victim, owned.keys, owned.protocol, dataset),
        "twin": audited(twin, owned.keys, owned.protocol, dataset),
    }
    thief = AttackData(own=stolen, evaluation=dataset.test)
    copying = replace(plan, seed=SURROGATE_SEED + trial.seed, epochs=trial.copy_epochs, label_smoothing=0.0)
    for taught in (Taught.SOFT, Taught.HARD):
        surrogate = Extract(plan=copying, taught=taught).run(victim=victim, data=thief)
        found[taught.value] = audited(surrogate.model, owned.keys, owned.protocol, dataset)
    return {
        "id": trial.identity, "trial": asdict(trial), "marking_cpu_seconds": round(marked, 1),
        "cpu_seconds": round(time.process_time() - started, 1), "models": found,
    }  # fmt: skip


def run_panel(trial: Trial) -> dict[str, Any]:
    """Audit the innocents with the key set of one seed, which no marked model is needed for."""
    import torch

    torch.set_num_threads(1)
    started = time.process_time()
    dataset, scheme, secret = halves()[0], Margin(trial.settings), secret_for(trial.seed)
    twin = unmarked_twin(trial.seed, trial.width, trial.epochs)
    sizes = default_sizes(randomness=True, scheme=scheme, n_keys=trial.n_keys)
    sealed = build_trigger_keys(scheme=scheme, dataset=dataset, secret=secret, sizes=sizes, twin=twin)
    drawn = sealed.samples[: sizes.n_keys]
    naturals = np.array([sample.natural for sample in drawn], dtype=np.int64)
    labels = np.array([sample.expected for sample in drawn], dtype=np.int64)
    # Forecasts are in the protocol and steer nothing; the twin stands in for the marked model.
    record = measure_triggers(
        scheme=scheme, dataset=dataset, model=twin, twin=twin, triggers=sealed.inputs[: sizes.n_keys],
        naturals=naturals, labels=labels, seed=trial.seed,
    )  # fmt: skip
    protocol = build_protocol(scheme=scheme, secret=secret, record=record, sizes=sizes)
    found = [audited(model, sealed, protocol, dataset) for model in innocents(trial.copy_epochs)]
    return {
        "id": trial.identity, "trial": asdict(trial), "cpu_seconds": round(time.process_time() - started, 1),
        "innocents": found,
    }  # fmt: skip


def secret_for(seed: int) -> Secret:
    """A fixed secret per seed: benchmarks must be repeatable. Real secrets come from the operating system."""
    drawn = [bytes.fromhex(sha256_hex(f"benchmark {word} {seed}".encode())) for word in ("secret", "beacon")]
    return Secret(*drawn)


def audited(model: LoadedModel, sealed: KeySet, protocol: Protocol, dataset: datasets.Dataset) -> dict[str, Any]:
    """Return accuracy, counts over all triggers, and where the sealed test stops with labels and with scores."""
    scores = predict(model.network, sealed.inputs)
    answers = np.argmax(scores, axis=1)
    labels = [Answer(label=int(label)) for label in answers]
    full = [Answer(label=int(a), scores=tuple(float(x) for x in row)) for a, row in zip(answers, scores, strict=True)]
    return {
        "accuracy": float(np.mean(labels_of(model.network, dataset.test.inputs) == dataset.test.labels)),
        **counted(sealed, protocol, labels), "with_scores": counted(sealed, protocol, full),
        "by_labels": stopped(sealed, protocol, labels), "by_scores": stopped(sealed, protocol, full),
    }  # fmt: skip


def counted(sealed: KeySet, protocol: Protocol, answers: list[Answer]) -> dict[str, Any]:
    """Return hits among the answers that count, over all keys, with the exact binomial tail."""
    basis = analysis.basis_of(protocol, sealed.spec)
    replies = [Reply(probe=probe, answer=answers[probe.index]) for probe in draw_schedule(protocol)]
    outcomes = basis.key_outcomes(analysis.sort_replies(replies), {sample.index: sample for sample in sealed.samples})
    hits, bets = outcomes.count(True), len(outcomes) - outcomes.count(None)
    rate = basis.forecast_null(basis.levels(protocol.alpha))
    tail = binomial_tail_log10(hits=hits, trials=bets, rate=rate) if bets else 0.0
    return {"hits": hits, "bets": bets, "log10_p": round(tail, 3)}


def stopped(sealed: KeySet, protocol: Protocol, answers: list[Answer]) -> dict[str, Any]:
    """Return the outcome of the sealed test and the keys asked until then."""
    spec = sealed.spec
    samples = {sample.index: sample for sample in sealed.samples}
    levels = analysis.spend(protocol.alpha, protocol, spec)
    replies = [Reply(probe=probe, answer=answers[probe.index]) for probe in draw_schedule(protocol)]
    grouped = analysis.sort_replies(replies)
    null = analysis.measure_null(grouped, samples, levels, protocol, spec)
    outcome = analysis.decide_keys(grouped, samples, null, levels, protocol, spec).outcome
    # The rule looks at what was asked so far alone: the first boundary that the whole course crosses is where an audit
    # stops, but not before all opening questions are asked.
    found: dict[str, Any] = {"status": "undecided", "keys_asked": len(grouped.keys), "log10_e": 0.0}
    if outcome is not None:
        found["log10_e"] = round(outcome.steps[-1].log10_e, 2)
        if outcome.decided_at is not None:
            found["status"] = "supported" if outcome.decision is Decision.REJECT else "not supported"
            found["keys_asked"] = max(outcome.decided_at, protocol.opening_keys)
    return found


def run(options: argparse.Namespace) -> None:
    done = kept_by_id(TRIALS)
    wanted = [trial for trial in planned(options.part, options.seeds) if trial.scheme in options.schemes]
    if options.radius is not None:
        wanted = [replace(trial, radius=options.radius) for trial in wanted]
    if options.only:
        wanted = [trial for trial in wanted if trial.seed in options.only]
    todo = [trial for trial in wanted if trial.identity not in done]
    print(f"{len(todo)} trials to run, {len(done)} kept", file=sys.stderr)
    TRIALS.parent.mkdir(exist_ok=True)
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(max_workers=options.workers, mp_context=multiprocessing.get_context("spawn")) as pool:
        for count, future in enumerate(as_completed([pool.submit(run_trial, trial) for trial in todo]), start=1):
            record = future.result()
            keep(TRIALS, record)
            print(f"{count}/{len(todo)} {record['trial']}", file=sys.stderr, flush=True)


def render(_: argparse.Namespace) -> None:
    from margin_render import page

    trials = list(kept_by_id(TRIALS).values())
    if not trials:
        raise SystemExit("no kept trials: run `python benchmarks/margin.py run` first")
    trials.sort(key=lambda record: json.dumps(record["trial"], sort_keys=True))
    SUMMARY.write_text(json.dumps({"format": FORMAT, "trials": trials}, indent=1, sort_keys=True) + "\n")
    explored = kept_lines(EXPLORED)
    PAGE.write_text(page(trials, explored=explored, notes=NOTES.read_text()))
    print(f"written: {SUMMARY} and {PAGE}", file=sys.stderr)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    runner = commands.add_parser("run", help="run the trials that are not kept yet")
    runner.add_argument("--part", choices=("full", "innocents", "frontier"), default="full")
    runner.add_argument("--seeds", type=int, default=5, help="full trials for the first so many seeds (default 5)")
    schemes = ("margin", "plain-trigger")
    runner.add_argument("--schemes", nargs="+", choices=schemes, default=schemes, help="only these (default both)")
    runner.add_argument("--radius", type=float, help="another radius than the default, in levels of 255")
    runner.add_argument("--only", type=int, nargs="+", help="only these of the seeds")
    runner.add_argument("--workers", type=int, default=2, help="processes of one thread each (default 2)")
    runner.set_defaults(work=run)
    commands.add_parser("render", help="write JSON and tables from the kept trials").set_defaults(work=render)
    options = parser.parse_args()
    options.work(options)


if __name__ == "__main__":
    main()
