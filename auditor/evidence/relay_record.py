"""The relay's record, ``relay.jsonl``: the custodian's own hash-chained account of what was asked and answered.

One line per answered batch. It is compared with the examiner's bundles: answers that the relay never gave, and batches
that no bundle reports, both show.
"""

import fcntl
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from auditor.canonical import JsonValue
from auditor.errors import StorageError, TranscriptError, UsageError
from auditor.evidence.chain import Link, link_hash, make_line, read_chain
from auditor.evidence.lineup import RECORD
from auditor.evidence.times import utc_text

DOMAIN = b"auditor/1 relay line\x00"
MAX_BATCH = 1_000_000
MAX_LABEL = 2**31 - 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Relayed:
    """One batch that the relay answered."""

    label: str
    """The candidate that answered."""
    inputs_sha256: str
    """SHA-256 of the inputs: uint8 values, C order."""
    answers: tuple[int, ...]
    """One label per input."""


def read_record(data: bytes, *, commitment_sha256: str) -> tuple[Relayed, ...]:
    """Return the answered batches of a record, in order.

    Raises:
        TranscriptError: the chain is broken, or the record is of another line-up.
        MalformedError: a line lacks a field or holds an unknown one.
    """
    found: list[Relayed] = []

    def take(link: Link) -> None:
        if link.fields.hex("lineup_sha256", n_bytes=32) != commitment_sha256:
            raise TranscriptError(f"{RECORD} line {link.seq}: of another line-up")
        answers = link.fields.items("answers", max_items=MAX_BATCH)
        labels = tuple(each for each in answers if isinstance(each, int) and 0 <= each <= MAX_LABEL)
        relayed = Relayed(
            label=link.fields.text("label", max_length=2),
            inputs_sha256=link.fields.hex("inputs_sha256", n_bytes=32),
            answers=labels,
        )
        link.fields.finish()
        if len(labels) != len(answers):
            raise TranscriptError(f"{RECORD} line {link.seq}: an answer is not a label")
        found.append(relayed)

    read_chain(data, domain=DOMAIN, what=RECORD, each=take)
    return tuple(found)


def drop_torn_line(path: Path) -> None:
    """Cut off a last line that a killed relay did not finish; its answer never left.

    Raises:
        StorageError: the file cannot be written.
    """
    try:
        with path.open("r+b") as file:
            data = file.read()
            if not data.endswith(b"\n"):
                file.truncate(data.rfind(b"\n") + 1)
    except OSError as error:
        raise StorageError(f"{path.name}: cannot be written ({type(error).__name__})") from error


class RecordWriter:
    """Adds lines to a record, each on disk before the answer goes out; one relay writes at a time."""

    def __init__(self, path: Path, *, commitment_sha256: str, clock: Callable[[], datetime]) -> None:
        """Open a new record, or one that goes on.

        Raises:
            UsageError: another relay writes into it.
            EvidenceError: what is there is broken or of another line-up.
        """
        self._path, self._commitment, self._clock = path, commitment_sha256, clock
        self._lock = threading.Lock()
        try:
            self._file: BinaryIO = path.open("a+b")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._file.close()
            raise UsageError(f"{path.name}: another relay is writing into it") from error
        except OSError as error:
            raise StorageError(f"{path.name}: cannot be written ({type(error).__name__})") from error
        drop_torn_line(path)
        self._file.seek(0)
        data = self._file.read()
        self._seq, self._head, self._latest = 0, link_hash(DOMAIN, b""), ""
        if data:
            read_record(data, commitment_sha256=commitment_sha256)
            lines = data[:-1].split(b"\n")
            self._seq, self._head = len(lines), link_hash(DOMAIN, lines[-1])
            read_chain(data, domain=DOMAIN, what=RECORD, each=self._note)

    def add(self, relayed: Relayed) -> None:
        """Write one line.

        Raises:
            StorageError: it cannot be written.
        """
        answers: list[JsonValue] = list(relayed.answers)
        content: dict[str, JsonValue] = {
            "lineup_sha256": self._commitment,
            "label": relayed.label,
            "inputs_sha256": relayed.inputs_sha256,
            "answers": answers,
        }
        with self._lock:
            # A clock that was set back must not break the chain.
            at = max(utc_text(self._clock()), self._latest)
            line = make_line(seq=self._seq, prev=self._head, at=at, content=content)
            try:
                self._file.write(line + b"\n")
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise StorageError(f"{self._path.name}: cannot be written ({type(error).__name__})") from error
            self._seq, self._head, self._latest = self._seq + 1, link_hash(DOMAIN, line), at

    def close(self) -> None:
        """Release the file."""
        self._file.close()

    def _note(self, link: Link) -> None:
        self._latest = link.at
