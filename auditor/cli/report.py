"""``auditor report``: renders a bundle's report again, from the bundle alone, into a new place."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    bundle: Annotated[Path, typer.Argument(help="Folder of the evidence bundle; nothing in it is changed.")],
    out: Annotated[
        Path | None, typer.Option(help="New folder for the copies.  [default: <bundle>-report beside the bundle]")
    ] = None,
    pdf: Annotated[bool, typer.Option("--pdf/--no-pdf", help="Make an unsigned report.pdf as well.")] = True,
) -> None:
    """Render report.html and report.pdf again from a bundle; evidence is read, never written.

    The PDF made here is an unsigned copy; the signed one stays in the bundle. Verify a bundle with `auditor check`.
    """
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle import read_file
    from auditor.report.html import render_html
    from auditor.report.inputs import read_folder
    from auditor.report.pdf import make_pdf

    if not bundle.is_dir():
        raise UsageError(f"{bundle}: no such folder")
    folder = out if out is not None else bundle.resolve().with_name(f"{bundle.resolve().name}-report")
    if folder.resolve().is_relative_to(bundle.resolve()):
        raise UsageError(f"{folder}: lies inside the bundle, where nothing may be added")
    given = read_folder(bundle)
    html = render_html(given)
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UsageError(f"{folder}: exists already or cannot be made; reports are never written over") from error
    (folder / paths.REPORT_HTML).write_bytes(html)
    console.say(f"{folder / paths.REPORT_HTML}")
    stored = read_file(bundle, paths.REPORT_HTML) if (bundle / paths.REPORT_HTML).exists() else None
    if stored is not None and stored != html:
        console.warn("report.html differs from the one in the bundle; `auditor check --render` says why")
    if pdf:
        results, seal = (read_file(bundle, name) for name in (paths.RESULTS, paths.SEAL))
        made = make_pdf(html, results=results, seal=seal, issued_at=given.closed_at)
        (folder / paths.REPORT_PDF).write_bytes(made)
        console.say(f"{folder / paths.REPORT_PDF}")
