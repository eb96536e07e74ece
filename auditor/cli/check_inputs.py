"""What judges bring along on a command line: fingerprints and root certificates."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.x509 import Certificate


def fingerprint(text: str | None, *, option: str) -> str | None:
    """Return a fingerprint in lower case; None stays None.

    Raises:
        UsageError: not 64 hexadecimal digits.
    """
    from auditor.errors import UsageError

    if text is None:
        return None
    plain = text.strip().lower()
    if len(plain) != 64 or any(c not in "0123456789abcdef" for c in plain):
        raise UsageError(f"{option} takes a SHA-256: 64 hexadecimal digits")
    return plain


def fingerprints(texts: Sequence[str] | None, *, option: str) -> tuple[str, ...]:
    """Return fingerprints in lower case; see :func:`fingerprint`."""
    return tuple(found for text in texts or () if (found := fingerprint(text, option=option)) is not None)


def roots(paths: Sequence[Path] | None) -> "tuple[Certificate, ...]":
    """Return the certificates of PEM files.

    Raises:
        UsageError: a file cannot be read or holds none.
    """
    from auditor.errors import MalformedError, UsageError
    from auditor.evidence.timestamps import read_roots

    found: list[Certificate] = []
    for path in paths or ():
        try:
            found += read_roots(path.read_bytes(), what=path.name)
        except OSError as error:
            raise UsageError(f"{path.name}: cannot be read ({type(error).__name__})") from error
        except MalformedError as error:
            raise UsageError(str(error)) from error
    return tuple(found)
