"""The report's figures as SVG bytes: readable in grayscale, legends outside the axes, equal bytes for equal input."""

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auditor.errors import missing_part

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#1b2430"
_MUTED = "#6b7480"
_FILL = "#b9c2cc"
_STYLE = {
    "svg.hashsalt": "auditor-report",
    "svg.fonttype": "path",
    "font.family": "DejaVu Sans",
    "font.size": 8.0,
    "axes.edgecolor": _MUTED,
    "axes.labelcolor": _INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "legend.frameon": False,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
}
_SIZE_INCHES = (6.7, 2.2)
_MAX_POINTS = 600
"""Longest curve drawn point by point; longer ones are thinned, keeping both ends."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EvidencePoint:
    """The evidence after ``n`` keys."""

    n: int
    log10_e: float
    log10_futility: float


def evidence_figure(
    points: Sequence[EvidencePoint], *, alpha: float, futility: float, p_min: str, sequential: bool
) -> bytes:
    """Draw the evidence against the number of keys, with the claim threshold and the futility line.

    Args:
        points: the course of the test, in the order asked; may be empty.
        alpha: level of the test, in (0, 1).
        futility: level of the futility stop, in (0, 1).
        p_min: sealed minimum hit rate, as printed.
        sequential: False for a fixed design, where the course is shown but no boundary stops it.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    claim, give_up = -math.log10(alpha), math.log10(futility)
    drawn = _thinned(points)
    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE_INCHES)
        axes = figure.add_axes((0.085, 0.205, 0.585, 0.735))
        n = [point.n for point in drawn]
        low = give_up - 1.2
        high = max([claim + 1.2, *(point.log10_e + 0.6 for point in drawn)])
        axes.axhline(0, color=_FILL, linewidth=0.8)
        axes.axhline(claim, color=_INK, linewidth=1.1, linestyle=(0, (6, 2)), label=f"claim threshold, {claim:.2f}")
        if sequential:
            label = f"futility line, {give_up:.2f}".replace("-", "−")
            axes.axhline(give_up, color=_MUTED, linewidth=1.1, linestyle=(0, (1.5, 2)), label=label)
        marker = "o" if len(drawn) <= 60 else ""
        evidence = [max(low, point.log10_e) for point in drawn]
        label = "log₁₀ e-value against\nthe null rate"
        axes.plot(n, evidence, color=_INK, linewidth=1.4, marker=marker, markersize=2.6, label=label)
        if sequential:
            reverse = [min(high, max(low, point.log10_futility)) for point in drawn]
            label = f"log₁₀ ratio of hit rate\n{p_min} to null rate"
            hollow = axes.plot(n, reverse, color=_MUTED, linewidth=1.0, markersize=2.4, label=label)
            hollow[0].set(marker="s" if marker else "", markerfacecolor="white", markeredgewidth=0.8)
        axes.set_ylim(low, high)
        axes.set_xlim(0, max([4, *n]) + 0.6)
        axes.set_xlabel("key samples asked")
        axes.set_ylabel("log₁₀ evidence")
        _whole_ticks(axes)
        if not drawn:
            _say_empty(axes)
        _legend_outside(figure, axes)
        return _svg(figure)


def null_law_figure(*, hits: int, trials: int, null_rate: float, among: str = "key samples") -> bytes:
    """Draw the binomial law of the hits at the null rate, with the observed number of hits marked.

    Args:
        hits: observed hits.
        trials: answers that the test bets on; 0 gives an empty figure that says so.
        null_rate: success rate of the law, in [0, 1].
        among: what the trials are, in the plural.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE_INCHES)
        axes = figure.add_axes((0.085, 0.205, 0.585, 0.735))
        axes.set_xlabel(f"hits among the {among}{' asked' if among == 'key samples' else ''}")
        axes.set_ylabel("probability")
        if trials == 0:
            _say_empty(axes)
            return _svg(figure)
        short = among.split()[-1] if among != "key samples" else "keys"
        counts = range(trials + 1)
        law = _binomial_law(trials, null_rate)
        shown = [k for k in counts if law[k] > 1e-6]
        axes.bar(shown, [law[k] for k in shown], width=0.8 if trials <= 80 else 1.0, color=_FILL, edgecolor=_MUTED,
                 linewidth=0.5, label=f"null law: {trials} {short} at\nthe null rate {null_rate:.3g}")  # fmt: skip
        top = max(law) * 1.12
        axes.vlines(hits, 0, top, color=_INK, linewidth=1.6, label=f"observed: {hits} hits")
        axes.plot([hits], [top], marker="v", color=_INK, markersize=5, clip_on=False)
        axes.set_ylim(0, top)
        axes.set_xlim(-0.8, trials + 0.8)
        _whole_ticks(axes)
        _legend_outside(figure, axes)
        return _svg(figure)


def table_law_figure(*, counts: Sequence[int], low: float, high: float, statistic: float) -> bytes:
    """Draw how often re-drawn tables gave each value of the statistic, with the sealed table's value marked.

    Args:
        counts: re-draws in equal parts of the range; may be empty.
        low: smallest re-drawn value.
        high: largest re-drawn value.
        statistic: value at the sealed table.
    """
    from matplotlib import style
    from matplotlib.figure import Figure

    with style.context(["default", _STYLE]):
        figure = Figure(figsize=_SIZE_INCHES)
        axes = figure.add_axes((0.085, 0.205, 0.585, 0.735))
        axes.set_xlabel("sum of the cells' scores at the drawn targets")
        axes.set_ylabel("re-drawn tables")
        if not counts or not high > low:
            _say_empty(axes)
            return _svg(figure)
        width = (high - low) / len(counts)
        centres = [low + (i + 0.5) * width for i in range(len(counts))]
        axes.bar(centres, counts, width=width, color=_FILL, edgecolor=_MUTED, linewidth=0.5,
                 label=f"{sum(counts):,} tables drawn\nagain")  # fmt: skip
        top = max(counts) * 1.12
        axes.vlines(statistic, 0, top, color=_INK, linewidth=1.6, label=f"sealed table: {statistic:.3f}")
        axes.plot([statistic], [top], marker="v", color=_INK, markersize=5, clip_on=False)
        axes.set_ylim(0, top)
        axes.tick_params(length=3)
        _legend_outside(figure, axes)
        return _svg(figure)


def renderer() -> str:
    """Return the drawing library and its version; another version may draw the same figure in other bytes.

    Raises:
        MissingPartError: it is not installed.
    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError as error:
        raise missing_part(error) or error from error

    return f"matplotlib {mpl.__version__}"


def _binomial_law(trials: int, rate: float) -> list[float]:
    import numpy as np

    from auditor.stats.special import gammaln, xlog1py, xlogy

    k = np.arange(trials + 1)
    ways = gammaln(trials + 1) - gammaln(k + 1) - gammaln(trials - k + 1)
    return [float(p) for p in np.exp(ways + xlogy(k, rate) + xlog1py(trials - k, -rate))]


def _thinned(points: Sequence[EvidencePoint]) -> list[EvidencePoint]:
    if len(points) <= _MAX_POINTS:
        return list(points)
    step = (len(points) - 1) / (_MAX_POINTS - 1)
    return [points[round(i * step)] for i in range(_MAX_POINTS)]


def _whole_ticks(axes: "Axes") -> None:
    from matplotlib.ticker import MaxNLocator

    axes.xaxis.set_major_locator(MaxNLocator(nbins=9, integer=True))
    axes.tick_params(length=3)


def _say_empty(axes: "Axes") -> None:
    axes.text(0.5, 0.5, "no key sample was asked", transform=axes.transAxes, ha="center", va="center", color=_MUTED)


def _legend_outside(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc="center left", bbox_to_anchor=(0.68, 0.56), handlelength=2.6, labelspacing=1.1)


def _svg(figure: "Figure") -> bytes:
    out = io.BytesIO()
    # Empty metadata keeps clock, library name and licence links out of the picture.
    figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return out.getvalue()
