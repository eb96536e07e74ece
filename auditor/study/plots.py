"""The two figures of a dry run, as SVG text: power against keys asked, hit rate against attack strength."""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from auditor.study.summary import SchemeSummary, SuspectSummary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STYLE = {
    "svg.hashsalt": "auditor-study",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}
_SIZE_INCHES = (6.7, 2.8)
_AXES = (0.085, 0.17, 0.545, 0.77)
_INK = "#1b2430"
# Okabe-Ito colours: told apart by colour-blind readers; dashes and markers tell them apart in print.
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_DASHES = ((), (6, 2), (1.5, 1.5), (6, 2, 1.5, 2))
_MARKERS = "osD^vPX"


def power_figure(scheme: SchemeSummary) -> str:
    """Draw, for every suspect, the share of audits that ended *supported* within so many keys."""
    from matplotlib import style
    from matplotlib.figure import Figure

    shown = [suspect for suspect in scheme.suspects if suspect.trials]
    last = max([10, *(n for suspect in shown for n in suspect.decided_at)])
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE_INCHES)
        axes = figure.add_axes(_AXES)
        for number, suspect in enumerate(shown):
            steps = sorted(suspect.decided_at)
            keys = [0, *steps, last * 1.08]
            share = [0.0, *((i + 1) / suspect.trials for i in range(len(steps))), len(steps) / suspect.trials]
            line = axes.plot(keys, share, drawstyle="steps-post", label=_label(suspect), linewidth=1.4)
            line[0].set(color=_COLOURS[number % len(_COLOURS)])
            dashes = _DASHES[number % len(_DASHES)]
            if dashes:
                line[0].set_dashes(dashes)
        axes.set(xlabel="keys asked", ylabel="share supported", xlim=(0, last * 1.08), ylim=(-0.02, 1.04))
        _legend(figure, axes)
        return _svg(figure)


def strength_figure(scheme: SchemeSummary) -> str:
    """Draw the hit rate of every seed against the strength of its attack; empty when no attack names a strength."""
    from matplotlib import style
    from matplotlib.figure import Figure

    families: dict[str, list[SuspectSummary]] = {}
    for suspect in scheme.suspects:
        if suspect.strength is not None and suspect.seed_rates:
            families.setdefault(suspect.attack, []).append(suspect)
    if not families:
        return ""
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE_INCHES)
        axes = figure.add_axes(_AXES)
        for number, (name, suspects) in enumerate(families.items()):
            ordered = sorted(suspects, key=lambda suspect: suspect.strength or 0.0)
            colour, marker = _COLOURS[number % len(_COLOURS)], _MARKERS[number % len(_MARKERS)]
            axes.plot(
                [s.strength or 0.0 for s in ordered], [s.hit_rate or 0.0 for s in ordered], color=colour, label=name
            )
            x = [s.strength or 0.0 for s in ordered for _ in s.seed_rates]
            axes.plot(x, _flat([s.seed_rates for s in ordered]), marker=marker, markersize=4, color=colour, linewidth=0)
        axes.axhline(scheme.breaking_rate, color=_INK, linewidth=1.0, linestyle=(0, (1.5, 2)),
                     label=f"below {scheme.breaking_rate:.3f}\nnot decidable")  # fmt: skip
        axes.set(xlabel="attack strength", ylabel="hit rate", ylim=(-0.02, 1.04))
        _legend(figure, axes)
        return _svg(figure)


def _label(suspect: SuspectSummary) -> str:
    return f"{suspect.title} ({suspect.supported}/{suspect.trials})"


def _flat(rows: Sequence[Sequence[float]]) -> list[float]:
    return [value for row in rows for value in row]


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(0.64, 0.55), handlelength=2.6)


def _svg(figure: "Figure") -> str:
    out = io.StringIO()
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    text = out.getvalue()
    return text[text.index("<svg") :]
