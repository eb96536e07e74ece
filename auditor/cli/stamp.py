"""``auditor stamp``: have a seal or a finished bundle time-stamped later."""

from pathlib import Path
from typing import Annotated

import typer


def stamp(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="k.seal.json, or the folder of an evidence bundle.")],
    tsa: Annotated[list[str] | None, typer.Option("--tsa", help="Address of a time authority; repeatable.")] = None,
    import_tsr: Annotated[
        list[Path] | None, typer.Option("--import-tsr", help="Take a token from this file; may be repeated.")
    ] = None,
    write_tsq: Annotated[
        Path | None,
        typer.Option("--write-tsq", help="Write the query to this new file, to carry to an authority."),
    ] = None,
) -> None:
    """Add an independent time stamp to a seal or bundle; changes nothing already written.

    A token shows that the file existed when the token was made, not earlier. A bundle's custody log is continued with
    the token's digest, so that its removal shows. Exit code 7: no authority gave one.
    """
    from auditor.cli import console
    from auditor.errors import MissingPartError, UsageError
    from auditor.evidence.token_files import add_beside
    from auditor.time_authority import TimeAuthorities, make_query

    if not (tsa or import_tsr or write_tsq):
        raise UsageError("name an authority (--tsa), a token (--import-tsr) or a file for the query (--write-tsq)")
    file = _stamped_file(target)
    data = file.read_bytes()
    if write_tsq is not None:
        query, _ = make_query(data, nonce=False)
        _write_query(write_tsq, query)
        console.say(f"query: {write_tsq}")
    tokens = [_read(path) for path in import_tsr or ()]
    tokens += TimeAuthorities(tsa or ()).stamp(data)
    try:
        for path in add_beside(file, tokens):
            console.say(f"time stamp: {path}")
            if target.is_dir():
                _record(target, path)
    except OSError as error:
        raise UsageError(f"{file.parent}: cannot be written to ({type(error).__name__})") from error
    if tsa and not tokens:
        raise MissingPartError("no time authority gave a time stamp; nothing was written")


def _record(bundle: Path, token: Path) -> None:
    from auditor import casefile
    from auditor.cli import console
    from auditor.evidence.acts import CommandAct
    from auditor.evidence.bundle import later_log
    from auditor.evidence.open_custody import object_event
    from auditor.evidence.times import utc_text

    event = object_event(
        CommandAct.TIME_STAMPED,
        path=token.name,
        data=token.read_bytes(),
        at=utc_text(casefile.utc_now()),
        by="auditor stamp",
    )
    head = later_log(bundle).add(event, key=None)
    console.say(f"custody head: {head}")


def _stamped_file(target: Path) -> Path:
    """Return the file that a token is to be over; it must be a seal or a signed manifest."""
    from auditor.errors import UsageError
    from auditor.evidence import manifest as paths
    from auditor.evidence.bundle import later_log
    from auditor.evidence.seal import open_seal

    file = target / paths.MANIFEST_ENVELOPE if target.is_dir() else target
    if not file.is_file():
        raise UsageError(f"{file}: no such file; give k.seal.json or the folder of a finished bundle")
    if target.is_dir():
        later_log(target).read()
    else:
        open_seal(file.read_bytes())
    return file


def _read(path: Path) -> bytes:
    from auditor.errors import UsageError
    from auditor.evidence.timestamps import MAX_TOKEN_BYTES

    try:
        with path.open("rb") as file:
            return file.read(MAX_TOKEN_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error


def _write_query(path: Path, query: bytes) -> None:
    from auditor.errors import UsageError

    try:
        with path.open("xb") as file:
            file.write(query)
    except OSError as error:
        raise UsageError(f"{path.name}: cannot be written ({type(error).__name__})") from error
