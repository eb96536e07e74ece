"""Hash-chained lines: every line names the hash of the line before it, so that none can be changed or dropped inside.

A file is a sequence of canonical JSON objects, each followed by one newline. ``seq`` counts lines from 0 and ``prev``
is SHA-256(domain | bytes of the line before, without its newline); for line 0 those bytes are empty. The same hash
over the last line is the *head*, which stands for the whole file.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from auditor.canonical import Fields, JsonValue, canonical_bytes, parse_canonical_object
from auditor.errors import TranscriptError
from auditor.evidence.times import check_utc

MAX_CHAIN_BYTES = 1024 * 1024 * 1024
MAX_LINE_BYTES = 64 * 1024 * 1024
MAX_LINES = 10_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One verified line."""

    seq: int
    at: str
    """RFC 3339 UTC with milliseconds; never earlier than the line before."""
    prev: str
    """Hash of the line before, hex."""
    fields: Fields
    """What remains to be read: everything but ``seq``, ``prev`` and ``at``."""


def link_hash(domain: bytes, line: bytes) -> str:
    """Return the hash that the next line must quote; ``line`` comes without its newline."""
    return hashlib.sha256(domain + line).hexdigest()


def make_line(*, seq: int, prev: str, at: str, content: Mapping[str, JsonValue]) -> bytes:
    """Return one canonical line, without its newline."""
    return canonical_bytes({**content, "seq": seq, "prev": prev, "at": at})


def read_chain(data: bytes, *, domain: bytes, what: str, each: Callable[[Link], None]) -> str:
    """Verify every line of a chained file, hand it to ``each`` in order, and return the head.

    Raises:
        TranscriptError: an empty or cut file, a broken link, a wrong number, or a time before the line above it.
        MalformedError: a line is not canonical JSON, or lacks a field.
    """
    if not data.endswith(b"\n"):
        raise TranscriptError(f"{what}: empty, or the last line is cut")
    if len(data) > MAX_CHAIN_BYTES:
        raise TranscriptError(f"{what}: larger than {MAX_CHAIN_BYTES} bytes")
    lines = data[:-1].split(b"\n")
    if len(lines) > MAX_LINES:
        raise TranscriptError(f"{what}: more than {MAX_LINES} lines")
    head, latest = link_hash(domain, b""), ""
    for seq, line in enumerate(lines):
        where = f"{what} line {seq}"
        if len(line) > MAX_LINE_BYTES:
            raise TranscriptError(f"{where}: longer than {MAX_LINE_BYTES} bytes")
        fields = Fields(parse_canonical_object(line, what=where), what=where)
        if fields.integer("seq") != seq or fields.hex("prev", n_bytes=32) != head:
            raise TranscriptError(f"{where}: does not follow from the line before it")
        at = check_utc(fields.text("at"), what=where)
        if at < latest:
            raise TranscriptError(f"{where}: states an earlier time than the line before it")
        each(Link(seq=seq, at=at, prev=head, fields=fields))
        head, latest = link_hash(domain, line), at
    return head
