"""The ledger of a key set, ``k.ledger.jsonl``: which keys were shown to which suspect, when, and by whom.

One hash-chained line per audit. It is kept by whoever runs the audits; the chain shows that no line inside was changed
or dropped, not that none is missing at the end.
"""

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from auditor.canonical import JsonValue
from auditor.errors import MalformedError, SealError
from auditor.evidence.chain import Link, link_hash, make_line, read_chain
from auditor.evidence.recompute import issued_replies, planned_probes
from auditor.evidence.seal import MAX_KEYS, Seal
from auditor.evidence.transcript import Transcript
from auditor.records import SampleKind

DOMAIN = b"auditor/1 ledger line\x00"
SUFFIX = ".ledger.jsonl"
MAX_TEXT = 4096
MAX_LEDGER_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Showing:
    """One audit, as far as the key set is concerned."""

    at: str
    """RFC 3339 UTC with milliseconds."""
    keyset_id: str
    suspect: str
    by: str
    transcript_head: str
    """Head of the audit's transcript, hex."""
    keys: tuple[int, ...]
    """Indices of the keys that the suspect saw, ascending."""


def ledger_path(keyset: Path) -> Path:
    """Return where the ledger of a key set lies: beside it."""
    return keyset.with_name(keyset.name.removesuffix(".npz") + SUFFIX)


def shown_keys(showings: Iterable[Showing]) -> set[int]:
    """Return every key that any suspect saw."""
    return {index for showing in showings for index in showing.keys}


def keys_asked(seal: Seal, transcript: Transcript) -> tuple[int, ...]:
    """Return the keys that a transcript says were sent, answered or not.

    Raises:
        TranscriptError: the questions were not asked in the drawn order.
    """
    replies = issued_replies(transcript, planned_probes(seal, transcript), max_keys=seal.protocol.n_keys)
    return tuple(sorted({reply.probe.index for reply in replies if reply.probe.kind is SampleKind.KEY}))


def read_ledger(path: Path, *, seal: Seal) -> tuple[Showing, ...]:
    """Return the ledger's lines; none where there is no file yet.

    Raises:
        TranscriptError: the chain is broken.
        MalformedError: a line lacks a field or holds an unknown one.
        SealError: it belongs to another key set.
    """
    try:
        data = path.read_bytes() if path.exists() else b""
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be read ({type(error).__name__})") from error
    return _parse(data, seal=seal, what=path.name)[0]


def append_showing(path: Path, showing: Showing, *, seal: Seal) -> None:
    """Add one line, on disk before this returns; writers wait for one another.

    Raises:
        EvidenceError: the ledger is broken, belongs to another key set, or cannot be written.
    """
    try:
        with path.open("a+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            lines, head = _parse(file.read(MAX_LEDGER_BYTES), seal=seal, what=path.name)
            # A clock that was set back must not break the chain for ever.
            at = max(showing.at, lines[-1].at) if lines else showing.at
            content: dict[str, JsonValue] = {
                "keyset_id": showing.keyset_id,
                "suspect": showing.suspect,
                "by": showing.by,
                "transcript_head": showing.transcript_head,
                "keys": list(showing.keys),
            }
            file.write(make_line(seq=len(lines), prev=head, at=at, content=content) + b"\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise MalformedError(f"{path.name}: cannot be written ({type(error).__name__})") from error


def _parse(data: bytes, *, seal: Seal, what: str) -> tuple[tuple[Showing, ...], str]:
    found: list[Showing] = []

    def take(link: Link) -> None:
        keys = link.fields.items("keys", max_items=MAX_KEYS)
        numbers = [key for key in keys if isinstance(key, int) and 0 <= key < seal.protocol.n_keys]
        showing = Showing(
            at=link.at,
            keyset_id=link.fields.hex("keyset_id", n_bytes=16),
            suspect=link.fields.text("suspect", max_length=MAX_TEXT),
            by=link.fields.text("by", max_length=MAX_TEXT),
            transcript_head=link.fields.hex("transcript_head", n_bytes=32),
            keys=tuple(numbers),
        )
        link.fields.finish()
        if showing.keyset_id != seal.keyset_id:
            raise SealError(f"{what}: belongs to another key set")
        if len(numbers) != len(keys) or numbers != sorted(set(numbers)):
            raise MalformedError(f"{what} line {link.seq}: the keys are not ascending indices of this key set")
        found.append(showing)

    if not data:
        return (), link_hash(DOMAIN, b"")
    head = read_chain(data, domain=DOMAIN, what=what, each=take)
    return tuple(found), head
