"""Renders benchmarks/dynamarks.md from the recorded trials; every figure is computed here, none is typed."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from dynamarks_plot import plot_strength
from dynamarks_render_level import level_section
from dynamarks_render_planner import planner_section, signs_section
from dynamarks_render_relatives import overhead_section, relatives_section
from dynamarks_render_thieves import thieves_section
from dynamarks_text import UNMARKED, Trial, mean, share, spread, table

PLOT = Path(__file__).parent / "dynamarks.strength.svg"
MODES = ("scores", "top-3", "rounded-2", "rounded", "labels")
SOFT = (
    "soft-1000", "soft-5000", "soft-15000", "soft-50000", "mlp-1000", "mlp-5000", "mlp-15000", "mlp-50000",
    "trained-on-top-3-1000", "trained-on-top-3-5000", "trained-on-top-3", "trained-on-top-3-50000",
    "trained-on-rounded-1000", "trained-on-rounded-5000", "trained-on-rounded", "trained-on-rounded-50000",
)  # fmt: skip
HARD = ("trained-on-labels-1000", "trained-on-labels-5000", "trained-on-labels", "trained-on-labels-50000")
GROUPS = {
    "Soft-label surrogates, by budget, architecture and what the thief was given": (*SOFT, *HARD),
    "After attempts to remove the mark (from `soft-15000`, or trained on changed answers)": (
        "fine-tuned-1", "fine-tuned-5", "pruned-30", "pruned-50", "pruned-70", "second-distillation", "ensemble-1",
        "ensemble-3", "sharpened", "noisy",
    ),
    "Strength and number of secret bits, 15,000 queries": (
        "mu-0.005", "mu-0.01", "mu-0.02", "mu-0.05", "soft-15000", "mu-0.2", "bits-0", "bits-2", "depth-1", "depth-2",
    ),
    "Negatives": UNMARKED,
}  # fmt: skip


def render(trials: Sequence[Trial], environment: dict[str, Any]) -> str:
    by_name: dict[str, list[Trial]] = {}
    for trial in sorted(trials, key=lambda one: int(one["seed"])):
        by_name.setdefault(trial["name"], []).append(trial)
    seeds = sorted({trial["seed"] for trial in trials})
    parts = [
        "# An API that marks whoever extracts from it: measured",
        "The construction is this project's own on the published idea of DynaMarks, whose full text was not available "
        "(docs/dynamarks.md). Fashion-MNIST, small CNN (MLP where said), one owner's model, master secret and set of "
        "ten clients per seed; owner and thief hold disjoint halves of the training images; 1,000 held-out probes "
        "(labels only: 5,000 low-margin mixtures of pairs). Strength μ 0.1, σ 0.05, one secret bit, unless said.",
        f"Seeds recorded so far: {', '.join(map(str, seeds))}. Rows with fewer trials than seeds were not run on all "
        "of them; nothing that was run is left out. `trained-on-…` without a number had 15,000 queries; beyond the "
        "thief's 30,000 images, copies moved by up to two pixels were asked. log10 p is the upper bound from the "
        "exactly known law of the table, for the client whose answers trained the suspect (client 0 for negatives), "
        "before Holm's adjustment; *named* counts suspects for which exactly that client is the first at level 1e-6 "
        "after Holm over ten clients.",
        "```\npython benchmarks/dynamarks.py run --seeds 0 1 2 3 4\npython benchmarks/dynamarks.py render\n"
        "python benchmarks/guard_overhead.py\n```",
        _goals(by_name),
        _owner(by_name.get("owner", [])),
    ]
    parts += [_suspects(title, names, by_name) for title, names in GROUPS.items()]
    parts.insert(-1, plot_strength(by_name, PLOT))
    parts += [
        _other_client(by_name),
        thieves_section(by_name),
        _probes(by_name.get("probes", [])),
        planner_section(by_name),
        signs_section(by_name),
        level_section(by_name),
        relatives_section(by_name),
        overhead_section(),
        f"Machine: {environment['machine']}, Python {environment['python']}, torch {environment['torch']}. Every line "
        "of `results/dynamarks.trials.jsonl` names its commit.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(by_name: dict[str, list[Trial]]) -> str:
    soft = [trial for name in SOFT for trial in by_name.get(name, [])]
    if not soft or not by_name.get("owner"):
        return ""
    p_values = [trial["measured"]["tests"]["scores"]["log10_p"][0] for trial in soft]
    right = [trial["measured"]["tests"]["scores"]["named"] == "client-00" for trial in soft]
    keyed = [(trial, number) for number in range(1, 10) for trial in by_name.get(_keyed_name(number), [])]
    p_values += [trial["measured"]["tests"]["scores"]["log10_p"][number] for trial, number in keyed]
    right += [trial["measured"]["tests"]["scores"]["named"] == f"client-{number:02d}" for trial, number in keyed]
    keys = len({(trial["seed"], 0) for trial in soft} | {(trial["seed"], number) for trial, number in keyed})
    owners = [trial["measured"]["strength"]["0.1"] for trial in by_name["owner"]]
    negatives = [trial for name in UNMARKED for trial in by_name.get(name, [])]
    claims = sum(trial["measured"]["tests"][mode]["named"] is not None for trial in negatives for mode in MODES)
    rows = [
        ("p ≤ 1e-6 on soft-label surrogates that answer with scores", "≥ 95 %", share(p <= -6 for p in p_values)),
        ("right client named at 1e-6, Holm over ten", "≥ 95 %", share(right)),
        ("first classes changed by the guard", "0", f"{sum(o['changed_first_class'] for o in owners)} of "
         f"{sum(o['queries'] for o in owners):,}"),
        ("mean L1 change", "≤ 0.2", f"{max(o['mean_l1'] for o in owners):.4f} (largest of {len(owners)} seeds)"),
        ("clients named on unmarked suspects, any way of answering", "0", f"{claims} of {len(negatives) * len(MODES)}"),
    ]  # fmt: skip
    goals = table(("goal", "wanted", "measured"), rows)
    return (
        f"## Goals\n\n{goals}\n\nThe {len(right)} surrogates go back to {keys} keys of {len(owners)} services; "
        "surrogates of one key share its luck, so that the intervals are somewhat too narrow. The tables below show "
        "every budget and architecture."
    )


def _keyed_name(number: int) -> str:
    return "other-client" if number == 1 else f"soft-5000-client-{number:02d}"


def _owner(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    rows = []
    for mu in ("0.02", "0.05", "0.1", "0.2"):
        found = [trial["measured"]["strength"][mu] for trial in trials]
        equal = sum(trial["measured"]["strength"][mu]["accuracy"] == trial["measured"]["accuracy"] for trial in trials)
        rows.append((
            mu, mean(trial["measured"]["accuracy"] for trial in trials), mean(f["accuracy"] for f in found),
            f"{equal} of {len(trials)}", f"{sum(f['changed_first_class'] for f in found)} of "
            f"{sum(f['queries'] for f in found):,}", mean(f["mean_l1"] for f in found),
        ))  # fmt: skip
    head = ("μ", "accuracy without", "with guard", "equal", "first classes changed", "mean L1")
    return "## What the guard costs\n\n" + table(head, rows)


def _suspects(title: str, names: Iterable[str], by_name: dict[str, list[Trial]]) -> str:
    rows = []
    for name in names:
        trials = by_name.get(name, [])
        if not trials:
            continue
        tests = [trial["measured"]["tests"] for trial in trials]
        named = sum(test["scores"]["named"] == "client-00" for test in tests)
        if title == "Negatives":
            named = sum(test["scores"]["named"] is not None for test in tests)
        rows.append((
            f"`{name}`", str(len(trials)), mean(trial["measured"]["accuracy"] for trial in trials),
            mean(trial["measured"]["agreement"] for trial in trials),
            *(spread(test[mode]["log10_p"][0] for test in tests) for mode in MODES), f"{named} of {len(trials)}",
        ))  # fmt: skip
    if not rows:
        return ""
    head = ("suspect", "trials", "accuracy", "agreement", *(f"log10 p: {mode}" for mode in MODES), "named (scores)")
    return f"## {title}\n\nMedian of log10 p, worst to best in brackets.\n\n" + table(head, rows)


def _other_client(by_name: dict[str, list[Trial]]) -> str:
    trials = by_name.get("other-client", [])
    if not trials:
        return ""
    tests = [trial["measured"]["tests"]["scores"] for trial in trials]
    rows = [
        ("client 1, whose answers trained them", spread(test["log10_p"][1] for test in tests)),
        ("the nine others", spread(p for test in tests for i, p in enumerate(test["log10_p"]) if i != 1)),
    ]
    named = sum(test["named"] == "client-01" for test in tests)
    more = [(t["measured"]["tests"]["scores"], n) for n in range(2, 10) for t in by_name.get(_keyed_name(n), [])]
    if more:
        rows += [
            ("clients 2-9, each with surrogates of 5,000 queries", spread(test["log10_p"][n] for test, n in more)),
            ("the nine others of each", spread(p for t, n in more for i, p in enumerate(t["log10_p"]) if i != n)),
        ]
    right = sum(test["named"] == f"client-{n:02d}" for test, n in more)
    wrong = sum(test["named"] not in (None, f"client-{n:02d}") for test, n in [*((t, 1) for t in tests), *more])
    return (
        "## Surrogates under another client's key\n\n" + table(("table of", "log10 p"), rows)
        + f"\n\nNamed at 1e-6: client 1 on {named} of {len(tests)} surrogates, the right one of clients 2-9 on {right} "
        f"of {len(more)}, a wrong one on {wrong}."
    )  # fmt: skip


def _probes(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    rows = []
    for number in trials[0]["measured"]:
        found = [trial["measured"][number] for trial in trials]
        cells = sorted({one["cells"] for one in found})
        rows.append((
            f"{int(number):,}", "-".join(map(str, sorted({cells[0], cells[-1]}))),
            spread(one["log10_p"] for one in found), f"{sum(one['log10_p'] <= -6 for one in found)} of {len(found)}",
        ))  # fmt: skip
    return (
        "## How many probes\n\n`soft-15000`, answers with scores, one secret bit (20 cells; those with fewer than 5 "
        "probes are left out).\n\n" + table(("probes", "cells used", "log10 p", "p ≤ 1e-6"), rows)
    )
