"""A guard for every client of one service, with the log of what was asked."""

import hashlib
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from auditor.canonical import canonical_bytes
from auditor.errors import UsageError
from auditor.evidence.encryption import Unlocks
from auditor.evidence.keyset import open_sealed
from auditor.evidence.times import utc_text
from auditor.guard_keys import GuardKeys
from auditor.guards.dynamarks import DynaMarks
from auditor.guards.sealed import guard_keys, require_model
from auditor.records import Inputs

Outputs = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def present_time() -> datetime:
    """Return the present time, aware."""
    return datetime.now(UTC)


class QueryLog:
    """Keeps time, client and SHA-256 of every query, one canonical line each; no query can be read from it."""

    def __init__(self, path: Path, *, clock: Callable[[], datetime] = present_time) -> None:
        self._path = path
        self._clock = clock
        self._lock = threading.Lock()
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise UsageError(f"{path.name}: the query log cannot be written ({type(error).__name__})") from error

    def write(self, client: str, inputs: Inputs) -> None:
        """Append one line per input; they are on their way to the disk when this returns."""
        at = utc_text(self._clock())
        lines = [
            canonical_bytes({"at": at, "client": client, "query_sha256": hashlib.sha256(image.tobytes()).hexdigest()})
            for image in inputs
        ]
        # Opened for every batch, so that a log that is rotated away goes on in a new file.
        with self._lock, self._path.open("ab") as file:
            file.write(b"\n".join(lines) + b"\n")


class GuardDesk:
    """Answers each client with the client's own key; guards are made when a client first asks."""

    def __init__(self, keys: GuardKeys, *, header: str, log: QueryLog | None = None) -> None:
        self.header = header
        self._keys = keys
        self._log = log
        self._guards: dict[str, DynaMarks] = {}

    def knows(self, client: str) -> bool:
        """Return whether a key was drawn for this client."""
        return client in self._keys.client_keys

    def answer(self, client: str, outputs: Outputs, inputs: Inputs) -> Outputs:
        """Return what the client is answered; same shape and precision as ``outputs``."""
        found = self._guards.get(client)
        if found is None:
            found = self._guards[client] = DynaMarks(self._keys, client_id=client)
        answers = found(outputs, inputs)
        if self._log is not None:
            self._log.write(client, inputs)
        return np.asarray(answers, dtype=np.float32)


def open_desk(
    path: Path,
    *,
    model_sha256: str,
    classes: tuple[str, ...],
    header: str,
    log: Path | None = None,
    unlocks: Unlocks | None = None,
) -> GuardDesk:
    """Return the desk of a sealed guard for the model that is about to be served.

    Raises:
        UsageError: the guard was made for another model or order of labels, or the log cannot be written.
        EvidenceError: the file is not a sealed key set.
    """
    keys = guard_keys(open_sealed(path, unlocks=unlocks))
    require_model(keys, model_sha256=model_sha256, classes=classes)
    return GuardDesk(keys, header=header, log=None if log is None else QueryLog(log))
