"""Tries settings of rival labels with one seed, without sealing anything: the rows "tried beside the benchmark".

    python benchmarks/margin_search.py --keys 500 --radius 15 --copy-epochs 3

Appends one row, which `margin.py render` then shows. The coins come from a generator of this script and not from a
commitment, so that no row has a verdict.
"""

import argparse
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from margin import DATA, EXPLORED, RECIPES, SURROGATE_SEED, halves, unmarked_twin

from auditor.attacks.base import AttackData
from auditor.attacks.extract import Extract, Taught
from auditor.models import LoadedModel, build, predict
from auditor.schemes.triggers import TriggerSettings, TriggerSupplement, ambiguity, contest, rivals
from auditor.stats.exact import binomial_tail_log10
from auditor.training import fit

COIN_SEED = 77


def chosen(options: argparse.Namespace, twin: LoadedModel, pool: Any) -> tuple[Any, Any]:
    """Return the rows of the triggers and the two classes of each."""
    if options.pairs == "two likeliest":
        scores = predict(twin.network, pool.inputs)
        rows = np.argsort(-ambiguity(twin, pool.inputs), kind="stable")[: options.keys]
        return rows, np.argsort(-scores[rows], axis=1)[:, :2]
    order = np.argsort(-contest(twin, pool.inputs, pool.labels), kind="stable")
    if options.spread > 1:
        top = order[: int(options.spread * options.keys)]
        flat = pool.inputs[top].reshape(len(top), -1).astype(np.float32) / 255
        kept, nearest = [0], ((flat - flat[0]) ** 2).sum(axis=1)
        while len(kept) < options.keys:
            kept.append(int(nearest.argmax()))
            nearest = np.minimum(nearest, ((flat - flat[kept[-1]]) ** 2).sum(axis=1))
        order = top[kept]
    rows = order[: options.keys]
    return rows, np.stack([pool.labels[rows], rivals(twin, pool.inputs[rows], pool.labels[rows])], axis=1)


def measured(model: LoadedModel, triggers: Any, drawn: Any, other: Any, test: Any) -> dict[str, Any]:
    """Return accuracy, and hits by labels and by scores with their exact tails at 1/2."""
    scores, rows = predict(model.network, triggers), np.arange(len(triggers))
    answers = scores.argmax(axis=1)
    hits, bets = int((answers == drawn).sum()), int(((answers == drawn) | (answers == other)).sum())
    by_scores = int((scores[rows, drawn] > scores[rows, other]).sum())
    return {
        "accuracy": float((predict(model.network, test.inputs).argmax(axis=1) == test.labels).mean()),
        "hits": hits, "bets": bets, "log10_p": round(binomial_tail_log10(hits=hits, trials=bets, rate=0.5), 2),
        "score_hits": by_scores,
        "log10_p_scores": round(binomial_tail_log10(hits=by_scores, trials=len(rows), rate=0.5), 2),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (
        ("seed", 1), ("keys", 300), ("steps", 3), ("per-step", 50), ("epochs", 6), ("copy-epochs", 6), ("width", 16)
    ):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    for name, real in (("radius", 10.0), ("weight", 0.5), ("spread", 1.0)):
        parser.add_argument(
            f"--{name}", type=float, default=real, help="spread: farthest apart of so many times as many"
        )
    parser.add_argument("--pairs", choices=("natural and rival", "two likeliest"), default="natural and rival")
    options = parser.parse_args()
    torch.set_num_threads(1)
    started = time.process_time()
    dataset, stolen = halves()
    twin = unmarked_twin(options.seed, options.width, options.epochs)
    rows, pairs = chosen(options, twin, dataset.carriers)
    coins = np.random.default_rng(options.seed + COIN_SEED).integers(0, 2, len(rows))
    drawn, other = pairs[np.arange(len(rows)), coins], pairs[np.arange(len(rows)), 1 - coins]
    triggers = dataset.carriers.inputs[rows]
    plan = replace(RECIPES[DATA].plan, seed=options.seed, threads=1, epochs=options.epochs)
    settings = TriggerSettings(
        radius=options.radius, steps=options.steps, weight=options.weight, per_step=options.per_step
    )
    network = build(twin.description, seed=plan.seed)
    fit(
        network, inputs=dataset.train.inputs, labels=dataset.train.labels, plan=plan,
        supplement=TriggerSupplement(inputs=triggers, labels=drawn, settings=settings, n_natural=len(dataset.classes)),
    )  # fmt: skip
    found = {"victim": LoadedModel(network=network, description=twin.description)}
    copying = replace(plan, seed=SURROGATE_SEED + options.seed, epochs=options.copy_epochs, label_smoothing=0.0)
    thief = AttackData(own=stolen, evaluation=dataset.test)
    for taught in (Taught.SOFT, Taught.HARD):
        found[taught.value] = Extract(plan=copying, taught=taught).run(victim=found["victim"], data=thief).model
    told = {name: measured(model, triggers, drawn, other, dataset.test) for name, model in found.items()}
    unmarked = measured(twin, triggers, drawn, other, dataset.test)["accuracy"]
    pool = f"farthest apart of {options.spread:g} times as many" if options.spread > 1 else "most contested"
    row = {
        "settings": {
            "pairs": options.pairs, "pool": pool, "n_keys": options.keys, "radius": options.radius,
            "steps": options.steps, "weight": options.weight, "per_step": options.per_step, "width": options.width,
            "epochs": options.epochs, "copy_epochs": options.copy_epochs,
        },
        "seed": options.seed, "cpu_seconds": round(time.process_time() - started),
        "clean_minus_twin_points": round(100 * (told["victim"]["accuracy"] - unmarked), 2), **told,
    }  # fmt: skip
    with EXPLORED.open("a") as file:
        file.write(json.dumps(row, sort_keys=True) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
