"""Renders benchmarks/dynamarks.md from the recorded trials; every figure is computed here, none is typed."""

import json
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from auditor.stats.exact import binomial_tail_log10, clopper_pearson

Trial = dict[str, Any]
MODES = ("scores", "top-3", "rounded-2", "rounded", "labels")
COSWM_ROWS = {"service": "the service itself", "surrogate": "4 epochs", "surrogate-20-epochs": "20 epochs"}
UNMARKED = ("independent", "unguarded")
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
        _other_client(by_name),
        _probes(by_name.get("probes", [])),
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
    right = [trial["measured"]["tests"]["scores"]["named"] == "client-00" for trial in soft]
    keyed = [(trial, number) for number in range(1, 10) for trial in by_name.get(_keyed_name(number), [])]
    p_values += [trial["measured"]["tests"]["scores"]["log10_p"][number] for trial, number in keyed]
    right += [trial["measured"]["tests"]["scores"]["named"] == f"client-{number:02d}" for trial, number in keyed]
    keys = len({(trial["seed"], 0) for trial in soft} | {(trial["seed"], number) for trial, number in keyed})
    owners = [trial["measured"]["strength"]["0.1"] for trial in by_name["owner"]]
    negatives = [trial for name in UNMARKED for trial in by_name.get(name, [])]
    claims = sum(trial["measured"]["tests"][mode]["named"] is not None for trial in negatives for mode in MODES)
    rows = [
        ("p ≤ 1e-6 on soft-label surrogates that answer with scores", "≥ 95 %", _share(p <= -6 for p in p_values)),
        ("right client named at 1e-6, Holm over ten", "≥ 95 %", _share(right)),
        ("first classes changed by the guard", "0", f"{sum(o['changed_first_class'] for o in owners)} of "
         f"{sum(o['queries'] for o in owners):,}"),
        ("mean L1 change", "≤ 0.2", f"{max(o['mean_l1'] for o in owners):.4f} (largest of {len(owners)} seeds)"),
        ("clients named on unmarked suspects, any way of answering", "0", f"{claims} of {len(negatives) * len(MODES)}"),
    ]  # fmt: skip
    table = _table(("goal", "wanted", "measured"), rows)
    return (
        f"## Goals\n\n{table}\n\nThe {len(right)} surrogates go back to {keys} keys of {len(owners)} services; "
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


def _other_client(by_name: dict[str, list[Trial]]) -> str:
    trials = by_name.get("other-client", [])
    if not trials:
        return ""
    tests = [trial["measured"]["tests"]["scores"] for trial in trials]
    rows = [
        ("client 1, whose answers trained them", _range(test["log10_p"][1] for test in tests)),
        ("the nine others", _range(p for test in tests for i, p in enumerate(test["log10_p"]) if i != 1)),
    ]
    named = sum(test["named"] == "client-01" for test in tests)
    more = [(t["measured"]["tests"]["scores"], n) for n in range(2, 10) for t in by_name.get(_keyed_name(n), [])]
    if more:
        rows += [
            ("clients 2-9, each with surrogates of 5,000 queries", _range(test["log10_p"][n] for test, n in more)),
            ("the nine others of each", _range(p for t, n in more for i, p in enumerate(t["log10_p"]) if i != n)),
        ]
    right = sum(test["named"] == f"client-{n:02d}" for test, n in more)
    wrong = sum(test["named"] not in (None, f"client-{n:02d}") for test, n in [*((t, 1) for t in tests), *more])
    return (
        "## Surrogates under another client's key\n\n" + _table(("table of", "log10 p"), rows)
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
            _range(one["log10_p"] for one in found), f"{sum(one['log10_p'] <= -6 for one in found)} of {len(found)}",
        ))  # fmt: skip
    return (
        "## How many probes\n\n`soft-15000`, answers with scores, one secret bit (20 cells; those with fewer than 5 "
        "probes are left out).\n\n" + _table(("probes", "cells used", "log10 p", "p ≤ 1e-6"), rows)
    )


def _uniform(by_name: dict[str, list[Trial]]) -> str:
    first = {
        (t["seed"], name): t["measured"]["fresh_keys"]
        for name in UNMARKED
        for t in by_name.get(name, [])
        if "fresh_keys" in t["measured"]
    }
    levels = by_name.get("levels", [])
    if not first or not levels:
        return ""
    second = {(t["seed"], name): t["measured"][name]["fresh_keys"] for t in levels for name in UNMARKED}
    rows = []
    for level in (0.5, 0.1, 0.05, 0.01, 0.001):
        cells = [_rejections([first], level), _rejections([second], level), _rejections([first, second], level)]
        rows.append((f"{level:g}", *cells, _rejections([second], level, kind="monte_carlo_p")))
    n_first, n_second = (sum(len(one["monte_carlo_p"]) for one in part.values()) for part in (first, second))
    head = (
        "level", f"exact law, first {n_first:,} tests", f"exact law, second {n_second:,}", "exact law, both",
        "re-draws (1+k)/(M+1), second",
    )  # fmt: skip
    return (
        f"## Level under H0\n\n{n_first + n_second:,} tests: {len(first)} unmarked suspects (independent models and "
        "surrogates of the unguarded API), fresh keys on each. Intervals are 95 % Clopper-Pearson; fresh keys on one "
        "suspect are independent tests of the exact law, whatever the suspect is. The first tests shared one sample of "
        "999 re-drawn tables and rejected more often than wanted; the second have re-draws of their own.\n\n"
        + _table(head, rows)
        + "\n\nThe suspect as the unit (mean over suspects of the share rejected by the exact law, both runs, with "
        "Student's 95 % interval over suspects): "
        + ", ".join(f"at {level:g} {_by_suspect(first, second, level)}" for level in (0.05, 0.01))
        + "."
        + f" So many rejections as in the first tests have probability {_excess(first):.3f} at the nominal level 0.05."
        + _many(levels, by_name.get("level", []))
    )


def _excess(part: dict[Any, Trial]) -> float:
    counts = [_rejected(one, 0.05) for one in part.values()]
    hits, trials = sum(hit for hit, _ in counts), sum(n for _, n in counts)
    return 10.0 ** binomial_tail_log10(hits=hits, trials=trials, rate=0.05)


def _rejections(parts: Sequence[dict[Any, Trial]], level: float, *, kind: str = "exact_log10_p") -> str:
    shares = [_rejected(one, level, kind) for part in parts for one in part.values()]
    hits, trials = sum(hit for hit, _ in shares), sum(n for _, n in shares)
    interval = clopper_pearson(hits=hits, trials=trials, confidence=0.95)
    return f"{hits / trials:.4f} ({interval.low:.4f}-{interval.high:.4f})"


def _rejected(one: Trial, level: float, kind: str = "exact_log10_p") -> tuple[int, int]:
    values = one[kind] if kind == "monte_carlo_p" else [10.0**p for p in one[kind]]
    return sum(p <= level * (1 + 1e-9) for p in values), len(values)


def _by_suspect(first: dict[Any, Trial], second: dict[Any, Trial], level: float) -> str:
    from scipy.stats import t

    shares = []
    for suspect in first.keys() & second.keys():
        counts = [_rejected(part[suspect], level) for part in (first, second)]
        shares.append(sum(hit for hit, _ in counts) / sum(n for _, n in counts))
    mean, error = statistics.fmean(shares), statistics.stdev(shares) / len(shares) ** 0.5
    reach = float(t.ppf(0.975, len(shares) - 1)) * error
    return f"{mean:.4f} ({mean - reach:.4f}-{mean + reach:.4f})"


def _many(trials: Sequence[Trial], earlier: Sequence[Trial]) -> str:
    rows, sums, keys, ratios = (
        [],
        dict.fromkeys(trials[0]["measured"]["independent"]["many_keys"]["rejected"], 0),
        0,
        [],
    )
    for trial in trials:
        for name in UNMARKED:
            found = trial["measured"][name]["many_keys"]
            keys += found["keys"]
            ratios.append(found["law_over_redraws"])
            sums = {level: count + found["rejected"][level] for level, count in sums.items()}
            shares = (f"{count / found['keys']:.5f}" for count in found["rejected"].values())
            rows.append((f"{trial['seed']}, {name}", f"{found['keys']:,}", *shares))
    rows.append(("all", f"{keys:,}", *(f"{count / keys:.5f}" for count in sums.values())))
    intervals = [clopper_pearson(hits=count, trials=keys, confidence=0.95) for count in sums.values()]
    rows.append(("95 % interval", "", *(f"{i.low:.5f}-{i.high:.5f}" for i in intervals)))
    middles = [statistics.fmean(column) for column in zip(*ratios, strict=True)]
    over = ", ".join(f"{ratio:.3f} at {level}" for ratio, level in zip(middles, sums, strict=True))
    text = (
        "\n\nThe same with many more fresh keys, p again from the exact law's upper bound, so that an excess of the "
        "first tests' size would show at once:\n\n"
        + _table(("seed and suspect", "fresh keys", *(f"level {level}" for level in sums)), rows)
        + "\n\nThe exact law's upper bound over the share of independent re-drawn tables (400,000 per suspect) at "
        f"least as high, mean over suspects: {over}. The bound rounds scores up to a lattice, which makes it a little "
        "larger than the tail. What the first tests rejected too often has no cause in the law or in the draws of "
        "tables that these keys would not share."
    )
    for trial in earlier:
        shares = ", ".join(f"{share:.5f} at {level}" for level, share in trial["measured"]["rejected"].items())
        text += (
            f" An earlier run (seed {trial['seed']}, independent model, {trial['measured']['keys']:,} keys, law from "
            f"re-draws) rejected {shares}."
        )
    return text


def _relatives(by_name: dict[str, list[Trial]]) -> str:
    rows = []
    for trial in by_name.get("coswm", []):
        m = trial["measured"]
        rows.append((
            "CosWM at the API, held-out probes, 4 epochs", str(trial["seed"]),
            f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
            f"ratio {m['surrogate']['signal_to_noise']:.2f}, "
            f"{'claimed' if m['surrogate']['claimed'] else 'not claimed'}, rank p {m['surrogate']['p_value']:.2f}",
            f"ratio {m['independent']['signal_to_noise']:.2f}, rank p {m['independent']['p_value']:.2f}",
        ))  # fmt: skip
    for trial in by_name.get("coswm-1000-probes", []):
        m = trial["measured"]
        for name in ("service", "surrogate", "surrogate-20-epochs"):
            rows.append((
                f"CosWM at the API, {m['probes']:,} probes, {COSWM_ROWS[name]}", str(trial["seed"]),
                f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
                *(f"ratio {m[which]['signal_to_noise']:.2f}, {'claimed' if m[which]['claimed'] else 'not claimed'}, "
                  f"rank p {m[which]['p_value']:.2f}" for which in (name, "independent")),
            ))  # fmt: skip
    for trial in by_name.get("dawn", []):
        m = trial["measured"]
        for name in ("surrogate", "surrogate-20-epochs"):
            rows.append((
                f"DAWN, {'4' if name == 'surrogate' else '20'} epochs", str(trial["seed"]),
                f"{m['changed_first_class']} of {m['queries']:,}", f"{m['mean_l1']:.3f}",
                f"{m[name]['hits']} of {m[name]['trials']} planted, log10 p {m[name]['log10_p']:.1f}",
                f"{m['independent']['hits']} of {m['independent']['trials']}, "
                f"log10 p {m['independent']['log10_p']:.1f}",
            ))  # fmt: skip
    if not rows:
        return ""
    head = ("scheme", "seed", "first classes changed", "mean L1", "suspect", "independent model")
    return (
        "## Relatives behind the same interface\n\nSame thief, 15,000 queries. CosWM (ε 0.05, published claim above a "
        "ratio of 8) is used at the API only, without the published training of the teacher, and so below what its "
        "authors measure. *The service itself* is the guarded answers to the probes, in which the cosine is exact: "
        "what the ratio can reach. DAWN (0.5 %) is verified on the logged queries.\n\n" + _table(head, rows)
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
    missed = [str(row["batch"]) for row in found["rows"] if row["dynamarks_ratio"] > found["goal"]]
    verdict = f"missed at a batch of {', '.join(missed)}" if missed else "met at every batch"
    return (
        "## What a guard adds to a batch\n\nProcessor time over the small CNN's own, per query in brackets; the goal "
        f"is {100 * found['goal']:.0f} % at most, {verdict} for `dynamarks`.\n\n"
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
