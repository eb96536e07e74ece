"""Renders benchmarks/dynamarks.md from the recorded trials; every figure is computed here, none is typed."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from auditor.stats.exact import clopper_pearson

Trial = dict[str, Any]
MODES = ("scores", "top-3", "rounded-2", "rounded", "labels")
GUARDS = ("dynamarks", "dawn", "coswm")
SOFT = (
    "soft-1000", "soft-5000", "soft-15000", "soft-50000", "mlp-15000", "trained-on-top-3", "trained-on-rounded",
)  # fmt: skip
GROUPS = {
    "Soft-label surrogates, by budget, architecture and what the thief was given": (*SOFT, "trained-on-labels"),
    "After attempts to remove the mark (from `soft-15000`, or trained on changed answers)": (
        "fine-tuned-1", "fine-tuned-5", "pruned-30", "pruned-50", "pruned-70", "second-distillation", "ensemble-1",
        "ensemble-3", "sharpened", "noisy",
    ),
    "Strength and number of secret bits, 15,000 queries": ("mu-0.02", "mu-0.05", "mu-0.2", "bits-0", "bits-2"),
    "Negatives": ("independent", "unguarded"),
}  # fmt: skip


def render(trials: Sequence[Trial], environment: dict[str, Any]) -> str:
    by_name: dict[str, list[Trial]] = {}
    for trial in trials:
        by_name.setdefault(trial["name"], []).append(trial)
    seeds = sorted({trial["seed"] for trial in trials})
    parts = [
        "# An API that marks whoever extracts from it: measured",
        "The construction is this project's own on the published idea of DynaMarks, whose full text was not available "
        "(docs/dynamarks.md). Fashion-MNIST, small CNN (MLP where said), one owner's model, master secret and set of "
        "ten clients per seed; owner and thief hold disjoint halves of the training images; 1,000 held-out probes "
        "(labels only: 5,000 low-margin mixtures of pairs). Strength μ 0.1, σ 0.05, one secret bit, unless said.",
        f"Seeds recorded so far: {', '.join(map(str, seeds))}. Rows with fewer trials than seeds were not run on all "
        "of them; nothing that was run is left out. log10 p is the upper bound from the exactly known law of the "
        "table, for the client whose answers trained the suspect (client 0 for negatives), before Holm's adjustment; "
        "*named* counts suspects for which exactly that client is the first at level 1e-6 after Holm over ten clients.",
        "```\npython benchmarks/dynamarks.py run --seeds 0 1 2 3 4\npython benchmarks/dynamarks.py render\n"
        "python benchmarks/guard_overhead.py\n```",
        _goals(by_name),
        _owner(by_name.get("owner", [])),
    ]
    parts += [_suspects(title, names, by_name) for title, names in GROUPS.items()]
    parts += [
        _other_client(by_name.get("other-client", [])),
        _uniform(by_name),
        _relatives(by_name),
        _overhead(),
        f"Machine: {environment['machine']}, Python {environment['python']}, torch {environment['torch']}. Every line "
        "of `results/dynamarks.trials.jsonl` names its commit.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _goals(by_name: dict[str, list[Trial]]) -> str:
    soft = [trial for name in SOFT for trial in by_name.get(name, [])]
    if not soft or not by_name.get("owner"):
        return ""
    p_values = [trial["measured"]["tests"]["scores"]["log10_p"][0] for trial in soft]
    named = sum(trial["measured"]["tests"]["scores"]["named"] == "client-00" for trial in soft)
    owners = [trial["measured"]["strength"]["0.1"] for trial in by_name["owner"]]
    negatives = [trial for name in ("independent", "unguarded") for trial in by_name.get(name, [])]
    claims = sum(trial["measured"]["tests"][mode]["named"] is not None for trial in negatives for mode in MODES)
    rows = [
        ("p ≤ 1e-6 on soft-label surrogates that answer with scores", "≥ 95 %", _share(p <= -6 for p in p_values)),
        ("right client named at 1e-6, Holm over ten", "≥ 95 %", _share([True] * named + [False] * (len(soft) - named))),
        ("first classes changed by the guard", "0", f"{sum(o['changed_first_class'] for o in owners)} of "
         f"{sum(o['queries'] for o in owners):,}"),
        ("mean L1 change", "≤ 0.2", f"{max(o['mean_l1'] for o in owners):.4f} (largest of {len(owners)} seeds)"),
        ("clients named on unmarked suspects, any way of answering", "0", f"{claims} of {len(negatives) * len(MODES)}"),
    ]  # fmt: skip
    return "## Goals\n\n" + _table(("goal", "wanted", "measured"), rows)


def _owner(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    rows = []
    for mu in ("0.02", "0.05", "0.1", "0.2"):
        found = [trial["measured"]["strength"][mu] for trial in trials]
        equal = sum(trial["measured"]["strength"][mu]["accuracy"] == trial["measured"]["accuracy"] for trial in trials)
        rows.append((
            mu, _mean(trial["measured"]["accuracy"] for trial in trials), _mean(f["accuracy"] for f in found),
            f"{equal} of {len(trials)}", f"{sum(f['changed_first_class'] for f in found)} of "
            f"{sum(f['queries'] for f in found):,}", _mean(f["mean_l1"] for f in found),
        ))  # fmt: skip
    head = ("μ", "accuracy without", "with guard", "equal", "first classes changed", "mean L1")
    return "## What the guard costs\n\n" + _table(head, rows)


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
            f"`{name}`", str(len(trials)), _mean(trial["measured"]["accuracy"] for trial in trials),
            _mean(trial["measured"]["agreement"] for trial in trials),
            *(_range(test[mode]["log10_p"][0] for test in tests) for mode in MODES), f"{named} of {len(trials)}",
        ))  # fmt: skip
    if not rows:
        return ""
    head = ("suspect", "trials", "accuracy", "agreement", *(f"log10 p: {mode}" for mode in MODES), "named (scores)")
    return f"## {title}\n\nMedian of log10 p, worst to best in brackets.\n\n" + _table(head, rows)


def _other_client(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    tests = [trial["measured"]["tests"]["scores"] for trial in trials]
    rows = [
        ("client 1, whose answers trained them", _range(test["log10_p"][1] for test in tests)),
        ("the nine others", _range(p for test in tests for i, p in enumerate(test["log10_p"]) if i != 1)),
    ]
    named = sum(test["named"] == "client-01" for test in tests)
    return (
        "## Surrogates under another client's key\n\n" + _table(("table of", "log10 p"), rows)
        + f"\n\nNamed: client 1 on {named} of {len(tests)}."
    )  # fmt: skip


def _uniform(by_name: dict[str, list[Trial]]) -> str:
    trials = [
        t for name in ("independent", "unguarded") for t in by_name.get(name, []) if "fresh_keys" in t["measured"]
    ]
    if not trials:
        return ""
    found = [trial["measured"]["fresh_keys"] for trial in trials]
    monte = [p for one in found for p in one["monte_carlo_p"]]
    exact = [10.0**p for one in found for p in one["exact_log10_p"]]
    rows = []
    for level in (0.5, 0.1, 0.05, 0.01, 0.001):
        cells = []
        for values in (monte, exact):
            hits = sum(p <= level * (1 + 1e-9) for p in values)
            interval = clopper_pearson(hits=hits, trials=len(values), confidence=0.95)
            cells.append(f"{hits / len(values):.4f} ({interval.low:.4f}-{interval.high:.4f})")
        rows.append((f"{level:g}", *cells))
    return (
        f"## Level under H0\n\n{len(monte):,} tests: {len(trials)} unmarked suspects, fresh keys on each. Intervals "
        "are 95 % Clopper-Pearson. Fresh keys on one suspect are independent tests of the exact law; the re-draws of "
        "these tests shared one sample of 999 tables, which makes their column vary more than its intervals say.\n\n"
        + _table(("level", "rejected, re-draws (1+k)/(M+1)", "rejected, exact law"), rows)
        + _many(by_name.get("level", []))
    )


def _many(trials: Sequence[Trial]) -> str:
    if not trials:
        return ""
    rows = [
        (
            str(t["seed"]),
            f"{t['measured']['keys']:,}",
            *(f"{share:.5f}" for share in t["measured"]["rejected"].values()),
        )
        for t in trials
    ]
    head = ("seed", "fresh keys", *(f"level {level}" for level in trials[0]["measured"]["rejected"]))
    return (
        "\n\nThe same question with many more keys, on each seed's independent model, the law taken from 400,000 "
        "re-drawn tables:\n\n" + _table(head, rows)
    )


def _relatives(by_name: dict[str, list[Trial]]) -> str:
    rows = []
    for trial in by_name.get("coswm", []):
        m = trial["measured"]
        rows.append((
            "CosWM at the API, ε 0.05", str(trial["seed"]), f"{m['changed_first_class']} of {m['queries']:,}",
            f"{m['mean_l1']:.3f}", f"ratio {m['surrogate']['signal_to_noise']:.2f}, "
            f"{'claimed' if m['surrogate']['claimed'] else 'not claimed'}, rank p {m['surrogate']['p_value']:.2f}",
            f"ratio {m['independent']['signal_to_noise']:.2f}, rank p {m['independent']['p_value']:.2f}",
        ))  # fmt: skip
    for trial in by_name.get("dawn", []):
        m = trial["measured"]
        for name in ("surrogate", "surrogate-20-epochs"):
            rows.append((
                f"DAWN, 0.5 %, {'4' if name == 'surrogate' else '20'} epochs", str(trial["seed"]),
                f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
                f"{m[name]['hits']} of {m[name]['trials']} planted, log10 p {m[name]['log10_p']:.1f}",
                f"{m['independent']['hits']} of {m['independent']['trials']}, "
                f"log10 p {m['independent']['log10_p']:.1f}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("scheme", "seed", "first classes changed", "mean L1", "surrogate", "independent model")
    return (
        "## Relatives behind the same interface\n\nSame thief, 15,000 queries. CosWM is used at the API only, without "
        "the published training of the teacher, and so below what its authors measure; DAWN is verified on the logged "
        "queries.\n\n" + _table(head, rows)
    )


def _overhead() -> str:
    file = Path(__file__).parent / "results" / "guard_overhead.json"
    if not file.exists():
        return ""
    found = json.loads(file.read_text())
    rows = [
        (
            str(row["batch"]),
            f"{row['model_ms']:.2f}",
            *(f"{100 * row[f'{name}_ratio']:.1f} % ({row[f'{name}_us_per_query']} µs)" for name in GUARDS),
        )
        for row in found["rows"]
    ]
    return (
        "## What a guard adds to a batch\n\nProcessor time over the small CNN's own, per query in brackets; the goal "
        f"is {100 * found['goal']:.0f} % at most. Small batches miss it: about 0.08 ms per call is fixed cost.\n\n"
        + _table(("batch", "CNN, ms", *GUARDS), rows)
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def _range(values: Iterable[float]) -> str:
    found = sorted(values)
    return f"{statistics.median(found):.1f} ({found[-1]:.1f} … {found[0]:.1f})"


def _mean(values: Iterable[float]) -> str:
    return f"{statistics.fmean(values):.4f}"


def _share(hits: Iterable[bool]) -> str:
    found = list(hits)
    interval = clopper_pearson(hits=sum(found), trials=len(found), confidence=0.95)
    return f"{sum(found)} of {len(found)} (95 % interval {interval.low:.3f}-{interval.high:.3f})"
