"""The tests of the benchmark: one suspect against every client's table, and the level under fresh keys."""

from typing import Any

import numpy as np
from dynamarks_world import CLIENTS, World

REDRAWS, FRESH_KEYS, MANY_KEYS, MANY_REDRAWS = 9_999, 150, 100_000, 400_000
LEVELS = (0.5, 0.1, 0.05, 0.01, 0.001)


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


def audit_all_clients(
    world: World, scores: Any, ambiguous: Any, *, bits: int = 1, depth: float = 0.0
) -> dict[str, Any]:
    """Return, for every way of answering, log10 p under every client's key with Holm's choice of client."""
    from auditor.guard_keys import probe_cells
    from auditor.stats.keyed_cells import cell_table, label_scores, probability_scores, table_test
    from auditor.stats.keyed_signs import confidence_drops, sign_table
    from auditor.stats.multiplicity import holm

    keys = world.guard_keys(bits=bits, depth=depth)
    found = {}
    for mode in ("scores", "top-3", "rounded-2", "rounded", "labels", *(("confidence",) if depth else ())):
        labels_only = mode == "labels"
        reference = world.ambiguous_reference if labels_only else world.reference
        cells = probe_cells(keys, world.ambiguous if labels_only else world.probes, reference)
        first, table = reference.argmax(axis=1), None
        if mode == "confidence":
            drops = confidence_drops(suspect=scores.max(axis=1), reference=reference.max(axis=1))
            table = sign_table(drops=drops, cells=cells, labels=first)
        elif labels_only:
            table = cell_table(
                scores=label_scores(labels=ambiguous.argmax(axis=1), reference=reference), cells=cells, labels=first
            )
        else:
            u = probability_scores(suspect=revealed(scores, mode), reference=reference)
            table = cell_table(scores=u, cells=cells, labels=first)
        drawn = [keys.table(client).signs if mode == "confidence" else keys.table(client).targets for client in CLIENTS]
        tests = [table_test(table, targets=each, seed=bytes(32), draws=REDRAWS) for each in drawn]
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
