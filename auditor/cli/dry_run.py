"""``auditor dry-run``: what an audit could show, found out on one's own models."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from auditor.study.workers import Workers

PAGE_NAME = "study.html"
SUMMARY_NAME = "study.json"


def dry_run(
    config: Annotated[Path, typer.Argument(help="TOML file: schemes, attacks, seeds, innocents.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of models and records; a second run goes on.", show_default="CONFIG.study"),
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="Processes side by side, one thread each.")] = 2,
    ray: Annotated[
        str | None, typer.Option(help="Address of a Ray cluster, 'auto', or 'local' for one of this machine.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary on stdout and nothing else.")] = False,
) -> None:
    """Train, mark, attack and audit models of one's own: power, false claims, and how many keys to seal.

    Every finished trial is kept: killed and started again, the run goes on where it was.
    """
    from auditor.canonical import canonical_bytes
    from auditor.cli import console
    from auditor.study.config import read_config
    from auditor.study.page import COLUMNS, innocents_sentence, recommendation, render_page, summary_object, table_rows
    from auditor.study.runner import run_study
    from auditor.study.summary import summarise

    plan = read_config(config)
    folder = out or config.with_suffix(".study")
    with _workers(workers, ray) as chosen, console.progress() as progress:
        trials = run_study(plan, folder=folder, workers=chosen, progress=progress)
    summaries = summarise(trials, power=plan.study.power)
    summary = summary_object(plan, summaries)
    (folder / SUMMARY_NAME).write_bytes(canonical_bytes(summary) + b"\n")
    (folder / PAGE_NAME).write_bytes(render_page(plan, summaries))
    for trial in trials:
        if trial.record is None:
            console.warn(
                f"{trial.spec.scheme_title}, {trial.spec.suspect_title}, seed {trial.spec.owner.seed}: {trial.error}"
            )
    if as_json:
        console.print_json(summary)
        return
    for scheme in summaries:
        console.table(scheme.title, COLUMNS, table_rows(scheme))
        console.say(innocents_sentence(scheme))
        console.say(recommendation(scheme))
    console.say(f"written: {folder / PAGE_NAME}")


def _workers(count: int, ray: str | None) -> "Workers":
    from auditor.study.workers import LocalWorkers, RayWorkers

    return LocalWorkers(count) if ray is None else RayWorkers(ray)
