"""Reads what an examiner brings along: declarations, and the custody log beside a key set."""

from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import UsageError

if TYPE_CHECKING:
    from auditor.evidence.declarations import Declarations
    from auditor.evidence.keyset import OpenedKeySet


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


def brought_along(keyset: Path, opened: "OpenedKeySet", *, declarations: Path | None) -> dict[str, bytes]:
    """Return the files that go into a new bundle as they are, by path, each verified.

    Args:
        keyset: the key set's file; its custody log lies beside it.
        opened: the same, opened.
        declarations: a form with what can be said before there is a report, or None.

    Raises:
        UsageError: as :func:`read_form`, or the declarations claim to be about a report.
        EvidenceError: the custody log is broken or belongs to another seal.
    """
    from auditor.evidence import manifest as paths
    from auditor.evidence.declarations import declarations_bytes
    from auditor.evidence.open_custody import copied_log, keyset_log_path

    found: dict[str, bytes] = {}
    log = copied_log(keyset_log_path(keyset), seal_envelope=opened.envelope)
    if log:
        found[paths.KEYSET_CUSTODY] = log
    if declarations is not None:
        said = read_form(declarations)
        if said.report:
            raise UsageError(f"{declarations.name}: 'report' must be empty: the report is still to be made")
        found[paths.DECLARATIONS] = declarations_bytes(said)
    return found
