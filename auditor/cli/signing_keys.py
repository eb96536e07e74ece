"""Reads signing keys that a user names: PEM, encrypted PEM or PKCS#12, the passphrase from the environment."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

from auditor.errors import MalformedError, UsageError

if TYPE_CHECKING:
    from auditor.evidence.signing import SigningKey

PASSPHRASE_VARIABLE = "AUDITOR_KEY_PASSPHRASE"
MAX_KEY_FILE_BYTES = 64 * 1024


def read_key(path: Path) -> "SigningKey":
    """Read an Ed25519 key; a passphrase, where one is needed, stands in ``AUDITOR_KEY_PASSPHRASE``.

    Raises:
        UsageError: the file is missing, not such a key, or the passphrase does not open it.
    """
    from auditor.evidence.signing import SigningKey

    passphrase = os.environ.get(PASSPHRASE_VARIABLE, "").encode() or None
    try:
        with path.open("rb") as file:
            data = file.read(MAX_KEY_FILE_BYTES)
    except OSError as error:
        raise UsageError(f"{path.name}: the signing key cannot be read ({type(error).__name__})") from error
    try:
        if data.lstrip().startswith(b"-----BEGIN"):
            return SigningKey.from_pem(data, passphrase=passphrase)
        return SigningKey.from_pkcs12(data, passphrase=passphrase)
    except MalformedError as error:
        raise UsageError(f"{path.name}: {error}; a passphrase is taken from {PASSPHRASE_VARIABLE}") from error
