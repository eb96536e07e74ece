"""The strength of a guard against what it shows: one point a seed, by what the suspect's answers reveal."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from new_label_render import save

STRENGTHS = {0.005: "mu-0.005", 0.01: "mu-0.01", 0.02: "mu-0.02", 0.05: "mu-0.05", 0.1: "soft-15000", 0.2: "mu-0.2"}
MODES = {
    "scores": ("all scores", "#1f4e79", "o"), "top-3": ("three best scores", "#b5651d", "s"),
    "rounded": ("one decimal", "#5b7f3a", "^"), "labels": ("labels alone", "#7a3b69", "v"),
}  # fmt: skip
LEVEL = 6


def plot_strength(by_name: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> str:
    """Draw evidence and accuracy of surrogates over the strength, and return the section of the page."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 3.4), layout="constrained")
    evidence, accuracy = figure.subplots(1, 2, width_ratios=(3, 2))
    for mode, (label, colour, marker) in MODES.items():
        points = [
            (mu, -trial["measured"]["tests"][mode]["log10_p"][0])
            for mu, name in STRENGTHS.items()
            for trial in by_name.get(name, ())
        ]
        mus = sorted({mu for mu, _ in points})
        medians = [np.median([y for x, y in points if x == mu]) for mu in mus]
        evidence.plot(mus, medians, color=colour, linewidth=1.2)
        evidence.plot(*zip(*points, strict=True), marker, color=colour, markersize=4, label=label)
    evidence.axhline(LEVEL, color="#888888", linewidth=0.8, linestyle="--")
    evidence.text(0.026, LEVEL - 0.9, "level 10⁻⁶", fontsize=8, color="#555555")
    evidence.set_ylim(-0.5, 25)
    spent = [(mu, trial["measured"]["accuracy"]) for mu, name in STRENGTHS.items() for trial in by_name.get(name, ())]
    accuracy.plot(*zip(*spent, strict=True), "o", color="#1f4e79", markersize=4)
    for axes, title in ((evidence, "-log10 p of the client whose answers were taken"), (accuracy, "thief's accuracy")):
        axes.set_xscale("log")
        axes.set_xticks(list(STRENGTHS), [f"{mu:g}" for mu in STRENGTHS], fontsize=8)
        axes.minorticks_off()
        axes.set_xlabel("strength μ")
        axes.set_title(title, fontsize=9)
        axes.spines[["top", "right"]].set_visible(False)
    evidence.legend(frameon=False, fontsize=8, loc="upper left", ncols=2)
    save(figure, path)
    return (
        "### The same as a curve\n\nOne point a surrogate, lines through the medians; 15,000 queries, one secret "
        "bit.\n\n"
        f"![evidence and accuracy over the strength]({path.name})"
    )
