"""The plot of ``auditor plan``: queries of every procedure on a logarithmic scale, beside the information limit."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from auditor.stats.forecast import Forecast, Question


def draw(path: Path, question: "Question", result: "Forecast") -> None:
    """Draw the mean and the 99 % query count of every procedure into an SVG or PNG file.

    Raises:
        UsageError: the file cannot be written.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from auditor.errors import UsageError

    rows = [(row, row.mean) for row in result.procedures if row.mean is not None]
    figure = Figure(figsize=(8.0, 1.2 + 0.4 * len(rows)), layout="constrained")
    axes = figure.add_subplot()
    for at, (row, mean) in enumerate(rows):
        axes.plot([mean], [at], "o", color="#1f4e79", label="mean" if at == 0 else None)
        if row.q99 is not None:
            axes.plot([mean, row.q99], [at, at], "-", color="#1f4e79", linewidth=1.0)
            axes.plot([row.q99], [at], "|", color="#1f4e79", label="99 %" if at == 0 else None)
    axes.axvline(result.limit, linestyle="--", color="#a33", label="information limit")
    axes.set_yticks(range(len(rows)), [row.name for row, _ in rows])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("key queries on a copy")
    axes.set_title(
        f"{question.labels.value}: p = {question.rate:g}, null rate = {question.null_rate:.3g}, "
        f"alpha = {question.alpha:g}, power = {question.power:g}",
        fontsize=9,
    )
    axes.legend(fontsize=8)
    try:
        with rc_context({"svg.hashsalt": "auditor", "svg.fonttype": "path"}):
            figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    except OSError as error:
        raise UsageError(f"cannot write the plot: {error.strerror or 'input/output error'}") from error
