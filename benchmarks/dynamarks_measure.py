"""What is measured: suspects, the guard's own cost, numbers of probes, levels, and the relatives."""

from typing import Any

import numpy as np
from dynamarks_suspects import BUDGET, SETTINGS, suspects
from dynamarks_tests import audit_all_clients, fresh_keys, many_keys, null_table
from dynamarks_world import OWN, World, distil, probabilities

PROBES = (50, 100, 200, 500, 1_000, 2_000)
SHAPE_PROBES = (100, 200, 500, 1_000, 2_000, 5_000)
MIN_SHAPE_PROBES = 20
"""Probes that a cell must hold before its mean and spread are measured."""
SHAPES = (
    "mu-0.005", "mu-0.01", "mu-0.02", "mu-0.05", "mu-0.2", "soft-1000", "soft-5000", "soft-15000", "soft-50000",
    "mlp-1000", "mlp-5000", "mlp-15000", "depth-1", "depth-2",
)  # fmt: skip
"""Surrogates whose scores the planner's figures rest on."""


def measure(world: World, name: str, model: Any, *, settings: dict[str, Any]) -> dict[str, Any]:
    test = world.data.test
    answered = probabilities(model, test.inputs).argmax(axis=1)
    scores = probabilities(model, world.probes)
    measured: dict[str, Any] = {
        "accuracy": float((answered == test.labels).mean()),
        "agreement": float((answered == world.clean_labels).mean()),
        "tests": audit_all_clients(world, scores, probabilities(model, world.ambiguous), **settings),
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


def measure_shape(world: World, name: str) -> dict[str, Any]:
    """Return what the planner needs to know of one surrogate: how far targets stand out, by channel and probes."""
    from auditor.guard_keys import probe_cells
    from auditor.models import predict
    from auditor.stats.keyed_cells import label_scores, probability_scores

    settings = SETTINGS.get(name, {})
    model, keys = suspects(world)[name](), world.guard_keys(**settings)
    answered = probabilities(model, world.data.test.inputs).argmax(axis=1)
    held_out = world.data.carriers.inputs[: SHAPE_PROBES[-2]]
    found: dict[str, Any] = {"agreement": round(float((answered == world.clean_labels).mean()), 4)}
    for data, inputs, reference in (
        ("held-out", held_out, predict(world.teacher, held_out).astype(np.float64)),
        ("mixtures", world.ambiguous, world.ambiguous_reference),
    ):
        suspect, cells = probabilities(model, inputs), probe_cells(keys, inputs, reference)
        for channel, scores in (
            ("scores", probability_scores(suspect=suspect, reference=reference)),
            ("labels", label_scores(labels=suspect.argmax(axis=1), reference=reference)),
        ):
            first = reference.argmax(axis=1)
            found[f"{channel} {data}"] = _shape(scores, cells, first, keys.table(OWN).targets)
        if keys.settings.depth:
            found[f"confidence {data}"] = _sign_shape(suspect, reference, cells, keys.table(OWN).signs)
    return found


def _sign_shape(suspect: Any, reference: Any, cells: Any, signs: Any) -> dict[str, Any]:
    """Return how far confidence falls where a sign says so, within the classes; what else moves cells is the spread."""
    from auditor.stats.keyed_signs import confidence_drops, sign_table
    from auditor.stats.table_law import table_tail

    drops, first = (
        confidence_drops(suspect=suspect.max(axis=1), reference=reference.max(axis=1)),
        reference.argmax(axis=1),
    )
    x, y, noises, counts, classes = [], [], [], [], 0
    for label in np.unique(first):
        held = [cell for cell in np.unique(cells[first == label]) if (cells == cell).sum() >= MIN_SHAPE_PROBES]
        if len(held) < 2:
            continue
        means = np.array([drops[cells == cell].mean() for cell in held])
        own = np.array([signs[cell] for cell in held], dtype=float)
        x, y = [*x, *(own - own.mean())], [*y, *(means - means.mean())]
        noises += [drops[cells == cell].var(ddof=1) for cell in held]
        counts += [(cells == cell).sum() for cell in held]
        classes += 1
    shift = float(np.dot(x, y) / np.dot(x, x))
    left = float(((np.array(y) - shift * np.array(x)) ** 2).sum()) / (len(y) - classes - 1)
    p_values = {}
    for number in SHAPE_PROBES:
        if number <= len(drops):
            part = confidence_drops(suspect=suspect[:number].max(axis=1), reference=reference[:number].max(axis=1))
            table = sign_table(drops=part, cells=cells[:number], labels=first[:number])
            law = table_tail(scores=table.scores, targets=table.columns(signs))
            p_values[str(number)] = round(law.log10_p_upper, 3)
    return {
        "cells": len(y),
        "shift": round(shift, 5),
        "shift_sd": 0.0,
        "spread": round(max(0.0, left - float(np.mean(np.array(noises) / counts))) ** 0.5, 5),
        "noise": round(float(np.mean(noises) ** 0.5), 5),
        "log10_p": p_values,
    }


def _shape(scores: Any, cells: Any, labels: Any, targets: Any) -> dict[str, Any]:
    from auditor.stats.keyed_cells import cell_table
    from auditor.stats.table_law import table_tail

    shifts, spreads, noises = [], [], []
    for cell in np.unique(cells):
        rows = scores[cells == cell]
        if len(rows) < MIN_SHAPE_PROBES:
            continue
        label = int(labels[cells == cell][0])
        column = targets[cell] - (targets[cell] > label)
        means, noise = rows.mean(axis=0), rows.var(axis=0, ddof=1).mean()
        others = np.delete(means, column)
        shifts.append(means[column] - others.mean())
        spreads.append(others.var(ddof=1) - noise / len(rows))
        noises.append(noise)
    p_values = {}
    for number in SHAPE_PROBES:
        if number <= len(scores):
            table = cell_table(scores=scores[:number], cells=cells[:number], labels=labels[:number])
            p_values[str(number)] = round(
                table_tail(scores=table.scores, targets=table.columns(targets)).log10_p_upper, 3
            )
    return {
        "cells": len(shifts),
        "shift": round(float(np.mean(shifts)), 5),
        "shift_sd": round(float(np.std(shifts, ddof=1)), 5),
        "spread": round(float(max(0.0, np.mean(spreads)) ** 0.5), 5),
        "noise": round(float(np.mean(noises) ** 0.5), 5),
        "log10_p": p_values,
    }


def measure_levels(world: World) -> dict[str, Any]:
    """Return, for each unmarked suspect, fresh tests and how often very many fresh keys reject."""
    suspects_of_seed = {"independent": world.independent(0), "unguarded": suspects(world)["unguarded"]()}
    found = {}
    for name, model in suspects_of_seed.items():
        scores = probabilities(model, world.probes)
        found[name] = {"fresh_keys": fresh_keys(world, scores), "many_keys": many_keys(null_table(world, scores))}
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
