"""``auditor pack``: a bundle folder as one zip file for the mail."""

from pathlib import Path
from typing import Annotated

import typer


def pack(
    bundle: Annotated[Path, typer.Argument(help="Folder of a finished evidence bundle.")],
    out: Annotated[Path | None, typer.Option(help="File to write; default: the folder's name with .zip.")] = None,
) -> None:
    """Pack a bundle into one zip file, which `auditor check` takes as it is; equal bundles give equal files."""
    from auditor.cli import console
    from auditor.errors import UsageError
    from auditor.evidence.zipped import pack_bundle

    if not bundle.is_dir():
        raise UsageError(f"{bundle}: no such folder")
    target = out if out is not None else bundle.resolve().with_name(f"{bundle.resolve().name}.zip")
    data = pack_bundle(bundle)
    try:
        with target.open("xb") as file:
            file.write(data)
    except OSError as error:
        raise UsageError(f"{target}: exists already or cannot be written ({type(error).__name__})") from error
    console.say(f"{target}")
