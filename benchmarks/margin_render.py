"""Tables of ``benchmarks/margin.py``, from kept trials alone."""

from typing import Any

from auditor.schemes.margin import RECIPES
from auditor.stats.exact import clopper_pearson

DATA = "fashion-mnist"

MODELS = ("victim", "soft", "hard", "twin")
TITLES = {
    "victim": "marked model", "soft": "surrogate, probabilities", "hard": "surrogate, labels",
    "twin": "unmarked twin",
}  # fmt: skip


SETTINGS = (
    "scheme", "draw", "radius", "steps", "weight", "per_step", "n_keys", "choice", "ramp", "width", "epochs",
    "copy_epochs",
)  # fmt: skip


COMMANDS = """Commands, in the order of the tables (kept trials are not run again; `render` trains nothing):

    python benchmarks/margin.py run --seeds 10
    python benchmarks/margin.py run --seeds 10 --schemes margin --radius 10
    python benchmarks/margin.py run --part innocents --seeds 3
    python benchmarks/margin.py run --part frontier
    python benchmarks/margin.py render"""
EXPLORED = """Measured with seed 1 while settings were sought, with the same functions but without a sealed key set, so
that there is no verdict: hits / answers that count and log10 p, from labels and from scores. One trial a row. Pairs:
the twin's two likeliest classes, or the natural class and its likeliest rival as in the benchmark; pool: the most
contested carriers, or the farthest apart among three times as many. One row each by
`python benchmarks/margin_search.py` with the row's settings; records in `benchmarks/results/margin.explored.jsonl`."""


def page(trials: list[dict[str, Any]], *, explored: list[dict[str, Any]], notes: str) -> str:
    """Return the page in Markdown."""
    full = [t for t in trials if t["trial"]["part"] == "full" and t["trial"]["draw"] == RECIPES[DATA].settings.draw]
    parts = [
        "# Margin: survival of extraction against clean accuracy",
        "Fashion-MNIST, small network; owner (28,000) and attacker (30,000) hold disjoint images. Counts are over all "
        "sealed triggers: drawn labels among the answers that are one of the two classes a label was drawn from, or, "
        "where all wrong classes were drawn from, among those that differ from the natural one; log10 p is exact "
        "(binomial at 1/2, or 1/9). The verdicts are those of the sealed test at 1e-6, with the keys asked: from "
        "top-1 labels alone, and from all scores.",
        notes.strip(),
        COMMANDS,
    ]
    default = RECIPES[DATA].settings.radius
    # The settings that the command line takes by itself come first.
    full.sort(key=lambda t: (t["trial"]["scheme"], t["trial"]["radius"] != default))
    for title in dict.fromkeys(settings_line(t) for t in full):
        chosen = [t for t in full if settings_line(t) == title]
        parts += [f"## {chosen[0]['trial']['scheme']}: every seed", title, seeds_table(chosen), verdicts(chosen)]
    panels = [t for t in trials if t["trial"]["part"] == "innocents"]
    if panels:
        parts += ["## Innocents, the same panel against every key set", panel_table(panels)]
    frontier = [t for t in trials if "models" in t and (t["trial"]["part"] == "frontier" or t["trial"]["seed"] == 1)]
    if frontier:
        parts += ["## Frontier: accuracy cost against survival (seed 1, one trial a row)", frontier_table(frontier)]
    if explored:
        parts += ["## Tried beside the benchmark", EXPLORED, explored_table(explored)]
    parts.append(provenance(trials))
    return "\n\n".join(parts) + "\n"


def settings_line(trial: dict[str, Any]) -> str:
    """Return the settings of a trial; trials that share them make one table."""
    scheme = trial["trial"]["scheme"]
    unused = ("radius", "steps", "ramp") if scheme == "plain-trigger" else ()
    names = [name for name in SETTINGS[1:] if name not in unused]
    return f"Settings of {scheme}: " + ", ".join(f"{name} {trial['trial'][name]}" for name in names) + "."


def panel_table(panels: list[dict[str, Any]]) -> str:
    """Return one row per key set, and the false positives over the innocents."""
    lines = [
        "| seed of the key set | radius | innocents | accuracy | hits / counted, all | by labels | by scores |",
        "|" + " --- |" * 7,
    ]
    for panel in sorted(panels, key=lambda t: (t["trial"]["radius"], t["trial"]["seed"])):
        models = panel["innocents"]
        worst, best = min(m["accuracy"] for m in models), max(m["accuracy"] for m in models)
        supported = [sum(m[kind]["status"] == "supported" for m in models) for kind in ("by_labels", "by_scores")]
        lines.append(
            f"| {panel['trial']['seed']} | {panel['trial']['radius']} | {len(models)} | {worst:.4f}-{best:.4f} "
            f"| {sum(m['hits'] for m in models)} / {sum(m['bets'] for m in models)} "
            f"| {supported[0]} | {supported[1]} |"
        )
    n = len(panels[0]["innocents"])
    ever = sum(
        any(p["innocents"][i][kind]["status"] == "supported" for p in panels for kind in ("by_labels", "by_scores"))
        for i in range(n)
    )
    interval = clopper_pearson(hits=ever, trials=n, confidence=0.95)
    said = f"Innocents ever supported: {ever} of {n} (95 % interval {interval.low:.2f}-{interval.high:.2f}, exact)."
    return "\n".join(lines) + "\n\n" + said


def explored_table(explored: list[dict[str, Any]]) -> str:
    """Return one row per trial outside the benchmark."""
    lines = ["| settings | clean minus twin | marked: labels; scores | soft | hard |", "|" + " --- |" * 5]
    for trial in explored:
        cells = [", ".join(f"{name} {value}" for name, value in trial["settings"].items())]
        cells.append(f"{trial['clean_minus_twin_points']:+.2f}")
        for name in ("victim", "soft", "hard"):
            m = trial[name]
            cells.append(f"{m['hits']} / {m['bets']}, {m['log10_p']:.1f}; {m['score_hits']}, {m['log10_p_scores']:.1f}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def seeds_table(trials: list[dict[str, Any]]) -> str:
    """Return one row per seed and model."""
    lines = [
        "| seed | model | accuracy | minus twin | hits / answers that count | log10 p | by labels | by scores |",
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
                f"| {m['hits']} / {m['bets']} | {m['log10_p']:.1f} | {verdicts_told} |"
            )
    return "\n".join(lines)


def verdict(stopped: dict[str, Any]) -> str:
    """Return the outcome of the sealed test with the keys it took, and its evidence after the last key where kept."""
    evidence = f", log10 e {stopped['log10_e']:+.1f}" if "log10_e" in stopped else ""
    return f"{stopped['status']} ({stopped['keys_asked']}{evidence})"


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
    names = SETTINGS
    lines = [
        "| "
        + " | ".join(names)
        + " | clean minus twin | soft: hits / answers that count, log10 p; by labels; by scores | hard |",
        "| " + " | ".join("---" for _ in range(len(names) + 3)) + " |",
    ]
    for trial in trials:
        m = trial["models"]
        cells = [str(trial["trial"][name]) for name in names]
        cells.append(f"{100 * (m['victim']['accuracy'] - m['twin']['accuracy']):+.2f}")
        for kind in ("soft", "hard"):
            counts = f"{m[kind]['hits']} / {m[kind]['bets']}, {m[kind]['log10_p']:.1f}"
            cells.append(f"{counts}; {verdict(m[kind]['by_labels'])}; {verdict(m[kind]['by_scores'])}")
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def provenance(trials: list[dict[str, Any]]) -> str:
    """Return where the figures come from."""
    commits = sorted({t["commit"][:12] for t in trials})
    machines = sorted({t["machine"] for t in trials})
    seconds = sum(t["cpu_seconds"] for t in trials) / len(trials)
    return f"Measured at {', '.join(commits)} on {'; '.join(machines)}; {seconds:.0f} CPU seconds a trial on average."
