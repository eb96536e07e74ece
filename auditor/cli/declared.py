"""Reads the declarations that a user names."""

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.evidence.declarations import Declarations


def read_form(path: Path) -> "Declarations":
    """Read a filled form and warn of phrases that the report itself avoids.

    Raises:
        UsageError: the file is missing, or a field is; the message names it.
    """
    from auditor.cli import console
    from auditor.evidence.declarations import MAX_BYTES, declarations_from_toml
    from auditor.report.declared import overstating

    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    found = declarations_from_toml(data, what=path.name)
    for told in overstating(found):
        console.warn(f"{path.name}: courts are warned of this wording: {told}")
    return found


def declarations_beforehand(path: Path) -> "Declarations":
    """Read declarations for a report that does not exist yet.

    Raises:
        UsageError: as :func:`read_form`, or they claim to be about a report.
    """
    found = read_form(path)
    if found.report:
        raise UsageError(f"{path.name}: 'report' must be empty: the report is still to be made")
    return found
