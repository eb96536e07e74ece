"""Times as evidence states them: RFC 3339, UTC, whole milliseconds."""

import re
from datetime import UTC, datetime

from auditor.errors import MalformedError

_PATTERN = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}\.\d{3}Z", re.ASCII)


def utc_text(moment: datetime) -> str:
    """Return an aware time as ``2026-11-22T10:00:00.000Z``, cut to the millisecond.

    Raises:
        ValueError: the time has no zone; a bug of the caller.
    """
    if moment.tzinfo is None:
        raise ValueError("a time without a zone is not evidence")
    return moment.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def check_utc(text: str, *, what: str) -> str:
    """Return ``text`` if it is a real time in the one accepted spelling; such texts sort like the times they state.

    Raises:
        MalformedError: another spelling, or a date that does not exist.
    """
    if not _PATTERN.fullmatch(text):
        raise MalformedError(f"{what}: a time must read like 2026-11-22T10:00:00.000Z")
    try:
        datetime.strptime(text, "%Y-%m-%dT%H:%M:%S.%fZ")
    except ValueError as error:
        raise MalformedError(f"{what}: no such date or time") from error
    return text
