"""Tables of ``benchmarks/margin.py``, from kept trials alone."""

from typing import Any

from auditor.stats.exact import clopper_pearson

MODELS = ("victim", "soft", "hard", "innocent", "twin")
TITLES = {
    "victim": "marked model", "soft": "surrogate, probabilities", "hard": "surrogate, labels",
    "innocent": "innocent, attacker's images", "twin": "unmarked twin",
}  # fmt: skip


def page(trials: list[dict[str, Any]]) -> str:
    """Return the page in Markdown."""
    full = [t for t in trials if t["trial"]["part"] == "full"]
    parts = [
        "# Margin: survival of extraction against clean accuracy",
        "Fashion-MNIST; owner and attacker hold disjoint images. Command: `python benchmarks/margin.py run`, then "
        "`render`. Counts are over all sealed triggers: drawn labels among the answers that differ from "
        "the natural one; log10 p is exact (binomial, 1/9). The verdicts are those of "
        "the sealed sequential test at 1e-6, with the keys asked, from top-1 labels alone and from all scores.",
    ]
    for scheme in ("margin", "plain-trigger"):
        chosen = [t for t in full if t["trial"]["scheme"] == scheme]
        if chosen:
            parts += [f"## {scheme}: every seed", seeds_table(chosen), verdicts(chosen)]
    frontier = [t for t in trials if t["trial"]["part"] == "frontier"]
    if frontier:
        parts += ["## Frontier (seed 1, one trial a row)", frontier_table(frontier)]
    parts.append(provenance(trials))
    return "\n\n".join(parts) + "\n"


def seeds_table(trials: list[dict[str, Any]]) -> str:
    """Return one row per seed and model."""
    lines = [
        "| seed | model | accuracy | minus twin | hits / deviating | log10 p | by labels | by scores |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for trial in sorted(trials, key=lambda t: t["trial"]["seed"]):
        twin = trial["models"]["twin"]["accuracy"]
        for name in MODELS:
            m = trial["models"][name]
            change = f"{100 * (m['accuracy'] - twin):+.2f}"
            verdicts_told = f"{verdict(m['by_labels'])} | {verdict(m['by_scores'])}"
            lines.append(
                f"| {trial['trial']['seed']} | {TITLES[name]} | {m['accuracy']:.4f} | {change} "
                f"| {m['hits']} / {m['deviating']} | {m['log10_p']:.1f} | {verdicts_told} |"
            )
    return "\n".join(lines)


def verdict(stopped: dict[str, Any]) -> str:
    """Return the outcome of the sealed test with the keys it took."""
    return f"{stopped['status']} ({stopped['keys_asked']})"


def verdicts(trials: list[dict[str, Any]]) -> str:
    """Return how many of each kind of model were supported, with exact intervals."""
    lines = ["| model | supported by labels | 95 % interval | by scores | 95 % interval |", "|" + " --- |" * 5]
    for name in MODELS:
        cells = [TITLES[name]]
        for kind in ("by_labels", "by_scores"):
            hits = sum(t["models"][name][kind]["status"] == "supported" for t in trials)
            interval = clopper_pearson(hits=hits, trials=len(trials), confidence=0.95)
            cells += [f"{hits} of {len(trials)}", f"{interval.low:.2f}-{interval.high:.2f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def frontier_table(trials: list[dict[str, Any]]) -> str:
    """Return one row per setting."""
    names = ("radius", "weight", "per_step", "n_keys", "choice", "ramp", "width", "epochs")
    lines = [
        "| "
        + " | ".join(names)
        + " | clean minus twin | soft: hits / deviating, log10 p; by labels; by scores | hard |",
        "| " + " | ".join("---" for _ in range(len(names) + 3)) + " |",
    ]
    for trial in trials:
        m = trial["models"]
        cells = [str(trial["trial"][name]) for name in names]
        cells.append(f"{100 * (m['victim']['accuracy'] - m['twin']['accuracy']):+.2f}")
        for kind in ("soft", "hard"):
            counts = f"{m[kind]['hits']} / {m[kind]['deviating']}, {m[kind]['log10_p']:.1f}"
            cells.append(f"{counts}; {verdict(m[kind]['by_labels'])}; {verdict(m[kind]['by_scores'])}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def provenance(trials: list[dict[str, Any]]) -> str:
    """Return where the figures come from."""
    commits = sorted({t["commit"][:12] for t in trials})
    machines = sorted({t["machine"] for t in trials})
    seconds = sum(t["cpu_seconds"] for t in trials) / len(trials)
    return f"Measured at {', '.join(commits)} on {'; '.join(machines)}; {seconds:.0f} CPU seconds a trial on average."
