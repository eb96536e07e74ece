"""Surrogates extracted from a guarded API: does the mark travel, who is named, what removes it, what does it cost?

    python benchmarks/dynamarks.py run --seeds 0 1 2 3 4      (resumable; about 6 minutes per seed on one idle core)
    python benchmarks/dynamarks.py render                     (writes benchmarks/dynamarks.md)

One seed is one owner's model, one master secret with ten clients, and about twenty-five surrogates. Owner and thief
hold disjoint halves of the Fashion-MNIST training images; probes are held-out carriers that nobody trained on. Every
finished suspect is one line of `benchmarks/results/dynamarks.trials.jsonl`; lines that are there are not run again.
"""

import argparse
import hashlib
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from dynamarks_render import render
from new_label import environment

TRIALS = Path(__file__).parent / "results" / "dynamarks.trials.jsonl"
CACHE = Path(tempfile.gettempdir()) / "auditor-benchmark-dynamarks"
CLIENTS = tuple(f"client-{i:02d}" for i in range(10))
OWN, OTHER = CLIENTS[0], CLIENTS[1]
BUDGET, EPOCHS, BATCH, RATE = 15_000, 4, 256, 0.2
N_PROBES, N_MIXTURES, N_AMBIGUOUS = 1_000, 20_000, 5_000
REDRAWS, FRESH_KEYS, MANY_KEYS, MANY_REDRAWS = 9_999, 150, 100_000, 400_000
PROBES = (50, 100, 200, 500, 1_000, 2_000)
LEVELS = (0.5, 0.1, 0.05, 0.01, 0.001)


class World:
    """Everything one seed shares: data, owner's model, keys, probes."""

    def __init__(self, seed: int) -> None:
        from auditor import datasets
        from auditor.draws import Secret
        from auditor.guard_keys import client_keys, median_thresholds, projection_key
        from auditor.models import predict

        self.seed = seed
        self.data = datasets.load("fashion-mnist")
        self.owner, self.thief = self.data.train.halves()
        self.secret = Secret(hashlib.sha256(f"benchmark secret {seed}".encode()).digest())
        self.teacher = self.cached("teacher", lambda: self._unmarked(self.owner, seed=seed))
        self.clean = predict(self.teacher, self.thief.inputs)
        self.projection_key = projection_key(self.secret.seed)
        self.client_keys = client_keys(self.secret, CLIENTS)
        predicted = predict(self.teacher, self.owner.inputs).argmax(axis=1)
        self.thresholds = {
            bits: median_thresholds(
                inputs=self.owner.inputs, labels=predicted, n_classes=10, key=self.projection_key, bits=bits
            )
            for bits in (0, 1, 2)
        }
        self.probes = self.data.carriers.inputs[:N_PROBES]
        self.reference = predict(self.teacher, self.probes).astype(np.float64)
        self.ambiguous, self.ambiguous_reference = self._mixtures()

    def _mixtures(self) -> tuple[Any, Any]:
        from auditor.models import predict

        generator = np.random.default_rng(self.seed)
        pairs = generator.integers(0, len(self.data.carriers), size=(2, N_MIXTURES))
        images = self.data.carriers.inputs.astype(np.uint16)
        mixed = ((images[pairs[0]] + images[pairs[1]]) // 2).astype(np.uint8)
        reference = predict(self.teacher, mixed).astype(np.float64)
        two = np.sort(reference, axis=1)[:, -2:]
        rows = np.argsort(two[:, 1] - two[:, 0], kind="stable")[:N_AMBIGUOUS]
        return mixed[rows], reference[rows]

    def _unmarked(self, part: Any, *, seed: int, epochs: int = 3) -> Any:
        from auditor.training import Device, TrainingPlan, train_unmarked

        plan = TrainingPlan(
            epochs=epochs, batch_size=BATCH, learning_rate=RATE, bfloat16=True, seed=seed, device=Device.CPU
        )
        return train_unmarked(
            architecture="small-cnn", spec=self.data.spec, inputs=part.inputs, labels=part.labels, plan=plan
        ).network

    def independent(self, number: int) -> Any:
        return self.cached(
            f"independent-{number}", lambda: self._unmarked(self.thief, seed=1000 + 10 * self.seed + number)
        )

    def cached(self, name: str, make: Callable[[], Any], architecture: str = "small-cnn") -> Any:
        """Return a network from the cache, or make and keep it; a lost cache costs time only."""
        import torch

        from auditor.models import build, describe

        file = CACHE / f"{self.seed}-{name}.pt"
        if file.exists():
            network = build(describe(architecture, input_shape=self.data.spec.shape, classes=self.data.classes), seed=0)
            network.load_state_dict(torch.load(file, weights_only=True))
            return network
        network = make()
        CACHE.mkdir(exist_ok=True)
        torch.save(network.state_dict(), file)
        return network

    def guard_keys(self, *, mu: float = 0.1, bits: int = 1, depth: float = 0.0) -> Any:
        from auditor.guard_keys import GuardKeys, GuardSettings, reference_units

        return GuardKeys(
            settings=GuardSettings(mu=mu, sigma=mu / 2, bits=bits, depth=depth),
            classes=self.data.classes,
            shape=self.data.spec.shape,
            model_sha256="00" * 32,
            projection_key=self.projection_key,
            thresholds=self.thresholds[bits],
            reference=reference_units(self.reference),
            clients=CLIENTS,
            client_keys=self.client_keys,
        )

    def answers(self, *, client: str = OWN, mu: float = 0.1, bits: int = 1) -> Any:
        from auditor.guards.dynamarks import DynaMarks

        return DynaMarks(self.guard_keys(mu=mu, bits=bits), client_id=client)(self.clean, self.thief.inputs)


def distil(
    world: World,
    inputs: Any,
    answers: Any,
    *,
    seed: int,
    architecture: str = "small-cnn",
    epochs: int = EPOCHS,
    start: Any = None,
    rate: float = RATE,
) -> Any:
    """Return a network trained with cross-entropy on the given distributions."""
    import copy

    import torch

    from auditor.models import build, describe

    shape, classes = world.data.spec.shape, world.data.classes
    network = build(describe(architecture, input_shape=shape, classes=classes), seed=seed)
    network = copy.deepcopy(start) if start is not None else network
    network = network.to(memory_format=torch.channels_last)
    x = torch.from_numpy(inputs.astype(np.float32)) / 255.0
    q = torch.from_numpy(np.asarray(answers, dtype=np.float32))
    rate = rate if architecture == "small-cnn" else rate / 4
    steps = epochs * -(-len(x) // BATCH)
    optimizer = torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    generator = torch.Generator().manual_seed(seed)
    network.train()
    for _ in range(epochs):
        order = torch.randperm(len(x), generator=generator)
        for rows in order.split(BATCH):
            if len(rows) < 2:
                continue
            with torch.autocast("cpu", dtype=torch.bfloat16):
                logits = network(x[rows].contiguous(memory_format=torch.channels_last))
            loss = -(q[rows] * torch.log_softmax(logits.float(), dim=1)).sum(dim=1).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network


def one_hot(labels: Any) -> Any:
    return np.eye(10, dtype=np.float32)[labels]


def revealed(scores: Any, mode: str) -> Any:
    """Return what a suspect that reveals less would show; classes that it hides hold -inf."""
    if mode == "rounded":
        return np.round(scores, 1)
    if mode == "rounded-2":
        return np.round(scores, 2)
    if mode == "top-3":
        cut = np.sort(scores, axis=1)[:, -3][:, None]
        return np.where(scores >= cut, scores, -np.inf)
    return scores


def audit_all_clients(world: World, scores: Any, ambiguous: Any, *, bits: int = 1) -> dict[str, Any]:
    """Return, for every way of answering, log10 p under every client's key with Holm's choice of client."""
    from auditor.guard_keys import probe_cells
    from auditor.stats.keyed_cells import cell_table, label_scores, probability_scores, table_test
    from auditor.stats.multiplicity import holm

    keys = world.guard_keys(bits=bits)
    found = {}
    for mode in ("scores", "top-3", "rounded-2", "rounded", "labels"):
        if mode == "labels":
            reference, inputs = world.ambiguous_reference, world.ambiguous
            u = label_scores(labels=ambiguous.argmax(axis=1), reference=reference)
        else:
            reference, inputs = world.reference, world.probes
            u = probability_scores(suspect=revealed(scores, mode), reference=reference)
        cells = probe_cells(keys, inputs, reference)
        table = cell_table(scores=u, cells=cells, labels=reference.argmax(axis=1))
        tests = [
            table_test(table, targets=keys.table(client).targets, seed=bytes(32), draws=REDRAWS) for client in CLIENTS
        ]
        adjusted = holm([test.log10_p for test in tests])
        best = int(np.argmin(adjusted))
        found[mode] = {
            "log10_p": [round(test.log10_p, 3) for test in tests],
            "z": round(tests[0].law.z, 3),
            "log10_chernoff": round(tests[0].law.log10_p_chernoff, 3),
            "monte_carlo_p": [test.redraw.p_value for test in tests],
            "cells": tests[0].n_cells,
            "first_ranked": tests[0].first_ranked,
            "named": CLIENTS[best] if adjusted[best] <= -6 else None,
            "named_at_0.01": CLIENTS[best] if adjusted[best] <= -2 else None,
        }
    return found


def null_table(world: World, scores: Any) -> Any:
    """Return the table of one suspect's scores, computed without any key."""
    from auditor.guard_keys import probe_cells
    from auditor.stats.keyed_cells import cell_table, probability_scores

    return cell_table(
        scores=probability_scores(suspect=scores, reference=world.reference),
        cells=probe_cells(world.guard_keys(), world.probes, world.reference),
        labels=world.reference.argmax(axis=1),
    )


def fresh_keys(world: World, scores: Any) -> dict[str, Any]:
    """Return Monte Carlo and exact-law p-values of one fixed suspect under fresh keys, each with its own re-draws."""
    import secrets

    from auditor.guard_keys import draw_table
    from auditor.stats.keyed_cells import table_test

    table = null_table(world, scores)
    tests = [
        table_test(
            table,
            targets=draw_table(secrets.token_bytes(32), n_classes=10, bits=1).targets,
            seed=secrets.token_bytes(32),
            draws=999,
        )
        for _ in range(FRESH_KEYS)
    ]
    return {
        "monte_carlo_p": [test.redraw.p_value for test in tests],
        "exact_log10_p": [round(test.log10_p, 4) for test in tests],
        "chernoff_log10_p": [round(test.law.log10_p_chernoff, 4) for test in tests],
    }


class Mean:
    """Several networks whose probabilities are averaged."""

    def __init__(self, networks: list[Any]) -> None:
        self.networks = networks


def probabilities(model: Any, inputs: Any) -> Any:
    from auditor.models import predict

    networks = model.networks if isinstance(model, Mean) else [model]
    return np.mean([predict(network, inputs).astype(np.float64) for network in networks], axis=0)


def suspects(world: World) -> dict[str, Callable[[], Any]]:
    """Return how every suspect of a seed is made, most informative first."""
    x, first = world.thief.inputs, 7000 + 100 * world.seed
    small = slice(0, BUDGET)

    def soft(name: str, answers: Callable[[], Any], **options: Any) -> Callable[[], Any]:
        architecture = options.get("architecture", "small-cnn")
        return lambda: world.cached(
            name, lambda: distil(world, x[small], answers()[small], seed=first, **options), architecture
        )

    def marked() -> Any:
        return made["soft-15000"]()

    def pruned(share: float) -> Callable[[], Any]:
        return lambda: prune(marked(), share)

    def budget(n: int) -> Callable[[], Any]:
        epochs = max(4, min(40, 60_000 // n))
        return lambda: world.cached(
            f"soft-{n}", lambda: distil(world, x[:n], world.answers()[:n], seed=first, epochs=epochs)
        )

    def asked(n: int) -> tuple[Any, Any]:
        # More queries than the thief has images: copies moved by up to two pixels are asked as well.
        from auditor.guards.dynamarks import DynaMarks
        from auditor.models import predict
        from auditor.training import shift_images

        if n <= len(x):
            return x[:n], world.answers()[:n]
        moved = shift_images(x[: n - len(x)], limit=2, generator=np.random.default_rng(world.seed))
        answers = DynaMarks(world.guard_keys(), client_id=OWN)(predict(world.teacher, moved), moved)
        return np.concatenate([x, moved]), np.concatenate([world.answers(), answers])

    def beyond() -> Any:
        inputs, answers = asked(50_000)
        return distil(world, inputs, answers, seed=first, epochs=2)

    def perceptron(n: int) -> Callable[[], Any]:
        def train() -> Any:
            inputs, answers = asked(n)
            epochs = max(4, min(80, 120_000 // n))
            return distil(world, inputs, answers, seed=first, architecture="mlp", epochs=epochs)

        return lambda: world.cached(f"mlp-{n}", train, "mlp")

    def reduced(change: Callable[[Any], Any], name: str, n: int) -> Callable[[], Any]:
        def train() -> Any:
            inputs, answers = asked(n)
            return distil(world, inputs, change(answers), seed=first, epochs=max(2, min(40, 60_000 // n)))

        return lambda: world.cached(f"{name}-{n}", train)

    def truth(epochs: int) -> Callable[[], Any]:
        labels = one_hot(world.thief.labels[small])
        return lambda: distil(world, x[small], labels, seed=first, epochs=epochs, start=marked(), rate=0.02)

    def second() -> Any:
        from auditor.models import predict

        rest = x[BUDGET : 2 * BUDGET]
        return distil(world, rest, predict(marked(), rest), seed=first + 1)

    def noisy() -> Any:
        answers = world.answers() + np.random.default_rng(world.seed).normal(0.0, 0.05, size=world.clean.shape)
        answers = np.clip(answers, 1e-6, None)
        return answers / answers.sum(axis=1, keepdims=True)

    def power(answers: Any) -> Any:
        return answers**2 / (answers**2).sum(axis=1, keepdims=True)

    def top(answers: Any) -> Any:
        kept = np.where(np.isinf(revealed(answers, "top-3")), 0.0, answers)
        return kept / kept.sum(axis=1, keepdims=True)

    def rounded(answers: Any) -> Any:
        kept = np.round(answers, 1) + 1e-6
        return kept / kept.sum(axis=1, keepdims=True)

    def labels(answers: Any) -> Any:
        return one_hot(answers.argmax(axis=1))

    made: dict[str, Callable[[], Any]] = {
        "soft-15000": soft("soft-15000", world.answers),
        "independent": lambda: world.independent(0),
        "unguarded": soft("unguarded", lambda: world.clean),
        "other-client": soft("other-client", lambda: world.answers(client=OTHER)),
        "soft-1000": budget(1_000),
        "soft-5000": budget(5_000),
        "mlp-15000": soft("mlp-15000", world.answers, architecture="mlp", epochs=8),
        "trained-on-top-3": soft("trained-on-top-3", lambda: top(world.answers())),
        "trained-on-rounded": soft("trained-on-rounded", lambda: rounded(world.answers())),
        "trained-on-labels": soft("trained-on-labels", lambda: labels(world.answers())),
        "fine-tuned-1": truth(1),
        "fine-tuned-5": truth(5),
        "pruned-30": pruned(0.3),
        "pruned-50": pruned(0.5),
        "pruned-70": pruned(0.7),
        "second-distillation": second,
        "ensemble-1": lambda: Mean([marked(), world.independent(0)]),
        "ensemble-3": lambda: Mean([marked(), *(world.independent(i) for i in range(3))]),
        "sharpened": soft("sharpened", lambda: power(world.answers())),
        "noisy": soft("noisy", noisy),
        "mu-0.005": soft("mu-0.005", lambda: world.answers(mu=0.005)),
        "mu-0.01": soft("mu-0.01", lambda: world.answers(mu=0.01)),
        "mu-0.02": soft("mu-0.02", lambda: world.answers(mu=0.02)),
        "mu-0.05": soft("mu-0.05", lambda: world.answers(mu=0.05)),
        "mu-0.2": soft("mu-0.2", lambda: world.answers(mu=0.2)),
        "bits-0": soft("bits-0", lambda: world.answers(bits=0)),
        "bits-2": soft("bits-2", lambda: world.answers(bits=2)),
        "soft-50000": lambda: world.cached("soft-50000", beyond),
    }
    for n in (1_000, 5_000, 50_000):
        made[f"mlp-{n}"] = perceptron(n)
        for name, change in {"top-3": top, "rounded": rounded, "labels": labels}.items():
            made[f"trained-on-{name}-{n}"] = reduced(change, f"trained-on-{name}", n)
    for number, client in enumerate(CLIENTS):
        made[f"soft-5000-{client}"] = lambda number=number, client=client: distil(
            world, x[:5_000], world.answers(client=client)[:5_000], seed=first + 10 + number, epochs=12
        )
    return made


def prune(network: Any, share: float) -> Any:
    import copy

    import torch

    pruned = copy.deepcopy(network)
    with torch.no_grad():
        weights = [p for p in pruned.parameters() if p.ndim > 1]
        cut = torch.quantile(torch.cat([w.abs().flatten() for w in weights]), share)
        for weight in weights:
            weight[weight.abs() < cut] = 0.0
    return pruned


def measure(world: World, name: str, model: Any) -> dict[str, Any]:
    from auditor.models import predict

    test = world.data.test
    answered = probabilities(model, test.inputs).argmax(axis=1)
    bits = {"bits-0": 0, "bits-2": 2}.get(name, 1)
    scores = probabilities(model, world.probes)
    measured: dict[str, Any] = {
        "accuracy": float((answered == test.labels).mean()),
        "agreement": float((answered == predict(world.teacher, test.inputs).argmax(axis=1)).mean()),
        "tests": audit_all_clients(world, scores, probabilities(model, world.ambiguous), bits=bits),
    }
    if name in ("independent", "unguarded"):
        measured["fresh_keys"] = fresh_keys(world, scores)
    return measured


def measure_owner(world: World) -> dict[str, Any]:
    """Return what the guard costs: accuracy with and without it, changed first classes, mean L1 by strength."""
    from auditor.guards.dynamarks import DynaMarks
    from auditor.models import predict

    test = world.data.test
    clean = predict(world.teacher, test.inputs)
    found: dict[str, Any] = {"accuracy": float((clean.argmax(axis=1) == test.labels).mean()), "strength": {}}
    for mu in (0.02, 0.05, 0.1, 0.2):
        guard = DynaMarks(world.guard_keys(mu=mu), client_id=OWN)
        answers, thief = guard(clean, test.inputs), guard(world.clean, world.thief.inputs)
        changed = (answers.argmax(axis=1) != clean.argmax(axis=1)).sum()
        changed += (thief.argmax(axis=1) != world.clean.argmax(axis=1)).sum()
        found["strength"][f"{mu:g}"] = {
            "accuracy": float((answers.argmax(axis=1) == test.labels).mean()),
            "changed_first_class": int(changed),
            "queries": len(clean) + len(thief),
            "mean_l1": float(np.abs(answers - clean).sum(axis=1).mean()),
        }
    return found


def measure_probes(world: World) -> dict[str, Any]:
    """Return log10 p of one marked surrogate under its client's key, by number of probes."""
    from auditor.guard_keys import probe_cells
    from auditor.models import predict
    from auditor.stats.keyed_cells import cell_table, probability_scores
    from auditor.stats.table_law import table_tail

    network, keys, found = suspects(world)["soft-15000"](), world.guard_keys(), {}
    for number in PROBES:
        probes = world.data.carriers.inputs[:number]
        reference = predict(world.teacher, probes).astype(np.float64)
        table = cell_table(
            scores=probability_scores(suspect=probabilities(network, probes), reference=reference),
            cells=probe_cells(keys, probes, reference),
            labels=reference.argmax(axis=1),
        )
        law = table_tail(scores=table.scores, targets=table.columns(keys.table(OWN).targets))
        found[str(len(probes))] = {"cells": len(table.cells), "log10_p": round(law.log10_p_upper, 3)}
    return found


def measure_coswm(world: World) -> dict[str, Any]:
    from auditor.guards.coswm import CosWM, cosine_test, project

    guard = CosWM(client_key=world.client_keys[OWN], n_classes=10, shape=world.data.spec.shape)
    guarded = guard.answer(world.clean, world.thief.inputs)
    answers = guarded.probabilities
    x, seed, probes = world.thief.inputs[:BUDGET], 7000 + 100 * world.seed, world.data.test
    found: dict[str, Any] = {
        "changed_first_class": int(guarded.relabelled.sum()),
        "queries": len(answers),
        "mean_l1": float(np.abs(answers - world.clean).sum(axis=1).mean()),
        "probes": int((probes.labels == guard.key.target).sum()),
        "projection_deviation": float(project(probes.inputs, guard.key.direction).std()),
    }
    models = {
        "service": None,
        "surrogate": distil(world, x, answers[:BUDGET], seed=seed),
        "surrogate-20-epochs": distil(world, x, answers[:BUDGET], seed=seed, epochs=20),
        "independent": world.independent(0),
    }
    for name, model in models.items():
        # The service's own answers say what the published ratio can reach at all.
        scores = probabilities(world.teacher if model is None else model, probes.inputs)
        if model is None:
            scores = guard(scores, probes.inputs)
        test = cosine_test(
            inputs=probes.inputs, labels=probes.labels, scores=scores, key=guard.key, seed=bytes(32), draws=99
        )
        found[name] = {"signal_to_noise": test.signal_to_noise, "claimed": test.claimed, "p_value": test.p_value}
    return found


def measure_dawn(world: World) -> dict[str, Any]:
    from auditor.guards.dawn import Dawn, false_claim_log10, planted_test

    guard = Dawn(client_key=world.client_keys[OWN], n_classes=10, shape=world.data.spec.shape)
    x = world.thief.inputs[:BUDGET]
    first = world.clean[:BUDGET].argmax(axis=1)
    answers = guard(world.clean[:BUDGET], x)
    chosen, planted = guard.planted(x, first)
    found: dict[str, Any] = {
        "changed_first_class": int(chosen.sum()),
        "queries": BUDGET,
        "mean_l1": float(np.abs(answers - world.clean[:BUDGET]).sum(axis=1).mean()),
        "false_claim_bound_log10": false_claim_log10(n_logged=int(chosen.sum()), n_classes=10),
    }
    trained = {
        "surrogate": distil(world, x, answers, seed=7000 + 100 * world.seed),
        "surrogate-20-epochs": distil(world, x, answers, seed=7000 + 100 * world.seed, epochs=20),
        "independent": world.independent(0),
    }
    for name, model in trained.items():
        given = probabilities(model, x[chosen]).argmax(axis=1)
        test = planted_test(answers=given, planted=planted[chosen], n_classes=10)
        found[name] = {"hits": test.hits, "trials": test.trials, "log10_p": test.log10_p}
    return found


def measure_levels(world: World) -> dict[str, Any]:
    """Return, for each unmarked suspect, fresh tests and how often very many fresh keys reject."""
    suspects_of_seed = {"independent": world.independent(0), "unguarded": suspects(world)["unguarded"]()}
    found = {}
    for name, model in suspects_of_seed.items():
        scores = probabilities(model, world.probes)
        found[name] = {"fresh_keys": fresh_keys(world, scores), "many_keys": many_keys(null_table(world, scores))}
    return found


def many_keys(table: Any) -> dict[str, Any]:
    """Return rejections of one suspect under fresh keys, by the reported law and by independent re-drawn tables.

    The reported p-value falls with the statistic, so that its rejections are counted by bisection in the sorted list.
    """
    import secrets

    from auditor.guard_keys import draw_table
    from auditor.stats.keyed_cells import redraw_values
    from auditor.stats.table_law import table_tail

    rows = np.arange(len(table.cells))
    drawn = np.array(
        [
            table.columns(draw_table(secrets.token_bytes(32), n_classes=10, bits=1).targets)
            for _ in range(MANY_KEYS)
        ]
    )  # fmt: skip
    own = table.scores[rows, drawn].sum(axis=1)
    order = np.argsort(-own)
    redrawn = np.sort(redraw_values(table, seed=secrets.token_bytes(32), draws=MANY_REDRAWS))

    def law(rank: int) -> float:
        return table_tail(scores=table.scores, targets=drawn[order[rank]].tolist()).log10_p_upper

    rejected = {}
    for level in LEVELS:
        low, high = 0, MANY_KEYS
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if law(middle) <= np.log10(level) + 1e-12 else (low, middle)
        rejected[f"{level:g}"] = low
    ranks = [int(level * MANY_KEYS) for level in LEVELS]
    return {
        "keys": MANY_KEYS,
        "rejected": rejected,
        "redraws": MANY_REDRAWS,
        "law_over_redraws": [
            round(10 ** law(r) * MANY_REDRAWS / (redrawn >= own[order[r]] - 1e-9).sum(), 4) for r in ranks
        ],
    }


def run(seeds: list[int], names: list[str] | None) -> None:
    import torch

    torch.set_num_threads(1)
    done = {(line["seed"], line["name"]) for line in read_trials()}
    for seed in seeds:
        world: World | None = None
        wanted = ["owner", *SUSPECT_NAMES, "coswm-1000-probes", "dawn", "levels", "probes"]
        for name in wanted:
            if (seed, name) in done or (names and name not in names):
                continue
            world = world or World(seed)
            started_s = time.monotonic()
            special: dict[str, Callable[[World], dict[str, Any]]] = {
                "probes": measure_probes,
                "owner": measure_owner,
                "coswm-1000-probes": measure_coswm,
                "dawn": measure_dawn,
                "levels": measure_levels,
            }
            measure_one = special.get(name, lambda w, name=name: measure(w, name, suspects(w)[name]()))
            measured = measure_one(world)
            line = {
                "seed": seed,
                "name": name,
                "wall_s": round(time.monotonic() - started_s, 1),
                "commit": environment()["commit"],
                "measured": measured,
            }
            with TRIALS.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(seed, name, line["wall_s"], measured.get("tests", {}).get("scores", {}).get("z"), flush=True)


SUSPECT_NAMES = (
    "soft-15000", "independent", "unguarded", "other-client", "soft-1000", "soft-5000", "mlp-15000",
    "trained-on-top-3", "trained-on-rounded", "trained-on-labels", "fine-tuned-1", "fine-tuned-5", "pruned-30",
    "pruned-50", "pruned-70", "second-distillation", "ensemble-1", "ensemble-3", "sharpened", "noisy", "mu-0.005",
    "mu-0.01", "mu-0.02", "mu-0.05", "mu-0.2", "bits-0", "bits-2", "soft-50000", "mlp-1000", "mlp-5000", "mlp-50000",
    "trained-on-labels-1000", "trained-on-labels-5000", "trained-on-labels-50000", "trained-on-top-3-1000",
    "trained-on-top-3-5000", "trained-on-top-3-50000", "trained-on-rounded-1000", "trained-on-rounded-5000",
    "trained-on-rounded-50000", *(f"soft-5000-{client}" for client in CLIENTS[2:]),
)  # fmt: skip


def read_trials() -> list[dict[str, Any]]:
    return [json.loads(line) for line in TRIALS.read_text().splitlines()] if TRIALS.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("run", "render"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--only", nargs="+", default=None, metavar="NAME")
    options = parser.parse_args()
    if options.step == "run":
        run(options.seeds, options.only)
    (TRIALS.parent.parent / "dynamarks.md").write_text(render(read_trials(), environment()))


if __name__ == "__main__":
    main()
