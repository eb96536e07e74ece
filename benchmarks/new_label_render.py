"""Tables and plots of the new-label benchmark, from its kept trials; trains nothing."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from auditor.schemes.embedding import Share

Trial = dict[str, Any]
TITLES = {"digits": "digits (8 x 8)", "fashion-mnist": "Fashion-MNIST"}
LINES = {"new-label": "-", "wrong-label": "--"}


def chosen(trials: Iterable[Trial], **wanted: object) -> list[Trial]:
    return [t for t in trials if all(t["trial"][name] == value for name, value in wanted.items())]


def rate(share: dict[str, Any]) -> float:
    return share["hits"] / share["trials"]


def pooled(shares: Sequence[dict[str, Any]]) -> str:
    share = Share(hits=sum(s["hits"] for s in shares), trials=sum(s["trials"] for s in shares))
    interval = share.interval()
    return f"{share.rate:.4f} ({interval.low:.4f}-{interval.high:.4f})"


def spread(values: Sequence[float], digits: int = 3) -> str:
    return f"{np.mean(values):.{digits}f} [{min(values):.{digits}f}, {max(values):.{digits}f}]"


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = ["| " + " | ".join(columns) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows), ""]


def acceptance(trials: Sequence[Trial], data: str) -> list[str]:
    full = chosen(trials, kind="full", data=data)
    lines = []
    for scheme in LINES:
        rows = []
        for trial in full:
            entry = trial["schemes"][scheme]
            record = entry["record"]
            clean, twin = rate(record["clean_accuracy"]), rate(record["twin_accuracy"])
            rows.append(
                (
                    str(trial["trial"]["seed"]),
                    f"{clean:.4f}",
                    f"{twin:.4f}",
                    f"{100 * (clean - twin):+.2f}",
                    f"{rate(record['key_rate']):.4f} ({float(record['key_rate']['low']):.4f}-"
                    f"{float(record['key_rate']['high']):.4f})",
                    f"{rate(record['sham_rate']):.5f} / {float(record['worst_sham_rate']):.4f}",
                    f"{rate(record['target_on_clean']):.5f}",
                    "-" if record["code_when_masked"] is None else f"{rate(record['code_when_masked']):.3f}",
                    "; ".join(record["misses"]) or "none",
                )
            )
        records = [t["schemes"][scheme]["record"] for t in full]
        gaps = [100 * (rate(r["clean_accuracy"]) - rate(r["twin_accuracy"])) for r in records]
        rows.append(
            (
                "all",
                f"{np.mean([rate(r['clean_accuracy']) for r in records]):.4f}",
                f"{np.mean([rate(r['twin_accuracy']) for r in records]):.4f}",
                f"{np.mean(gaps):+.2f}",
                pooled([r["key_rate"] for r in records]),
                f"{np.mean([rate(r['sham_rate']) for r in records]):.5f} / "
                f"{max(float(r['worst_sham_rate']) for r in records):.4f}",
                f"{np.mean([rate(r['target_on_clean']) for r in records]):.5f}",
                "",
                "",
            )
        )
        columns = (
            "seed", "clean, marked", "clean, twin", "points", "fresh keys (95 %)", "foreign mean / worst",
            "target on clean", "code, masked", "missed",
        )  # fmt: skip
        lines += [f"### {TITLES[data]}, {scheme}", "", *table(columns, rows)]
    return lines


def attacks(trials: Sequence[Trial], data: str) -> list[str]:
    full = chosen(trials, kind="full", data=data)
    lines = [f"### {TITLES[data]}: fine-tuning with half the test set (judged on the other half)", ""]
    rows = []
    for scheme in LINES:
        entries = [t["schemes"][scheme] for t in full]
        cases = [("none (stolen copy)", [e["pruning"]["0.0"] for e in entries])]
        cases += [
            (f"layers {name.split()[0]}, learning rate {name.split()[1]}", [e["tuning"][name] for e in entries])
            for name in entries[0]["tuning"]
        ]
        cases.append(("innocent model", [e["innocent"] for e in entries]))
        for title, outcomes in cases:
            rates = [o["keys"][0] / o["keys"][1] for o in outcomes]
            rows.append((scheme, title, spread([o["accuracy"] for o in outcomes]), spread(rates)))
    lines += table(("scheme", "attack", "clean accuracy, mean [min, max]", "key rate, mean [min, max]"), rows)
    lines += [f"### {TITLES[data]}: global magnitude pruning", ""]
    pruned = list(full[0]["schemes"]["new-label"]["pruning"])
    rows = []
    for name in pruned:
        cells = [name]
        for scheme in LINES:
            outcomes = [t["schemes"][scheme]["pruning"][name] for t in full]
            cells.append(f"{np.mean([o['accuracy'] for o in outcomes]):.3f}")
            cells.append(spread([o["keys"][0] / o["keys"][1] for o in outcomes]))
        rows.append(cells)
    columns = ["rate"] + [f"{scheme}: {what}" for scheme in LINES for what in ("clean", "key rate")]
    return [*lines, *table(columns, rows), f"![pruning](new_label.pruning.{data}.svg)", ""]


def published(trials: Sequence[Trial], data: str) -> list[str]:
    rows = []
    for scheme in LINES:
        records = [t["record"] for t in chosen(trials, kind="published", data=data, scheme=scheme)]
        if records:
            rows.append(
                (
                    scheme,
                    str(len(records)),
                    spread([rate(r["key_rate"]) for r in records]),
                    spread([rate(r["sham_rate"]) for r in records]),
                    f"{max(float(r['worst_sham_rate']) for r in records):.3f}",
                )
            )
    if not rows:
        return []
    columns = ("scheme", "seeds", "fresh keys", "foreign patterns, mean", "worst foreign pattern")
    return [f"### {TITLES[data]}: trained without sham negatives", "", *table(columns, rows)]


def whole_sweeps(trials: Sequence[Trial], data: str) -> list[Trial]:
    """Return the sweep trials of those seeds that cover every cell, so that cells compare."""
    found = chosen(trials, kind="sweep", data=data)
    per_seed = Counter(t["trial"]["seed"] for t in found)
    return [t for t in found if per_seed[t["trial"]["seed"]] == max(per_seed.values())]


def sweeps(trials: Sequence[Trial], data: str) -> list[str]:
    found = whole_sweeps(trials, data)
    if not found:
        return []
    betas = sorted({t["trial"]["beta"] for t in found})
    rows = []
    for scheme in LINES:
        for alpha in sorted({t["trial"]["alpha"] for t in found}):
            cells = [scheme, f"{alpha:g}"]
            for beta in betas:
                records = [t["record"] for t in chosen(found, scheme=scheme, alpha=alpha, beta=beta)]
                cells.append(f"{np.mean([rate(r['key_rate']) for r in records]):.3f}" if records else "-")
            rows.append(cells)
    columns = ["scheme", "alpha", *(f"beta {beta:g}" for beta in betas)]
    n_seeds = len({t["trial"]["seed"] for t in found})
    title = f"### {TITLES[data]}: rate of fresh keys over alpha x beta ({n_seeds} seed(s), no label code)"
    return [title, "", *table(columns, rows), f"![sweep](new_label.sweep.{data}.svg)", ""]


def verdicts(runs: Sequence[dict[str, Any]], data: str) -> list[str]:
    found = [run for run in runs if run["data"] == data]
    if not found:
        return []
    seeds = " ".join(str(run["seed"]) for run in found)
    rows = []
    for run in found:
        for origin, audit in run["audits"].items():
            decided = audit["keys_until_decision"]
            rows.append(
                (
                    str(run["seed"]),
                    origin,
                    f"{audit['task_accuracy']:.4f}",
                    audit["status"],
                    f"{audit['hits']}/{audit['trials']}",
                    "-" if decided is None else str(decided),
                    str(audit["total_queries"]),
                    f"{audit['sham_hits']}/{audit['sham_trials']}",
                    f"{audit['log10_p']:.1f}",
                )
            )
    columns = (
        "seed", "suspect", "task accuracy", "verdict", "hits", "keys to decision", "all queries", "sham hits", "log10 p"
    )  # fmt: skip
    title = f"### {TITLES[data]}: whole audits over HTTP at level 1e-6"
    command = f"`python benchmarks/verdicts.py --data {data} --seeds {seeds}`; a fresh secret for every seed."
    return [title, "", command, "", *table(columns, rows)]


def plot_pruning(trials: Sequence[Trial], data: str, folder: Path) -> None:
    from matplotlib.figure import Figure

    full = chosen(trials, kind="full", data=data)
    figure = Figure(figsize=(5.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for scheme, style in LINES.items():
        names = list(full[0]["schemes"][scheme]["pruning"])
        x = [float(name) for name in names]
        outcomes = [[t["schemes"][scheme]["pruning"][name] for t in full] for name in names]
        keys = [[o["keys"][0] / o["keys"][1] for o in group] for group in outcomes]
        axes.plot(x, [np.mean(k) for k in keys], f"o{style}", color="#1f4e79", label=f"{scheme}: keys")
        axes.fill_between(x, [min(k) for k in keys], [max(k) for k in keys], color="#1f4e79", alpha=0.12)
        clean = [np.mean([o["accuracy"] for o in group]) for group in outcomes]
        axes.plot(x, clean, f"s{style}", color="#b5651d", markersize=4, label=f"{scheme}: clean")
    axes.set(xlabel="pruning rate", ylabel="rate", ylim=(-0.02, 1.02), title=TITLES[data])
    axes.legend(fontsize=8)
    save(figure, folder / f"new_label.pruning.{data}.svg")


def plot_sweep(trials: Sequence[Trial], data: str, folder: Path) -> None:
    from matplotlib.figure import Figure

    found = whole_sweeps(trials, data)
    alphas = sorted({t["trial"]["alpha"] for t in found})
    figure = Figure(figsize=(2.4 * len(alphas) + 1, 3.2), layout="constrained")
    panels = np.atleast_1d(figure.subplots(1, len(alphas), sharey=True))
    for panel, alpha in zip(panels, alphas, strict=True):
        for scheme, style in LINES.items():
            betas = sorted({t["trial"]["beta"] for t in chosen(found, scheme=scheme, alpha=alpha)})
            records = [[t["record"] for t in chosen(found, scheme=scheme, alpha=alpha, beta=b)] for b in betas]
            keys = [np.mean([rate(r["key_rate"]) for r in group]) for group in records]
            clean = [np.mean([rate(r["clean_accuracy"]) for r in group]) for group in records]
            panel.plot(betas, keys, f"o{style}", color="#1f4e79", label=f"{scheme}: keys")
            panel.plot(betas, clean, f"{style}", color="#b5651d", label=f"{scheme}: clean")
        panel.set(title=f"alpha = {alpha:g}", xlabel="beta", ylim=(-0.02, 1.02))
    panels[0].set_ylabel("rate")
    panels[-1].legend(fontsize=7)
    figure.suptitle(TITLES[data])
    save(figure, folder / f"new_label.sweep.{data}.svg")


def save(figure: Any, path: Path) -> None:
    import matplotlib

    # A fixed salt and no date: the same trials give the same file.
    with matplotlib.rc_context({"svg.hashsalt": "auditor", "svg.fonttype": "path"}):
        figure.savefig(path, metadata={"Date": None})


def render_all(trials: Sequence[Trial], *, folder: Path) -> None:
    first = trials[0]
    kept = folder / "results" / "verdicts.json"
    runs = json.loads(kept.read_text()) if kept.exists() else []
    commits = sorted({t["commit"] for t in trials})
    lines = [
        "# New-label and wrong-label marks: measurements",
        "",
        "Made by `python benchmarks/new_label.py run` (resumable) and `python benchmarks/new_label.py render`; the",
        "trials with their settings are in `results/new_label.json`. Every rate is measured on images nobody",
        "trained on. Keys are one drawn pattern, clipped and rounded to 8 bits; alpha = 0.01 unless stated; sham",
        "negatives and, where fidelity allows, the label code are on. 'Foreign' are patterns drawn like the secret",
        "one for other purposes.",
        "",
        f"Commit {', '.join(commits)}; {first['machine']}; Python {first['python']}, torch {first['torch']}; "
        f"{sum(t['cpu_seconds'] for t in trials) / 60:.0f} CPU minutes in {len(trials)} trials.",
        "",
    ]
    for data in TITLES:
        if chosen(trials, kind="full", data=data):
            lines += [f"## {TITLES[data]}", "", *acceptance(trials, data), *attacks(trials, data)]
            plot_pruning(trials, data, folder)
        lines += verdicts(runs, data)
        lines += published(trials, data)
        lines += sweeps(trials, data)
        if chosen(trials, kind="sweep", data=data):
            plot_sweep(trials, data, folder)
    notes = folder / "new_label.notes.md"
    if notes.exists():
        # What the figures say, written by hand after reading them; the figures themselves stay generated.
        lines[2:2] = [notes.read_text().strip(), ""]
    (folder / "new_label.md").write_text("\n".join(lines).rstrip() + "\n")
