"""``auditor demo``: the whole story on localhost."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.demo import Trial

COLUMNS = (
    "suspect", "task accuracy", "verdict", "hits", "keys to decision", "forecast keys", "all queries", "log10 p"
)  # fmt: skip


class DemoData(StrEnum):
    """Data sets of the demonstration."""

    DIGITS = "digits"
    FASHION_MNIST = "fashion-mnist"


class DemoScheme(StrEnum):
    """Schemes of the demonstration."""

    ALL = "all"
    NEW_LABEL = "new-label"


def demo(
    out: Annotated[
        Path | None, typer.Option(help="New or empty folder for models and reports.", show_default="demo-<UTC time>")
    ] = None,
    data: Annotated[DemoData, typer.Option(help="Data set; digits is built in.")] = DemoData.DIGITS,
    scheme: Annotated[DemoScheme, typer.Option(help="Scheme to show.")] = DemoScheme.ALL,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all training; the secret comes from the system.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout and nothing else.")] = False,
) -> None:
    """Mark a model, let it be stolen, and audit three copies and an innocent behind HTTP.

    Needs no network beyond localhost. Exit code 0: every audit came out as it should.
    """
    from auditor import casefile
    from auditor.cli import console
    from auditor.demo import Origin, run_demo
    from auditor.errors import TrainingError

    del scheme  # One scheme so far; "all" means it.
    folder = out or Path(f"demo-{casefile.utc_now():%Y%m%dT%H%M%SZ}")
    with console.progress() as progress:
        outcome = run_demo(folder=folder, data=data.value, seed=seed, progress=progress)
    record = outcome.record
    if as_json:
        console.print_json(
            {
                "folder": str(folder),
                "owner": record.as_json(),
                "trials": [
                    {"origin": trial.origin.value, "bundle": str(trial.case.folder), "results": trial.case.results}
                    for trial in outcome.trials
                ],
            }
        )
    else:
        console.say(
            f"owner's model: accuracy {record.clean.rate:.3f} (unmarked twin {record.twin.rate:.3f}), "
            f"fresh keys {record.keys.rate:.3f}, foreign patterns {record.forecast_sham_rate:.4f}"
        )
        console.table("Audits over HTTP", COLUMNS, [_row(trial) for trial in outcome.trials])
        for trial in outcome.trials:
            console.say(f"{trial.origin.value}: {trial.case.folder / trial.case.report_name}")
    wrong = [t.origin.value for t in outcome.trials if t.case.headline.status != _expected(t.origin is Origin.INNOCENT)]
    if wrong:
        raise TrainingError(f"not as expected: {', '.join(wrong)}")
    bundle = outcome.trials[0].case.folder
    if not as_json:
        console.say(f"re-check one as a stranger would: auditor check {bundle}")


def _row(trial: "Trial") -> tuple[str, ...]:
    line = trial.case.headline
    decided = "-" if line.keys_until_decision is None else str(line.keys_until_decision)
    forecast = "-" if line.forecast_mean is None else f"{line.forecast_mean:.1f} (95 %: {line.forecast_q95})"
    return (
        trial.origin.value,
        f"{trial.task_accuracy:.3f}",
        line.status.value,
        f"{line.hits}/{line.trials}",
        decided,
        forecast,
        str(line.total_queries),
        f"{line.log10_p:.1f}",
    )


def _expected(innocent: bool) -> str:
    return "not supported" if innocent else "supported"
