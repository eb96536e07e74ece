"""Page of ``benchmarks/published_margin.py``, from kept trials alone; every figure is computed here."""

import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from auditor.stats.exact import clopper_pearson

if TYPE_CHECKING:
    from published_margin import Setting

Trial = dict[str, Any]
LOOPS = ("published loop", "this project's loop", "plain triggers", "unmarked")
PAIR = LOOPS[:2]


def page(trials: Sequence[Trial], speeds: Sequence[Trial], *, settings: "Mapping[str, Setting]") -> str:
    first = trials[0]
    parts = [
        "# The published margin training and this project's, side by side",
        "Fashion-MNIST, 6,000 images of the owner and 6,000 others of the attacker, the small CNN, 6 epochs, one "
        "thread. For one seed both loops have the same first weights, images, order, trigger images, drawn labels and "
        "number of steps; surrogates are trained on the attacker's images by the unmarked plan, on all probabilities "
        "(soft) or labels (hard). The published loop is written again from its description: its train-mode statistics, "
        "separate forward passes and division of the loss by all images are kept, its loading of images and its "
        "evaluations between steps are not timed.",
        "```\npython benchmarks/published_margin.py run\npython benchmarks/published_margin.py speed\n"
        "python benchmarks/published_margin.py render\n```",
        _progress(trials),
        _speed(speeds),
    ]
    for name, setting in settings.items():
        chosen = [trial for trial in trials if trial["trial"]["setting"] == name]
        if chosen:
            parts += [_heading(name, setting), _ratios(chosen), _table(chosen, setting)]
    parts += [
        "Seconds are those of the training steps. CPU seconds of one thread are what is compared: the machine did "
        "other work at the same time, which stretches the wall clock most. *log10 p* is the exact test over the "
        "answers that deviate from the natural label; surrogates are made of victims that answer at least half of "
        "their triggers as drawn.",
        f"Machine: {first['machine']}, Python {first['python']}, torch {first['torch']}. Every line of "
        "`results/published_margin.trials.jsonl` names its commit.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _progress(trials: Sequence[Trial]) -> str:
    seeds = {
        loop: sorted({t["trial"]["seed"] for t in trials if t["trial"]["loop"] == loop}) for loop in LOOPS
    }  # fmt: skip
    told = "; ".join(f"{loop}: {', '.join(map(str, found)) or 'none yet'}" for loop, found in seeds.items())
    return f"Seeds recorded so far: {told}. Nothing that was run to its end is left out."


def _speed(speeds: Sequence[Trial]) -> str:
    if not speeds:
        return ""
    rows = [
        "## Seconds of a step", "Both loops in turn, the same few steps, after a warm-up; each figure is one turn.",
        "| setting | published: CPU ms a step | ours: CPU ms a step | ours / published, CPU | wall |\n"
        "| --- | --- | --- | --- | --- |",
    ]  # fmt: skip
    for setting in dict.fromkeys(one["setting"] for one in speeds):
        found = {
            loop: [one for one in speeds if (one["setting"], one["loop"]) == (setting, loop)] for loop in PAIR
        }  # fmt: skip
        cells = [", ".join(f"{1000 * one['cpu_seconds'] / one['steps']:.0f}" for one in found[loop]) for loop in PAIR]
        ratios = [
            [ours[name] / theirs[name] for theirs, ours in zip(*(found[loop] for loop in PAIR), strict=False)]
            for name in ("cpu_seconds", "wall_seconds")
        ]
        cells += [f"{_each(each)}; median {statistics.median(each):.2f}" for each in ratios]
        rows[-1] += f"\n| {setting} | " + " | ".join(cells) + " |"
    return "\n\n".join(rows)


def _heading(name: str, setting: "Setting") -> str:
    plan = setting.plan
    schedule = f"falling to a tenth after epochs {' and '.join(map(str, plan.drops))}" if plan.drops else "one cycle"
    moved = f"shifts of up to {plan.shift} pixels and mirroring" if plan.shift else "images as they are"
    return (
        f"## Setting `{name}`\n\n{setting.n_keys} triggers, {setting.per_step} a step, weight {setting.weight:g}, "
        f"{setting.steps} steps of ascent within {setting.radius:g} levels of 255; rate {plan.learning_rate:g}, "
        f"{schedule}, momentum {plan.momentum:g}, decay {plan.weight_decay:g}, batches of {plan.batch_size}, {moved}."
    )


def _ratios(trials: Sequence[Trial]) -> str:
    by_seed: dict[int, dict[str, Trial]] = {}
    for trial in trials:
        by_seed.setdefault(trial["trial"]["seed"], {})[trial["trial"]["loop"]] = trial
    pairs = {seed: found for seed, found in sorted(by_seed.items()) if set(PAIR) <= set(found)}
    if not pairs:
        return "No seed has both loops yet."
    cpu = [found[PAIR[1]]["cpu_seconds"] / found[PAIR[0]]["cpu_seconds"] for found in pairs.values()]
    wall = [found[PAIR[1]]["wall_seconds"] / found[PAIR[0]]["wall_seconds"] for found in pairs.values()]
    clean = [_points(found[PAIR[1]], found[PAIR[0]]) for found in pairs.values()]
    lines = [
        f"* CPU seconds, ours over published: {_each(cpu)}; median {statistics.median(cpu):.2f}.",
        f"* Wall seconds, the same, on the shared machine: {_each(wall)}; median {statistics.median(wall):.2f}.",
        f"* Clean accuracy, ours minus published, in points: {_each(clean, form='+.1f')}.",
    ]
    for model in ("soft", "hard"):
        counts = [
            (found[PAIR[0]]["models"][model]["hits"], found[PAIR[1]]["models"][model]["hits"])
            for found in pairs.values()
            if all(model in found[loop]["models"] for loop in PAIR)
        ]
        if counts:
            shown = ", ".join(f"{theirs} and {ours}" for theirs, ours in counts)
            lines.append(f"* Triggers that survive {model} extraction, published and ours, by seed: {shown}.")
    return "\n".join(lines)


def _points(ours: Trial, theirs: Trial) -> float:
    return 100.0 * (ours["models"]["victim"]["accuracy"] - theirs["models"]["victim"]["accuracy"])


def _each(values: Sequence[float], *, form: str = ".2f") -> str:
    return ", ".join(f"{value:{form}}" for value in values)


def _table(trials: Sequence[Trial], setting: "Setting") -> str:
    rows = [
        "| seed | loop | CPU s | wall s | clean | triggers | soft: accuracy | triggers | log10 p | hard: accuracy "
        "| triggers | log10 p |",
        "| " + " | ".join(["---"] * 12) + " |",
    ]
    for trial in sorted(trials, key=lambda each: (LOOPS.index(each["trial"]["loop"]), each["trial"]["seed"])):
        models = trial["models"]
        cells = [str(trial["trial"]["seed"]), trial["trial"]["loop"]]
        cells += [f"{trial['cpu_seconds']:.1f}", f"{trial['wall_seconds']:.0f}", f"{models['victim']['accuracy']:.4f}"]
        cells.append(_share(models["victim"], setting.n_keys))
        for name in ("soft", "hard"):
            found = models.get(name)
            cells += (
                ["-"] * 3
                if found is None
                else [f"{found['accuracy']:.4f}", _share(found, setting.n_keys), f"{found['log10_p']:.1f}"]
            )
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _share(found: Mapping[str, Any], n_keys: int) -> str:
    interval = clopper_pearson(hits=found["hits"], trials=n_keys, confidence=0.95)
    return f"{found['hits']} of {n_keys} ({interval.low:.2f}-{interval.high:.2f})"
